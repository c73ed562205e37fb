"""Real Fourier transforms of N points, a multiple of 8, one per lane, in place.

Neighbouring points are the parts of a complex number: complex number j is the vectors 2j and 2j + 1 of a flat array. A
real transform of N points is a complex one of M = N/2 (passes of radix 4, and one of :func:`leaf` of M where that is no
power of 4) and a pass over pairs of modes k and M − k. Modes stay in digit-reversed order in between, so nothing is
sorted.
"""

import functools

import numpy as np

from emubench.dynamics.kernels._simd import jit, load, store


@jit
def leaf(m):
    """What is left of ``m`` after all factors of 4."""
    while m % 4 == 0:
        m //= 4
    return m


@functools.lru_cache(maxsize=8)
def positions(m: int) -> np.ndarray:
    """Where the forward transform of ``m`` points leaves the modes 0 … m (mode m is mode 0)."""

    def order(size: int) -> np.ndarray:
        if size == leaf(m):
            return np.arange(size)
        out = np.empty(size, dtype=np.int64)
        for r in range(4):
            out[r::4] = r * (size // 4) + order(size // 4)
        return out

    found = order(m)
    return np.append(found, found[0])


@functools.lru_cache(maxsize=8)
def twiddles(m: int) -> np.ndarray:
    """cos and sin of 2π j/m for j < m, interleaved: conjugate of the forward transform's roots of unity."""
    angle = 2 * np.pi * np.arange(m) / m
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).ravel()


@jit
def _get(z, j):
    return load(z, 2 * j), load(z, 2 * j + 1)


@jit
def _put(z, j, re, im):
    store(z, 2 * j, re)
    store(z, 2 * j + 1, im)


@jit
def _sums(ar, ai, br, bi, cr, ci, dr, di):
    """Fourier transform of four points, e^{−2πi/4}."""
    pr, pi, qr, qi = ar + cr, ai + ci, ar - cr, ai - ci
    sr, si, tr, ti = br + dr, bi + di, br - dr, bi - di
    return pr + sr, pi + si, qr + ti, qi - tr, pr - sr, pi - si, qr - ti, qi + tr


@jit
def _forward4(z, m, span, tw):
    quarter, stride = span // 4, m // span
    for j in range(quarter):
        c1, s1 = tw[2 * j * stride], tw[2 * j * stride + 1]
        c2, s2 = tw[4 * j * stride], tw[4 * j * stride + 1]
        c3, s3 = tw[6 * j * stride], tw[6 * j * stride + 1]
        for start in range(j, m, span):
            j1, j2, j3 = start + quarter, start + 2 * quarter, start + 3 * quarter
            (ar, ai), (br, bi), (cr, ci), (dr, di) = _get(z, start), _get(z, j1), _get(z, j2), _get(z, j3)
            ar, ai, br, bi, cr, ci, dr, di = _sums(ar, ai, br, bi, cr, ci, dr, di)
            _put(z, start, ar, ai)
            _put(z, j1, br * c1 + bi * s1, bi * c1 - br * s1)
            _put(z, j2, cr * c2 + ci * s2, ci * c2 - cr * s2)
            _put(z, j3, dr * c3 + di * s3, di * c3 - dr * s3)


@jit
def _inverse4(z, m, span, tw):
    quarter, stride = span // 4, m // span
    for j in range(quarter):
        c1, s1 = tw[2 * j * stride], tw[2 * j * stride + 1]
        c2, s2 = tw[4 * j * stride], tw[4 * j * stride + 1]
        c3, s3 = tw[6 * j * stride], tw[6 * j * stride + 1]
        for start in range(j, m, span):
            j1, j2, j3 = start + quarter, start + 2 * quarter, start + 3 * quarter
            (ar, ai), (br, bi), (cr, ci), (dr, di) = _get(z, start), _get(z, j1), _get(z, j2), _get(z, j3)
            br, bi = br * c1 - bi * s1, bi * c1 + br * s1
            cr, ci = cr * c2 - ci * s2, ci * c2 + cr * s2
            dr, di = dr * c3 - di * s3, di * c3 + dr * s3
            ar, ai, dr, di, cr, ci, br, bi = _sums(ar, ai, br, bi, cr, ci, dr, di)
            _put(z, start, ar, ai)
            _put(z, j1, br, bi)
            _put(z, j2, cr, ci)
            _put(z, j3, dr, di)


