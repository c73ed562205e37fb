"""KPZ by Strang splitting, eight trajectories at a time.

The linear stochastic part is exact mode by mode, which on a ring is a convolution with two short stencils: the lattice
heat kernel decays faster than exponentially, and the noise filter nearly so.
"""

from __future__ import annotations

import functools

import numpy as np

from emubench.kernels._blocks import rollout_blocks
from emubench.kernels._normal import lane_seeds, normals
from emubench.kernels._simd import aligned, jit, load, store
from emubench.system import System

NEGLIGIBLE = 1e-16
"""Stencils end where their weights, which decay, fall below this fraction of the largest: the rounding of a double."""
MAX_TAPS = 64


def supports(system: System) -> bool:
    """Time steps so short (ν h/dx² below about 30) that the stencils are much shorter than the ring."""
    n = system.shape[0]
    return n >= 4 and len(stencils(system)) <= min(MAX_TAPS, (n + 1) // 2)


@functools.lru_cache(maxsize=8)
def stencils(system: System) -> np.ndarray:
    """Right halves, centre first, of the heat kernel and of the noise filter of a step; shape ``(taps, 2)``."""
    p, (n,) = system.parameters(), system.shape
    symbol = -p["nu"] * (2 * np.sin(np.pi * np.arange(n // 2 + 1) / n) / p["dx"]) ** 2
    z = 2 * system.solver_step * symbol
    growth = np.where(np.abs(z) < 1e-12, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
    variance = 2 * p["noise"] / p["dx"] * system.solver_step * growth
    weights = np.fft.irfft(np.stack([np.exp(z / 2), np.sqrt(variance)], axis=1), n=n, axis=0)[: n // 2 + 1]
    small = (np.abs(weights) <= NEGLIGIBLE * np.abs(weights).max(axis=0)).all(axis=1)
    return weights[: int(small.argmax()) if small.any() else len(small)]


def rollout(system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """See :func:`emubench.integrate.reference_rollout`."""
    p, (n,), n_steps = system.parameters(), system.shape, system.steps_per_sample
    n_ghosts, weights = len(stencils(system)) - 1, stencils(system).ravel()
    work = [aligned(n + 2 * n_ghosts + 3) for _ in range(5)]
    rate, half = float(p["lam"] / 6 / p["dx"] ** 2), system.solver_step / 2

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: list[int]) -> None:
        n_samples = len(samples) // len(block)
        seeds = lane_seeds([rngs[b] for b in trajectories], n_samples * n_steps)
        _advance(block, samples, seeds, n, n_ghosts, n_samples, n_steps, weights, rate, half, *work)

    return rollout_blocks(state, n_samples, advance)


@jit
def _wrap(u, n, first, n_ghosts):
    """The ring is rows first … first + n − 1; copy its ends to ``n_ghosts`` rows beyond."""
    for i in range(n_ghosts):
        store(u, first - 1 - i, load(u, first + n - 1 - i))
        store(u, first + n + i, load(u, first + i))


@jit
def _stage(u, base, out, n, first, h):
    """``out = base + h (a² + ab + b²)`` with the differences a, b of ``u`` to either side."""
    _wrap(u, n, first, 1)
    here = load(u, first)
    left = here - load(u, first - 1)
    for i in range(first, first + n):
        ahead = load(u, i + 1)
        right = ahead - here
        store(out, i, load(base, i) + h * (left * (left + right) + right * right))
        here, left = ahead, right


@jit
def _finish(u, p, q, r, n, first, h):
    """The last stage of RK4, into u (see the one of lorenz96)."""
    _wrap(r, n, first, 1)
    third, sixth = 1 / 3, h / 6
    here = load(r, first)
    left = here - load(r, first - 1)
    for i in range(first, first + n):
        ahead = load(r, i + 1)
        right = ahead - here
        mean = third * (2.0 * load(q, i) + (load(p, i) + (here - load(u, i))))
        store(u, i, mean + sixth * (left * (left + right) + right * right))
        here, left = ahead, right


@jit
def _grow(u, p, q, r, n, first, rate, h):
    """One RK4 step of the nonlinear part."""
    _stage(u, u, p, n, first, h / 2 * rate)
    _stage(p, u, q, n, first, h / 2 * rate)
    _stage(q, u, r, n, first, h * rate)
    _finish(u, p, q, r, n, first, h * rate)


@jit
def _diffuse(u, xi, out, n, first, weights):
    """One exact step of the linear part with noise ``xi``."""
    n_taps = len(weights) // 2
    _wrap(u, n, first, n_taps - 1)
    _wrap(xi, n, first, n_taps - 1)
    for i in range(first, first + n):
        total = weights[0] * load(u, i) + weights[1] * load(xi, i)
        for j in range(1, n_taps):
            total = total + weights[2 * j] * (load(u, i - j) + load(u, i + j))
            total = total + weights[2 * j + 1] * (load(xi, i - j) + load(xi, i + j))
        store(out, i, total)


@jit
def _advance(state, samples, seeds, n, n_ghosts, n_samples, n_steps, weights, rate, half, u, p, q, r, xi):
    first = n_ghosts + 1
    for i in range(n):
        store(u, first + i, load(state, i))
    for t in range(n_samples):
        for s in range(n_steps):
            if rate != 0.0:
                _grow(u, p, q, r, n, first, rate, half)
            normals(seeds, t * n_steps + s, xi, first, n)
            _diffuse(u, xi, p, n, first, weights)
            u, p = p, u
            if rate != 0.0:
                _grow(u, p, q, r, n, first, rate, half)
        for i in range(n):
            store(samples, t * n + i, load(u, first + i))
    for i in range(n):
        store(state, i, load(u, first + i))
