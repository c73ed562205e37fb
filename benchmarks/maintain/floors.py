"""Noise floors and anchors of the climate distances, from independent truth: what a perfect emulator can't beat.

The floor d_f of a distance is the 99 % quantile of its mean over n cases, all independent of the truth that they are
compared with, with n and their length those of the task. The mean of n cases is resampled from 512 independent ones,
for 200 independent samples would take 200 n of them: the quantiles agree within the sampling error of those
(``tests/maintain/test_floors.py``). The anchor d₀ is the distance of a constant at the climatological mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import torch_stream
from emubench.data import trajectories
from emubench.data.tasks import Task
from emubench.dynamics.system import System
from emubench.metrics import Pool, Truth, stability

SEED = 1000
N_INDEPENDENT, N_SAMPLES, QUANTILE = 512, 10000, 0.99


def shortened(task: Task, n_cases: int, horizon: float) -> Task:
    """The task with another climate split: ``n_cases`` cases of ``horizon`` units of lead time.

    >>> from emubench.data import tasks
    >>> shortened(tasks.get("lorenz96-noisy"), 16, 50.0).climate_steps
    592
    """
    return replace(task, n_climate=n_cases, climate_steps=int(np.ceil(horizon / task.lead_time_step)))


def stationary_truth(
    task: Task, n_cases: int, seed: int = SEED, system: System | None = None
) -> Iterator[Float[Tensor, "B T *S"]]:
    """Scored components of independent stationary cases, some at a time, as long as those of the climate split.

    ``system`` replaces the task's, to see what a wrong one does.
    """
    system = system or task.system
    step, length = len(system.starts), task.context + task.climate_steps
    for first in range(0, step * n_cases, trajectories.LANES):
        simulated = trajectories.simulate_block(system, seed, "climate", first // trajectories.LANES, length)
        kept = simulated[::step, task.context :][: n_cases - first // step]
        yield torch.from_numpy(np.ascontiguousarray(task.observation.select(kept)))


def pooled(task: Task, values: Float[Tensor, "B T *S"], reference: dict[str, Any] | None = None) -> Truth:
    """Stationary cases as the truth of a climate split, with their pool."""
    return Truth(task, values, torch.zeros(len(values), dtype=torch.long), Pool(task, values), reference or {})


def quantile_of_means(d: Float[Tensor, "N A"], n_cases: int) -> Float[Tensor, " A"]:
    """The 99 % quantile of the mean of ``n_cases`` of the rows, resampled."""
    generator = torch_stream(0, "floor", n_cases)
    means = [d[torch.randint(len(d), (n_cases,), generator=generator)].mean(0) for _ in range(N_SAMPLES)]
    return torch.quantile(torch.stack(means), QUANTILE, dim=0)


def independent_distances(truth: Truth, n_independent: int = N_INDEPENDENT, seed: int = SEED) -> Float[Tensor, "N A"]:
    """Distances of independent cases from the pooled truth, capped as an emulator's are."""
    parts = [stability.distances(values, truth) for values in stationary_truth(truth.task, n_independent, seed)]
    return torch.cat(parts).minimum(stability.anchors(truth, truth.task.climate_steps))


def measure(truth: Truth, n_independent: int = N_INDEPENDENT, seed: int = SEED) -> dict[str, dict[str, float]]:
    """``d_floor`` and ``d_zero`` of each distance, for as many stationary cases as ``truth`` has."""
    n_cases = int((truth.start == 0).sum())
    floors = quantile_of_means(independent_distances(truth, n_independent, seed), n_cases)
    zeros = stability.anchors(truth, truth.task.climate_steps)
    names = stability.aspects(truth.task)
    pair = {"d_floor": floors, "d_zero": zeros}
    return {key: dict(zip(names, values.tolist(), strict=True)) for key, values in pair.items()}
