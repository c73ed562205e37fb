"""Scoring: the door through which forecasts come, averaging and bootstrap, and one result by every way in."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
import torch
from scipy import stats

from emubench import baselines, metrics
from emubench.core.errors import EmubenchError
from emubench.data import dataset, reference, tasks
from emubench.emulator import check_forecast, checked_ensemble, checked_forecast
from emubench.evaluation import forecast, scoring
from emubench.metrics import Row, Summary
from emubench.runs import folders, jobs, stages

NAN = float("nan")


def wander(context: torch.Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> torch.Tensor:
    """A forecast that walks at random from the last sample, gaps filled with zero: depends on all its arguments."""
    shape = (n_members, len(context), n_steps, *context.shape[2:])
    steps = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.nan_to_num(context[:, -1])[None, :, None] + 0.3 * steps.cumsum(2)


class Wanderer:
    """:func:`wander` as an emulator; all copies keep one record of what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def __deepcopy__(self, memo):
        other = Wanderer()
        other.asked = self.asked
        return other

    def forecast(self, context, n_steps, n_members, generator):
        self.asked.append((tuple(context.shape), n_steps, n_members))
        return wander(context, n_steps, n_members, generator)


def rows_of(result: scoring.Result) -> dict:
    return {(r.metric, r.lead_time): (r.value, r.low, r.high) for r in result.scores.rows}


# --- the door ---------------------------------------------------------------------------------------------------------


class Answer:
    """An emulator that answers with what it was given, made from the right answer."""

    def __init__(self, change) -> None:
        self.change = change

    def forecast(self, context, n_steps, n_members, generator):
        return self.change(torch.zeros(n_members, len(context), n_steps, *context.shape[2:]))


def ask(change, n_members: int = 4) -> torch.Tensor:
    return checked_forecast(Answer(change), torch.zeros(3, 64, 5), 10, n_members, torch.Generator())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[0], r"shape \(3, 10, 5\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f[:2], r"shape \(2, 3, 10, 5\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f[:0], r"shape \(0, 3, 10, 5\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f[:, :2], r"shape \(4, 2, 10, 5\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f[:, :, :9], r"shape \(4, 3, 9, 5\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f[..., :1], r"shape \(4, 3, 10, 1\) where \(4, 3, 10, 5\) belongs"),
        (lambda f: f.transpose(1, 2), r"shape \(4, 10, 3, 5\) where"),
        (lambda f: f.sum(), r"shape \(\) where"),
        (lambda f: f.int(), "dtype torch.int32 where float32 or float64 belongs"),
        (lambda f: f.half(), "dtype torch.float16 where float32 or float64 belongs"),
        (lambda f: f.to(torch.complex64), "dtype torch.complex64"),
        (lambda f: f.numpy(), "a torch.Tensor belongs here, not ndarray"),
        (lambda f: None, "a torch.Tensor belongs here, not NoneType"),
    ],
)
def test_a_forecast_of_the_wrong_kind_is_refused(change, message):
    with pytest.raises(EmubenchError, match=message):
        ask(change)


@pytest.mark.parametrize("change", [lambda f: f, lambda f: f.double(), lambda f: f[:1], lambda f: f * NAN])
def test_what_is_sound_or_merely_fails_gets_through(change):
    assert ask(change).shape[1:] == (3, 10, 5)


def test_the_context_is_handed_over_as_a_copy_and_no_gradient_is_kept(data):
    task = tasks.get("lorenz96-partial", "tiny")
    context = dataset.load(task, data).contexts["test"]
    before = context.clone()

    class Vandal:
        def forecast(self, context, n_steps, n_members, generator):
            context.fill_(7.0)
            weight = torch.ones(1, requires_grad=True)
            return weight * torch.ones(1, len(context), n_steps, *context.shape[2:])

    forecast = checked_forecast(Vandal(), context, 3, 1, torch.Generator())
    torch.testing.assert_close(context, before, rtol=0, atol=0, equal_nan=True)
    assert not forecast.requires_grad


