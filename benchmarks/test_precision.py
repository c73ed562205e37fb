"""The CPU kernels in single against double precision: the same rollout, in turns, on one thread.

    pytest -s benchmarks/test_precision.py

1024 trajectories at two steps per sample, as on the solver ladder; least and median processor time of 15 rounds.
"""

from __future__ import annotations

import dataclasses
import statistics
import time

import numpy as np
import pytest

from emubench import systems
from emubench.core.random import stream
from emubench.dynamics import kernels

SAMPLES = {"lorenz63": 400, "lorenz96": 200, "kuramoto_sivashinsky": 40}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("lorenz63", "rk4"), ("lorenz96", "rk4"), ("kuramoto_sivashinsky", "etdrk4"), ("kuramoto_sivashinsky", "etd1")],
)
def test_single_against_double(name, scheme):
    system = systems.get(name)
    system = dataclasses.replace(system, solver_step=system.sample_interval / 2)
    state = np.stack([system.draw(stream(0, "start", b), system.starts[0]) for b in range(64)])
    states = {kind: np.tile(state, (16, 1)).astype(kind) for kind in ("float64", "float32")}
    fast, seconds = kernels.find(system), {kind: [] for kind in states}
    for _ in range(17):
        for kind, values in states.items():
            begun = time.process_time()
            fast(system, values, SAMPLES[name], [], scheme=scheme)
            seconds[kind].append(time.process_time() - begun)
    double, single = (sorted(s[2:]) for s in seconds.values())
    steps, typical = 1024 * 2 * SAMPLES[name], statistics.median(double) / statistics.median(single)
    print(
        f"{name} {scheme}: {steps / double[0]:.3g} and {steps / single[0]:.3g} steps/s; single precision is "
        f"{double[0] / single[0]:.2f} times as fast (medians {typical:.2f})"
    )
