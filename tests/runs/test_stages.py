"""Training and scoring a job: what a folder holds, that it is kept, and that the same comes out again."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil

import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, tasks
from emubench.emulator import n_parameters
from emubench.files import run_files, schema
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from tests.support.contents import contents
from tests.support.small_jobs import JOB, equal, small, trained

# --- folders ----------------------------------------------------------------------------------------------------------


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
    opened = folders.load(folder)
    emulator, task = opened.emulator, opened.task
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
    assert equal(folders.load(job.folder(tmp_path)).emulator, trained(job, data))


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job", [small("linear", "lorenz63-noisy"), pytest.param(small("climatology", "kpz-noisy"), marks=pytest.mark.slow)]
)
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
    assert equal(folders.load(stages.train(job, data, tmp_path)).emulator, trained(job, data))


# --- devices ----------------------------------------------------------------------------------------------------------


def test_a_run_says_where_it_was_trained_and_is_scored_anywhere(data, tmp_path):
    job = small("resnet_ode", "lorenz63-noisy")
    here = stages.train(job, data, tmp_path / "here")
    there = stages.train(dataclasses.replace(job, device="cpu:0"), data, tmp_path / "there")
    assert there.name == here.name  # of one kind
    assert (folders.read_card(here).device, folders.read_card(there).device) == ("cpu", "cpu:0")
    assert (here / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
    assert stages.score(there, data) == stages.score(here, data, device="cpu:0")
    assert json.loads((here / "timing.json").read_text())["device"] == "cpu:0"


def test_a_device_that_is_not_there_is_one_line_and_nothing_begins(data, tmp_path):
    job = dataclasses.replace(small("linear", "lorenz63-noisy"), device="cuda:77")
    with pytest.raises(EmubenchError, match="--device cuda:77: cannot be used here .*; this machine has .*cpu$"):
        stages.train(job, data, tmp_path)
    assert not list(tmp_path.iterdir())
    run = stages.train(small("persistence", "lorenz63-noisy"), data, tmp_path)
    with pytest.raises(EmubenchError, match="--device cuda:77: cannot be used here"):
        stages.score(run, data, device="cuda:77")


def test_a_training_that_does_not_fit_in_memory_is_one_line(data, tmp_path, monkeypatch):
    def greedy(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(baselines.get("resnet_ode"), "train", greedy)
    with pytest.raises(
        EmubenchError, match="resnet_ode on lorenz63-noisy: batches of 4 do not fit in the memory of cpu"
    ):
        stages.train(small("resnet_ode", "lorenz63-noisy"), data, tmp_path)