def test_an_emulator_sees_contexts_alone(data):
    one, halves = [("test", 1), ("climate", 1)], [("test", 8), ("test", 8), ("climate", 1), ("widths", 1)]
    for name, calls in (("lorenz63-partial", one), ("kpz-noisy", halves)):
        task, emulator = tasks.get(name, "tiny"), Wanderer()
        scoring.evaluate(emulator, task, data)
        expected = [((task.cases(split), 64, *task.shape), task.steps(split), m) for split, m in calls]
        assert emulator.asked == expected


def test_the_halves_of_an_ensemble_have_random_streams_of_their_own():
    context = torch.zeros(2, 8, 5, dtype=torch.float64)
    found = checked_ensemble(Wanderer(), context, 3, 4, torch.Generator().manual_seed(1))
    again = checked_ensemble(Wanderer(), context, 3, 4, torch.Generator().manual_seed(1))
    assert found.shape == (4, 2, 3, 5)
    assert torch.equal(found, again)
    assert len({float(v) for v in found[:, 0, 0, 0]}) == 4
    alone = checked_forecast(Wanderer(), context, 3, 2, torch.Generator().manual_seed(1))
    assert torch.equal(found[:2], alone)


def test_a_deterministic_emulator_is_asked_once_and_one_that_changes_its_mind_is_refused():
    class Fickle:
        calls = 0

        def forecast(self, context, n_steps, n_members, generator):
            self.calls += 1
            return torch.zeros(n_members if self.calls == 1 else 1, len(context), n_steps, 5)

    sure = Answer(lambda forecast: forecast[:1])
    assert checked_ensemble(sure, torch.zeros(3, 64, 5), 10, 16, torch.Generator()).shape[0] == 1
    with pytest.raises(EmubenchError, match="forecast: 1 of 8 members in one call, and otherwise in another"):
        checked_ensemble(Fickle(), torch.zeros(3, 64, 5), 10, 16, torch.Generator())


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def test_weights_are_resamples_within_each_kind_of_start():
    start = torch.tensor([0, 1, 0, 0, 1, 0, 2])
    weights = scoring.resample(start, 500)
    assert weights.shape == (500, 7)
    assert torch.allclose(weights.sum(1), torch.ones(500, dtype=torch.float64))
    for kind, n in ((0, 4), (1, 2), (2, 1)):
        assert torch.allclose(weights[:, start == kind].sum(1), torch.full((500,), n / 7, dtype=torch.float64))
    counts = 7 * weights
    assert torch.allclose(counts, counts.round())
    assert torch.allclose(weights.mean(0), torch.full((7,), 1 / 7, dtype=torch.float64), atol=0.03)
    assert torch.equal(weights, scoring.resample(start, 500))
    assert not torch.equal(weights, scoring.resample(start, 500, seed=1))


def test_intervals_cover_the_mean_19_times_in_20():
    generator = torch.Generator().manual_seed(0)
    n_cases, n_data = 100, 2000
    cases = 3 + 2 * torch.randn(n_cases, n_data, generator=generator, dtype=torch.float64)
    summary = Summary(cases, (Row("x", None, "1"),) * n_data)
    value, low, high = scoring.bootstrap(summary, scoring.resample(torch.zeros(n_cases, dtype=torch.long), 400))
    assert torch.allclose(value, cases.mean(0))
    assert ((low <= value) & (value <= high)).all()
    covered = float(((low < 3) & (high > 3)).double().mean())
    assert 0.92 < covered < 0.965
    expected = 2 * 1.96 * 2 / n_cases**0.5
    assert float((high - low).mean()) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(("n", "least"), [(16, 0.95), (64, 0.94), (256, 0.93)])
@pytest.mark.parametrize("p", [0.95, 0.05])
def test_intervals_of_fractions_cover_them_near_0_and_1_too(n, least, p):
    """The bootstrap's cover 58 % at 16 cases and 85 % at 64: all alike, they have no width."""
    found = [scoring.wilson(k / n, n) for k in range(n + 1)]
    covered = sum(stats.binom.pmf(k, n, p) for k, (_, low, high) in enumerate(found) if low <= p <= high)
    assert covered > least
    summary = Summary(torch.ones(n, 1, dtype=torch.float64), (Row("surviving_fraction", None, "1", counts_cases=True),))
    (row,) = scoring._rows(tasks.get("lorenz63-noisy"), summary, scoring.resample(torch.zeros(n, dtype=torch.long)))
    assert (row.value, row.low, row.high) == pytest.approx((1, n / (n + 1.959964**2), 1))


