"""What this machine can do at most: fused multiply-adds in registers, and random numbers without a solver."""

from __future__ import annotations

import numpy as np

from emubench.core.hardware import usable_cores
from emubench.dynamics.kernels._normal import lane_seeds, normals
from emubench.dynamics.kernels._simd import LANES, aligned, strict_jit
from emubench.evaluation.throughput import roofline


@strict_jit(cache=False)
def _normals(seeds, out, n, repeats):
    for _ in range(repeats):
        normals(seeds, 0, out, 0, n)


def flops_per_second() -> float:
    """Of a loop of independent vector FMAs, on all usable cores."""
    return roofline.flops_per_second(usable_cores())


def normals_per_second() -> float:
    """Of the generator alone, on all usable cores."""
    cores, n, repeats = usable_cores(), 256, 500
    seeds = lane_seeds([np.random.default_rng(0)], 1)
    work = [(seeds, aligned(n), n, repeats) for _ in range(cores)]
    return cores * n * repeats * LANES / roofline.least_seconds(_normals, work)
