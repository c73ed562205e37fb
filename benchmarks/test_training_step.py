"""One optimiser step of each baseline that takes some, at its default width and batch: samples per second.

    pytest benchmarks/test_training_step.py

``benchmarks/test_neural_ode.py`` sets the step of ``neural_ode`` beside torchdiffeq's.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from emubench import baselines
from emubench.data import tasks
from emubench.learning.models.flow import rollout_loss
from emubench.learning.training.descent import Descent, Log
from emubench.runs import jobs


@pytest.mark.parametrize("task", ["lorenz63-noisy", "lorenz96-noisy", "kuramoto_sivashinsky-noisy", "kpz-noisy"])
@pytest.mark.parametrize("baseline", ["resnet_ode", "neural_ode"])
def test_a_step(benchmark, baseline, task):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, found = baselines.get(baseline), tasks.get(task)
    job = jobs.Job(baseline, task)
    config = dataclasses.replace(job.config(), steps=10**6, checks=1)
    flow = module.build(found, config)
    batch = torch.randn(config.batch, config.window + config.unroll, *found.shape)
    descent = Descent(flow, config, Log(), lambda: torch.zeros(1))
    steps = iter(descent)

    def step() -> None:
        next(steps)
        descent(rollout_loss(flow, batch, config.unroll, config.training_noise))

    benchmark.group = task
    benchmark.extra_info["samples"] = config.batch * config.unroll
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
