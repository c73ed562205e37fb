"""The forecast of a whole split is the one that is scored, beside the truth that it is scored against."""

from __future__ import annotations

import pytest
import torch

import emubench
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from tests.support.steppers import Noisy


def rows(result) -> dict:
    return {(row.metric, row.lead_time): row.value for row in result.scores.rows}


def test_a_forecast_is_the_one_that_is_scored(data):
    task = tasks.get("lorenz63-partial", "tiny")
    emulator = Noisy(lambda state: state)
    made, truth = emubench.forecast(emulator, task, data, seed=4), emubench.load_truth(task, data)
    assert made.shape == (1, *truth.values.shape) == (1, 16, task.test_steps, 1)
    error = ((made.mean(0) - truth.values) / torch.from_numpy(task.observation.select(task.system.std))).square()
    scored = rows(emubench.evaluate(emulator, task, data, seed=4))
    first = round(task.lead_time_step, 6)
    assert scored["rms_error", first] == pytest.approx(float(error[:, 0].mean().sqrt()))
    assert not torch.equal(made, emubench.forecast(emulator, task, data, seed=5))
    assert torch.equal(made, emubench.forecast(emulator, task, str(data), seed=4))


def test_cases_beyond_a_chunk_get_numbers_of_their_own(data, monkeypatch):
    task, emulator = tasks.get("lorenz63-partial", "tiny"), Noisy(lambda state: 0 * state)
    monkeypatch.setattr("emubench.evaluation.forecast.CHUNK", 10)
    made = emubench.forecast(emulator, task, data)
    assert made.shape[1] == 16
    assert len({float(v) for v in made[0, :, -1, 0]}) == 16


def test_every_split_is_forecast_at_the_leads_asked_for(data):
    task = tasks.get("kpz-noisy", "tiny")
    emulator = emubench.train("persistence", task, data)
    for split in task.splits:
        truth = emubench.load_truth(task, data, split).values
        assert emubench.forecast(emulator, task, data, split=split).shape == (1, *truth.shape)
    contexts = dataset.load(task, data).context("climate")
    last = emubench.forecast(emulator, task, data, split="climate")[0, :, 0]
    seen = ~contexts[:, -1].isnan()
    assert torch.equal(last[seen], contexts[:, -1][seen])


def test_an_unknown_split_is_named(data):
    task = tasks.get("lorenz63-noisy", "tiny")
    for call in (
        lambda: emubench.forecast(emubench.train("persistence", task, data), task, data, split="tset"),
        lambda: emubench.load_truth(task, data, "tset"),
    ):
        with pytest.raises(EmubenchError, match="unknown split 'tset': did you mean test"):
            call()


def test_a_result_is_a_table_and_one_line(data):
    task = tasks.get("lorenz63-noisy", "tiny")
    result = emubench.evaluate(emubench.train("persistence", task, data), task, data)
    table = result.table()
    assert list(table.columns) == ["task", "metric", "lead_time", "value", "low", "high", "n_cases", "unit"]
    assert len(table) == len(result.scores.rows)
    (row,) = table[(table.metric == "valid_prediction_time") & table.lead_time.isna()].to_dict("records")
    shown = f"valid_prediction_time {row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}] Lyapunov time"
    assert repr(result) == f"<lorenz63-noisy (tiny): {shown}>"
    assert result.timing["lyapunov_times_per_second"] > 0


def test_a_result_that_failed_says_so(data):
    task = tasks.get("kpz-noisy", "tiny")

    class Failing:
        def forecast(self, context, n_steps, n_members, generator):
            return torch.full((1, len(context), n_steps, *context.shape[2:]), float("nan"))

    assert repr(emubench.evaluate(Failing(), task, data)).startswith("<kpz-noisy (tiny): crps 46.2 [46.2, 46.2] height")


def test_a_forecast_that_requires_gradients_is_taken_for_its_values():
    class Last:
        def forecast(self, context, n_steps, n_members, generator):
            with torch.enable_grad():
                return context[:, -1:].repeat(1, n_steps, 1)[None] * torch.ones((), requires_grad=True)

    found = emubench.checked_forecast(Last(), torch.ones(2, 8, 3), 4, 1, torch.Generator())
    assert found.numpy().tolist() == torch.ones(1, 2, 4, 3).tolist()


class Greedy:
    """Runs out of memory with more cases than ``most``; ``noisy``, it takes a random number."""

    def __init__(self, most, noisy=False):
        self.most, self.noisy = most, noisy

    def forecast(self, context, n_steps, n_members, generator):
        if len(context) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        last = torch.nan_to_num(context[:, -1:]).expand(-1, n_steps, -1)[None]
        return last + torch.rand(1, generator=generator) if self.noisy else last.clone()


def test_where_memory_runs_out_fewer_cases_are_forecast_together(data, capsys):
    task = tasks.get("lorenz63-noisy", "tiny")
    made = emubench.forecast(Greedy(5), task, data)
    assert torch.equal(made, emubench.forecast(Greedy(16), task, data))
    assert capsys.readouterr().err == "16 cases at a time do not fit in the memory of cpu, 4 do\n"


def test_random_numbers_of_another_batch_are_no_substitute(data):
    task = tasks.get("lorenz63-noisy", "tiny")
    emubench.forecast(Greedy(16, noisy=True), task, data)
    with pytest.raises(EmubenchError, match="16 cases at a time do not fit .*, 4 do, but would be given other random"):
        emubench.forecast(Greedy(5, noisy=True), task, data)
    with pytest.raises(EmubenchError, match="a forecast of one case does not fit in the memory of cpu"):
        emubench.forecast(Greedy(0), task, data)
