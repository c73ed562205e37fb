"""Settings of every baseline: what can't be is refused in one line that names it, before anything is trained."""

import dataclasses
import math

import pytest

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.runs import jobs

EMPTY_IS_NONE = {("polynomial", "reach"), ("weak_adversarial", "space")}
"""Settings whose empty tuple means something."""
OWN_SETTING = {("oracle", "radius"), ("oracle", "rotate"), ("oracle", "window")}
"""Settings whose −1 does."""
BASELINES = [name for name in baselines.names() if name != "persistence"]


def wrong(value, baseline: str, name: str) -> list:
    """Values that no number of a configuration may have."""
    numbers = [math.nan, -2 if (baseline, name) in OWN_SETTING else -1]
    if not isinstance(value, tuple):
        return numbers
    several = [(number,) * max(2, len(value)) for number in numbers]
    return several if (baseline, name) in EMPTY_IS_NONE else [(), *several]


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-clean", "kpz-partial"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_numbers_out_of_range_are_refused_by_name(baseline, name):
    config = jobs.Job(baseline, name, "tiny").config()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool | str):
            continue
        for bad in wrong(value, baseline, field.name):
            with pytest.raises(EmubenchError) as error:
                dataclasses.replace(config, **{field.name: bad})
            assert field.name in str(error.value)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("baseline", ["resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial"])
@pytest.mark.parametrize(
    ("name", "setting", "answer"),
    [
        ("lorenz63-clean", {"assimilated": True}, "assimilated: true on lorenz63-clean, whose samples have no noise"),
        ("lorenz63-noisy", {"localisation": 2.0}, "localisation: 2.0 on lorenz63-noisy, which has no ring of sites"),
        ("lorenz96-clean", {"latent": 2}, "latent: 2 on lorenz96-clean, a ring of sites: 0 belongs"),
        ("kpz-clean", {"radius": 0}, "radius: 0 where at least 1 belongs"),
    ],
)
def test_settings_that_a_task_has_no_use_for_are_refused(baseline, name, setting, answer):
    task = tasks.get(name, "tiny")
    module = baselines.get(baseline)
    with pytest.raises(EmubenchError) as error:
        module.build(task, dataclasses.replace(jobs.Job(baseline, name, "tiny").config(), **setting))
    assert str(error.value).startswith(answer)


@pytest.mark.parametrize(
    ("baseline", "name", "setting", "answer"),
    [
        ("resnet_ode", "lorenz63-noisy", {"polish": 50}, "polish: 50 has no effect on lorenz63-noisy, whose data are"),
        ("weak_adversarial", "lorenz96-noisy", {"unroll": 9}, "unroll: 9 has no effect where a weak form takes the"),
        ("weak_adversarial", "lorenz63-noisy", {"window": 9}, "window: 9 has no effect where a weak form takes the"),
        (
            "weak_adversarial",
            "kpz-noisy",
            {"rounds": 3},
            "rounds: 3 has no effect on kpz-noisy, whose weak form is one",
        ),
        ("polynomial", "kpz-noisy", {"degree": 5}, "degree: 5 has no effect on kpz-noisy: leave it at 3"),
        ("random_features", "kpz-clean", {"training_noises": (3.0,)}, "training_noises: (3.0,) has no effect on kpz-"),
        ("weak_sindy", "kpz-partial", {"radius": 1}, "radius: 1 has no effect on kpz-partial: leave it at 2"),
        ("oracle", "kpz-noisy", {"members": 1}, "members: 1 where at least 2 belong, or 0 for the system's own number"),
        ("oracle", "kpz-noisy", {"window": 4}, "window: 4 on kpz-noisy, whose trajectories noise drives: 0 belongs"),
        ("ot_regularized", "lorenz96-noisy", {"field_blur": 0.01}, "field_blur: 0.01, whose square is ε: eps: 0.0001"),
        *(
            (
                name,
                "kpz-noisy",
                {"assimilated": True},
                "assimilated: true on kpz-noisy, where an encoder gives the start",
            )
            for name in ("resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial", "fourier_operator")
        ),
    ],
)
def test_settings_without_effect_are_refused_by_name(baseline, name, setting, answer):
    job = jobs.Job(baseline, name, "tiny", overrides=setting)
    with pytest.raises(EmubenchError) as error:
        job.build()
    assert str(error.value).startswith(answer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "setting", "answer"),
    [
        ("lorenz96-partial", {"smoothing": 0}, "smoothing: 0 on lorenz96-partial, whose data have gaps"),
        ("lorenz96-partial", {"twins": 8}, "twins: 8 on lorenz96-partial, whose data have gaps: 0 belongs"),
        ("lorenz96-clean", {"rounds": 2}, "rounds: 2 need the filter: --set assimilated=true, or rounds=0"),
    ],
)
def test_the_weak_form_is_told_what_its_data_allow(name, setting, answer):
    config = dataclasses.replace(jobs.Job("weak_adversarial", name, "tiny").config(), **setting)
    with pytest.raises(EmubenchError) as error:
        baselines.get("weak_adversarial").build(tasks.get(name, "tiny"), config)
    assert str(error.value).startswith(answer)


@pytest.mark.parametrize(
    ("baseline", "name"),
    [(name, "localisation") for name in ("polynomial", "random_features", "weak_sindy")] + [("oracle", "radius")],
)
def test_covariances_are_localised_on_rings_only(baseline, name):
    task = tasks.get("lorenz63-partial", "tiny")
    config = dataclasses.replace(jobs.Job(baseline, task.name, "tiny").config(), **{name: 2.0})
    with pytest.raises(EmubenchError, match=f"{name}: 2.0 on lorenz63-partial, which has no ring of sites"):
        baselines.get(baseline).build(task, config)


@pytest.mark.parametrize("n_sites", [5, 7, 65])
@pytest.mark.parametrize("system", ["lorenz96", "kpz", "kuramoto_sivashinsky"])
def test_defaults_of_every_baseline_fit_small_and_odd_rings(system, n_sites):
    length = {"length": 9.0} if system == "kuramoto_sivashinsky" else {}
    ring = systems.get(system, n_sites=n_sites, climate=systems.get(system).climate, **length)
    task = dataclasses.replace(tasks.make(ring, "noisy", "tiny"), name="small", custom=True)
    for name in baselines.names():
        module = baselines.get(name)
        jobs.build_emulator(module, task, jobs.defaults_of(module, task))


@pytest.mark.parametrize("task", [tasks.get(name) for name in tasks.names()], ids=lambda task: task.name)
def test_defaults_of_the_sixteen_tasks_are_those_of_the_baselines(task):
    for module in map(baselines.get, baselines.names()):
        own = module.default_config(task) if hasattr(module, "default_config") else module.Config()
        assert jobs.defaults_of(module, task) == own