def test_what_differs_between_kinds_of_start_alone_is_no_uncertainty():
    start = torch.tensor([0, 1] * 8)
    summary = Summary(start.double()[:, None], (Row("x", None, "1"),))
    value, low, high = scoring.bootstrap(summary, scoring.resample(start))
    assert float(value) == float(low) == float(high) == 0.5


def test_a_score_is_finished_after_averaging():
    cases = torch.tensor([[1.0], [9.0], [25.0], [1.0]], dtype=torch.float64)
    summary = Summary(cases, (Row("root", None, "1"),), finish=lambda mean: mean.sqrt())
    value, low, high = scoring.bootstrap(summary, scoring.resample(torch.zeros(4, dtype=torch.long)))
    assert float(value) == 3
    assert 1 <= float(low) < 3 < float(high) <= 5


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["lorenz63-partial", "lorenz96-noisy", pytest.param("kpz-noisy", marks=pytest.mark.slow)]
)
def test_scores_repeat_and_name_their_cases(data, name):
    task = tasks.get(name, "tiny")
    first = scoring.evaluate(Wanderer(), task, data, seed=3)
    again = scoring.evaluate(Wanderer(), task, data, seed=3)
    other = scoring.evaluate(Wanderer(), task, data, seed=4)
    assert first.scores == again.scores
    assert first.figures == again.figures
    assert rows_of(first) != rows_of(other)
    assert first.scores.truth_sha256 == scoring.truth_digest(task, data)
    for row in first.scores.rows:
        cases = 64 if WIDTH_ROWS.match(row.metric) else 8 if CLIMATE_ROWS.match(row.metric) else 16
        assert row.n_cases == cases, row
        assert row.task == name
        assert row.value is None or row.low <= row.value <= row.high
    headline = "crps" if task.system.stochastic else "valid_prediction_time"
    assert list(first.scores.cases) == [headline]
    assert np.mean(first.scores.cases[headline]) == pytest.approx(rows_of(first)[headline, None][0])
    assert first.timing["lyapunov_times_per_second"] > 0


WIDTH_ROWS = re.compile("width_|slope_spectrum")
CLIMATE_ROWS = re.compile("surviving|dead|time_to_escape|skill_stability|(w1|patches|.*_spectrum)_(distance|skill)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lorenz63-noisy", value) for value in (NAN, float("inf"), 1e308)),
        ("kpz-partial", NAN),
        *(pytest.param("kpz-partial", value, marks=pytest.mark.slow) for value in (float("inf"), 1e308)),
    ],
)
def test_an_emulator_that_always_fails_gets_the_worst_scores(data, name, value):
    task = tasks.get(name, "tiny")

    class Failing:
        def forecast(self, context, n_steps, n_members, generator):
            return torch.full((n_members, len(context), n_steps, *context.shape[2:]), value, dtype=torch.float64)

    result = scoring.evaluate(Failing(), task, data)
    rows = rows_of(result)
    assert all(v is not None for row in rows.values() for v in row)
    assert rows["surviving_fraction", None] == pytest.approx(scoring.wilson(0.0, task.n_climate))
    if task.system.stochastic:
        assert rows["crps", None][0] == pytest.approx(10 * 4.62, rel=1e-3)
    else:
        assert rows["valid_prediction_time", None][0] <= 0.05 * task.lead_time_step * (1 + 1e-9)
        assert rows["rms_error", task.lead_time_step.__round__(6)][0] == metrics.LOST
    json.loads(json.dumps(result.figures, allow_nan=False))


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("lorenz63-noisy", 1),
        ("lorenz63-noisy", 7),
        ("lorenz96-partial", 7),
        pytest.param("kpz-noisy", 7, marks=pytest.mark.slow),
    ],
)
def test_the_size_of_chunks_does_not_matter(data, monkeypatch, name, chunk):
    task = tasks.get(name, "tiny")
    contexts = dataset.load(task, data).contexts
    forecasts = {
        split: wander(contexts[split], task.steps(split), task.n_members(split), torch.manual_seed(1))
        for split in ("test", "climate")
    }
    if "widths" in task.splits:
        forecasts["widths"] = wander(dataset.load(task, data).context("widths"), 4, 1, torch.manual_seed(2))

    def forecaster(split: str, cases: slice) -> torch.Tensor:
        return forecasts[split][:, cases]

    whole = scoring.score(task, data, forecaster)
    monkeypatch.setattr(forecast, "CHUNK", chunk)
    parts = scoring.score(task, data, forecaster)
    for key, row in rows_of(whole).items():
        assert rows_of(parts)[key] == pytest.approx(row, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "metric", "floor", "oracle"),
    [
        ("lorenz63-noisy", "valid_prediction_time", 0.2, 3.2),
        pytest.param("kpz-noisy", "crps", 5.0, 1.0, marks=pytest.mark.slow),
    ],
)
def test_skill_is_zero_at_the_floor_and_one_at_the_oracle(data, monkeypatch, name, metric, floor, oracle):
    task = tasks.get(name, "tiny")
    monkeypatch.setattr(reference, "get", lambda _: {"floor": floor, "oracle": oracle})
    rows = rows_of(scoring.evaluate(Wanderer(), task, data))
    value, skill = rows[metric, None], rows["skill_accuracy", None]
    assert skill[0] == pytest.approx((value[0] - floor) / (oracle - floor))
    ends = sorted((v - floor) / (oracle - floor) for v in value[1:])
    assert skill[1:] == pytest.approx(ends)


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean"])
def test_the_first_lead_is_the_sample_after_the_context(data, name):
    task, module = tasks.get(name, "tiny"), baselines.get("oracle")
    rows = rows_of(scoring.evaluate(module.build(task, module.Config()), task, data))  # the true flow, exact start
    errors = [row[0] for (metric, _), row in rows.items() if metric == "rms_error"]
    assert errors[0] < 1e-9
    assert max(errors) < 1e-2
    assert rows["never_crossed_fraction", None][0] == 1


