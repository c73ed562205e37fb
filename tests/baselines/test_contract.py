"""Every baseline keeps the contract of an emulator, trains through its job, and is the same after it was saved."""

from __future__ import annotations

import pytest
import torch

from emubench import baselines, systems
from emubench.data import dataset, tasks
from emubench.emulator import Emulator, check_forecast, load_weights, save_weights, step_forecast
from emubench.runs import folders, stages
from tests.support.small_jobs import equal, small

# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", baselines.names())
@pytest.mark.parametrize("name", ["lorenz63-partial", "kpz-noisy"])
def test_a_loaded_run_forecasts_like_the_emulator_that_was_saved(data, tmp_path, emulator_of, baseline, name):
    emulator = emulator_of(baseline, name)
    job = small(baseline, name)
    save_weights(emulator, tmp_path / "model.safetensors")
    fresh = baselines.get(baseline).build(job.get_task(), job.config())
    load_weights(fresh, tmp_path / "model.safetensors")
    assert equal(emulator, fresh)
    context = dataset.load(job.get_task(), data).contexts["test"][:2]
    with torch.no_grad():
        forecasts = [e.forecast(context, 4, 2, torch.Generator().manual_seed(1)) for e in (emulator, fresh)]
    assert torch.equal(*forecasts)


# --- every baseline ---------------------------------------------------------------------------------------------------


QUICK = ("lorenz63-partial", "kpz-noisy")
"""The other tasks take minutes, and are slow tests."""
EVERY = [
    pytest.param(b, name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (f"{s}-{t}" for s in systems.names() for t in ("noisy", "partial"))
    for b in baselines.names()
]
N_STEPS, N_MEMBERS = 5, 3


def forecast(emulator, context: torch.Tensor, n_steps: int = N_STEPS, seed: int = 0) -> torch.Tensor:
    with torch.no_grad():
        return emulator.forecast(context.clone(), n_steps, N_MEMBERS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("baseline", "name"), EVERY)
def test_every_baseline_keeps_the_contract_of_an_emulator(data, emulator_of, baseline, name):
    emulator, task = emulator_of(baseline, name), tasks.get(name, "tiny")
    assert isinstance(emulator, Emulator)
    assert baselines.get(baseline).knowledge in ("none", "structure", "equation form", "equation")
    contexts = dataset.load(task, data).contexts["test"]
    context = contexts[:2]
    before = context.clone()
    found = forecast(emulator, context)
    check_forecast(found, context, N_STEPS, N_MEMBERS)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(context, before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found, forecast(emulator, context)), "equal generators give different forecasts"
    std = float(torch.from_numpy(task.observation.select(task.system.std)).mean())
    tolerance = {"rtol": 0, "atol": 1e-4 * std}
    # the cases of a batch do not know of each other
    others = torch.cat([context[:1], contexts[9:10]])
    torch.testing.assert_close(forecast(emulator, others)[:, 0], found[:, 0], **tolerance)
    if not task.system.stochastic:
        assert len(found) == 1
        longer = forecast(emulator, context, 2 * N_STEPS)
        torch.testing.assert_close(longer[:, :, :N_STEPS], found, **tolerance)  # the future does not change the past
    elif len(found) > 1:
        assert (found.std(0) > 0).all(), "members are alike"
        assert not torch.equal(found, forecast(emulator, context, seed=1)), "the generator makes no difference"
    if hasattr(emulator, "step"):
        with torch.no_grad():
            stepped = step_forecast(emulator, context, N_STEPS, N_MEMBERS, torch.Generator().manual_seed(0))
        torch.testing.assert_close(stepped, found, **tolerance)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-partial", "kpz-partial"])
@pytest.mark.parametrize("baseline", baselines.names())
def test_every_baseline_takes_a_context_that_shows_next_to_nothing(data, emulator_of, baseline, name):
    task = tasks.get(name, "tiny")
    context = dataset.load(task, data).contexts["test"][:2].clone()
    seen = int((~torch.isnan(context[0, -1])).nonzero()[0])
    hidden = torch.arange(context.shape[-1]) != seen
    context[0, :, hidden] = float("nan")  # one component alone
    context[0, :-2] = float("nan")  # in the last two samples
    found = forecast(emulator_of(baseline, name), context)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 100 * task.system.std.max()


@pytest.mark.parametrize("name", ["lorenz63-partial", "lorenz96-partial", "kpz-partial"])
def test_persistence_keeps_the_last_observation_and_knows_nothing_of_the_rest(data, emulator_of, name):
    task = tasks.get(name, "tiny")
    context = dataset.load(task, data).contexts["test"][:4].clone()
    context[1, -3:] = float("nan")
    found = forecast(emulator_of("persistence", name), context)[0]
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
        folder = stages.train(small(baseline, name), data, tmp_path)
        opened = folders.load(folder)
        emulator, task = opened.emulator, opened.task
        assert task.name == name
        assert isinstance(emulator, Emulator)
