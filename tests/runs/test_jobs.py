"""Jobs and their run folders: same job, same folder, same weights, same scores; and the contract of every baseline."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from functools import cache

import pytest
import torch

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, tasks
from emubench.emulator import Emulator, check_forecast, load_weights, n_parameters, save_weights, step_forecast
from emubench.files import run_files, schema
from emubench.learning.training.descent import Log
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from tests.support.contents import contents

SMALL = {"steps": 3, "batch": 4, "checks": 1, "polish": 50, "max_lead": 8, "members": 8, "pool": 32}
SMALL |= {"rounds": 1, "spin_up": 8, "half_widths": (4,), "twins": 2, "filtered": (2, 32)}
SMALL |= {"rows": 500, "width": 16, "size": 20, "driven": (2, 64)}
"""The least of everything: what is tested here does not depend on skill."""


def small(baseline: str, name: str, **more) -> Job:
    """A job of the smallest budget; what a task has no use for stays off."""
    defaults = dataclasses.asdict(Job(baseline, name, "tiny").config())
    known = {key for key, value in defaults.items() if value or key not in ("polish", "twins")}
    if name.startswith("kpz"):
        known = {key for key in known & SMALL.keys() if has_effect(baseline, name, key)}
    return Job(baseline, name, "tiny", overrides={k: v for k, v in SMALL.items() if k in known}, **more)


@cache
def has_effect(baseline: str, name: str, key: str) -> bool:
    """Whether the task takes the setting, instead of refusing it as one without effect."""
    try:
        Job(baseline, name, "tiny", overrides={key: SMALL[key]}).build()
    except EmubenchError as error:
        return "has no effect" not in str(error)
    return True


def trained(job: Job, data) -> torch.nn.Module:
    """What the job's training gives, without any folder."""
    module, observations = baselines.get(job.baseline), dataset.load(job.get_task(), data)
    torch.manual_seed(job.seed)
    emulator = module.build(job.get_task(), job.config())
    module.train(emulator, observations, job.config(), job.seed, Log())
    return emulator


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


# --- folders ----------------------------------------------------------------------------------------------------------

JOB = Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"steps": 20, "batch": 16})


def test_equal_jobs_have_equal_folders(tmp_path):
    again = Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"batch": 16, "steps": 20})
    assert JOB.folder(tmp_path) == again.folder(tmp_path)
    parts = JOB.folder(tmp_path).relative_to(tmp_path).parts
    assert parts == ("resnet_ode", "lorenz63-noisy", f"tiny-seed-0-{JOB.hash8()}")
    assert len(JOB.hash8()) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"size": "standard"},
        {"threads": 2},
        {"task": "lorenz63-clean"},
        {"baseline": "linear", "overrides": {}},
        {"overrides": {"steps": 21, "batch": 16}},
        {"overrides": {"steps": 20}},
        {"overrides": {}},
    ],
)
def test_another_job_has_another_folder(tmp_path, change):
    other = dataclasses.replace(JOB, **change)
    assert other.hash8() != JOB.hash8()
    assert other.folder(tmp_path) != JOB.folder(tmp_path)


def test_a_changed_default_gives_another_hash(monkeypatch):
    module, before = baselines.get("resnet_ode"), JOB.hash8()
    original = module.default_config
    monkeypatch.setattr(module, "default_config", lambda task: dataclasses.replace(original(task), width=7))
    assert JOB.hash8() != before


def test_a_finished_run_is_kept_as_it_is(data, tmp_path):
    job = small("linear", "lorenz63-noisy")
    folder = stages.train(job, data, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert stages.train(job, data, tmp_path) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    shutil.rmtree(folder)
    assert stages.train(job, data, tmp_path / "none there") != folder


def test_a_fit_that_breaks_down_is_one_line_and_leaves_nothing(data, tmp_path, monkeypatch):
    job = small("linear", "lorenz63-noisy")

    def singular(*_):
        torch.linalg.cholesky(-torch.eye(2))

    monkeypatch.setattr(baselines.get("linear"), "train", singular)
    with pytest.raises(EmubenchError) as error:
        stages.train(job, data, tmp_path)
    assert str(error.value).startswith("linear on lorenz63-noisy: with these settings the fit breaks down: ")
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_card_says_all_that_made_the_run(data, tmp_path):
    folder = stages.train(JOB, data, tmp_path)
    card = folders.read_card(folder)
    assert (card.baseline, card.task, card.size, card.seed) == ("resnet_ode", "lorenz63-noisy", "tiny", 0)
    assert card.config == json.loads(json.dumps(dataclasses.asdict(JOB.config())))
    assert card.config["steps"] == 20
    assert card.data_sha256 == dataset.load(JOB.get_task(), data).digest
    emulator, task = folders.load(folder)
    assert card.n_parameters == n_parameters(emulator) > 1000
    assert task == JOB.get_task()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(1, 21))
    assert all(row["validation"] > 0 for row in log)


