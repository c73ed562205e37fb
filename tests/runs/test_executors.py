"""Processes that run the steps of a grid: a GPU belongs to one of them at a time."""

from __future__ import annotations

import dataclasses
import os
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import torch

from emubench.runs.grid import executors, plans, runner
from emubench.runs.grid.steps import Outcome, Step


def on_device(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """Holds what it sees as its device until every device was held once; fails where somebody else holds it."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    if step.resources:
        (data / f"held {device}").mkdir()
        (data / f"used {device}").touch()
        end = time.monotonic() + 60
        while len(list(data.glob("used *"))) < int((data / "devices").read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.02)
        (data / f"held {device}").rmdir()
    return Outcome(0.1, f"{device} {os.getpid()}")


@pytest.mark.parametrize("visible", ["3,5", "GPU-8932f937", ""])
@pytest.mark.usefixtures("labelled_steps")
def test_steps_that_ask_for_a_gpu_have_one_to_themselves(grid_file, tmp_path, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "devices").write_text(str(len(executors.devices())))
    made = [Step("train", f"train x {i}", "{}", (("GPU", 1.0),) if i % 2 else ()) for i in range(12)]
    plan, seen = plans.Plan(plans.read(grid_file), tuple(made), dict.fromkeys(made, ()), ()), {}
    note = runner.Execution.note

    def keep(run: runner.Execution, step: Step, outcome: Outcome) -> None:
        seen[step] = outcome.worker
        note(run, step, outcome)

    monkeypatch.setattr(runner.Execution, "note", keep)
    if not visible:
        plan = dataclasses.replace(plan, steps=plan.steps[::2], needs=dict.fromkeys(made[::2], ()))
    with executors.processes(2) as place:
        run = runner.execute(plan, place, tmp_path, tmp_path, 1, work=on_device)
    assert not run.failed, run.failed
    devices = {worker.split(" ")[0] for step, worker in seen.items() if step.resources}
    assert devices == {device for device in visible.split(",") if device}
    assert {worker.split(" ")[0] for step, worker in seen.items() if not step.resources} == {visible}


def test_a_device_is_free_again_when_its_process_has_died(tmp_path):
    with executors.Processes(2, ["3", "5"]) as pool:
        with pytest.raises(BrokenExecutor):
            pool.submit(os._exit, 1).result()
        assert {pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() for _ in range(8)} <= {"3", "5"}


@pytest.mark.parametrize(("visible", "found"), [("0,1", ["0", "1"]), (" 2 ,", ["2"]), ("", []), ("-1", [])])
def test_the_devices_are_those_that_are_visible(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert executors.devices() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert executors.devices() == ["0", "1", "2"]
