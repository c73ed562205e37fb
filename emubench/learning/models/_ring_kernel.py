"""Rates at the sites of rings by a small network of the values around each, in strips that stay in the first cache.

Written out with vectors for the reasons that :mod:`emubench.learning.models._product_mlp` gives: products of small
matrices leave much of some processors unused, and every activation would be a pass through memory. All columns of a
strip see the same instructions: the rate at a site depends neither on the batch nor on its place in it.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from emubench.dynamics.kernels._simd import SINGLES, jit, load, store
from emubench.learning.models._product_mlp import ROWS, sigmoid

STRIP = 2 * SINGLES
"""Sites taken together."""
LANES = 64
"""Rings whose states lie side by side in the cache, at most."""


_intrinsic: Any = intrinsic


@_intrinsic
def _at(typingctx, address):
    """The singles that begin at an address."""
    kind = types.CPointer(types.float32)
    return kind(types.int64), lambda context, builder, sig, args: builder.inttoptr(
        args[0], context.get_value_type(sig.return_type)
    )


@jit
def _layer(a, bias, b, c):
    """``c = a b + bias`` of a strip, where a has a multiple of 8 rows: 8 rows of the result at a time, in registers."""
    for i in range(0, len(a), ROWS):
        x, y = load(b, 0), load(b, 1)
        p0, q0 = x * a[i, 0] + bias[i], y * a[i, 0] + bias[i]
        p1, q1 = x * a[i + 1, 0] + bias[i + 1], y * a[i + 1, 0] + bias[i + 1]
        p2, q2 = x * a[i + 2, 0] + bias[i + 2], y * a[i + 2, 0] + bias[i + 2]
        p3, q3 = x * a[i + 3, 0] + bias[i + 3], y * a[i + 3, 0] + bias[i + 3]
        p4, q4 = x * a[i + 4, 0] + bias[i + 4], y * a[i + 4, 0] + bias[i + 4]
        p5, q5 = x * a[i + 5, 0] + bias[i + 5], y * a[i + 5, 0] + bias[i + 5]
        p6, q6 = x * a[i + 6, 0] + bias[i + 6], y * a[i + 6, 0] + bias[i + 6]
        p7, q7 = x * a[i + 7, 0] + bias[i + 7], y * a[i + 7, 0] + bias[i + 7]
        for k in range(1, a.shape[1]):
            x, y = load(b, 2 * k), load(b, 2 * k + 1)
            p0, q0, p1, q1 = p0 + x * a[i, k], q0 + y * a[i, k], p1 + x * a[i + 1, k], q1 + y * a[i + 1, k]
            p2, q2, p3, q3 = p2 + x * a[i + 2, k], q2 + y * a[i + 2, k], p3 + x * a[i + 3, k], q3 + y * a[i + 3, k]
            p4, q4, p5, q5 = p4 + x * a[i + 4, k], q4 + y * a[i + 4, k], p5 + x * a[i + 5, k], q5 + y * a[i + 5, k]
            p6, q6, p7, q7 = p6 + x * a[i + 6, k], q6 + y * a[i + 6, k], p7 + x * a[i + 7, k], q7 + y * a[i + 7, k]
        _store(c, i, p0, q0)
        _store(c, i + 1, p1, q1)
        _store(c, i + 2, p2, q2)
        _store(c, i + 3, p3, q3)
        _store(c, i + 4, p4, q4)
        _store(c, i + 5, p5, q5)
        _store(c, i + 6, p6, q6)
        _store(c, i + 7, p7, q7)


@jit
def _store(c, row, p, q):
    store(c, 2 * row, p)
    store(c, 2 * row + 1, q)


@jit
def _silu(z):
    for r in range(len(z)):
        z[r] *= sigmoid(z[r])


@jit
def _multiply(a, b):
    for r in range(len(b)):
        b[r] *= a[r]


@jit
def _add_product(weights, b, s, t):
    """Add ``weights b`` to the strip's two vectors."""
    for i in range(len(weights)):
        s, t = s + load(b, 2 * i) * weights[i], t + load(b, 2 * i + 1) * weights[i]
    return s, t


@jit
def _add_quadratic(weights, n, x, s, t):
    """Add a quadratic polynomial: the weights of 1, of the inputs and of their products xᵢ xⱼ, i ≤ j."""
    s, t, pair = s + weights[0], t + weights[0], 1 + n
    for i in range(n):
        u, v = load(x, 2 * i), load(x, 2 * i + 1)
        p, q = u * weights[pair] + weights[1 + i], v * weights[pair] + weights[1 + i]
        for j in range(i + 1, n):
            w = weights[pair + j - i]
            p, q = p + load(x, 2 * j) * w, q + load(x, 2 * j + 1) * w
        s, t, pair = s + u * p, t + v * q, pair + n - i
    return s, t


@jit
def _side_by_side(rings, radius, columns):
    """The rings as columns, continued by ``radius`` sites at both ends: the values around a site are rows apart."""
    n_rings, n = rings.shape
    for k in range(n + 2 * radius):
        for b in range(n_rings):
            columns[k * n_rings + b] = rings[b, (k - radius) % n]


@jit
def rates(addresses, width, n_in, rings, out):
    """The rates at all sites of ``rings`` "B N" into ``out``, by the weights at the ``addresses`` (0: there are none).

    They come in the order of ``operators.Weights``. As arrays they would take longer to hand over than one ring does.
    """
    gate, gate_bias = carray(_at(addresses[0]), (width, n_in)), carray(_at(addresses[1]), width)
    value, value_bias = carray(_at(addresses[2]), (width, n_in)), carray(_at(addresses[3]), width)
    hidden, hidden_bias = carray(_at(addresses[4]), (width, width)), carray(_at(addresses[5]), width)
    last, last_bias = carray(_at(addresses[6]), width), carray(_at(addresses[7]), 1)
    products, linear = carray(_at(addresses[8]), width), carray(_at(addresses[9]), n_in)
    quadratic, n = carray(_at(addresses[10]), 1 + n_in + n_in * (n_in + 1) // 2), rings.shape[1]
    x, g = np.empty((n_in, STRIP), np.float32), np.empty((width, STRIP), np.float32)
    p, z = np.empty_like(g), np.empty_like(g)
    columns = np.zeros((n + n_in - 1) * LANES + STRIP, np.float32)
    found = np.empty(n * LANES + STRIP, np.float32)
    for first in range(0, len(rings), LANES):
        part = rings[first : first + LANES]
        lanes = len(part)
        _side_by_side(part, n_in // 2, columns)
        for c in range(0, n * lanes, STRIP):
            for j in range(n_in):
                for r in range(STRIP):
                    x[j, r] = columns[j * lanes + c + r]
            _layer(gate, gate_bias, x, g)
            if not addresses[8]:
                _silu(g.ravel())
            _layer(value, value_bias, x, p)
            _multiply(g.ravel(), p.ravel())
            _layer(hidden, hidden_bias, p, z)
            _silu(z.ravel())
            s, t = load(z, 0) * last[0] + last_bias[0], load(z, 1) * last[0] + last_bias[0]
            s, t = _add_product(last[1:], z[1:], s, t)
            if addresses[8]:
                s, t = _add_product(products, p, s, t)
            if addresses[9]:
                s, t = _add_product(linear, x, s, t)
            if addresses[10]:
                s, t = _add_quadratic(quadratic, n_in, x, s, t)
            _store(found, c // STRIP, s, t)
        for b in range(lanes):
            for i in range(n):
                out[first + b, i] = found[i * lanes + b]
