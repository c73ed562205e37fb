"""Two quantities never stand under one name: figures of one table are measured in one way, or say in which."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emubench import systems
from emubench.data import tasks
from emubench.evaluation.scoring import rate
from tests.support import benched
from tests.support.scored_runs import row, table, write_run

TASK = "lorenz63-noisy"


def timed(run, **known: float | str | None) -> None:
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
    known = scored_rate(TASK, 4.0)
    frame = table(tmp_path)
    found = {name: row(frame, name, TASK) for name in ("scored", "both", "lost")}
    assert {name: r["lyapunov_times_per_second"] for name, r in found.items()} == {
        "scored": 100.0,
        "both": pytest.approx(known),
        "lost": None,
    }
    assert [found[name]["pareto_front"] for name in ("scored", "both")] == [known < 100, known > 100]
    assert [found[name]["speed_of"] for name in ("scored", "both", "lost")] == ["scoring", "scoring", None]
    assert "speed of the forecasts that were scored" in emubench("compare", tmp_path).out
    other = write_run(tmp_path, "both", "lorenz96-noisy", [2.0] * 16, speed=None)
    benched.write(other, 700.0, 2.0)
    assert row(table(tmp_path), "both", "lorenz96-noisy")["lyapunov_times_per_second"] == 700.0  # of a task to itself
    frame = table(both, lost)
    assert [row(frame, n, TASK)["lyapunov_times_per_second"] for n in ("both", "lost")] == [5000.0] * 2
    assert row(frame, "both", TASK)["speed_of"] == "bench"
    assert "speed as benched" in emubench("compare", both, lost).out


def scored_rate(name: str, seconds: float) -> float:
    return rate(tasks.get(name, "tiny"), seconds, 1.0)


def test_two_quantities_are_not_one_speed_of_a_track(emubench, tmp_path, frozen):
    """One task that was not benched: over the track the speeds of scoring are averaged, of all entries and tasks."""
    names = [f"{system}-noisy" for system in systems.names()]
    for entry, unbenched in (("all", ""), ("but-one", TASK)):
        for name in names:
            run = write_run(tmp_path, entry, name, [2.0] * 16, speed=None)
            if name != unbenched:
                benched.write(run, 5000.0, 2.0)
            else:
                timed(run, lyapunov_times_per_second=scored_rate(name, 4.0))
            timed(run, test_seconds=4.0)
    frame = table(tmp_path)
    mean = np.exp(np.mean([np.log(scored_rate(name, 4.0)) for name in names]))
    for entry in ("all", "but-one"):
        found = row(frame, entry, None)
        assert found["lyapunov_times_per_second"] == pytest.approx(mean)
        assert (found["speed_of"], found["speed_on"]) == ("scoring", "cpu")
        assert row(frame, entry, "kpz-noisy")["speed_of"] == "bench"
    said = "speed of the forecasts that were scored, in batches of 64, on cpu (geometric mean over systems)"
    assert said in " ".join(emubench("compare", tmp_path).out.split())
    alone = row(table(*(tmp_path / "all").iterdir()), "all", None)
    assert (alone["lyapunov_times_per_second"], alone["speed_of"]) == (pytest.approx(5000.0), "bench")


def test_two_quantities_are_not_one_speed_on_two_devices(tmp_path, frozen):
    """What was benched on a GPU and on a CPU is not compared: where both were scored, that is."""
    runs = {name: write_run(tmp_path, name, TASK, [2.0] * 16, speed=None) for name in ("on-cpu", "on-gpu")}
    for name, speed in (("on-cpu", 5000.0), ("on-gpu", 90000.0)):
        benched.write(runs[name], speed, 2.0)
        timed(runs[name], test_seconds=4.0)
    path = runs["on-gpu"] / "timing.json"
    content = json.loads(path.read_text())
    content["benches"]["eager"]["hardware"] |= {"device": "cuda", "name": "a card"}
    path.write_text(json.dumps(content))
    frame = table(tmp_path)
    found = [row(frame, name, TASK) for name in runs]
    assert [r["lyapunov_times_per_second"] for r in found] == [pytest.approx(scored_rate(TASK, 4.0))] * 2
    assert {(r["speed_of"], r["speed_on"]) for r in found} == {("scoring", "cpu")}
    alone = row(table(runs["on-gpu"]), "on-gpu", TASK)
    assert (alone["speed_of"], alone["speed_on"]) == ("bench", "cuda (a card)")
    timed(runs["on-cpu"], test_seconds=None)  # by another version: what its scored forecasts took is not known
    assert row(table(tmp_path), "on-cpu", TASK)["speed_of"] is None


def test_two_quantities_are_not_one_speed_of_forecasts_scored_on_two_devices(tmp_path, frozen):
    """Forecasts that scoring asked for on a GPU and on a CPU are two quantities as well: no speed is compared."""
    runs = {name: write_run(tmp_path, name, TASK, [2.0] * 16) for name in ("on-cpu", "on-gpu")}
    for name, device in (("on-cpu", "cpu"), ("on-gpu", "cuda:0 (a card)")):
        timed(runs[name], test_seconds=4.0, scored_on=device)
    alone = row(table(runs["on-gpu"]), "on-gpu", TASK)
    assert (alone["speed_of"], alone["speed_on"]) == ("scoring", "cuda:0 (a card)")
    frame = table(tmp_path)
    found = [row(frame, name, TASK) for name in runs]
    assert [r["speed_of"] for r in found] == [None, None]
    assert frame["lyapunov_times_per_second"].isna().all()  # of the track as well


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
