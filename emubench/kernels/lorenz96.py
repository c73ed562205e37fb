"""Lorenz-96 by RK4, eight trajectories at a time."""

from __future__ import annotations

import numpy as np

from emubench.kernels._blocks import rollout_blocks
from emubench.kernels._simd import aligned, jit, load, store
from emubench.system import System


def supports(system: System) -> bool:
    """Every forcing; at least four sites, the width of the stencil."""
    return system.shape[0] >= 4


def rollout(system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """See :func:`emubench.integrate.reference_rollout`."""
    p, (n,), n_steps = system.parameters(), system.shape, system.steps_per_sample
    forcing, h = float(p["forcing"]), float(p["solver_step"])
    work = [aligned(n + 3) for _ in range(4)]

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        _advance(block, samples, n, len(samples) // len(block), n_steps, forcing, h, *work)

    return rollout_blocks(state, n_samples, advance)


@jit
def _wrap(u, n):
    """Rows 2 … n + 1 hold the ring; copy its ends to the rows beyond."""
    store(u, 0, load(u, n))
    store(u, 1, load(u, n + 1))
    store(u, n + 2, load(u, 2))


@jit
def _stage(u, base, out, n, h, forcing):
    """``out = base + h f(u)``."""
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
def _advance(state, samples, n, n_samples, n_steps, forcing, h, u, p, q, r):
    for i in range(n):
        store(u, i + 2, load(state, i))
    for t in range(n_samples):
        for _ in range(n_steps):
            _stage(u, u, p, n, h / 2, forcing)
            _stage(p, u, q, n, h / 2, forcing)
            _stage(q, u, r, n, h, forcing)
            _finish(u, p, q, r, n, h, forcing)
        for i in range(n):
            store(samples, t * n + i, load(u, i + 2))
    for i in range(n):
        store(state, i, load(u, i + 2))
