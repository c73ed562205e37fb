"""What a GPU computes is what the CPU does, within what rounding moves; a body or two run on a CPU, too.

``make gpu`` runs those that are marked ``gpu``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from emubench import baselines, systems
from emubench.core.random import stream
from emubench.data import dataset, tasks
from emubench.dynamics.simulate import reference_rollout
from emubench.dynamics.solvers import Setting, SettingSolver
from emubench.emulator import checked_ensemble
from emubench.evaluation.throughput import modes
from emubench.evaluation.throughput.modes import Mode
from emubench.metrics._headline import headline
from emubench.runs import jobs, stages
from tests.support.small_jobs import small

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
)
on_each = pytest.mark.parametrize("device", [pytest.param("cpu:0", marks=pytest.mark.slow), GPU])
"""``cpu:0`` is a device of torch like any other."""
FAMILIES = ("resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial")


@on_each
@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_solvers_agree(name, dtype, device):
    system = systems.get(name)
    states = np.stack([system.draw(stream(0, name, i), system.starts[0]) for i in range(5)])
    steps, scheme = system.steps_per_sample, system.schemes[0]
    found = SettingSolver(system, Setting(scheme, steps, dtype=dtype), torch.device(device)).solve(states, 3, [])
    expected = reference_rollout(system, states, 3, [])
    assert np.abs(found - expected).max() < (1e-8 if dtype == "float64" else 1e-2) * np.abs(expected).max()


@on_each
@pytest.mark.parametrize("name", ["lorenz96-noisy", "kuramoto_sivashinsky-noisy"])
@pytest.mark.parametrize("baseline", FAMILIES)
def test_scores_of_two_devices_agree_within_their_intervals(baseline, name, device, data, tmp_path):
    if device != "cuda" and (baseline, name) != (FAMILIES[0], "lorenz96-noisy"):
        pytest.skip("one stands for all on a CPU, which agrees with itself")
    job = small(baseline, name)
    found = []
    for where in ("cpu", device):
        run = stages.train(dataclasses.replace(job, device=where), data, tmp_path / where)
        rows = stages.score(run, data, device=where).rows
        metric = headline(job.get_task()).metric
        found.append(next(row for row in rows if row.metric == metric and row.lead_time is None))
    one, two = found
    assert one.low <= two.high + 1e-6
    assert two.low <= one.high + 1e-6


@pytest.mark.parametrize("device", [GPU])  # on a CPU see benchmarks/test_rollout.py
@pytest.mark.parametrize("baseline", FAMILIES)
def test_a_compiled_forecast_is_the_eager_one(baseline, device, data):
    task, module = tasks.get("lorenz63-noisy", "tiny"), baselines.get(baseline)
    observations = dataset.load(task, data)
    emulator = jobs.fit(module, task, small(baseline, task.name).config(), observations).to(device)
    context = observations.context("test")[:4].to(device)
    made = []
    for mode in (Mode(), Mode(compile=True)):
        modes.apply(emulator, mode, torch.device(device))
        made.append(checked_ensemble(emulator, context, 6, 1, torch.Generator().manual_seed(0)))
    assert torch.allclose(*made, atol=1e-3)
