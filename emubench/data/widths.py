"""Many stationary cases of a growing interface, for its width and its slopes, whose law is exact.

64 climate cases, half of them flat, know the saturated width to 5 %; 512 stationary ones at four leads to 1.4 %. Their
contexts are made when they are needed and stored nowhere: case i depends on (seed, task, i) alone, where the seed is
what the dataset's header shows (of a sealed season the commitment, for there is no answer to hide). The true state at
the leads scored is an independent draw from the exact stationary measure.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import stream
from emubench.data.tasks import WIDTH_LEADS, Task
from emubench.data.trajectories import FLAT_BLANK
from emubench.dynamics.simulate import simulate

SPLIT, START = "widths", "stationary"
BATCH = 256
"""Runs that are simulated at a time."""


def contexts(task: Task, seed: str) -> Float[Tensor, "B T *S"]:
    """Observed contexts of stationary trajectories; ``seed`` is that of the task's dataset, as its header shows it."""
    system, rows = task.system, range(task.cases(SPLIT))
    rngs = [stream(0, SPLIT, seed, system.name, i) for i in rows]
    first = np.stack([system.draw(rng, START) for rng in rngs])
    states = np.concatenate([first[:, None], simulate(system, first, task.context - 1, rngs)], axis=1)
    observed = [task.observation(system, states[i], stream(0, SPLIT, seed, task.name, i)) for i in rows]
    return torch.from_numpy(np.stack(observed))


def truth(task: Task, seed: str) -> Float[Tensor, "B T *S"]:
    """Scored components of independent draws from the stationary measure, at the leads asked for."""
    rngs = [stream(0, f"{SPLIT} truth", seed, task.system.name, i) for i in range(task.cases(SPLIT))]
    states = np.stack([np.stack([task.system.draw(rng, START) for _ in WIDTH_LEADS]) for rng in rngs])
    return torch.from_numpy(np.ascontiguousarray(task.observation.select(states)))


def growth(task: Task, leads: tuple[int, ...], n_runs: int, seed: int) -> dict[str, list[float]]:
    """Mean, variance, skewness and excess kurtosis of h over runs of the exact solver from flat, and sites.

    ``leads`` are samples after a flat case's context, which ends 7 samples after the flat start. The standard error of
    the variance is that of independent runs.
    """
    start_to_context = task.context - FLAT_BLANK - 1
    index = np.array(leads) + start_to_context - 1
    parts = []
    for first in range(0, n_runs, BATCH):
        rngs = [stream(seed, task.system.name, "growth", i) for i in range(first, min(first + BATCH, n_runs))]
        flat = np.stack([task.system.draw(rng, "flat") for rng in rngs])
        h = simulate(task.system, flat, int(index[-1]) + 1, rngs)[:, index]
        parts.append(np.stack([(h**p).mean(-1) for p in (1, 2, 3, 4)]))
    raw = np.concatenate(parts, axis=1)  # power, run, lead
    m1, m2, m3, m4 = raw.mean(1)
    variance = m2 - m1**2
    by_run = raw[1] - 2 * raw[0] * m1 + m1**2
    return {
        "mean": m1.tolist(),
        "variance": variance.tolist(),
        "variance_standard_error": (by_run.std(0, ddof=1) / n_runs**0.5).tolist(),
        "skewness": ((m3 - 3 * m1 * m2 + 2 * m1**3) / variance**1.5).tolist(),
        "excess_kurtosis": ((m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / variance**2 - 3).tolist(),
    }
