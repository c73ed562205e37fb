"""The sixteen tasks: what is observed, how much of it, and how far ahead it is judged."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.data import tasks

ALL = [tasks.get(name, size) for name in tasks.names() for size in tasks.SIZES]


def test_every_system_on_every_track_is_a_task():
    assert len(set(tasks.names())) == 4 * len(systems.names())
    assert {t.track for t in ALL} == set(tasks.TRACKS)
    assert all(t.name == f"{t.system.name}-{t.track}" for t in ALL)


@pytest.mark.parametrize("task", ALL, ids=lambda t: f"{t.name}-{t.size}")
def test_a_task_keeps_its_track_s_promise(task):
    o = task.observation
    assert o.noise == (0.0 if task.track == "clean" else 0.1)
    hides = task.track in ("partial", "scarce")
    assert o.fraction == (0.5 if hides and task.system.grid else 1.0)
    assert o.components == ((0,) if hides and not task.system.grid else None)
    assert task.shape == ((1,) if hides and not task.system.grid else task.system.shape)
    assert task.full_state == (task.shape == task.system.shape)
    assert task.context == 64


@pytest.mark.parametrize("task", ALL, ids=lambda t: f"{t.name}-{t.size}")
def test_horizons_are_20_and_200_lyapunov_times(task):
    if task.system.stochastic:
        assert (task.steps("test"), task.steps("climate")) == (128, 1024)
        assert task.lead_time_step == 1.0
        return
    for split, horizon in (("test", 20), ("climate", 200)):
        reached = task.steps(split) * task.system.sample_interval / task.system.time_unit
        assert horizon <= reached < horizon + task.lead_time_step


@pytest.mark.parametrize(
    ("size", "scarce", "train", "validation", "cases"),
    [
        ("standard", False, (32, 1024), (8, 1024), (256, 64)),
        ("standard", True, (1, 256), (1, 128), (256, 64)),
        ("tiny", False, (4, 256), (2, 256), (16, 8)),
        ("tiny", True, (1, 128), (1, 128), (16, 8)),
    ],
)
def test_amounts_of_data(size, scarce, train, validation, cases):
    for task in (t for t in ALL if t.size == size and (t.track == "scarce") == scarce):
        assert (task.train, task.validation) == (train, validation)
        assert (task.cases("test"), task.cases("climate")) == cases


def test_lead_times_are_lyapunov_times():
    steps = {t.system.name: t.lead_time_step for t in ALL}
    assert steps["lorenz63"] == pytest.approx(0.05 * 0.9057, rel=2e-3)
    assert steps["lorenz96"] == pytest.approx(0.05 * 1.689, rel=5e-3)
    assert steps["kuramoto_sivashinsky"] == pytest.approx(0.0482, rel=6e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.get("lorenz63-nosy"), "unknown task 'lorenz63-nosy': did you mean lorenz63-noisy"),
        (lambda: tasks.get("lorenz63"), "unknown task 'lorenz63': did you mean lorenz63-"),
        (lambda: tasks.get("noisy-lorenz63"), "unknown task"),
        (lambda: tasks.get(""), "known: kpz-clean, "),
        (lambda: tasks.get("kpz-noisy", "tinny"), "unknown size 'tinny': did you mean tiny"),
        (lambda: tasks.make(systems.get("kpz"), "loud"), "unknown track 'loud'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(call, message):
    with pytest.raises(EmubenchError, match=message):
        call()


def test_a_task_takes_any_system_with_a_known_climate():
    longer = systems.get("lorenz96", n_sites=60, climate=systems.get("lorenz96").known_climate())
    task = tasks.make(longer, "partial", "tiny")
    truth = np.zeros((3, 60))
    observed = task.observation(task.system, truth, np.random.default_rng(0))
    assert task.shape == (60,)
    assert np.isfinite(observed).sum() == 3 * 30


@pytest.mark.parametrize("size", list(tasks.SIZES))
def test_list_tasks_prints_all_with_their_sizes(emubench, size):
    rows = json.loads(emubench("list", "tasks", "--size", size, "--json").out)
    printed = emubench("list", "tasks", "--size", size).out
    assert [row["task"] for row in rows] == tasks.names()
    for row in rows:
        task = tasks.get(row["task"], size)
        assert row["train"] == f"{task.train.trajectories}×{task.train.length}"
        assert row["test"] == f"{task.n_test}×{task.test_steps}"
        assert math.isclose(float(row["noise"].rstrip("%")) / 100, task.observation.noise)
        line = next(x for x in printed.splitlines() if row["task"] in x.split())
        assert all(row[key] in line for key in ("train", "validation", "test", "climate", "ranked"))
