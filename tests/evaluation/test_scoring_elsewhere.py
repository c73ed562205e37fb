"""Scores and timings where an emulator is: the same scores and figures, on a device that is not the CPU."""

from __future__ import annotations

import pytest
import torch

from emubench import baselines
from emubench.data import dataset, tasks
from emubench.evaluation import scoring
from emubench.evaluation.throughput import ladder, stopwatch
from emubench.evaluation.throughput.stopwatch import Subject
from emubench.runs.jobs import fit
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere


@pytest.mark.parametrize(
    ("baseline", "name"),
    [("linear", "lorenz63-noisy"), pytest.param("climatology", "kpz-noisy", marks=pytest.mark.slow)],
)
def test_scores_and_figures_are_the_same_on_another_device(data, baseline, name):
    task, module = tasks.get(name, "tiny"), baselines.get(baseline)
    emulator = fit(module, task, module.Config(), dataset.load(task, data))
    here = scoring.evaluate(emulator, task, data)
    with Elsewhere():
        found = scoring.evaluate(emulator.to(ELSEWHERE), task, data, device=ELSEWHERE)
    assert found.scores == here.scores
    assert found.figures == here.figures
    assert found.timing["device"] == "lazy:0"


@pytest.mark.slow
@pytest.mark.parametrize("start", ["sample", "small"])
def test_emulators_and_solvers_are_timed_on_another_device(data, monkeypatch, start):
    task, module = tasks.get("lorenz63-noisy", "tiny"), baselines.get("linear")
    monkeypatch.setattr(stopwatch, "BATCHES", (1, 4))
    with Elsewhere():
        emulator = fit(module, task, module.Config(), dataset.load(task, data), device=ELSEWHERE)
        cases = scoring.Cases.load(task, data)
        subject = Subject("linear", emulator, task, cases.contexts, device=ELSEWHERE, seconds=0.0)
        scenarios, samples = stopwatch.run(subject)
        moved = scoring.Cases(task, cases.contexts.to(ELSEWHERE), cases.truth, cases.start)
        setting = ladder.Setting("rk4", 1, start=start)
        rung = ladder.rung(moved, setting, 4, 0.1, ELSEWHERE)
    assert set(scenarios) == {"single_end_to_end", "offline_end_to_end"}
    assert {sample.forecast.device for sample in samples} == {torch.device("cpu")}
    here = ladder.rung(cases, setting, 4, 0.1)
    n = min(len(rung.cases), len(here.cases))
    assert rung.cases[:n] == pytest.approx(here.cases[:n], abs=0.2 if start == "sample" else 1.0)
