"""KPZ by Strang splitting, eight trajectories at a time.

The linear stochastic part is exact mode by mode, which on a ring is a convolution with two short stencils: the lattice
heat kernel decays faster than exponentially, and the noise filter nearly so.
"""

import functools
import math

import numpy as np

from emubench.dynamics.kernels._blocks import rollout_blocks
from emubench.dynamics.kernels._normal import lane_seeds, normals
from emubench.dynamics.kernels._simd import aligned, copy, jit, load, store
from emubench.dynamics.schemes import phi1
from emubench.dynamics.system import System

NEGLIGIBLE = 1e-16
"""Stencils end where their weights, which decay, fall below this fraction of the largest: the rounding of a double."""
MAX_TAPS = 64
SPLIT = {"strang": True, "euler_maruyama": False}
"""Whether a scheme takes the linear and the nonlinear part one after the other."""
SCHEMES = tuple(SPLIT)
MARGIN = 8
"""Rows before and behind the ring, at least."""


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
    variance = 2 * p["noise"] / p["dx"] * system.solver_step * phi1(z)
    weights = np.fft.irfft(np.stack([np.exp(z / 2), np.sqrt(variance)], axis=1), n=n, axis=0)[: n // 2 + 1]
    small = (np.abs(weights) <= NEGLIGIBLE * np.abs(weights).max(axis=0)).all(axis=1)
    return weights[: int(small.argmax()) if small.any() else len(small)]


def rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], *, scheme: str = "strang"
) -> np.ndarray:
    """The reference rollout up to rounding; ``euler_maruyama`` is for comparisons."""
    p, (n,), n_steps, weights = system.parameters(), system.shape, system.steps_per_sample, stencils(system)
    first = max(MARGIN, len(weights) + 1)
    work = [aligned(n + 2 * first) for _ in range(3)]
    h, strang = system.solver_step, SPLIT[scheme]
    rate = p["lam"] * h / 6 / p["dx"] ** 2 / (2 if strang else 1)
    constants = (strang, rate, p["nu"] * h / p["dx"] ** 2, math.sqrt(2 * p["noise"] * h / p["dx"]), weights.ravel())

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        steps = len(samples) // len(block) * n_steps
        seeds = lane_seeds([rngs[b] for b in trajectories], steps)
        _advance(block, samples, seeds, n, first, steps // n_steps, n_steps, *constants, *work)

    return rollout_blocks(state.astype(np.float64, copy=False), n_samples, advance)


@jit
def _wrap(u, n, first, n_ghosts):
    """The ring is rows first … first + n − 1; copy its ends to ``n_ghosts`` rows beyond."""
    for i in range(n_ghosts):
        store(u, first - 1 - i, load(u, first + n - 1 - i))
        store(u, first + n + i, load(u, first + i))


@jit
def _slope(left, right):
    """Three times Lam and Shin's (h_x)² from the differences to either side."""
    return left * (left + right) + right * right


@jit
def _grow(u, n, first, h):
    """One RK4 step of the nonlinear part, in place and in one sweep: each stage trails the one before by a site.

    With the states p, q, r of which the later slopes are taken, u + h/6 (k1 + 2 k2 + 2 k3 + k4) is
    (p + 2 q + r − u)/3 + h/6 k4. Needs six rows before the ring and four behind it.
    """
    _wrap(u, n, first, 4)
    half, sixth, third = h / 2, h / 6, 1 / 3
    u0 = load(u, first - 3)
    left = u0 - load(u, first - 4)
    # Trailing values, of which the first few are stand-ins: the sites that they reach lie before the ring.
    u1, u2, p1, q1, r1, mean2, mean3 = u0, u0, u0, u0, u0, u0, u0
    p_left, q_left, r_left = left, left, left
    for i in range(first - 3, first + n + 3):
        ahead = load(u, i + 1)
        right = ahead - u0
        p0 = u0 + half * _slope(left, right)
        p_right = p0 - p1
        q0 = u1 + half * _slope(p_left, p_right)
        mean1 = 2.0 * q0 + (p1 - u1)
        q_right = q0 - q1
        r0 = u2 + h * _slope(q_left, q_right)
        r_right = r0 - r1
        store(u, i - 3, third * (mean3 + r1) + sixth * _slope(r_left, r_right))
        u0, u1, u2, p1, q1, r1, mean2, mean3 = ahead, u0, u1, p0, q0, r0, mean1, mean2
        left, p_left, q_left, r_left = right, p_right, q_right, r_right


@jit
def _diffuse(u, xi, out, n, first, weights):
    """One exact step of the linear part with noise ``xi``; two sites at a time, which share what they load."""
    n_taps = len(weights) // 2
    _wrap(u, n, first, n_taps)
    _wrap(xi, n, first, n_taps)
    for i in range(first, first + n, 2):
        u_left, u_right, xi_left, xi_right = load(u, i), load(u, i + 1), load(xi, i), load(xi, i + 1)
        here = weights[0] * u_left + weights[1] * xi_left
        there = weights[0] * u_right + weights[1] * xi_right
        for j in range(1, n_taps):
            u_far, u_end, xi_far, xi_end = load(u, i - j), load(u, i + 1 + j), load(xi, i - j), load(xi, i + 1 + j)
            here = here + weights[2 * j] * (u_far + u_right) + weights[2 * j + 1] * (xi_far + xi_right)
            there = there + weights[2 * j] * (u_left + u_end) + weights[2 * j + 1] * (xi_left + xi_end)
            u_left, u_right, xi_left, xi_right = u_far, u_end, xi_far, xi_end
        store(out, i, here)
        store(out, i + 1, there)


@jit
def _euler(u, xi, n, first, diffusion, rate, amplitude):
    """One Euler–Maruyama step, in place."""
    _wrap(u, n, first, 1)
    here = load(u, first)
    left = here - load(u, first - 1)
    for i in range(first, first + n):
        ahead = load(u, i + 1)
        right = ahead - here
        drift = diffusion * (right - left) + rate * _slope(left, right)
        store(u, i, here + drift + amplitude * load(xi, i))
        here, left = ahead, right


@jit
def _advance(state, samples, seeds, n, first, n_samples, n_steps, strang, rate, diffusion, noise, weights, u, v, xi):
    """Strang splitting, with ``rate`` the nonlinear coefficient times half a step, or else Euler–Maruyama."""
    copy(state, 0, u, first, n)
    for t in range(n_samples):
        for s in range(n_steps):
            if strang and rate != 0.0:
                _grow(u, n, first, rate)
            normals(seeds, t * n_steps + s, xi, first, n)
            if strang:
                _diffuse(u, xi, v, n, first, weights)
                u, v = v, u
                if rate != 0.0:
                    _grow(u, n, first, rate)
            else:
                _euler(u, xi, n, first, diffusion, rate, noise)
        copy(u, first, samples, t * n, n)
    copy(u, first, state, 0, n)
