"""Kuramoto–Sivashinsky by ETDRK4 (or exponential Euler) on Fourier coefficients, eight trajectories at a time, in
single precision sixteen.
"""

import functools

import numpy as np

from emubench.dynamics.kernels._blocks import precision, rollout_blocks
from emubench.dynamics.kernels._fft import forward, inverse, leaf, merge, positions, split, square, twiddles
from emubench.dynamics.kernels._simd import aligned, copy, jit, load, store
from emubench.dynamics.schemes import etdrk4_coefficients, phi1
from emubench.dynamics.system import System

FOURTH = {"etdrk4": True, "etd1": False}
"""Whether a scheme is of fourth order."""
SCHEMES = tuple(FOURTH)
MAX_LEAF = 32
"""The most points that are transformed by the definition, at a cost of their square."""


def supports(system: System) -> bool:
    """A multiple of 8 sites, without a large factor but 4s.

    The reference solver took 11 times as long with 63 sites as this with 64, and 4 times with 100 as with 104.
    """
    return system.shape[0] % 8 == 0 and leaf(system.shape[0] // 2) <= MAX_LEAF


@functools.lru_cache(maxsize=8)
def coefficients(system: System, scheme: str) -> np.ndarray:
    """Per mode 0 … N/2: e^{hL}, e^{hL/2} and, times the factor of −(u²)_x/2, q, f1, 2 f2, f3; of etd1 e^{hL}, h φ₁(hL).

    Coefficients here are rfft(u)/N. The product's modes come out N times too large, as no transform is normalised,
    and twice, by :func:`emubench.dynamics.kernels._fft.split`: its factor is −ik/(4N), the −i left to the kernel.
    """
    n, h = system.shape[0], system.solver_step
    k = 2 * np.pi / float(system.parameters()["length"]) * np.arange(n // 2 + 1)
    symbol, factor = k**2 - k**4, k * (np.arange(n // 2 + 1) < n / 3) / (4 * n)
    if scheme == "etd1":
        return np.stack([np.exp(h * symbol), h * phi1(h * symbol) * factor], axis=1)
    c = etdrk4_coefficients(symbol, h)
    return np.stack([c.exp, c.exp_half, factor * c.q, factor * c.f1, 2 * factor * c.f2, factor * c.f3], axis=1)


def rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], *, scheme: str = "etdrk4"
) -> np.ndarray:
    """The reference rollout up to rounding; the cheaper scheme is for the solver ladder."""
    (n,), n_steps, fourth, dtype = system.shape, system.steps_per_sample, FOURTH[scheme], precision(state)
    m, pos = n // 2, positions(n // 2)
    tables = [t.astype(dtype) for t in (coefficients(system, scheme).ravel(), twiddles(m), twiddles(n))]
    work = [aligned(n + 2 * leaf(m), dtype), *(aligned(n + 2, dtype) for _ in range(3))]

    def advance(block: np.ndarray, samples: np.ndarray, trajectories: range) -> None:
        _advance(block, samples, m, len(samples) // len(block), n_steps, fourth, *tables, pos, *work)

    return rollout_blocks(state, n_samples, advance)


@jit
def _start(v, z, m, tw2, pos):
    """Coefficients v from the complex transform z; the mean is set to zero. Leave z ready for the inverse one."""
    scale = 1 / (4 * m)
    for k in range(m // 2 + 1):
        i, j, c, s = 2 * pos[k], 2 * pos[m - k], tw2[2 * k], tw2[2 * k + 1]
        ar, ai, br, bi = split(load(z, i), load(z, i + 1), load(z, j), load(z, j + 1), c, s)
        keep = scale if k > 0 else 0.0
        _merge_into(z, i, j, c, s, keep * ar, keep * ai, scale * br, scale * bi)
        _put_pair(v, k, m, keep * ar, keep * ai, scale * br, scale * bi)


@jit
def _put_pair(v, k, m, ar, ai, br, bi):
    store(v, 2 * k, ar)
    store(v, 2 * k + 1, ai)
    store(v, 2 * (m - k), br)
    store(v, 2 * (m - k) + 1, bi)


@jit
def _get_pair(v, k, m):
    return load(v, 2 * k), load(v, 2 * k + 1), load(v, 2 * (m - k)), load(v, 2 * (m - k) + 1)


@jit
def _merge_into(z, i, j, c, s, ar, ai, br, bi):
    ar, ai, br, bi = merge(ar, ai, br, bi, c, s)
    store(z, i, ar)
    store(z, i + 1, ai)
    store(z, j, br)
    store(z, j + 1, bi)


@jit
def _product(z, k, m, tw2, pos):
    """Modes k and M − k of −i (u²), times 2N."""
    i, j, c, s = 2 * pos[k], 2 * pos[m - k], tw2[2 * k], tw2[2 * k + 1]
    ar, ai, br, bi = split(load(z, i), load(z, i + 1), load(z, j), load(z, j + 1), c, s)
    return i, j, c, s, ai, 0.0 - ar, bi, 0.0 - br


@jit
def _stage1(v, acc, g, z, m, co, tw2, pos):
    """acc = e v + f1 N(v), next state a = e2 v + q N(v), g = e2 a − q N(v)."""
    for k in range(m // 2 + 1):
        i, j, c, s, pr, pi, rr, ri = _product(z, k, m, tw2, pos)
        ar, ai, br, bi = _get_pair(v, k, m)
        x, y = 6 * k, 6 * (m - k)
        _put_pair(
            acc, k, m,
            co[x] * ar + co[x + 3] * pr, co[x] * ai + co[x + 3] * pi,
            co[y] * br + co[y + 3] * rr, co[y] * bi + co[y + 3] * ri,
        )  # fmt: skip
        pr, pi, rr, ri = co[x + 2] * pr, co[x + 2] * pi, co[y + 2] * rr, co[y + 2] * ri
        ar, ai, br, bi = co[x + 1] * ar + pr, co[x + 1] * ai + pi, co[y + 1] * br + rr, co[y + 1] * bi + ri
        _put_pair(
            g, k, m, co[x + 1] * ar - pr, co[x + 1] * ai - pi, co[y + 1] * br - rr, co[y + 1] * bi - ri
        )  # fmt: skip
        _merge_into(z, i, j, c, s, ar, ai, br, bi)


@jit
def _stage23(v, acc, z, m, co, tw2, pos, decay, weight):
    """acc += 2 f2 N, next state decay · v + weight · q N (``decay``: one or the half step's)."""
    for k in range(m // 2 + 1):
        i, j, c, s, pr, pi, rr, ri = _product(z, k, m, tw2, pos)
        ar, ai, br, bi = _get_pair(acc, k, m)
        x, y = 6 * k, 6 * (m - k)
        f, h = co[x + 4], co[y + 4]
        _put_pair(acc, k, m, ar + f * pr, ai + f * pi, br + h * rr, bi + h * ri)
        ar, ai, br, bi = _get_pair(v, k, m)
        d, e = (co[x + 1], co[y + 1]) if decay else (1.0, 1.0)
        f, h = weight * co[x + 2], weight * co[y + 2]
        _merge_into(z, i, j, c, s, d * ar + f * pr, d * ai + f * pi, e * br + h * rr, e * bi + h * ri)


@jit
def _stage4(v, acc, z, m, co, tw2, pos):
    """v = acc + f3 N: the state after the step."""
    for k in range(m // 2 + 1):
        i, j, c, s, pr, pi, rr, ri = _product(z, k, m, tw2, pos)
        ar, ai, br, bi = _get_pair(acc, k, m)
        f, h = co[6 * k + 5], co[6 * (m - k) + 5]
        ar, ai, br, bi = ar + f * pr, ai + f * pi, br + h * rr, bi + h * ri
        _put_pair(v, k, m, ar, ai, br, bi)
        _merge_into(z, i, j, c, s, ar, ai, br, bi)


@jit
def _stage_etd1(v, z, m, co, tw2, pos):
    """v = e v + h φ₁ N(v): the state after the step."""
    for k in range(m // 2 + 1):
        i, j, c, s, pr, pi, rr, ri = _product(z, k, m, tw2, pos)
        ar, ai, br, bi = _get_pair(v, k, m)
        x, y = 2 * k, 2 * (m - k)
        ar, ai = co[x] * ar + co[x + 1] * pr, co[x] * ai + co[x + 1] * pi
        br, bi = co[y] * br + co[y + 1] * rr, co[y] * bi + co[y + 1] * ri
        _put_pair(v, k, m, ar, ai, br, bi)
        _merge_into(z, i, j, c, s, ar, ai, br, bi)


@jit
def _advance(state, samples, m, n_samples, n_steps, fourth, co, tw, tw2, pos, z, v, acc, g):
    """ETDRK4 where ``fourth``, else exponential Euler."""
    copy(state, 0, z, 0, 2 * m)
    for t in range(n_samples):
        forward(z, m, m, tw)
        _start(v, z, m, tw2, pos)
        for _ in range(n_steps):
            square(z, m, tw)
            if fourth:
                _stage1(v, acc, g, z, m, co, tw2, pos)
                square(z, m, tw)
                _stage23(v, acc, z, m, co, tw2, pos, True, 1.0)
                square(z, m, tw)
                _stage23(g, acc, z, m, co, tw2, pos, False, 2.0)
                square(z, m, tw)
                _stage4(v, acc, z, m, co, tw2, pos)
            else:
                _stage_etd1(v, z, m, co, tw2, pos)
        inverse(z, m, m, tw)
        copy(z, 0, samples, t * 2 * m, 2 * m)
    copy(z, 0, state, 0, 2 * m)
