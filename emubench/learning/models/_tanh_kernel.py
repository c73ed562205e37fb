"""The hyperbolic tangent of many doubles, a vector at a time, to two units in the last place.

With y = 2x = k ln 2 + r, |r| ≤ ln 2 / 2, and s = 2ᵏ it is (s p + s − 1)/(s p + s + 1), where p = eʳ − 1 is a Taylor
polynomial. Near zero, where k = 0, nothing cancels.
"""

from math import factorial

import numpy as np

from emubench.dynamics.kernels._simd import LANES, as_doubles, as_words, jit, load, store

LARGEST = 20.0
"""Beyond it the result is ±1 to all digits."""
ROUNDING = 1.5 * 2.0**52
"""Added to a small number it leaves the nearest integer in the last bits."""
PER_TWO = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
ONE = 1023 << 52
"""The bits of 1.0."""
C = tuple(1 / factorial(n) for n in range(14))
BLOCK = 64 * LANES


@jit
def _tanh(x):
    y = x + x
    shifted = y * PER_TWO + ROUNDING
    k = shifted - ROUNDING
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = r * C[13] + C[12]
    p = p * r + C[11]
    p = p * r + C[10]
    p = p * r + C[9]
    p = p * r + C[8]
    p = p * r + C[7]
    p = p * r + C[6]
    p = p * r + C[5]
    p = p * r + C[4]
    p = p * r + C[3]
    p = p * r + C[2]
    p = r + r * r * p
    s = as_doubles((as_words(shifted) << 52) + ONE)
    return (s * p + (s - 1.0)) / (s * p + (s + 1.0))


@jit
def _bound(x):
    for r in range(len(x)):
        y = x[r]
        y = LARGEST if y > LARGEST else y
        x[r] = -LARGEST if y < -LARGEST else y


@jit
def tanh(x):
    """In place; NaN stays NaN."""
    whole = len(x) - len(x) % LANES
    for first in range(0, whole, BLOCK):
        part = x[first : min(first + BLOCK, whole)]
        _bound(part)
        for v in range(len(part) // LANES):
            store(part, v, _tanh(load(part, v)))
    if whole < len(x):
        rest = np.zeros(LANES)
        rest[: len(x) - whole] = x[whole:]
        _bound(rest)
        store(rest, 0, _tanh(load(rest, 0)))
        x[whole:] = rest[: len(x) - whole]
