"""How near a rollout comes to what the device can do: operations and bytes per second beside measured ceilings."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from emubench.dynamics.kernels._simd import jit, lanes, load, store
from emubench.dynamics.system import System
from emubench.files.timing import Bound

USED = 0.1
"""Share of a ceiling under which it can't be what binds."""
VIEWS = ("view", "expand", "transpose", "t", "slice", "select", "unbind", "split", "unfold", "detach", "alias")
"""Operators that make another view of the same numbers."""


class Counter(TorchDispatchMode):
    """Counts what torch's operators do: products of matrices by their formula, others one operation per output.

    Bytes are those of every operator's inputs and outputs: what memory or cache has to deliver when none are fused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (name := func.overloadpacket.__name__) in VIEWS or name == "_unsafe_view":
            return out
        outputs = [v for v in (out if isinstance(out, tuple | list) else (out,)) if isinstance(v, Tensor)]
        inputs = [v for a in args for v in (a if isinstance(a, tuple | list) else (a,)) if isinstance(v, Tensor)]
        formula = flop_registry.get(func.overloadpacket)
        self.flops += formula(*args, **(kwargs or {}), out_val=out) if formula else sum(v.numel() for v in outputs)
        self.bytes += sum(v.numel() * v.element_size() for v in (*inputs, *outputs))
        return out


def count(call: Callable[[], object]) -> tuple[int, int]:
    """Operations and bytes of ``call``.

    >>> count(lambda: torch.ones(2, 3) @ torch.ones(3, 4))[0] - 6 - 12    # less the ones
    48
    """
    with torch.no_grad(), Counter() as counter:
        call()
    return counter.flops, counter.bytes


def solver_work(
    system: System, scheme: str, steps: int, samples: int = 1, dtype: str = "float64"
) -> tuple[float, float] | None:
    """Operations and bytes of ``samples`` samples of a trajectory by a kernel, by the textbook's formula.

    Bytes are those of the samples that are written: between them a kernel keeps its block in registers or cache.
    ``None`` where no formula is known.
    """
    n = system.shape[0]
    stages = {"rk4": 4, "heun": 2, "euler": 1, "etdrk4": 4, "etd1": 1}.get(scheme)
    if stages is None:
        return None
    if system.name == "lorenz63":
        per_step = {"rk4": 68, "heun": 31, "euler": 14}[scheme]
    elif system.name == "lorenz96":
        per_step = {"rk4": 28, "heun": 13, "euler": 6}[scheme] * n
    elif system.name == "kuramoto_sivashinsky":
        transforms = 2 * stages * 2.5 * n * np.log2(n)
        per_step = transforms + stages * n + (46 if stages == 4 else 8) * (n // 2 + 1)
    else:
        return None
    return float(samples * steps * per_step), float(samples * n * np.dtype(dtype).itemsize)


def bound(work: tuple[float, float], seconds: float, threads: int, dtype: str) -> Bound:
    """Rates of ``work`` done in ``seconds`` beside the ceilings of ``threads`` threads, and which of them binds."""
    flops, moved = work[0] / seconds, work[1] / seconds
    peak, memory = flops_per_second(threads, dtype), bytes_per_second(threads)
    shares = {"arithmetic": flops / peak, "memory": moved / memory}
    binds = max(shares, key=shares.__getitem__)
    return Bound(
        flops_per_second=flops,
        bytes_per_second=moved,
        flops_ceiling=peak,
        bytes_ceiling=memory,
        binds=binds if shares[binds] >= USED else "overhead",
    )


FMAS = 1_000_000
COPY = 2**26
"""Bytes of the array that is copied: beyond what the caches of a core hold."""


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
    """What a loop of independent vector multiply-adds reaches on ``threads`` threads."""
    numbers = 8 * lanes(np.dtype(dtype))
    return threads * FMAS * numbers * 2 / least_seconds(_fma, [(np.ones(numbers, dtype), FMAS) for _ in range(threads)])


@cache
def bytes_per_second(threads: int) -> float:
    """Bytes that are read and written by copies of a large array each on ``threads`` threads."""
    arrays = [(np.empty(COPY // 8), np.ones(COPY // 8)) for _ in range(threads)]
    return threads * 2 * COPY / least_seconds(np.copyto, arrays, rounds=8)
