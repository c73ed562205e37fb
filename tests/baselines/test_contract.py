"""Every baseline keeps its contract and that of an emulator, and trains through its job."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from emubench import baselines, systems, testing
from emubench.data import dataset, tasks
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from emubench.testing.baselines import check_baseline_elsewhere
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
    testing.check_baseline(baselines.get(baseline), task, data, elsewhere=False, **settings)


LEAST = {"ridges": (1e-3,), "inflations": (1.05,), "horizon": 0.1, "degree": 2, "substeps": 1, "members": 6}
LEAST |= {"spin": 2, "iterations": 2, "checks": 1}
"""What keeps operators few: on the device of the test each costs a tenth of a millisecond."""
LONG = ("oracle", "weak_adversarial")
"""These take seconds all the same."""
ELSEWHERE = [pytest.param(b, "lorenz63-noisy", marks=pytest.mark.slow if b in LONG else ()) for b in baselines.names()]
GAPPY_CLOUDS = ("ot_regularized", ("lorenz96-partial", "kuramoto_sivashinsky-partial", "kpz-partial"))
"""How many points of a cloud were observed whole the host has to know before it draws some of them."""
ELSEWHERE += [
    pytest.param(b, f"{s}-{t}", marks=pytest.mark.slow)
    for s, t in (("lorenz63", "clean"), *((s, "partial") for s in systems.names()), ("kuramoto_sivashinsky", "noisy"))
    for b in baselines.names()
    if not (b == GAPPY_CLOUDS[0] and f"{s}-{t}" in GAPPY_CLOUDS[1])
]


@pytest.mark.parametrize(("baseline", "name"), ELSEWHERE)
def test_every_baseline_computes_where_it_is_told_and_keeps_no_host_waiting(data, baseline, name):
    task, settings = tasks.get(name, "tiny"), small(baseline, name).overrides
    if baseline == "oracle":  # whose settings are the system's own, unless they are given
        settings |= {"members": 6} | ({"window": 6} if task.system.name == "lorenz63" else {})
    if not task.system.growing:  # where most of these have no effect, and are refused
        known = dataclasses.asdict(Job(baseline, name, "tiny").config())
        settings |= {key: value for key, value in LEAST.items() if known.get(key)}
        if not known.get("assimilated", True):
            settings.pop("rounds", None)  # which need the filter
    check_baseline_elsewhere(baselines.get(baseline), dataset.load(task, data), **settings)


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
