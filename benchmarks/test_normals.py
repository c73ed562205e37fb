"""kpz with the normals of :mod:`emubench.dynamics.noise`, and the same kernel with those that numpy draws.

``python -m pytest -s benchmarks/test_normals.py``. Eight trajectories of 32 samples, one vector of lanes. The two take
turns, so that what else the machine does falls on both; processor time of one thread is taken, medians are compared.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from emubench import systems
from emubench.dynamics.kernels import kpz
from emubench.dynamics.kernels._normal import lane_seeds
from emubench.dynamics.kernels._simd import LANES, aligned, copy, jit

SAMPLES, ROUNDS = 32, 12


@jit
def _strang_of_given(state, samples, drawn, n, first, n_samples, n_steps, weights, rate, u, v, xi):
    """``kpz._advance`` with normals that were drawn before: row by row, a trajectory per lane."""
    copy(state, 0, u, first, n)
    for t in range(n_samples):
        for s in range(n_steps):
            kpz._grow(u, n, first, rate)
            copy(drawn, (t * n_steps + s) * n, xi, first, n)
            kpz._diffuse(u, xi, v, n, first, weights)
            u, v = v, u
            kpz._grow(u, n, first, rate)
        copy(u, first, samples, t * n, n)


def test_generation_of_kpz():
    system = systems.get("kpz")
    (n,), steps, p, weights = system.shape, system.steps_per_sample, system.parameters(), kpz.stencils(system)
    first, rate = max(kpz.MARGIN, len(weights) + 1), p["lam"] * system.solver_step / 6 / p["dx"] ** 2 / 2
    work, drawn = [aligned(n + 2 * first) for _ in range(3)], aligned(SAMPLES * steps * n)
    state, samples, rows = aligned(n), aligned(SAMPLES * n), np.empty((LANES, SAMPLES * steps * n))
    given = n, first, SAMPLES, steps, weights.ravel(), rate, *work

    def ours(rngs):
        strang = n, first, SAMPLES, steps, True, rate, 0.0, 0.0, weights.ravel(), *work
        kpz._advance(state.ravel(), samples.ravel(), lane_seeds(rngs, SAMPLES * steps), *strang)

    def theirs(rngs):
        for row, rng in zip(rows, rngs, strict=True):
            rng.standard_normal(out=row)
        drawn.reshape(-1, LANES)[:] = rows.T
        _strang_of_given(state.ravel(), samples.ravel(), drawn.ravel(), *given)

    kinds = {
        "emubench": (ours, np.random.PCG64),
        "PCG64": (theirs, np.random.PCG64),
        "SFC64": (theirs, np.random.SFC64),
    }
    seconds: dict[str, list[float]] = {who: [] for who in kinds}
    for _ in range(ROUNDS):
        for who, (run, bits) in kinds.items():
            rngs = [np.random.Generator(bits(b)) for b in range(LANES)]
            state[:] = 0
            begun = time.process_time()
            run(rngs)
            seconds[who].append(time.process_time() - begun)
            assert 0.5 < samples.reshape(SAMPLES, n, LANES)[-1].std() < 50  # a rough interface, neither flat nor lost
    ours_median = statistics.median(seconds["emubench"][2:])  # the first rounds compile
    for who in ("PCG64", "SFC64"):
        print(f"\n{statistics.median(seconds[who][2:]) / ours_median:.2f} times as fast as with numpy's {who}", end="")
