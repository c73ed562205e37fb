"""Noise floors: what independent truth of the same size scores against the pooled truth."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from benchmarks.maintain import floors, freeze
from emubench.data import reference, tasks
from emubench.evaluation import scoring
from emubench.metrics import stability

N_CASES, HORIZON = 8, 20.0


@pytest.fixture(scope="module")
def truth():
    """Truth of lorenz63, a small climate split."""
    task = floors.shortened(tasks.get("lorenz63-noisy"), N_CASES, HORIZON)
    return floors.pooled(task, torch.cat(list(floors.stationary_truth(task, N_CASES, seed=5))))


def test_independent_truth_is_as_long_as_the_climate_split_and_new_for_every_seed(truth):
    task = truth.task
    assert truth.values.shape == (N_CASES, math.ceil(HORIZON / task.lead_time_step), 3)
    again = torch.cat(list(floors.stationary_truth(task, 3, seed=5)))
    assert torch.equal(again, truth.values[:3])
    other = torch.cat(list(floors.stationary_truth(task, 3, seed=6)))
    assert not torch.isclose(other, again).all(-1).any()


def test_stationary_truth_of_growth_has_no_flat_starts():
    task = floors.shortened(tasks.get("kpz-noisy"), 20, 8.0)
    values = torch.cat(list(floors.stationary_truth(task, 20)))
    assert values.shape == (20, 8, 256)
    width = (values - values.mean(-1, keepdim=True)).square().mean()
    assert float(width) == pytest.approx(task.system.saturated_width_squared, rel=0.25)


def test_the_quantile_is_that_of_means():
    d = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(floors.quantile_of_means(d, 16)) == pytest.approx(2.326 / 4, abs=0.06)
    assert torch.equal(floors.quantile_of_means(d, 16), floors.quantile_of_means(d, 16))
    assert floors.quantile_of_means(torch.ones(5, 3, dtype=torch.float64), 2).tolist() == [1, 1, 1]


@pytest.mark.slow
def test_resampled_means_have_the_quantile_of_independent_samples():
    task = floors.shortened(tasks.get("lorenz96-noisy"), N_CASES, 10.0)
    truth = floors.pooled(task, torch.cat(list(floors.stationary_truth(task, N_CASES, seed=5))))
    n_samples = 200
    drawn = floors.independent_distances(truth, n_samples * N_CASES, seed=77)
    honest = torch.quantile(drawn.reshape(n_samples, N_CASES, -1).mean(1), floors.QUANTILE, dim=0)
    resampled = floors.quantile_of_means(floors.independent_distances(truth), N_CASES)
    margin = honest - drawn.mean(0)
    assert ((resampled - honest).abs() < 0.5 * margin).all()  # the honest one is the second largest of 200
    assert (resampled > drawn.mean(0)).all()


def test_a_perfect_run_is_above_its_floors_once_in_a_hundred(truth):
    found = floors.measure(truth)
    fresh = floors.independent_distances(truth, 100 * N_CASES, seed=78).reshape(100, N_CASES, -1).mean(1)
    above = fresh > torch.tensor([*found["d_floor"].values()])
    assert (above.sum(0) <= 5).all()
    assert above.any()


def test_anchors_are_the_distances_of_a_constant_and_far_above_the_floors(truth):
    found = floors.measure(truth, n_independent=32)
    constant = truth.mean.expand(1, *truth.values.shape[1:]).clone()
    names = stability.aspects(truth.task)
    assert [*found["d_zero"]] == [*found["d_floor"]] == [*names]
    assert [*found["d_zero"].values()] == pytest.approx(stability.distances(constant, truth)[0].tolist())
    assert all(found["d_zero"][n] > 3 * found["d_floor"][n] for n in names)


# --- what is frozen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_frozen_floors_and_anchors_of_every_aspect(name):
    frozen = reference.get(name)
    names = set(stability.aspects(tasks.get(name)))
    assert set(frozen["d_zero"]) == names
    for size in tasks.SIZES:
        assert set(frozen["d_floor"][size]) == names
    for aspect in names:
        standard, tiny = (frozen["d_floor"][size][aspect] for size in ("standard", "tiny"))
        assert 0 < standard < tiny < frozen["d_zero"][aspect]


@pytest.mark.parametrize("name", ["lorenz63-partial", pytest.param("lorenz96-noisy", marks=pytest.mark.slow)])
def test_the_frozen_floors_are_those_of_the_benchmarks_truth(data, name):
    task = tasks.get(name, "tiny")
    values, start, _ = scoring.load_truth(task, data, "climate")
    truth = floors.pooled(task, values)
    found = floors.measure(truth, n_independent=128, seed=3)
    frozen = reference.get(name)
    assert not start.any()
    for aspect, floor in found["d_floor"].items():
        assert floor == pytest.approx(frozen["d_floor"]["tiny"][aspect], rel=0.15)
        assert found["d_zero"][aspect] == pytest.approx(frozen["d_zero"][aspect], rel=0.05)


def test_freezing_keeps_other_values_and_counts_versions(tmp_path, monkeypatch):
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"version": 4, "lorenz63-noisy": {"oracle": 3.2, "d_zero": {"w1": 9.0}}, "mine": {}}))
    monkeypatch.setattr(freeze, "climate_reference", lambda task, data: {"d_zero": {"w1": task.shape[0]}})
    freeze.climate(tmp_path, path)
    stored = json.loads(path.read_text())
    assert [*stored][0] == "version"
    assert stored["version"] == 5
    assert stored["lorenz63-noisy"] == {"oracle": 3.2, "d_zero": {"w1": 3}}
    assert stored["lorenz63-partial"] == {"d_zero": {"w1": 1}}
    assert set(stored) == {"version", "mine", *tasks.names()}


def test_the_reference_has_a_version():
    assert reference.version() >= 1


def test_every_version_of_the_reference_says_why_scores_changed():
    changes = (Path(__file__).parents[2] / "leaderboard" / "CHANGES.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \*\*(\d+)\*\* \(\d{4}-\d\d-\d\d\): \w", changes, re.MULTILINE) == [
        str(version) for version in range(reference.version(), 0, -1)
    ]
