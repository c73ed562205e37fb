"""Standard normal noise for stochastic solvers: cheap, one trajectory per vector lane, and the same bits everywhere.

A solver step of one trajectory gets its own 256-bit seed, four words of the trajectory's generator, so that the
generator is the only state and a rollout may be cut between samples. The seed is the state of a xoshiro256++ generator
(Blackman & Vigna 2021, doi:10.1145/3460772), whose words 2j and 2j + 1 give the normals 2j and 2j + 1 of the step by
the transform of Box & Muller 1958, doi:10.1214/aoms/1177706645. Logarithm, sine and cosine are polynomials evaluated
with correctly rounded operations alone, no fused ones: this file and :mod:`emubench.dynamics.kernels._normal` agree bit
by bit, whatever the CPU, the compiler and the mathematical library. |z| is at most √(2·52 ln 2) = 8.49.

kpz is generated 3.3 to 4.8 times as fast as with the normals that numpy draws, to whose kernel nothing else changes
(``pytest -s benchmarks/test_normals.py``, one thread).
"""

import math

import numpy as np

ONE = 0x3FF0000000000000
"""Bits of 1.0; with them, 52 random bits are a number in [1, 2)."""
HALF_ROOT = 0x3FE6A09E667F3BCD
"""Bits of √½: mantissas are taken from [√½, √2)."""
TWO_52 = 0x4330000000000000
"""Bits of 2^52; a small integer k or-ed to them is the number 2^52 + k."""
LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
"""log m = 2s + s w (c₀ + c₁ w + …) with s = (m − 1)/(m + 1), w = s²; from FreeBSD's e_log.c, error under 2^−58."""
SINE = tuple((-1) ** j / math.factorial(2 * j + 1) for j in range(8))
COSINE = tuple((-1) ** j / math.factorial(2 * j) for j in range(9))
"""Taylor series, for |x| ≤ π/4 (remainders under 5·10⁻¹⁷)."""
LOG_2 = math.log(2)
HALF_PI = math.pi / 2


def seeds(rngs: list[np.random.Generator], n_steps: int) -> np.ndarray:
    """Seeds of the next ``n_steps`` solver steps of each trajectory, ``"B K 4"``."""
    drawn = [rng.bit_generator.random_raw(4 * n_steps).reshape(n_steps, 4) for rng in rngs]  # type: ignore[union-attr]
    return np.array(drawn, dtype=np.uint64).reshape(len(rngs), n_steps, 4)


def normals(seeds: np.ndarray, n: int) -> np.ndarray:
    """``n`` standard normal numbers of each seed: ``"... 4"`` to ``"... n"``.

    >>> normals(np.arange(1, 9, dtype=np.uint64).reshape(2, 4), 3).shape
    (2, 3)
    """
    words = xoshiro(seeds, n + n % 2)
    z = np.empty(words.shape)
    z[..., 0::2], z[..., 1::2] = box_muller(words[..., 0::2], words[..., 1::2])
    return z[..., :n]


def xoshiro(seeds: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` words of xoshiro256++ from each state: ``"... 4"`` to ``"... n"``, uint64."""
    s0, s1, s2, s3 = seeds.reshape(-1, 4).T.copy()
    words = np.empty((n, len(s0)), dtype=np.uint64)
    for word in words:
        word[:] = _rotate(s0 + s3, 23) + s0
        shifted = s1 << np.uint64(17)
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= shifted
        s3 = _rotate(s3, 45)
    return words.T.reshape(*seeds.shape[:-1], n)


def _rotate(x: np.ndarray, k: int) -> np.ndarray:
    return (x << np.uint64(k)) | (x >> np.uint64(64 - k))


def box_muller(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normal numbers from two random words."""
    radius = np.sqrt(-2.0 * _log(2.0 - _unit(first)))
    # x is half of an angle in the right half plane; the last bit of the word mirrors it into the left one.
    x = HALF_PI * (_unit(second) - 1.5)
    sine, cosine = _polynomial(SINE, x * x) * x, _polynomial(COSINE, x * x)
    mirror = 1.0 - 2.0 * (second & np.uint64(1)).astype(float)
    return radius * (1.0 - 2.0 * (sine * sine)) * mirror, radius * (2.0 * (sine * cosine))


def _unit(words: np.ndarray) -> np.ndarray:
    """The upper 52 bits as a number in [1, 2)."""
    return ((words >> np.uint64(12)) | np.uint64(ONE)).view(np.float64)


def _log(u: np.ndarray) -> np.ndarray:
    """Natural logarithm of u in (0, 1]."""
    bits = u.view(np.uint64)
    exponent = (bits - np.uint64(HALF_ROOT) + np.uint64(ONE)) >> np.uint64(52)
    m = (bits - (exponent << np.uint64(52)) + np.uint64(ONE)).view(np.float64)
    k = (exponent | np.uint64(TWO_52)).view(np.float64) - (2.0**52 + 1023)
    s = (m - 1.0) / (m + 1.0)
    w = s * s
    return k * LOG_2 + (2.0 * s + s * (w * _polynomial(LOG, w)))


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value
