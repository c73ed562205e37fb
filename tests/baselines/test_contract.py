"""Every baseline keeps its contract and that of an emulator, and trains through its job."""

from __future__ import annotations

import pytest
import torch

from emubench import baselines, systems, testing
from emubench.data import dataset, tasks
from emubench.runs import folders, stages
from tests.support.small_jobs import small, trained

QUICK = ("persistence", "climatology", "linear", "oracle", "resnet_ode")
"""All others are tried on lorenz63-noisy alone: elsewhere they take minutes in all, and are slow tests."""


def _marks(baseline: str, name: str) -> tuple:
    quick = name == "lorenz63-noisy" or (name in ("lorenz63-partial", "kpz-partial") and baseline in QUICK)
    return () if quick else (pytest.mark.slow,)


EVERY = [
    pytest.param(b, name, marks=_marks(b, name))
    for name in (f"{s}-{t}" for s in systems.names() for t in ("noisy", "partial"))
    for b in baselines.names()
]


@pytest.mark.parametrize(("baseline", "name"), EVERY)
def test_every_baseline_keeps_the_contract(data, baseline, name):
    task = tasks.get(name, "tiny")
    settings = small(baseline, name).overrides
    if "rows" in settings:
        settings["rows"] = 4000  # a map of 500 rows makes 8 σ of 10⁻¹⁴, and so of the rounding of another batch
    testing.check_baseline(baselines.get(baseline), task, data, **settings)


@pytest.mark.parametrize("name", ["lorenz63-partial", "lorenz96-partial", "kpz-partial"])
def test_persistence_keeps_the_last_observation_and_knows_nothing_of_the_rest(data, name):
    task = tasks.get(name, "tiny")
    context = dataset.load(task, data).contexts["test"][:4].clone()
    context[1, -3:] = float("nan")
    found = trained(small("persistence", name), data).forecast(context, 5, 3, torch.Generator())[0]
    assert torch.equal(found, found[:, :1].expand_as(found))
    last, seen = context[:, -1], ~torch.isnan(context[:, -1])
    assert torch.equal(found[:, 0][seen], last[seen])
    earlier = ~torch.isnan(context[1, -4])
    assert torch.equal(found[1, 0][earlier], context[1, -4][earlier])
    hidden = torch.isnan(context[0, -1])
    if hidden.any():
        fill = last[0].nanmean() if task.system.stochastic else torch.tensor(task.system.mean[0])
        assert found[0, 0][hidden].tolist() == pytest.approx([float(fill)] * int(hidden.sum()))


@pytest.mark.parametrize("name", ["lorenz63-noisy", pytest.param("lorenz96-partial", marks=pytest.mark.slow)])
def test_every_baseline_trains_through_its_job(data, tmp_path, name):
    for baseline in baselines.names():
        opened = folders.load(stages.train(small(baseline, name), data, tmp_path))
        assert opened.task.name == name
        context = dataset.load(opened.task, data).contexts["test"][:2]
        with torch.no_grad():
            assert (
                len(opened.emulator.forecast(context, 2, 3, torch.Generator())) == 1
            )  # one realisation can be followed
