"""Lorenz-63 by RK4 (or Heun, Euler), four vectors of trajectories at a time: the steps of one alone would wait for
each other.
"""

import numpy as np

from emubench.dynamics.kernels._blocks import rollout_blocks
from emubench.dynamics.kernels._simd import jit, load, store
from emubench.dynamics.system import System

STAGES = {"rk4": 4, "heun": 2, "euler": 1}
SCHEMES = tuple(STAGES)


def supports(system: System) -> bool:
    """Every parameter set."""
    return True


def rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], *, scheme: str = "rk4"
) -> np.ndarray:
    """The reference rollout up to rounding; the cheaper schemes are for the solver ladder."""
    p, n_steps, stages = system.parameters(), system.steps_per_sample, STAGES[scheme]
    constants = tuple(float(p[name]) for name in ("solver_step", "sigma", "rho", "beta"))

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        _advance(block, samples, len(samples) // len(block), n_steps, stages, constants)

    return rollout_blocks(state, n_samples, advance, n_vectors=4)


@jit
def _stage(x, y, z, u, v, w, h, rho, beta, h_sigma):
    """(x, y, z) + h f(u, v, w)."""
    return x + h_sigma * (v - u), y + h * (u * (rho - w) - v), z + h * (u * v - beta * w)


@jit
def _rk4(state, constants):
    """RK4 by the three states p, q, r of which the later slopes are taken.

    They hold the first three slopes: u + h/6 (k1 + 2 k2 + 2 k3 + k4) = (p + 2 q + r − u)/3 + h/6 k4.
    """
    x, y, z = state
    h, sigma, rho, beta = constants
    half, sixth, third = h / 2, h / 6, 1 / 3
    px, py, pz = _stage(x, y, z, x, y, z, half, rho, beta, half * sigma)
    qx, qy, qz = _stage(x, y, z, px, py, pz, half, rho, beta, half * sigma)
    rx, ry, rz = _stage(x, y, z, qx, qy, qz, h, rho, beta, h * sigma)
    mx, my, mz = 2.0 * qx + px + (rx - x), 2.0 * qy + py + (ry - y), 2.0 * qz + pz + (rz - z)
    return _stage(third * mx, third * my, third * mz, rx, ry, rz, sixth, rho, beta, sixth * sigma)


@jit
def _heun(state, constants):
    """With the Euler step p: u + h/2 (f(u) + f(p)) = (u + p)/2 + h/2 f(p)."""
    x, y, z = state
    h, sigma, rho, beta = constants
    px, py, pz = _euler(state, constants)
    mx, my, mz = 0.5 * (x + px), 0.5 * (y + py), 0.5 * (z + pz)
    return _stage(mx, my, mz, px, py, pz, h / 2, rho, beta, h / 2 * sigma)


@jit
def _euler(state, constants):
    x, y, z = state
    h, sigma, rho, beta = constants
    return _stage(x, y, z, x, y, z, h, rho, beta, h * sigma)


@jit
def _get(array, row):
    """Vectors row, row + 4, row + 8 are x, y, z of the same trajectories."""
    return load(array, row), load(array, row + 4), load(array, row + 8)


@jit
def _put(array, row, states):
    for i, (x, y, z) in enumerate(states):
        store(array, row + i, x)
        store(array, row + 4 + i, y)
        store(array, row + 8 + i, z)


@jit
def _advance(state, samples, n_samples, n_steps, stages, p):
    a, b, c, d = _get(state, 0), _get(state, 1), _get(state, 2), _get(state, 3)
    for t in range(n_samples):
        if stages == 4:
            for _ in range(n_steps):
                a, b, c, d = _rk4(a, p), _rk4(b, p), _rk4(c, p), _rk4(d, p)
        elif stages == 2:
            for _ in range(n_steps):
                a, b, c, d = _heun(a, p), _heun(b, p), _heun(c, p), _heun(d, p)
        else:
            for _ in range(n_steps):
                a, b, c, d = _euler(a, p), _euler(b, p), _euler(c, p), _euler(d, p)
        _put(samples, 12 * t, (a, b, c, d))
    _put(state, 0, (a, b, c, d))
