"""Runge–Kutta steps of a :class:`~emubench.learning.models.networks.ProductMlp` and their exact adjoint, for its
training on a CPU.

The network's matrices act as four, with a row of ones beside their inputs in place of biases: ``y = first x``, whose
two halves multiply to the products p; ``z = hidden [p, 1]``; ``f = last [silu(z), p] + direct x``. States are columns,
``"o R"``: off rings a column is a case; on rings (o = 1) one site of one case, the cases of a site side by side, and x
are the values around it. R is a multiple of 32, the width w of 8. A stage keeps the state at which it took the field;
the adjoint computes the rest once more: x, y, z, its sigmoid s, and ``q = [silu(z), p, 1]``, which are its ``work``
space, ``"rows R"``. Kept for all stages these would not fit into the cache.

Written out with vectors, as matrix products of numpy and torch leave much of some processors unused. On the noisy tasks
a training step of ``neural_ode`` is 1.7 to 2.8 times as fast as by ``torch.compile``, its compilation not counted, and
2.1 to 3.1 times as fast as by autograd (``pytest -s benchmarks/test_neural_ode.py``, one thread).
"""

import numpy as np

from emubench.dynamics.kernels._simd import SINGLES, jit, load, store, sums

COLUMNS = 2 * SINGLES
"""R is a multiple of it."""
ROWS = 8
"""w is a multiple of it."""
# σ(x) = 1/2 + x P(x²)/Q(x²) for |x| ≤ 17 to 5·10⁻⁹, fitted by iterated least squares; beyond it is constant
LIMIT = 17.0
NUMERATOR = (0.24999999, 0.0083788806, 5.509098e-05, 8.2506369e-08, 1.376888e-11)
DENOMINATOR = (1.0, 0.1168488, 0.0016244468, 5.2120252e-06, 3.1537712e-09)
F32 = np.float32


@jit
def _multiply(a, b, c):
    """``c = a b``, where a has a multiple of 8 rows: 8 rows and 2 vectors of the result at a time, in registers."""
    n = b.shape[1] // SINGLES
    for i in range(0, len(a), 8):
        for v in range(0, n, 2):
            x, y = load(b, v), load(b, v + 1)
            p0, q0, p1, q1 = x * a[i, 0], y * a[i, 0], x * a[i + 1, 0], y * a[i + 1, 0]
            p2, q2, p3, q3 = x * a[i + 2, 0], y * a[i + 2, 0], x * a[i + 3, 0], y * a[i + 3, 0]
            p4, q4, p5, q5 = x * a[i + 4, 0], y * a[i + 4, 0], x * a[i + 5, 0], y * a[i + 5, 0]
            p6, q6, p7, q7 = x * a[i + 6, 0], y * a[i + 6, 0], x * a[i + 7, 0], y * a[i + 7, 0]
            for k in range(1, len(b)):
                x, y = load(b, k * n + v), load(b, k * n + v + 1)
                p0, q0, p1, q1 = p0 + x * a[i, k], q0 + y * a[i, k], p1 + x * a[i + 1, k], q1 + y * a[i + 1, k]
                p2, q2, p3, q3 = p2 + x * a[i + 2, k], q2 + y * a[i + 2, k], p3 + x * a[i + 3, k], q3 + y * a[i + 3, k]
                p4, q4, p5, q5 = p4 + x * a[i + 4, k], q4 + y * a[i + 4, k], p5 + x * a[i + 5, k], q5 + y * a[i + 5, k]
                p6, q6, p7, q7 = p6 + x * a[i + 6, k], q6 + y * a[i + 6, k], p7 + x * a[i + 7, k], q7 + y * a[i + 7, k]
            o = i * n + v
            _store2(c, o, p0, q0)
            _store2(c, o + n, p1, q1)
            _store2(c, o + 2 * n, p2, q2)
            _store2(c, o + 3 * n, p3, q3)
            _store2(c, o + 4 * n, p4, q4)
            _store2(c, o + 5 * n, p5, q5)
            _store2(c, o + 6 * n, p6, q6)
            _store2(c, o + 7 * n, p7, q7)


@jit
def _store2(c, o, p, q):
    store(c, o, p)
    store(c, o + 1, q)