@jit
def _radix2(z, m):
    for j in range(0, m, 2):
        (ar, ai), (br, bi) = _get(z, j), _get(z, j + 1)
        _put(z, j, ar + br, ai + bi)
        _put(z, j + 1, ar - br, ai - bi)


@jit
def _leaves(z, m, size, tw, sign):
    """Transforms of ``size`` points by their definition, of ``sign`` −1 inverse; what follows point m is scratch."""
    for start in range(0, m, size):
        for k in range(size):
            re, im = _get(z, start)
            for j in range(1, size):
                i = 2 * (j * k % size * (m // size))
                c, s = tw[i], sign * tw[i + 1]
                br, bi = _get(z, start + j)
                re, im = re + (br * c + bi * s), im + (bi * c - br * s)
            _put(z, m + k, re, im)
        for k in range(size):
            re, im = _get(z, m + k)
            _put(z, start + k, re, im)


@jit
def _square(z, m, tw):
    """The last pass of the inverse transform, the square of every real number, the first pass of the forward one."""
    quarter = m // 4
    for j in range(quarter):
        j1, j2, j3 = j + quarter, j + 2 * quarter, j + 3 * quarter
        c1, s1, c2, s2, c3, s3 = tw[2 * j], tw[2 * j + 1], tw[4 * j], tw[4 * j + 1], tw[6 * j], tw[6 * j + 1]
        (ar, ai), (br, bi), (cr, ci), (dr, di) = _get(z, j), _get(z, j1), _get(z, j2), _get(z, j3)
        br, bi = br * c1 - bi * s1, bi * c1 + br * s1
        cr, ci = cr * c2 - ci * s2, ci * c2 + cr * s2
        dr, di = dr * c3 - di * s3, di * c3 + dr * s3
        ar, ai, dr, di, cr, ci, br, bi = _sums(ar, ai, br, bi, cr, ci, dr, di)
        ar, ai, br, bi = ar * ar, ai * ai, br * br, bi * bi
        cr, ci, dr, di = cr * cr, ci * ci, dr * dr, di * di
        ar, ai, br, bi, cr, ci, dr, di = _sums(ar, ai, br, bi, cr, ci, dr, di)
        _put(z, j, ar, ai)
        _put(z, j1, br * c1 + bi * s1, bi * c1 - br * s1)
        _put(z, j2, cr * c2 + ci * s2, ci * c2 - cr * s2)
        _put(z, j3, dr * c3 + di * s3, di * c3 - dr * s3)


@jit
def forward(z, m, span, tw):
    """Complex transform of the packed real points from passes of ``span`` on: all are those from ``m`` on.

    The modes are left at :func:`positions`.
    """
    last = leaf(m)
    while span > last:
        _forward4(z, m, span, tw)
        span //= 4
    if last == 2:
        _radix2(z, m)
    elif last > 2:
        _leaves(z, m, last, tw, 1.0)


@jit
def inverse(z, m, last, tw):
    """Unnormalised inverse of :func:`forward`, up to passes of span ``last``: all are those up to ``m``."""
    first = leaf(m)
    if first == 2:
        _radix2(z, m)
    elif first > 2:
        _leaves(z, m, first, tw, -1.0)
    span = 4 * first
    while span <= last:
        _inverse4(z, m, span, tw)
        span *= 4


@jit
def square(z, m, tw):
    """Inverse transform, square at every point, forward transform."""
    inverse(z, m, m // 4, tw)
    _square(z, m, tw)
    forward(z, m, m // 4, tw)


@jit
def split(zr, zi, yr, yi, c, s):
    """Twice the real transform's modes k and M − k from the complex one's, z and y; (c, s) = twiddle of 2π k/N."""
    er, ei, pr, pi = zr + yr, zi - yi, zr - yr, zi + yi
    # odd part: −i e^{−iθ} (z − y*)
    qr, qi = pi * c - pr * s, 0.0 - (pr * c + pi * s)
    return er + qr, ei + qi, er - qr, qi - ei


@jit
def merge(ur, ui, vr, vi, c, s):
    """The complex transform's modes k and M − k from the real one's, u and v, unnormalised."""
    er, ei, pr, pi = ur + vr, ui - vi, ur - vr, ui + vi
    # i times the odd part: i e^{iθ} (u − v*)
    qr, qi = 0.0 - (pi * c + pr * s), pr * c - pi * s
    return er + qr, ei + qi, er - qr, qi - ei
