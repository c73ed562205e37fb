"""The log of a training: lines that are JSON, and the same figures in TensorBoard's event files, each of them once."""

from __future__ import annotations

import json
import math
import socket
import sys

import pytest
import torch

from emubench import baselines
from emubench.learning.training.checkpoint import Checkpoints
from emubench.learning.training.logs import EVENTS, Log
from emubench.runs import stages
from emubench.runs.jobs import Job
from tests.support.contents import contents

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

SMALL = {"steps": 8, "checks": 4, "batch": 8, "width": 8}
ONE = Job("resnet_ode", "lorenz63-noisy", "tiny", overrides=SMALL)
TWO = Job("neural_ode", "lorenz63-clean", "tiny", overrides=SMALL | {"polish": 150})
"""Descent and polish: two stages."""


def parsed(folder) -> list[dict]:
    """The rows of a log; what isn't JSON, such as NaN, is refused."""

    def refuse(name: str):
        raise ValueError(name)

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def points(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard finds in a folder: step and value of the points of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def curves(rows: list[dict], *lengths: int) -> dict[str, list[tuple[int, float]]]:
    """The same from the rows of a log, whose stages have so many of them; as close as single precision."""
    found, stages = {}, [stage for stage, n in enumerate(lengths, 1) for _ in range(n)]
    for stage, row in zip(stages, rows, strict=True):
        for name in row.keys() - {"step", "seconds"}:
            found.setdefault(f"stage-{stage}/{name}", []).append((row["step"], pytest.approx(row[name], rel=1e-6)))
    return found


def interrupt_at(at: int):
    """A progress bar that is interrupted when it is moved for the ``at``-th time."""
    moves = iter(range(1, at))

    def progress(done: int, total: int) -> None:
        if next(moves, None) is None:
            raise KeyboardInterrupt

    return progress


# --- event files ------------------------------------------------------------------------------------------------------


def test_events_are_off_unless_asked_for_and_change_nothing_else(emubench, data, tmp_path):
    command = ("train", "resnet_ode", "lorenz63-noisy", "--size", "tiny", "--data", data)
    command += tuple(word for key, value in SMALL.items() for word in ("--set", f"{key}={value}"))
    plain, run = stages.train(ONE, data, tmp_path / "plain"), ONE.folder(tmp_path / "runs")
    finished = emubench(*command, "--out", tmp_path / "runs", "--tensorboard")
    assert finished.status == 0, finished.err
    assert [p.name for p in run.parent.iterdir()] == [plain.name], "the hash depends on it"
    assert sorted(p.name for p in plain.iterdir()) == ["card.json", "log.jsonl", "model.safetensors"]
    (events,) = run.glob(EVENTS)
    assert contents(run).keys() == contents(plain).keys() | {events.name}
    assert contents(run)["model.safetensors"] == contents(plain)["model.safetensors"]
    assert points(run) == curves(parsed(run), 4)


def test_each_stage_has_its_own_curves(data, tmp_path):
    run = stages.train(TWO, data, tmp_path, tensorboard=True)
    found = points(run)
    assert found == curves(parsed(run), 4, 3)
    assert sorted(found) == ["stage-1/loss", "stage-1/validation", "stage-2/loss", "stage-2/validation"]
    assert [step for step, _ in found["stage-1/loss"]] == [2, 4, 6, 8]
    assert [step for step, _ in found["stage-2/loss"]] == [50, 100, 150]


def test_rows_before_any_stage_have_no_prefix(tmp_path):
    log = Log(tmp_path / "log.jsonl", tensorboard=True)
    for done, error in enumerate((3.0, 2.0), 1):
        log(done, 2, validation=error)
    log.stage()
    log(1, 1, validation=0.5)
    log.close()
    assert points(tmp_path) == {"validation": [(1, 3.0), (2, 2.0)], "stage-1/validation": [(1, 0.5)]}


@pytest.mark.parametrize("cut", [3, 6])
def test_a_resumed_training_shows_every_point_once(data, tmp_path, cut):
    with pytest.raises(KeyboardInterrupt):
        stages.train(TWO, data, tmp_path, interrupt_at(cut), tensorboard=True)
    assert not list(tmp_path.rglob(EVENTS))
    run = stages.train(TWO, data, tmp_path, tensorboard=True)
    assert points(run) == curves(parsed(run), 4, 3)


def test_what_an_attempt_has_left_is_removed_when_the_log_is_opened(data, tmp_path):
    for value in (1.0, 2.0):
        log = Log(tmp_path / "log.jsonl", tensorboard=True)
        log(1, 1, loss=value)
        log.close()
    assert points(tmp_path) == {"loss": [(1, 2.0)]}
    killed = ONE.folder(tmp_path).with_name(f".{ONE.folder(tmp_path).name}.{socket.gethostname()}-{2**30}.partial")
    killed.mkdir(parents=True)
    (killed / EVENTS.replace("*", "0")).touch()
    assert stages.train(ONE, data, tmp_path, tensorboard=True).is_dir()
    assert not killed.exists()


def test_a_missing_package_is_one_line_before_anything_begins(refused, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(baselines.get("linear"), "train", lambda *_: pytest.fail("it was trained"))
    command = ("train", "linear", "lorenz63-noisy", "--size", "tiny", "--data", data, "--out", tmp_path / "runs")
    line = refused(*command, "--tensorboard")
    assert line == "emubench: tensorboard is not installed; install it with: pip install 'emubench[tensorboard]'"
    assert not (tmp_path / "runs").exists()


# --- figures that are not finite --------------------------------------------------------------------------------------


def test_a_figure_that_is_not_finite_is_null_in_the_log_alone(tmp_path):
    log = Log(tmp_path / "log.jsonl", tensorboard=True)
    log(1, 2, loss=math.nan, validation=math.inf)
    log(2, 2, loss=-math.inf, validation=1.5)
    log.close()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in parsed(tmp_path)]
    assert rows == [{"step": 1, "loss": None, "validation": None}, {"step": 2, "loss": None, "validation": 1.5}]
    found = points(tmp_path)
    assert found["validation"] == [(1, math.inf), (2, 1.5)]
    assert [step for step, _ in found["loss"]] == [1, 2]
    assert math.isnan(found["loss"][0][1])
    assert found["loss"][1][1] == -math.inf


def test_what_is_resumed_is_as_it_was_logged(tmp_path):
    (tmp_path / "first").mkdir()
    first = Log(tmp_path / "first" / "log.jsonl", checkpoints=Checkpoints(tmp_path / "kept", "key"))
    checkpoint = first.stage()
    first(1, 2, loss=math.nan, validation=math.inf)
    first.keep(checkpoint, {"weight": torch.zeros(1)}, step=1, loss=math.nan, best_loss=math.inf)
    first.close()
    second = Log(tmp_path / "log.jsonl", checkpoints=Checkpoints(tmp_path / "kept", "key"))
    checkpoint = second.stage()
    state = checkpoint.load()
    assert state is not None
    assert math.isnan(state.rows[0]["loss"])
    assert state.rows[0]["validation"] == math.inf
    second.resume(state)
    second.keep(checkpoint, {"weight": torch.zeros(1)}, step=2, loss=1.0, best_loss=1.0)
    second.close()
    assert parsed(tmp_path) == parsed(tmp_path / "first")
    again = checkpoint.load()
    assert again is not None
    assert repr(again.rows) == repr(state.rows), "the log keeps null in place of what it was"
