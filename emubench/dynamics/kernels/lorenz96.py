"""Lorenz-96 by RK4 (or Heun, Euler), eight trajectories at a time, in single precision sixteen."""

import numpy as np

from emubench.dynamics.kernels._blocks import precision, rollout_blocks
from emubench.dynamics.kernels._simd import aligned, copy, jit, load, store
from emubench.dynamics.system import System

STAGES = {"rk4": 4, "heun": 2, "euler": 1}
SCHEMES = tuple(STAGES)


def supports(system: System) -> bool:
    """Every forcing; at least four sites, the width of the stencil."""
    return system.shape[0] >= 4


def rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], *, scheme: str = "rk4"
) -> np.ndarray:
    """The reference rollout up to rounding; the cheaper schemes are for the solver ladder."""
    p, (n,), n_steps, stages = system.parameters(), system.shape, system.steps_per_sample, STAGES[scheme]
    forcing, h = float(p["forcing"]), float(p["solver_step"])
    work = [aligned(n + 3, precision(state)) for _ in range(4)]

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        _advance(block, samples, n, len(samples) // len(block), n_steps, stages, forcing, h, *work)

    return rollout_blocks(state, n_samples, advance)


@jit
def _wrap(u, n):
    """Rows 2 … n + 1 hold the ring; copy its ends to the rows beyond."""
    store(u, 0, load(u, n))
    store(u, 1, load(u, n + 1))
    store(u, n + 2, load(u, 2))


@jit
def _stage(u, base, out, n, h, forcing):
    """``out = base + h f(u)``; all three may be the same."""
    _wrap(u, n)
    behind2, behind, here = load(u, 0), load(u, 1), load(u, 2)
    for i in range(2, n + 2):
        ahead = load(u, i + 1)
        store(out, i, load(base, i) + h * ((ahead - behind2) * behind - here + forcing))
        behind2, behind, here = behind, here, ahead


@jit
def _finish(u, p, q, r, n, h, forcing):
    """``u`` after the step, from u and the three states p, q, r of which the later slopes were taken.

    They hold the first three slopes: u + h/6 (k1 + 2 k2 + 2 k3 + k4) = (p + 2 q + r − u)/3 + h/6 k4.
    """
    _wrap(r, n)
    behind2, behind, here = load(r, 0), load(r, 1), load(r, 2)
    third, sixth = 1 / 3, h / 6
    for i in range(2, n + 2):
        ahead = load(r, i + 1)
        slope = (ahead - behind2) * behind - here + forcing
        mean = third * (2.0 * load(q, i) + (load(p, i) + (here - load(u, i))))
        store(u, i, mean + sixth * slope)
        behind2, behind, here = behind, here, ahead


@jit
def _halfway(u, p, n):
    """``u = (u + p)/2``."""
    for i in range(2, n + 2):
        store(u, i, 0.5 * (load(u, i) + load(p, i)))


@jit
def _advance(state, samples, n, n_samples, n_steps, stages, forcing, h, u, p, q, r):
    """RK4 of four stages, Heun of two (by the Euler step p, as (u + p)/2 + h/2 f(p)), Euler of one."""
    copy(state, 0, u, 2, n)
    for t in range(n_samples):
        for _ in range(n_steps):
            if stages == 4:
                _stage(u, u, p, n, h / 2, forcing)
                _stage(p, u, q, n, h / 2, forcing)
                _stage(q, u, r, n, h, forcing)
                _finish(u, p, q, r, n, h, forcing)
            elif stages == 2:
                _stage(u, u, p, n, h, forcing)
                _halfway(u, p, n)
                _stage(p, u, u, n, h / 2, forcing)
            else:
                _stage(u, u, u, n, h, forcing)
        copy(u, 2, samples, t * n, n)
    copy(u, 2, state, 0, n)
