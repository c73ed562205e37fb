"""Metrics on forecasts of standard size, each with a peer where one exists: scoringrules for the CRPS.

    pytest benchmarks/test_metrics.py

One chunk of cases, as the scorer hands them over. The contestants are first asked whether they agree.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from emubench import metrics
from emubench.data import tasks
from emubench.evaluation.forecast import CHUNK
from emubench.metrics import Pool, Truth, crps

LORENZ96, KPZ = tasks.get("lorenz96-noisy"), tasks.get("kpz-noisy")


def made(task, members: int, split: str):
    """A forecast ``"M B T *S"`` and a truth of white noise: what a metric takes does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    shape = (CHUNK if split == "test" else 8, task.steps(split), *task.shape)
    std, mean = (torch.from_numpy(task.observation.select(v)) for v in (task.system.std, task.system.mean))
    truth = mean + std * torch.randn(shape, generator=generator, dtype=torch.float64)
    return truth + std * torch.randn(members, *shape, generator=generator, dtype=torch.float64), truth


@pytest.mark.parametrize(
    ("task", "name"),
    [(LORENZ96, "valid_prediction_time"), (LORENZ96, "error_curve"), (LORENZ96, "stability"), (KPZ, "crps")],
    ids=lambda v: getattr(v, "name", v),
)
def test_a_chunk_of_cases(benchmark, task, name):
    torch.set_num_threads(1)
    module = metrics.get(name)
    forecast, values = made(task, task.n_members(module.split), module.split)
    pool = Pool(task, values) if module.split == "climate" else None
    truth = Truth(task, values, torch.zeros(len(values), dtype=torch.long), pool)
    summary = benchmark.pedantic(lambda: module.summarise(forecast, truth), rounds=3, warmup_rounds=1)
    assert len(summary.cases) == len(values)


@pytest.mark.parametrize("contender", ["emubench", "scoringrules"])
def test_crps_of_an_ensemble(benchmark, contender):
    """16 members; scoringrules' fair estimator takes all pairs and M² times the memory, ours sorts."""
    torch.set_num_threads(1)
    benchmark.group = "CRPS, 16 members, 131 072 values"
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(16, 2**17, generator=generator, dtype=torch.float64)
    truth = torch.randn(2**17, generator=generator, dtype=torch.float64)
    if contender == "scoringrules":
        if importlib.util.find_spec(contender) is None:
            pytest.skip("scoringrules is not installed")
        import scoringrules

        y, x = truth.numpy(), np.ascontiguousarray(members.numpy().T)
        found = benchmark.pedantic(
            lambda: scoringrules.crps_ensemble(y, x, estimator="fair"), rounds=5, warmup_rounds=1
        )
    else:
        found = benchmark.pedantic(lambda: crps.crps(members, truth), rounds=5, warmup_rounds=1).numpy()
    assert abs(float(found.mean()) - 0.5642) < 0.005  # of independent normal numbers: 2/√π − 1/√π