def work(job: Job, data, out, barrier) -> None:
    torch.set_num_threads(1)
    publish = stages._publish

    def together(partial, folder) -> None:
        barrier.wait(60)
        publish(partial, folder)

    stages._publish = together
    stages.train(job, data, out)


def test_two_processes_at_the_same_job_leave_one_folder(data, tmp_path):
    fork = multiprocessing.get_context("fork")
    job, barrier = small("linear", "lorenz63-noisy"), fork.Barrier(2)
    both = [fork.Process(target=work, args=(job, data, tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    left = contents(tmp_path)
    assert sorted(left) == sorted(
        str((job.folder(tmp_path) / f).relative_to(tmp_path)) for f in ("card.json", "log.jsonl", "model.safetensors")
    )
    assert equal(folders.load(job.folder(tmp_path))[0], trained(job, data))


def test_runs_are_found_at_any_depth_and_half_made_ones_are_not(data, tmp_path):
    made = [stages.train(small("persistence", n), data, tmp_path) for n in ("lorenz63-noisy", "lorenz96-noisy")]
    hidden = made[0].with_name(".tiny-seed-0-1234abcd.99.partial")
    shutil.copytree(made[0], hidden)
    assert folders.find_runs([tmp_path]) == sorted(made)
    assert folders.find_runs([made[1], tmp_path, made[1]]) == sorted(made)
    for path in (hidden, tmp_path / "nothing"):
        with pytest.raises(EmubenchError, match="no runs here"):
            folders.find_runs([path])


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", [small("linear", "lorenz63-noisy"), small("climatology", "kpz-noisy")])
def test_scores_are_the_same_when_scored_again(data, tmp_path, job):
    folder = stages.train(job, data, tmp_path)
    first = stages.score(folder, data)
    stored = (folder / "scores.json").read_bytes()
    (folder / "scores.json").unlink()
    assert stages.score(folder, data) == first
    assert (folder / "scores.json").read_bytes() == stored
    assert schema.read_json(run_files.ScoreFile, folder / "scores.json") == first
    stages.score(folder, data, again=True)
    assert (folder / "scores.json").read_bytes() == stored


def test_scores_are_kept_only_for_the_truth_they_belong_to(data, own_data, tmp_path):
    folder = stages.train(small("persistence", "lorenz63-noisy"), data, tmp_path / "runs")
    first = stages.score(folder, data)
    written = (folder / "scores.json").stat().st_mtime_ns
    assert stages.score(folder, own_data) == first  # a copy of the same truth
    assert (folder / "scores.json").stat().st_mtime_ns == written
    generation.generate(tasks.get("lorenz63-noisy", "tiny"), tmp_path / "other", seed=5)
    other = stages.score(folder, tmp_path / "other")
    assert other.truth_sha256 != first.truth_sha256
    assert other.rows != first.rows
    assert stages.score(folder, data) == first


# --- weights ----------------------------------------------------------------------------------------------------------


def test_training_depends_on_the_seed_alone(data):
    first, again = trained(JOB, data), trained(JOB, data)
    assert equal(first, again)
    assert not equal(first, trained(dataclasses.replace(JOB, seed=1), data))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_holds_what_training_with_its_seed_gives(data, tmp_path, seed):
    job = dataclasses.replace(JOB, seed=seed)
    torch.manual_seed(99)  # what came before plays no part
    assert equal(folders.load(stages.train(job, data, tmp_path))[0], trained(job, data))


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


@pytest.fixture(scope="session")
def emulator_of(data):
    """A baseline trained with the smallest budget on a task."""
    made = {}

    def get(baseline: str, name: str):
        if (baseline, name) not in made:
            made[baseline, name] = trained(small(baseline, name), data)
        return made[baseline, name]

    return get


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
        emulator, task = folders.load(folder)
        assert task.name == name
        assert isinstance(emulator, Emulator)
