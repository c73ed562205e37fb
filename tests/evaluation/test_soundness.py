"""What free forecasts show without a truth: those that stand still or run away are told from those that go on."""

from __future__ import annotations

import json

import pytest
import torch

from emubench import baselines
from emubench.data import dataset, tasks
from emubench.evaluation import soundness
from emubench.runs import folders, stages
from emubench.runs.training import train
from tests.support.small_jobs import small


class Answer(torch.nn.Module):
    """Forecasts by a function of the last values and the steps ahead, with torch's own random numbers drawn."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forecast(self, context, n_steps, n_members, generator):
        torch.rand(3)
        last = torch.nan_to_num(context[:, -1])[:, None]
        ahead = torch.arange(1, n_steps + 1, dtype=torch.float64).reshape(-1, *[1] * (context.ndim - 2))
        return self.answer(last, ahead).expand(1, len(context), n_steps, *context.shape[2:]).clone()


@pytest.fixture(scope="module", params=["lorenz63-noisy", "lorenz96-partial"])
def seen(request, data):
    return dataset.load(tasks.get(request.param, "tiny"), data)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda last, ahead: last, "8 of 8 free forecasts stood still in the later half of "),
        (lambda last, ahead: last * 0.8**ahead, "8 of 8 free forecasts stood still in the later half of "),
        (
            lambda last, ahead: 30 * (last + 1) * 1.2**ahead,
            "8 of 8 free forecasts ran away beyond 10 σ, the first",
        ),
        (lambda last, ahead: torch.where(ahead > 7, torch.nan, last), "8 of 8 free forecasts ran away beyond 10 σ"),
    ],
)
def test_a_model_that_stands_still_or_runs_away_is_told(seen, answer, told):
    before = torch.get_rng_state()
    assert soundness.fault(Answer(answer), seen).startswith(told)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_goes_on_as_the_data_do_is_not_told(seen):
    std = seen.std
    assert soundness.fault(Answer(lambda last, ahead: seen.mean + std * torch.sin(ahead / 4)), seen) == ""


def test_a_training_whose_model_stands_still_says_so_and_keeps_it(data, emubench, tmp_path, monkeypatch, caplog):
    job = small("linear", "lorenz63-noisy")
    assert folders.read_card(stages.train(job, data, tmp_path / "rests")).warning == ""  # by design
    monkeypatch.delattr(baselines.get("linear"), "comes_to_rest")
    run = stages.train(job, data, tmp_path / "runs")
    warning = "8 of 8 free forecasts stood still in the later half of 5 Lyapunov times"
    assert caplog.messages == [f"linear on lorenz63-noisy: {warning}"]
    assert folders.read_card(run).warning == warning
    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, *(tmp_path / "rests").rglob("tiny-*"))]
    assert weights[0] == weights[1]
    told = f"{run}: linear on lorenz63-noisy: {warning} (when it was trained)\n"
    assert emubench("score", run, "--data", data).err == told
    assert f" on lorenz63-noisy, seed 0: {warning}\n" in emubench("compare", tmp_path / "runs").out


def test_a_training_in_memory_says_so_too(data, monkeypatch, caplog):
    monkeypatch.delattr(baselines.get("linear"), "comes_to_rest")
    train("linear", tasks.get("lorenz63-noisy", "tiny"), data)
    assert caplog.messages[0].startswith("linear on lorenz63-noisy: 8 of 8 free forecasts stood still")


def test_a_forecast_that_fails_does_not_undo_a_training(data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(soundness, "fault", lambda *_: 1 // 0)
    run = stages.train(small("reservoir", "lorenz63-noisy"), data, tmp_path)
    assert folders.read_card(run).warning.startswith("a free forecast failed: ZeroDivisionError")


def test_the_warning_of_a_stranger_s_card_cannot_write_to_the_terminal(emubench, data, tmp_path):
    run = stages.train(small("persistence", "lorenz63-noisy"), data, tmp_path)
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | {"warning": "stands still\x1b[2J\nrank 1"}))
    shown = [emubench("score", run, "--data", data), emubench("compare", run)]
    text = "".join(finished.out + finished.err for finished in shown)
    assert "stands still" in text
    assert "\x1b[2J" not in text
    assert "\nrank 1" not in text
