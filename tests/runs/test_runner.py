"""Grids: the same results however their steps are run, in one process or several, once or again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from emubench import baselines
from emubench.data import generation, tasks
from emubench.data.shards import Target
from emubench.files import store
from emubench.runs import stages
from emubench.runs.grid import executors, plans, runner, steps
from emubench.runs.grid.steps import Outcome, Step
from emubench.runs.jobs import Job
from tests.support.contents import contents
from tests.support.grids import GRID, chain, note, options, results

# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_data_have_the_bytes_that_generate_writes(whole_grid, tmp_path):
    for name in ("lorenz63-noisy", "lorenz96-noisy"):
        generation.generate(tasks.get(name, "tiny"), tmp_path)
    assert contents(whole_grid / "data") == contents(tmp_path)  # and there are no shards left


def test_the_runs_are_those_of_train_and_score(whole_grid, tmp_path):
    for job in plans.expand(whole_grid / "grid.toml", whole_grid / "data").jobs:
        if job.seed == 1:
            stages.score(stages.train(job, whole_grid / "data", tmp_path), whole_grid / "data")
    alone = results(tmp_path)
    assert len(alone) == 4 * 3
    assert alone.items() <= results(whole_grid / "runs").items()


@pytest.mark.slow
def test_two_processes_give_the_same_files(whole_grid, grid_file, tmp_path, emubench):
    command = ("run", grid_file, "--data", tmp_path / "data", "--out", tmp_path / "runs", "--workers", 2, "--json")
    finished = emubench(*command)
    assert finished.status == 0, finished
    told = json.loads(finished.out)
    assert told["failed"] == []
    assert {s: states["done"] for s, states in told["stages"].items()} == {
        "generate": 20,
        "train": 8,
        "score": 8,
    }
    assert len(told["runs"]) == 8
    assert contents(tmp_path / "data") == contents(whole_grid / "data")
    assert results(tmp_path / "runs") == results(whole_grid / "runs")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}
    assert emubench(*command).status == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")} == before


def test_only_what_is_missing_or_invalid_is_made_again(whole_grid, grid_copy, emubench):
    job = Job("climatology", "lorenz63-noisy", "tiny", seed=1)
    spoiled = Job("persistence", "lorenz96-noisy", "tiny").folder(grid_copy / "runs")
    shutil.rmtree(job.folder(grid_copy / "runs"))
    (spoiled / "scores.json").write_text('{"schema_version": 1}')
    before = {p: p.stat().st_mtime_ns for p in (grid_copy / "runs").rglob("*.json") if ".steps" not in str(p)}
    told = json.loads(emubench("status", *options(grid_copy), "--json").out)["stages"]
    assert (told["train"]["waiting"], told["score"]["waiting"], told["generate"]["waiting"]) == (1, 2, 0)
    assert emubench("run", *options(grid_copy)).status == 0
    assert results(grid_copy / "runs") == results(whole_grid / "runs")
    touched = {p.parent for p, then in before.items() if p.stat().st_mtime_ns != then}
    assert touched == {spoiled}


def test_status_shows_the_table_and_writes_nothing(grid_copy, emubench):
    before = contents(grid_copy)
    shown = emubench("status", *options(grid_copy))
    assert shown.status == 0
    assert shown.out.count("0:00:00") == 3
    assert "nobody at work" in shown.out
    assert contents(grid_copy) == before


def test_status_tells_who_is_at_work_and_shares_the_time_left_among_them(grid_file, tmp_path, emubench):
    plan = plans.expand(grid_file, tmp_path / "data")
    shard_steps = [step for step in plan.steps if step.kind == "shard"]
    records = [("done", "a:1", 8.0), ("running", "a:1", 0.0), ("running", "b:7", 0.0), ("running", "b:7", 0.0)]
    for step, (state, worker, seconds) in zip(shard_steps[:4], records, strict=True):
        record = steps.Record.model_validate({"state": state, "worker": worker, "seconds": seconds})
        store.write_text(steps.record_path(step, tmp_path / "runs"), record.model_dump_json())
    made = Target(tasks.get("lorenz63-clean", "tiny"), "truth", 0, tmp_path / "data")
    store.write_text(made.shard("train/truth", 0), "")
    told = json.loads(emubench("status", *options(tmp_path), "--json").out)
    assert (told["workers"], told["stages"]["generate"]["running"], told["stages"]["generate"]["done"]) == (2, 3, 1)
    run = runner.look(plan, tmp_path / "data", tmp_path / "runs")
    run.seconds["merge", ""].append(0.0)
    left = 8.0 * (len(shard_steps) - 1)
    assert run.left()["generate"] == left
    table = runner.table(run)
    assert table.title == "2 workers"
    assert f"0:{int(left / 2) // 60:02}:{int(left / 2) % 60:02}" in list(table.columns[-1].cells)


def test_runs_of_other_data_are_refused_by_name(grid_copy, emubench):
    shutil.rmtree(grid_copy / "data")
    generation.generate(tasks.get("lorenz63-noisy", "tiny"), grid_copy / "data", seed=5)
    finished = emubench("run", *options(grid_copy))
    assert finished.status == 1
    assert "failed: train persistence lorenz63-noisy tiny seed 0: " in finished.err
    assert "was trained on other data than" in finished.err


@pytest.mark.slow
def test_a_job_that_fails_is_named_with_its_log_and_the_others_go_on(whole_grid, tmp_path, monkeypatch, emubench):
    shutil.copytree(whole_grid / "data", tmp_path / "data")
    shutil.copy(whole_grid / "grid.toml", tmp_path)
    module, calls = baselines.get("climatology"), []

    def fail(emulator, data, config, seed, log) -> None:
        calls.append(seed)
        raise ValueError("no\nsecond line")

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", fail)
        finished = emubench("run", *options(tmp_path))
        assert sorted(calls) == [0, 0, 1, 1]  # none was tried twice
        with pytest.raises(ValueError, match="no"):
            emubench("--debug", "run", *options(tmp_path))
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 5
    assert (
        lines[-1]
        == "emubench: 4 of 36 steps failed and 4 that need them were not run; the same command tries these again"
    )
    assert lines[0].startswith("failed: train climatology lorenz63-noisy tiny seed 0: ValueError: no (on ")
    log = Path(lines[0].rpartition("log: ")[2].removesuffix(")"))
    assert "Traceback" in log.read_text()
    assert "second line" in log.read_text()
    told = json.loads(emubench("status", *options(tmp_path), "--json").out)
    assert told["stages"]["train"] == {"done": 4, "running": 0, "waiting": 0, "failed": 4, "not run": 0}
    assert told["stages"]["score"] == {"done": 4, "running": 0, "waiting": 0, "failed": 0, "not run": 4}
    assert told["failed"][0]["error"] == "ValueError: no"
    assert emubench("run", *options(tmp_path)).status == 0  # mended, the same command does the rest
    assert results(tmp_path / "runs") == results(whole_grid / "runs")
    assert not list((tmp_path / "runs" / ".steps").glob("*.log"))


def test_a_full_disk_is_a_failure_that_names_the_file(whole_grid, tmp_path, monkeypatch, emubench):
    shutil.copytree(whole_grid / "data", tmp_path / "data")
    shutil.copy(whole_grid / "grid.toml", tmp_path)
    calls = []

    def full(emulator, path) -> str:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return original(emulator, path)

    original = stages.save_weights
    monkeypatch.setattr(stages, "save_weights", full)
    finished = emubench("run", *options(tmp_path))
    assert finished.status == 1
    assert "cannot be written (No space left on device); nothing was left behind (on " in finished.err
    assert "1 of 36 steps failed and 1 that need them" in finished.err
    assert emubench("run", *options(tmp_path)).status == 0
    assert results(tmp_path / "runs") == results(whole_grid / "runs")


# --- the loop --------------------------------------------------------------------------------------------------------


def killed(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """Dies the first time it is called for step 1, always for step 2."""
    first = data / f"begun {step.label}"
    again = first.exists()
    first.touch()
    if step.label == "train x 2" or (step.label == "train x 1" and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    return note(step, data, out, threads, debug)


@pytest.mark.usefixtures("labelled_steps")
@pytest.mark.parametrize("n", [1, 2])
def test_each_step_runs_once_after_what_it_needs(grid_file, tmp_path, n):
    with executors.processes(n) if n > 1 else executors.in_process() as place:
        run = runner.execute(chain(10, grid_file), place, tmp_path, tmp_path, 1, work=note)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 20
    assert set(run.state.values()) == {"done"}
    assert run.left() == {"generate": 0.0, "train": 0.0, "score": 0.0}


@pytest.mark.usefixtures("labelled_steps")
def test_a_killed_process_costs_its_step_a_second_try_and_a_deadly_step_is_named(grid_file, tmp_path):
    with executors.processes(2) as place:
        run = runner.execute(chain(6, grid_file), place, tmp_path, tmp_path, 1, work=killed)
    states = {step.label: state for step, state in run.state.items()}
    assert states.pop("train x 2") == "failed"
    assert states.pop("score x 2") == "not run"
    assert set(states.values()) == {"done"}
    (outcome,) = run.failed.values()
    assert "4 worker processes died at it" in outcome.error


@pytest.mark.usefixtures("labelled_steps")
def test_a_terminal_shows_the_table_while_the_grid_runs_and_a_pipe_does_not(grid_file, tmp_path, monkeypatch, capsys):
    seen = []

    def work(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
        outcome = note(step, data, out, threads, debug)
        seen.append(capsys.readouterr().err)
        return outcome

    def go(folder: str) -> str:
        (tmp_path / folder).mkdir()
        with executors.in_process() as place, runner.live() as watch:
            runner.execute(chain(3, grid_file), place, tmp_path / folder, tmp_path / folder, 1, watch, work=work)
        return capsys.readouterr().err

    assert go("pipe") == ""
    assert set(seen) == {""}
    seen.clear()
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    end = go("terminal")
    assert all(word in seen[0] for word in ("1 worker", "stage", "train", "time left", "?"))
    assert end.count("0:00:00") >= 3


@pytest.mark.usefixtures("labelled_steps")
def test_time_left_follows_the_mean_of_like_steps(grid_file, tmp_path):
    plan = chain(4, grid_file)
    run = runner.look(plan, tmp_path, tmp_path)
    assert run.left() == {"generate": 0.0, "train": None, "score": None}
    run.note(plan.steps[0], Outcome(3.0, ""))
    run.note(plan.steps[2], Outcome(5.0, ""))
    assert run.left() == {"generate": 0.0, "train": 8.0, "score": None}
    assert "0:00:08" in str(list(runner.table(run).columns[-1].cells))


def test_an_interrupted_step_is_not_running_any_more(grid_file, tmp_path, monkeypatch):
    plan = plans.expand(grid_file, tmp_path)

    def interrupted(*_) -> None:
        assert runner.look(plan, tmp_path, tmp_path).state[plan.steps[0]] == "running"
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "_make", interrupted)
    with executors.in_process() as place, pytest.raises(KeyboardInterrupt):
        runner.execute(plan, place, tmp_path, tmp_path, 1)
    assert set(runner.look(plan, tmp_path, tmp_path).state.values()) == {"waiting"}


def client(file: Path, folder: Path, barrier) -> None:
    torch.set_num_threads(1)
    plan = plans.expand(file, folder / "data")
    barrier.wait(60)
    with executors.in_process() as place:
        run = runner.execute(plan, place, folder / "data", folder / "runs", 1)
    assert set(run.state.values()) == {"done"}, run.failed


def test_two_clients_run_one_grid_at_once(whole_grid, grid_file, tmp_path):
    """Both may work at a step; the first result stands, and nothing is left of the other."""
    grid_file.write_text(GRID.replace(', "lorenz96-noisy"', ""))
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)
    both = [fork.Process(target=client, args=(grid_file, tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    made, alone = contents(tmp_path / "data"), contents(whole_grid / "data")
    assert made == {name: digest for name, digest in alone.items() if "lorenz63" in name}
    wanted = {name: digest for name, digest in results(whole_grid / "runs").items() if "lorenz63" in name}
    assert results(tmp_path / "runs") == wanted
    assert len(wanted) == 4 * 3
    assert not list((tmp_path / "runs").rglob("*.partial"))
