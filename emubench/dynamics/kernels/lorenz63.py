"""Lorenz-63 by RK4 (or Heun, Euler), four vectors of trajectories at a time: the steps of one alone would wait for
each other.
"""

from __future__ import annotations

import numpy as np

from emubench.core.errors import unknown
from emubench.dynamics.kernels._blocks import rollout_blocks
from emubench.dynamics.kernels._simd import jit, load, store
from emubench.dynamics.system import System

SCHEMES = ("rk4", "heun", "euler")


def supports(system: System) -> bool:
    """Every parameter set."""
    return True


def rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], *, scheme: str = "rk4"
) -> np.ndarray:
    """See :func:`emubench.dynamics.simulate.reference_rollout`; the cheaper schemes are for the solver ladder."""
    if scheme not in SCHEMES:
        raise unknown("scheme of the lorenz63 kernel", scheme, SCHEMES)
    p, n_steps = system.parameters(), system.steps_per_sample
    constants = tuple(float(p[name]) for name in ("sigma", "rho", "beta", "solver_step"))
    run = {"rk4": _advance, "heun": _advance_heun, "euler": _advance_euler}[scheme]

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        run(block, samples, len(samples) // len(block), n_steps, *constants)

    return rollout_blocks(state, n_samples, advance, n_vectors=4)


@jit
def _stage(x, y, z, u, v, w, h, rho, beta, h_sigma):
    """(x, y, z) + h f(u, v, w)."""
    return x + h_sigma * (v - u), y + h * (u * (rho - w) - v), z + h * (u * v - beta * w)


@jit
def _step(state, h, sigma, rho, beta):
    """RK4 by the three states p, q, r of which the later slopes are taken.

    They hold the first three slopes: u + h/6 (k1 + 2 k2 + 2 k3 + k4) = (p + 2 q + r − u)/3 + h/6 k4.
    """
    x, y, z = state
    half, sixth, third = h / 2, h / 6, 1 / 3
    px, py, pz = _stage(x, y, z, x, y, z, half, rho, beta, half * sigma)
    qx, qy, qz = _stage(x, y, z, px, py, pz, half, rho, beta, half * sigma)
    rx, ry, rz = _stage(x, y, z, qx, qy, qz, h, rho, beta, h * sigma)
    mx, my, mz = 2.0 * qx + px + (rx - x), 2.0 * qy + py + (ry - y), 2.0 * qz + pz + (rz - z)
    return _stage(third * mx, third * my, third * mz, rx, ry, rz, sixth, rho, beta, sixth * sigma)


@jit
def _heun(state, h, sigma, rho, beta):
    """With the Euler step p: u + h/2 (f(u) + f(p)) = (u + p)/2 + h/2 f(p)."""
    x, y, z = state
    px, py, pz = _stage(x, y, z, x, y, z, h, rho, beta, h * sigma)
    mx, my, mz = 0.5 * (x + px), 0.5 * (y + py), 0.5 * (z + pz)
    return _stage(mx, my, mz, px, py, pz, h / 2, rho, beta, h / 2 * sigma)


@jit
def _euler(state, h, sigma, rho, beta):
    x, y, z = state
    return _stage(x, y, z, x, y, z, h, rho, beta, h * sigma)


@jit
def _get(array, row):
    """Vectors row, row + 4, row + 8 are x, y, z of the same trajectories."""
    return load(array, row), load(array, row + 4), load(array, row + 8)


@jit
def _put(array, row, state):
    store(array, row, state[0])
    store(array, row + 4, state[1])
    store(array, row + 8, state[2])


@jit
def _put4(array, row, a, b, c, d):
    _put(array, row, a)
    _put(array, row + 1, b)
    _put(array, row + 2, c)
    _put(array, row + 3, d)


@jit
def _advance(state, samples, n_samples, n_steps, sigma, rho, beta, h):
    a, b, c, d = _get(state, 0), _get(state, 1), _get(state, 2), _get(state, 3)
    for t in range(n_samples):
        for _ in range(n_steps):
            a = _step(a, h, sigma, rho, beta)
            b = _step(b, h, sigma, rho, beta)
            c = _step(c, h, sigma, rho, beta)
            d = _step(d, h, sigma, rho, beta)
        _put4(samples, 12 * t, a, b, c, d)
    _put4(state, 0, a, b, c, d)


@jit
def _advance_heun(state, samples, n_samples, n_steps, sigma, rho, beta, h):
    a, b, c, d = _get(state, 0), _get(state, 1), _get(state, 2), _get(state, 3)
    for t in range(n_samples):
        for _ in range(n_steps):
            a = _heun(a, h, sigma, rho, beta)
            b = _heun(b, h, sigma, rho, beta)
            c = _heun(c, h, sigma, rho, beta)
            d = _heun(d, h, sigma, rho, beta)
        _put4(samples, 12 * t, a, b, c, d)
    _put4(state, 0, a, b, c, d)


@jit
def _advance_euler(state, samples, n_samples, n_steps, sigma, rho, beta, h):
    a, b, c, d = _get(state, 0), _get(state, 1), _get(state, 2), _get(state, 3)
    for t in range(n_samples):
        for _ in range(n_steps):
            a = _euler(a, h, sigma, rho, beta)
            b = _euler(b, h, sigma, rho, beta)
            c = _euler(c, h, sigma, rho, beta)
            d = _euler(d, h, sigma, rho, beta)
        _put4(samples, 12 * t, a, b, c, d)
    _put4(state, 0, a, b, c, d)
