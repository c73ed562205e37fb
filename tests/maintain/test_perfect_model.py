"""The perfect-model reference: fresh cases are the benchmark's in kind, and the measurement resumes."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.maintain import perfect_model
from emubench import baselines
from emubench.data import dataset, reference, tasks
from emubench.evaluation import scoring


@pytest.mark.parametrize("name", ["lorenz63-partial", "kpz-noisy", "lorenz96-partial"])
def test_fresh_cases_of_the_benchmark_s_seed_are_the_benchmark_s(data, name):
    task = tasks.get(name, "tiny")
    context, truth = perfect_model.fresh_cases(task, 0, 0)
    values, start, _ = scoring.load_truth(task, data, "test")
    n = task.n_test
    assert n < perfect_model.BLOCK == len(context)
    assert torch.equal(context[:n].nan_to_num(7.0), dataset.load(task, data).contexts["test"].nan_to_num(7.0))
    assert torch.equal(truth.values[:n], values)
    assert torch.equal(truth.start[:n], start)


def test_a_measurement_resumes_where_it_was_left(tmp_path, monkeypatch):
    whole = perfect_model.measured("lorenz63-noisy", tmp_path, 64)
    blocks = sorted((tmp_path / "lorenz63-noisy").iterdir())
    assert len(blocks) == 2
    blocks[1].unlink()
    calls = []
    original = perfect_model.headline_cases
    monkeypatch.setattr(perfect_model, "headline_cases", lambda *a: calls.append(a[-1]) or original(*a))
    assert torch.equal(perfect_model.measured("lorenz63-noisy", tmp_path, 64), whole)
    assert calls == [1]
    assert 1.5 < whole.mean() < 5


def test_measure_freezes_value_error_and_number_and_keeps_the_rest(tmp_path, monkeypatch):
    scores = torch.linspace(1, 3, 4096, dtype=torch.float64)
    asked = []
    monkeypatch.setattr(perfect_model, "measured", lambda name, folder: asked.append(name) or scores)
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"lorenz96-scarce": {"floor": 0.5}, "kpz-clean": {}}))
    names = ["lorenz96-scarce", "lorenz96-clean", "kpz-clean"]
    result = CliRunner().invoke(perfect_model.app, ["measure", *names, "--path", str(path)])
    assert result.exit_code == 0, result.output
    stored = json.loads(path.read_text())
    assert stored["lorenz96-scarce"]["floor"] == 0.5
    assert stored["lorenz96-scarce"]["oracle"] == pytest.approx(2)
    assert stored["lorenz96-scarce"]["oracle_standard_error"] == pytest.approx((1 / 3) ** 0.5 / 64, rel=1e-2)
    assert set(stored["kpz-clean"]) == {"population"}
    assert stored["kpz-clean"]["population"]["oracle_cases"] == 4096
    assert "lorenz96-clean" not in stored
    assert asked == ["lorenz96-partial", "kpz-clean"]


def test_on_clean_tasks_the_oracle_is_the_solver():
    assert perfect_model.solved_by_the_oracle(tasks.get("lorenz96-clean"))
    assert not perfect_model.solved_by_the_oracle(tasks.get("kpz-clean"))
    module = baselines.get("oracle")
    task = tasks.get("lorenz96-clean", "tiny")
    context, truth = perfect_model.fresh_cases(task, 5, 0)
    forecast = module.build(task, module.Config()).forecast(context, 20, 1, torch.Generator())
    torch.testing.assert_close(forecast[0], truth.values[:, :20], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in tasks.names() if not perfect_model.solved_by_the_oracle(tasks.get(n))])
def test_the_frozen_oracle_was_measured_on_many_contexts(name):
    frozen = reference.get(name)
    many = frozen.get("population", frozen)
    assert many["oracle_cases"] >= 4096
    gap = frozen["oracle"] - frozen["floor"]
    assert (-gap if "kpz" in name else gap) > 3 * frozen["oracle_standard_error"]
    # the benchmark's cases are drawn from the same population
    assert abs(frozen["oracle"] - many["oracle"]) < 4 * frozen["oracle_standard_error"]
