"""What a device can do at most: multiply-adds in registers, products of matrices, copies of a large array."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numba.cuda
import numpy as np
import torch

from emubench.core.hardware import synchronise
from emubench.evaluation.throughput import roofline

cuda: Any = numba.cuda
"""Untyped, and by this name, which numba's simulator looks for."""
CHAINS = 8
"""Independent multiply-adds of a thread, so that none waits for the one before."""
ROUNDS = 5


@functools.cache
def multiply_adds() -> Any:
    """The kernel: each thread repeats ``x ← x · scale + shift`` on ``CHAINS`` numbers, and writes their sum."""

    @cuda.jit
    def run(out, n, scale, shift):
        i = cuda.grid(1)
        a = out[i]
        b, c, d, e = a + shift, a - shift, a + scale, a - scale
        f, g, h = b + scale, c + scale, d + scale
        for _ in range(n):
            a, b, c, d = a * scale + shift, b * scale + shift, c * scale + shift, d * scale + shift
            e, f, g, h = e * scale + shift, f * scale + shift, g * scale + shift, h * scale + shift
        out[i] = a + b + c + d + e + f + g + h

    return run


def in_registers(dtype: str, blocks: int = 4096, threads: int = 256, n: int = 20_000) -> tuple[float, np.ndarray]:
    """Operations per second of :func:`multiply_adds` on a CUDA GPU, and what its threads wrote the last time."""
    real, kernel = np.dtype(dtype).type, multiply_adds()
    out, times = cuda.to_device(np.ones(blocks * threads, dtype)), []
    for _ in range(1 + ROUNDS):  # the first compiles
        out = cuda.to_device(np.ones(blocks * threads, dtype))
        cuda.synchronize()
        begun = time.perf_counter()
        kernel[blocks, threads](out, n, real(0.999), real(0.001))
        cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return blocks * threads * n * CHAINS * 2 / min(times[1:]), out.copy_to_host()


def least(call: Callable[[], object], device: torch.device) -> float:
    """Least seconds of ``ROUNDS`` calls after one to begin with."""
    times = []
    for _ in range(1 + ROUNDS):
        synchronise(device)
        begun = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def products(dtype: str, device: torch.device, n: int) -> float:
    """Operations per second of torch's product of two matrices of ``n`` rows and columns."""
    a, b, out = (torch.full((n, n), 0.01, dtype=getattr(torch, dtype), device=device) for _ in range(3))
    return 2 * n**3 / least(lambda: torch.mm(a, b, out=out), device)


def copied(device: torch.device, n_bytes: int) -> float:
    """Bytes per second that copying an array of ``n_bytes`` reads and writes."""
    source, target = (torch.zeros(n_bytes // 8, dtype=torch.float64, device=device) for _ in range(2))
    return 2 * 8 * len(source) / least(lambda: target.copy_(source), device)


def measured(device: torch.device, small: bool) -> dict[str, float]:
    """All of them: operations per second by kind and precision, bytes per second. ``small``: in an instant, too low."""
    cuda, n = device.type == "cuda", 128 if small else 8192
    found = {"bytes": copied(device, 2**20 if small else 2**30)}
    for dtype in ("float64", "float32"):
        if cuda:
            found[f"registers_{dtype}"] = in_registers(dtype)[0]
        else:
            found[f"registers_{dtype}"] = roofline.flops_per_second(torch.get_num_threads(), dtype)
    return found | {f"products_{dtype}": products(dtype, device, n) for dtype in ("float64", "float32", "bfloat16")}
