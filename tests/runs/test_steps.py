"""One step of a grid: what it says of itself, with what it is run, and where it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import pytest
import torch

from emubench.runs.grid import plans, runner, steps

# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_step_is_small_hashable_and_says_all(grid_file, tmp_path):
    plan = plans.expand(grid_file, tmp_path)
    for step in plan.steps:
        assert len(step.content) < 600
        assert hash(step) == hash(dataclasses.replace(step))
        assert step.values["version"]
    assert plans.expand(grid_file, tmp_path).steps == plan.steps


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_declared_threads_are_those_of_torch_and_numba(grid_file, tmp_path, monkeypatch):
    import numba

    plan, seen = plans.expand(grid_file, tmp_path, threads=2), []
    step = next(step for step in plan.steps if step.kind == "train")
    monkeypatch.setattr(steps, "_inputs", lambda *_: iter(()))  # there are no data
    monkeypatch.setattr(steps, "_make", lambda *_: seen.append((torch.get_num_threads(), numba.get_num_threads())))
    for n in (2, 1):
        assert not steps.run(step, tmp_path, tmp_path, n).error
    torch.set_num_threads(1)
    assert seen == [(2, min(2, numba.config.NUMBA_NUM_THREADS)), (1, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("key", "answer"), [("version", "this worker runs emubench"), ("hash8", "another baselines/")])
def test_a_worker_of_another_version_refuses(grid_file, tmp_path, key, answer):
    plan = plans.expand(grid_file, tmp_path)
    step = next(step for step in plan.steps if step.kind == "train")
    other = dataclasses.replace(step, content=json.dumps({**step.values, key: "0.0.0"}))
    assert answer in steps.run(other, tmp_path, tmp_path).error


def test_a_step_without_its_files_says_so(grid_file, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "LATE", 0.0)
    train = next(step for step in plans.expand(grid_file, tmp_path).steps if step.kind == "train")
    assert "do all workers see the same folders?" in steps.run(train, tmp_path, tmp_path).error


def test_a_step_is_running_while_it_gives_signs_of_life(grid_file, tmp_path, monkeypatch):
    plan = plans.expand(grid_file, tmp_path)
    step, states = plan.steps[0], []

    def look(*_) -> None:
        path = steps.record_path(step, tmp_path)
        os.utime(path, (0, 0))
        states.append(runner.look(plan, tmp_path, tmp_path).state[step])  # as after a kill
        while path.stat().st_mtime == 0:
            time.sleep(0.01)
        states.append(runner.look(plan, tmp_path, tmp_path).state[step])

    monkeypatch.setattr(steps, "BEAT", 0.2)
    monkeypatch.setattr(steps, "_make", look)
    assert not steps.run(step, tmp_path, tmp_path).error
    assert states == ["waiting", "running"]