@jit
def _add_outer(a, b, c):
    """Add ``a bᵀ`` to ``c`` ``"i j lanes"``, whose lanes are summed up at the very end; 4 by 4 rows at a time."""
    n, m = a.shape[1] // SINGLES, len(b)
    for i in range(0, len(a), 4):
        for j in range(0, m, 4):
            o, p, q, r = i * m + j, (i + 1) * m + j, (i + 2) * m + j, (i + 3) * m + j
            c00, c01, c02, c03 = load(c, o), load(c, o + 1), load(c, o + 2), load(c, o + 3)
            c10, c11, c12, c13 = load(c, p), load(c, p + 1), load(c, p + 2), load(c, p + 3)
            c20, c21, c22, c23 = load(c, q), load(c, q + 1), load(c, q + 2), load(c, q + 3)
            c30, c31, c32, c33 = load(c, r), load(c, r + 1), load(c, r + 2), load(c, r + 3)
            for v in range(n):
                a0, a1 = load(a, i * n + v), load(a, (i + 1) * n + v)
                a2, a3 = load(a, (i + 2) * n + v), load(a, (i + 3) * n + v)
                b0, b1 = load(b, j * n + v), load(b, (j + 1) * n + v)
                b2, b3 = load(b, (j + 2) * n + v), load(b, (j + 3) * n + v)
                c00, c01, c02, c03 = c00 + a0 * b0, c01 + a0 * b1, c02 + a0 * b2, c03 + a0 * b3
                c10, c11, c12, c13 = c10 + a1 * b0, c11 + a1 * b1, c12 + a1 * b2, c13 + a1 * b3
                c20, c21, c22, c23 = c20 + a2 * b0, c21 + a2 * b1, c22 + a2 * b2, c23 + a2 * b3
                c30, c31, c32, c33 = c30 + a3 * b0, c31 + a3 * b1, c32 + a3 * b2, c33 + a3 * b3
            _store2(c, o, c00, c01)
            _store2(c, o + 2, c02, c03)
            _store2(c, p, c10, c11)
            _store2(c, p + 2, c12, c13)
            _store2(c, q, c20, c21)
            _store2(c, q + 2, c22, c23)
            _store2(c, r, c30, c31)
            _store2(c, r + 2, c32, c33)


@sums
def _dot(a, b):
    found = F32(0)
    for r in range(len(a)):
        found += a[r] * b[r]
    return found


@jit
def _add_scaled(scale, a, b):
    for r in range(len(a)):
        b[r] += scale * a[r]


@jit
def _polynomial(c, u):
    return (((F32(c[4]) * u + F32(c[3])) * u + F32(c[2])) * u + F32(c[1])) * u + F32(c[0])


@jit
def sigmoid(x):
    """1/(1 + e^−x); NaN stays NaN."""
    x = F32(LIMIT) if x > F32(LIMIT) else x
    x = F32(-LIMIT) if x < F32(-LIMIT) else x
    u = x * x
    return F32(0.5) + x * _polynomial(NUMERATOR, u) / _polynomial(DENOMINATOR, u)


@jit
def _silu(z, s, a):
    """The sigmoid of ``z`` into ``s``, their product into ``a``."""
    for j in range(len(z)):
        s[j] = sigmoid(z[j])
        a[j] = z[j] * s[j]


@jit
def _silu_adjoint(s, a, dz):
    """silu' = σ + silu (1 − σ)."""
    for j in range(len(dz)):
        dz[j] *= s[j] + a[j] * (F32(1) - s[j])


@jit
def _products(g, v, p):
    for j in range(len(p)):
        p[j] = g[j] * v[j]


