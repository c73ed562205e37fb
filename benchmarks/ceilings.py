"""What this machine can do at most: fused multiply-adds in registers, and random numbers without a solver."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from emubench.kernels._normal import lane_seeds, normals
from emubench.kernels._simd import LANES, aligned, jit, load, store, strict_jit


@jit(cache=False)
def _fma(w, n):
    a, b, c, d, e, f, g, h = (
        load(w, 0),
        load(w, 1),
        load(w, 2),
        load(w, 3),
        load(w, 4),
        load(w, 5),
        load(w, 6),
        load(w, 7),
    )
    for _ in range(n):
        a, b, c, d = 0.999 * a + 0.001, 0.999 * b + 0.001, 0.999 * c + 0.001, 0.999 * d + 0.001
        e, f, g, h = 0.999 * e + 0.001, 0.999 * f + 0.001, 0.999 * g + 0.001, 0.999 * h + 0.001
    store(w, 0, a + b + c + d + e + f + g + h)


@strict_jit(cache=False)
def _normals(seeds, out, n, repeats):
    for _ in range(repeats):
        normals(seeds, 0, out, 0, n)


def _seconds(function, arguments: list[tuple]) -> float:
    """Least of 20 times, on as many threads as there are sets of arguments."""
    times = []
    with ThreadPoolExecutor(len(arguments)) as pool:
        for _ in range(20):
            start = time.perf_counter()
            list(pool.map(lambda a: function(*a), arguments))
            times.append(time.perf_counter() - start)
    return min(times)


def flops_per_second() -> float:
    """Of a loop of independent vector FMAs, on all usable cores."""
    cores, n = len(os.sched_getaffinity(0)), 1_000_000
    return cores * n * 8 * LANES * 2 / _seconds(_fma, [(np.ones(8 * LANES), n) for _ in range(cores)])


def normals_per_second() -> float:
    """Of the generator alone, on all usable cores."""
    cores, n, repeats = len(os.sched_getaffinity(0)), 256, 500
    seeds = lane_seeds([np.random.default_rng(0)], 1)
    work = [(seeds, aligned(n), n, repeats) for _ in range(cores)]
    return cores * n * repeats * LANES / _seconds(_normals, work)
