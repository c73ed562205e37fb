"""The normal numbers of :mod:`emubench.dynamics.noise`, bit by bit, one trajectory per lane."""

import numpy as np

from emubench.dynamics import noise
from emubench.dynamics.kernels._simd import LANES, as_doubles, as_words, load, sqrt, store, strict_jit
from emubench.dynamics.noise import COSINE, HALF_PI, HALF_ROOT, LOG, LOG_2, ONE, SINE, TWO_52


def lane_seeds(rngs: list[np.random.Generator], n_steps: int) -> np.ndarray:
    """Seeds of the next steps for :func:`normals`: row 4 k + w is word w of step k; lanes beyond the last repeat."""
    drawn = noise.seeds(rngs, n_steps)
    return drawn[[*range(len(rngs)), *[0] * (LANES - len(rngs))]].transpose(1, 2, 0).ravel()


@strict_jit
def normals(seeds, step, out, first, n):
    """Fill rows ``first … first + n − 1`` of ``out`` (and one more if n is odd) from row ``step`` of the seeds."""
    s0, s1, s2, s3 = (
        load(seeds, 4 * step),
        load(seeds, 4 * step + 1),
        load(seeds, 4 * step + 2),
        load(seeds, 4 * step + 3),
    )
    for i in range(first, first + n, 2):
        a = _rotate(s0 + s3, 23) + s0
        s0, s1, s2, s3 = _next(s0, s1, s2, s3)
        b = _rotate(s0 + s3, 23) + s0
        s0, s1, s2, s3 = _next(s0, s1, s2, s3)
        x, y = box_muller(a, b)
        store(out, i, x)
        store(out, i + 1, y)


@strict_jit
def _rotate(x, k):
    return (x << k) | (x >> (64 - k))


@strict_jit
def _next(s0, s1, s2, s3):
    shifted = s1 << 17
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    return s0 ^ s3, s1 ^ s2, s2 ^ shifted, _rotate(s3, 45)


@strict_jit
def box_muller(first, second):
    """See :func:`emubench.dynamics.noise.box_muller`."""
    radius = sqrt(-2.0 * _log(2.0 - _unit(first)))
    x = HALF_PI * (_unit(second) - 1.5)
    w = x * x
    sine, cosine = _polynomial(SINE, w) * x, _polynomial(COSINE, w)
    # The last bit as the sign: the same as multiplying by 1 or −1.
    mirrored = as_doubles(as_words(radius * (1.0 - 2.0 * (sine * sine))) ^ (second << 63))
    return mirrored, radius * (2.0 * (sine * cosine))


@strict_jit
def _unit(words):
    return as_doubles((words >> 12) | ONE)


@strict_jit
def _log(u):
    bits = as_words(u)
    exponent = (bits - (HALF_ROOT - ONE)) >> 52
    m = as_doubles(bits - (exponent << 52) + ONE)
    k = as_doubles(exponent | TWO_52) - (2.0**52 + 1023.0)
    s = (m - 1.0) / (m + 1.0)
    w = s * s
    return k * LOG_2 + (2.0 * s + s * (w * _polynomial(LOG, w)))


@strict_jit
def _polynomial(coefficients, x):
    n = len(coefficients)
    value = coefficients[n - 1] * x + coefficients[n - 2]
    for j in range(n - 3, -1, -1):
        value = value * x + coefficients[j]
    return value