@jit
def _gather(state, lanes, x):
    """Put into ``x`` the values around every site, or off rings the state itself; then a row of ones."""
    n, n_rows = state.shape[1], len(x) - 1
    for j in range(n_rows):
        if lanes:
            ahead = ((j - n_rows // 2) * lanes) % n
            x[j, : n - ahead] = state[0, ahead:]
            x[j, n - ahead :] = state[0, :ahead]
        else:
            x[j] = state[j]
    x[n_rows] = 1


@jit
def _scatter(dx, lanes, gradient):
    """The adjoint of :func:`_gather`."""
    n, n_rows = gradient.shape[1], len(dx) - 1
    gradient[:] = 0
    for j in range(n_rows):
        if lanes:
            ahead = ((j - n_rows // 2) * lanes) % n
            gradient[0, ahead:] += dx[j, : n - ahead]
            gradient[0, :ahead] += dx[j, n - ahead :]
        else:
            gradient[j] += dx[j]


@jit
def _field(weights, state, lanes, work, f):
    """The field at ``state`` into ``f``."""
    first, hidden, last, direct = weights
    x, y, z, s, q = work
    w = len(z)
    _gather(state, lanes, x)
    _multiply(first, x, y)
    _products(y[:w].ravel(), y[w:].ravel(), q[w : 2 * w].ravel())
    q[2 * w] = 1
    _multiply(hidden, q[w:], z)
    _silu(z.ravel(), s.ravel(), q[:w].ravel())
    f[:] = 0
    for o in range(len(f)):
        for i in range(2 * w):
            _add_scaled(last[o, i], q[i], f[o])
        for i in range(len(x)):
            _add_scaled(direct[o, i], x[i], f[o])


@sums
def _factors_adjoint(dp, beside, gate, value, dy):
    for r in range(len(dp)):
        d = dp[r] + beside[r]
        dy[0, r] = d * value[r]
        dy[1, r] = d * gate[r]


@sums
def _input_adjoint(dy, x, dx, gate, value):
    """Add to ``dx`` what two rows of ``first`` ask, of which these are an element each; the gradients of the two."""
    a = b = F32(0)
    for r in range(len(x)):
        da, db = dy[0, r], dy[1, r]
        a += da * x[r]
        b += db * x[r]
        dx[r] += gate * da + value * db
    return a, b


@jit
def _field_adjoint(weights, state, lanes, df, gradients, work, space, asked):
    """Add to the ``gradients`` of the weights what ``df`` asks of the field; what it asks of the state: ``asked``."""
    first, hidden, last, direct = weights[1]
    g1, g2, bias, g3, g4 = gradients
    (x, y, _, s, q), (ds, dp, dy, dx) = work, space
    w = len(s)
    _field(weights[0], state, lanes, work, asked)
    for o in range(len(df)):
        for i in range(2 * w):
            g3[o, i] += _dot(df[o], q[i])
        for i in range(len(x)):
            g4[o, i] += _dot(df[o], x[i])
    _multiply(last, df, ds)
    _silu_adjoint(s.ravel(), q[:w].ravel(), ds[:w].ravel())
    _add_outer(ds[:w], q[w : 2 * w], g2)
    _multiply(hidden, ds[:w], dp)
    dx[:] = 0
    for o in range(len(df)):
        for i in range(len(x)):
            _add_scaled(direct[i, o], df[o], dx[i])
    for i in range(w):  # row by row, in the cache
        bias[i] += _dot(ds[i], q[2 * w])
        _factors_adjoint(dp[i], ds[w + i], y[i], y[w + i], dy)
        for j in range(len(x)):
            gate, value = _input_adjoint(dy, x[j], dx[j], first[i, j], first[w + i, j])
            g1[i, j] += gate
            g1[w + i, j] += value
    _scatter(dx, lanes, asked)


@jit
def forward(weights, state, lanes, counts, stages, samples, work):
    """Integrate ``state`` ``"o R"`` by Kutta's 3/8 rule; ``counts`` are the samples and the steps of each.

    ``lanes`` are the cases of a ring, or 0; ``stages`` ``"n o R"`` are the states that the adjoint needs.
    """
    n_samples, n_steps = counts
    h, third = F32(1 / n_steps), F32(1 / 3)
    k1, k2, k3, k4 = [np.empty_like(state) for _ in range(4)]
    u, i = state.copy(), 0
    for t in range(n_samples):
        for _ in range(n_steps):
            stages[i] = u
            _field(weights, stages[i], lanes, work, k1)
            stages[i + 1] = u + h * third * k1
            _field(weights, stages[i + 1], lanes, work, k2)
            stages[i + 2] = u + h * (k2 - third * k1)
            _field(weights, stages[i + 2], lanes, work, k3)
            stages[i + 3] = u + h * (k1 - k2 + k3)
            _field(weights, stages[i + 3], lanes, work, k4)
            u += h * F32(0.125) * (k1 + F32(3) * (k2 + k3) + k4)
            i += 4
        samples[t] = u


@jit
def _with_transposed(weights):
    first, hidden, last, direct = weights
    w = len(hidden)
    return weights, (first, hidden[:, :w].T.copy(), last.T.copy(), direct.T.copy())


@jit
def backward(weights, asked, lanes, counts, stages, gradients, start, work, space):
    """From the gradients ``asked`` of the samples: add to those of the weights, write that of the first state.

    Of ``hidden`` the gradients are that of W₂, ``"w w lanes"``, to be summed over its last axis, and that of its bias.
    """
    both = _with_transposed(weights)
    n_samples, n_steps = counts
    h, third = F32(1 / n_steps), F32(1 / 3)
    e1, e2, e3, e4 = [np.empty_like(start) for _ in range(4)]
    start[:] = 0
    i = 4 * n_samples * n_steps
    for t in range(n_samples - 1, -1, -1):
        start += asked[t]
        for _ in range(n_steps):
            i -= 4
            g = h * F32(0.125) * start
            _field_adjoint(both, stages[i + 3], lanes, g, gradients, work, space, e4)
            d = F32(3) * g + h * e4
            _field_adjoint(both, stages[i + 2], lanes, d, gradients, work, space, e3)
            d = F32(3) * g + h * (e3 - e4)
            _field_adjoint(both, stages[i + 1], lanes, d, gradients, work, space, e2)
            d = g + h * (e4 + third * (e2 - e3))
            _field_adjoint(both, stages[i], lanes, d, gradients, work, space, e1)
            start += e1 + e2 + e3 + e4


@jit
def _add_circulant(matrix, state, lanes, out):
    """Add to ``out`` the product with every ring of ``state``."""
    n = len(matrix)
    u, o = state.ravel().reshape(n, lanes), out.ravel().reshape(n, lanes)
    for i in range(n):
        for k in range(n):
            for c in range(lanes):
                o[i, c] += matrix[i, k] * u[k, c]


@jit
def forward_exponential(weights, matrices, state, lanes, counts, stages, samples, work):
    """Integrate as :func:`forward` does, by exponential steps (ETDRK4).

    The ``matrices`` are those of e^{hL}, e^{hL/2}, and of q, f1, f2, f3, all symmetric and circulant; see
    :class:`emubench.dynamics.schemes.Etdrk4Coefficients`.
    """
    e, half, q, f1, f2, f3 = matrices
    n_samples, n_steps = counts
    n1, n2, n3, n4 = [np.empty_like(state) for _ in range(4)]
    u, i = state.copy(), 0
    for t in range(n_samples):
        for _ in range(n_steps):
            stages[i : i + 4] = 0
            stages[i] = u
            a, b, c = stages[i + 1], stages[i + 2], stages[i + 3]
            _field(weights, u, lanes, work, n1)
            _add_circulant(half, u, lanes, a)
            b[:] = a
            _add_circulant(q, n1, lanes, a)
            _field(weights, a, lanes, work, n2)
            _add_circulant(q, n2, lanes, b)
            _field(weights, b, lanes, work, n3)
            _add_circulant(half, a, lanes, c)
            _add_circulant(q, F32(2) * n3 - n1, lanes, c)
            _field(weights, c, lanes, work, n4)
            new = np.zeros_like(u)
            _add_circulant(e, u, lanes, new)
            _add_circulant(f1, n1, lanes, new)
            _add_circulant(f2, F32(2) * (n2 + n3), lanes, new)
            _add_circulant(f3, n4, lanes, new)
            u = new
            i += 4
        samples[t] = u


@jit
def backward_exponential(weights, matrices, asked, lanes, counts, stages, gradients, start, work, space):
    """:func:`backward` of :func:`forward_exponential`."""
    both = _with_transposed(weights)
    e, half, q, f1, f2, f3 = matrices
    n_samples, n_steps = counts
    found = np.empty_like(start)
    start[:] = 0
    i = 4 * n_samples * n_steps
    for t in range(n_samples - 1, -1, -1):
        start += asked[t]
        for _ in range(n_steps):
            i -= 4
            d1, d2, d4, a, new, c = [np.zeros_like(start) for _ in range(6)]
            _add_circulant(f3, start, lanes, d4)
            _add_circulant(f2, F32(2) * start, lanes, d2)
            _add_circulant(f1, start, lanes, d1)
            _add_circulant(e, start, lanes, new)
            d3 = d2.copy()
            _field_adjoint(both, stages[i + 3], lanes, d4, gradients, work, space, found)
            _add_circulant(half, found, lanes, a)
            _add_circulant(q, found, lanes, c)
            d3 += F32(2) * c
            d1 -= c
            _field_adjoint(both, stages[i + 2], lanes, d3, gradients, work, space, found)
            _add_circulant(half, found, lanes, new)
            _add_circulant(q, found, lanes, d2)
            _field_adjoint(both, stages[i + 1], lanes, d2, gradients, work, space, found)
            a += found
            _add_circulant(half, a, lanes, new)
            _add_circulant(q, a, lanes, d1)
            _field_adjoint(both, stages[i], lanes, d1, gradients, work, space, found)
            start[:] = new + found
