"""Two quantities never stand under one name: figures of one table are measured in one way, or say in which."""

from __future__ import annotations

import json

import pytest

from emubench.data import tasks
from tests.support import benched
from tests.support.scored_runs import row, table, write_run

TASK = "lorenz63-noisy"


def timed(run, **known: float) -> None:
    path = run / "timing.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | known))


def test_two_quantities_are_not_one_speed(emubench, tmp_path, frozen):
    """The best batch of a bench, and the batches that were scored: where both are there, the latter are compared."""
    scored = write_run(tmp_path, "scored", TASK, [2.0] * 16, speed=100.0)
    both = write_run(tmp_path, "both", TASK, [2.0] * 16, speed=None)
    lost = write_run(tmp_path, "lost", TASK, [2.0] * 16, speed=None)
    for run in (both, lost):
        benched.write(run, 5000.0, 2.0)
    timed(both, test_seconds=4.0)
    timed(scored, test_seconds=4.0)
    task = tasks.get(TASK, "tiny")
    rate = 16 * task.test_steps * task.lead_time_step / 4.0
    frame = table(tmp_path)
    found = {name: row(frame, name, TASK) for name in ("scored", "both", "lost")}
    assert {name: r["lyapunov_times_per_second"] for name, r in found.items()} == {
        "scored": 100.0,
        "both": pytest.approx(rate),
        "lost": None,
    }
    assert [found[name]["pareto_front"] for name in ("scored", "both")] == [rate < 100, rate > 100]
    assert [found[name]["speed_of"] for name in ("scored", "both", "lost")] == ["scoring", "scoring", None]
    assert "speed of the forecasts that were scored" in emubench("compare", tmp_path).out
    other = write_run(tmp_path, "both", "lorenz96-noisy", [2.0] * 16, speed=None)
    benched.write(other, 700.0, 2.0)
    assert row(table(tmp_path), "both", "lorenz96-noisy")["lyapunov_times_per_second"] == 700.0  # of a task to itself
    frame = table(both, lost)
    assert [row(frame, n, TASK)["lyapunov_times_per_second"] for n in ("both", "lost")] == [5000.0] * 2
    assert row(frame, "both", TASK)["speed_of"] == "bench"
    assert "speed as benched" in emubench("compare", both, lost).out


def test_two_quantities_are_not_one_size(emubench, tmp_path, frozen):
    """Floor and oracle were frozen at the standard size: with fewer data the oracle itself falls short of them."""
    for size, scale in (("tiny", "frozen at size standard"), ("standard-20x512", "frozen"), ("standard", "frozen")):
        run = write_run(tmp_path / size, "net", TASK, [2.0] * 16, size=size)
        assert row(table(run), "net", TASK)["scale"] == scale
        printed = " ".join(emubench("compare", run).out.split())
        assert ("floor and oracle are those of the standard size" in printed) == (size == "tiny")


def test_two_quantities_are_not_one_size_in_scores(emubench, data, tmp_path):
    arguments = ("lorenz63-noisy", "--size", "tiny", "--data", data, "--out", tmp_path)
    assert emubench("train", "persistence", *arguments).status == 0
    printed = " ".join(emubench("score", tmp_path, "--data", data).out.split())
    assert "skills of size tiny: floor and oracle are those of the standard size" in printed
