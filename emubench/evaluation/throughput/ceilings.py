"""What this device can do at most, measured: fused multiply-adds in registers, and copies of large arrays.

A figure of merit beside an achieved rate: one that nobody reaches with real work, as nothing is loaded or stored in the
one and nothing computed in the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

from emubench.core.hardware import synchronise
from emubench.dynamics.kernels._simd import jit, lanes, load, store

FMAS = 1_000_000
COPY = 2**26
"""Bytes of the array that is copied: beyond what the caches of a core hold."""
SIDE = 4096


@jit(cache=False)
def _fma(w, n):
    a, b, c, d = load(w, 0), load(w, 1), load(w, 2), load(w, 3)
    e, f, g, h = load(w, 4), load(w, 5), load(w, 6), load(w, 7)
    for _ in range(n):
        a, b, c, d = 0.999 * a + 0.001, 0.999 * b + 0.001, 0.999 * c + 0.001, 0.999 * d + 0.001
        e, f, g, h = 0.999 * e + 0.001, 0.999 * f + 0.001, 0.999 * g + 0.001, 0.999 * h + 0.001
    store(w, 0, a + b + c + d + e + f + g + h)


def least_seconds(function: Callable[..., object], arguments: list[tuple], rounds: int = 20) -> float:
    """Least of ``rounds`` times, on as many threads as there are sets of arguments."""
    times = []
    with ThreadPoolExecutor(len(arguments)) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(lambda a: function(*a), arguments))
            times.append(time.perf_counter() - start)
    return min(times)


@cache
def flops_per_second(threads: int, dtype: str = "float64") -> float:
    """Of a loop of independent vector multiply-adds, on ``threads`` threads."""
    numbers = 8 * lanes(np.dtype(dtype))
    return threads * FMAS * numbers * 2 / least_seconds(_fma, [(np.ones(numbers, dtype), FMAS) for _ in range(threads)])


@cache
def bytes_per_second(threads: int) -> float:
    """Read and written by copies of a large array each on ``threads`` threads."""
    arrays = [(np.empty(COPY // 8), np.ones(COPY // 8)) for _ in range(threads)]
    return threads * 2 * COPY / least_seconds(np.copyto, arrays, rounds=8)


def of_gpu(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """The same of a GPU: the rate of a large matrix product, and of a copy."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)

    def seconds(call: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            synchronise(device)
            begun = time.perf_counter()
            call()
            synchronise(device)
            times.append(time.perf_counter() - begun)
        return min(times)

    return 2 * SIDE**3 / seconds(lambda: a @ a), 2 * a.numel() * a.element_size() / seconds(a.clone)
