"""Little data: every baseline trains on the least that it names, and says in one line that less is too little."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.data.tasks import Amount
from emubench.runs import jobs
from tests.support.small_jobs import SMALL, has_effect

BUDGET = SMALL.keys() - {"half_widths", "filtered", "driven", "max_lead", "spin_up"}
"""Settings that say how much is computed, and not of how many samples."""
NAMES = [f"{system}-{track}" for system in systems.names() for track in ("clean", "noisy", "partial")]
QUICK = ("linear", "polynomial", "random_features", "reservoir")
LEARN_FROM_12 = ("climatology", "linear", "oracle", "parroting", "persistence")


def marks(baseline: str, name: str) -> tuple:
    return () if name == "lorenz63-noisy" and baseline in QUICK else (pytest.mark.slow,)


EVERY = [pytest.param(b, name, marks=marks(b, name)) for name in NAMES for b in baselines.names()]


def shortened(seen, train: int, validation: int):
    """One trajectory of so many samples for training, and one for validation."""
    task = dataclasses.replace(seen.task, train=Amount(1, train), validation=Amount(1, validation))
    parts = {"train": seen.train[:1, :train], "validation": seen.validation[:1, :validation]}
    return dataclasses.replace(seen, task=task, **parts)


def config_of(module, task):
    """The default settings at the smallest budget."""
    defaults, baseline = jobs.defaults_of(module, task), jobs.name_of(module)
    given = {key: value for key, value in dataclasses.asdict(defaults).items() if value and key in BUDGET}
    if task.system.growing:
        given = {key: value for key, value in given.items() if has_effect(baseline, task.name, key)}
    return jobs.configured(defaults, {key: SMALL[key] for key in given}, baseline, "")


def fitted(module, seen) -> bool:
    """Whether what is learned of the data is finite, and its forecasts are, or are said to run away."""
    emulator = jobs.fit(module, seen.task, config_of(module, seen.task), seen)
    with torch.no_grad():
        forecast = emulator.forecast(seen.contexts["test"][:2], 3, 2, torch.Generator().manual_seed(0))
    assert forecast.shape[1:] == (2, 3, *seen.task.shape)
    assert torch.isfinite(forecast).all() or "ran away" in jobs.look(module, emulator, seen)
    return all(bool(torch.isfinite(values).all()) for values in emulator.state_dict().values())


@pytest.mark.parametrize(("baseline", "name"), EVERY)
def test_data_of_the_least_length_are_learned_from_and_shorter_ones_refused(data, baseline, name):
    module, task = baselines.get(baseline), tasks.get(name, "tiny")
    seen, config = dataset.load(task, data), config_of(baselines.get(baseline), task)
    least = module.least(task, config) if hasattr(module, "least") else (1, 1)
    train, validation = (max(n, tasks.LEAST_LENGTH) for n in least)
    assert fitted(module, shortened(seen, train, validation))
    for split, n, short in (("training", train, (train - 1, 256)), ("validation", validation, (256, validation - 1))):
        if n > tasks.LEAST_LENGTH:
            what = f"^{baseline} on {name}: {split} trajectories of {n - 1} samples, where at least {n} belong"
            with pytest.raises(EmubenchError, match=what):
                fitted(module, shortened(seen, *short))


@pytest.mark.parametrize("baseline", baselines.names())
def test_data_of_12_samples_are_learned_from_or_refused_in_one_line(data, baseline):
    seen = dataset.load(tasks.get("lorenz63-partial", "tiny"), data)
    refusing = pytest.raises(EmubenchError, match="training trajectories of 12 samples, where at least ")
    with contextlib.nullcontext() if baseline in LEARN_FROM_12 else refusing:
        assert fitted(baselines.get(baseline), shortened(seen, 12, 256))


@pytest.mark.parametrize("baseline", ["resnet_ode", "ot_regularized", "neural_ode", "fourier_operator"])
def test_data_of_which_nothing_is_observed_are_refused(data, baseline):
    seen = dataset.load(tasks.get("lorenz96-partial", "tiny"), data)
    blank = dataclasses.replace(seen, train=torch.full_like(seen.train, float("nan")))
    with pytest.raises(EmubenchError, match="too little is observed: no window of "):
        fitted(baselines.get(baseline), blank)


@pytest.mark.parametrize("length", [0, 1])
def test_data_without_a_sample_and_the_next_are_refused_where_they_are_asked_for(refused, tmp_path, length):
    options = ("--size", "tiny", "--trajectories", 1, "--length", length, "--data", tmp_path)
    said = refused("generate", "lorenz63-noisy", *options)
    assert f"length {length} of trajectories, where 2 to 1000000000 belong" in said
    recipe = tmp_path / "short.toml"
    amounts = f"train = {{ trajectories = 1, length = {length} }}"
    recipe.write_text(f'track = "noisy"\n[system]\nname = "lorenz63"\n[amounts]\n{amounts}\n')
    assert "amounts.train.length" in refused("generate", recipe, "--data", tmp_path)
