"""Lorenz-63 by RK4, sixteen trajectories at a time."""

from __future__ import annotations

import numpy as np

from emubench.kernels._blocks import rollout_blocks
from emubench.kernels._simd import jit, load, store
from emubench.system import System


def supports(system: System) -> bool:
    """Every parameter set."""
    return True


def rollout(system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """See :func:`emubench.integrate.reference_rollout`."""
    p, n_steps = system.parameters(), system.steps_per_sample
    constants = tuple(float(p[name]) for name in ("sigma", "rho", "beta", "solver_step"))

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: list[int]) -> None:
        _advance(block, samples, len(samples) // len(block), n_steps, *constants)

    return rollout_blocks(state, n_samples, advance)


@jit
def _advance(state, samples, n_samples, n_steps, sigma, rho, beta, h):
    half, third, sixth = h / 2, h / 3, h / 6
    x, y, z = load(state, 0), load(state, 1), load(state, 2)
    for t in range(n_samples):
        for _ in range(n_steps):
            dx, dy, dz = sigma * (y - x), x * (rho - z) - y, x * y - beta * z
            sx, sy, sz = x + sixth * dx, y + sixth * dy, z + sixth * dz
            u, v, w = x + half * dx, y + half * dy, z + half * dz
            dx, dy, dz = sigma * (v - u), u * (rho - w) - v, u * v - beta * w
            sx, sy, sz = sx + third * dx, sy + third * dy, sz + third * dz
            u, v, w = x + half * dx, y + half * dy, z + half * dz
            dx, dy, dz = sigma * (v - u), u * (rho - w) - v, u * v - beta * w
            sx, sy, sz = sx + third * dx, sy + third * dy, sz + third * dz
            u, v, w = x + h * dx, y + h * dy, z + h * dz
            dx, dy, dz = sigma * (v - u), u * (rho - w) - v, u * v - beta * w
            x, y, z = sx + sixth * dx, sy + sixth * dy, sz + sixth * dz
        store(samples, 3 * t, x)
        store(samples, 3 * t + 1, y)
        store(samples, 3 * t + 2, z)
    store(state, 0, x)
    store(state, 1, y)
    store(state, 2, z)