def test_every_chunk_has_a_random_stream_of_its_own(data, monkeypatch):
    seeds = []

    class Listener:
        def forecast(self, context, n_steps, n_members, generator):
            seeds.append(generator.initial_seed())
            return torch.zeros(1, len(context), n_steps, *context.shape[2:])

    monkeypatch.setattr(forecast, "CHUNK", 4)
    for name in ("lorenz63-partial", "lorenz63-scarce"):
        scoring.evaluate(Listener(), tasks.get(name, "tiny"), data)
    assert len(set(seeds)) == len(seeds) == 2 * (4 + 2)


# --- one result by every way in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "name"),
    [
        ("persistence", "lorenz63-noisy"),
        ("linear", "lorenz96-partial"),
        pytest.param("persistence", "kpz-noisy", marks=pytest.mark.slow),
    ],
)
def test_a_forecast_file_scores_like_the_run_that_made_it(emubench, data, tmp_path, baseline, name):
    task = tasks.get(name, "tiny")
    run = stages.train(jobs.Job(baseline, name, "tiny"), data, tmp_path)
    by_run = stages.score(run, data)
    emulator = folders.load(run).emulator
    contexts = dataset.load(task, data)
    with torch.no_grad():
        forecasts = {
            s: emulator.forecast(contexts.context(s), task.steps(s), task.n_members(s), torch.Generator()).numpy()[
                :, :, np.array(task.leads(s)) - 1
            ]
            for s in task.splits
        }
    np.savez(tmp_path / "f.npz", **forecasts)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for split, values in forecasts.items():
            file.create_dataset(f"{split}/forecast", data=values, compression="gzip", compression_opts=1, shuffle=True)
    for file in ("f.npz", "f.h5"):
        command = ("score", "--forecast", tmp_path / file, "--task", name, "--size", "tiny", "--data", data, "--json")
        by_file = json.loads(emubench(*command).out)
        assert by_file == [{"run": str(tmp_path / file), **row.model_dump()} for row in by_run.rows]
    shown = json.loads(emubench("score", run, "--data", data, "--json").out)
    assert shown == [row | {"run": str(run)} for row in by_file]


def test_a_forecast_of_one_member_is_scored_where_an_ensemble_is_asked_for():
    context = torch.zeros(2, 64, 8)
    assert check_forecast(torch.zeros(1, 2, 5, 8), context, 5, 16).shape[0] == 1
