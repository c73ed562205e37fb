"""Metrics against definitions, closed forms and other implementations; and no way to gain by failing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emubench import metrics
from emubench.data import tasks
from emubench.dynamics.first_passage import crossing
from emubench.evaluation import scoring
from emubench.metrics import Truth, anomaly_correlation, error_curve, valid_prediction_time

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def truth_of(data):
    """The truth of a task's split, of at most 600 samples of kpz, with pool and reference values."""
    made = {}

    def get(name: str, split: str) -> Truth:
        if (name, split) not in made:
            task = tasks.get(name, "tiny")
            values, start, _ = scoring.load_truth(task, data, split)
            values = values[:, :600] if task.system.stochastic else values
            made[name, split] = Truth(task, values, start)
        return made[name, split]

    return get


def outcome(module, forecast, truth: Truth) -> dict[str, float]:
    """Whole-forecast scores by name."""
    summary = module.summarise(forecast, truth)
    values = summary.finish(summary.cases.mean(0))
    assert len(values) == len(summary.rows)
    return {row.metric: float(v) for row, v in zip(summary.rows, values, strict=True) if row.lead_time is None}


# --- valid prediction time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        ([0.25, 0.75, 0.1], 1.5),
        ([0.1, 0.2, 0.3], 3.0),
        ([0.5, 0.5, 0.5], 3.0),  # 0.5 is not beyond 0.5
        ([1.0, 9.0], 0.5),
        ([2.0, 0.0], 0.25),
        ([0.4, 0.6, 0.4, 0.6], 1.5),
        ([0.0, 0.0, 1.0], 2.5),
        ([0.5, 1.5], 1.0),
    ],
)
def test_crossing_by_hand(e, expected):
    assert float(crossing(torch.tensor([e], dtype=torch.float64), 0.5)[0]) == pytest.approx(expected)


@pytest.mark.parametrize(("n_sound", "expected"), [(0, 0.0), (1, 1.0), (3, 3.0)])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_failure_crosses_at_the_last_sound_sample(truth_of, n_sound, expected, bad):
    truth = truth_of("lorenz63-noisy", "test")
    forecast = truth.values[None].clone()
    forecast[0, :, n_sound, 1] = bad
    times = valid_prediction_time.summarise(forecast, truth).cases[:, 0] / truth.task.lead_time_step
    assert times.tolist() == pytest.approx([expected] * 16)


def test_it_is_the_root_mean_square_over_components_in_sigma(truth_of):
    truth = truth_of("lorenz63-noisy", "test")
    t = torch.arange(1, truth.values.shape[1] + 1, dtype=torch.float64)
    forecast = truth.values.clone()
    forecast[..., 2] += 0.1 * t * truth.std[2]  # e = 0.1 t / √3 crosses 0.5 at t = 5 √3
    found = outcome(valid_prediction_time, forecast[None], truth)
    assert found["valid_prediction_time"] == pytest.approx(5 * 3**0.5 * truth.task.lead_time_step)
    assert found["valid_prediction_time_strict"] == pytest.approx(3 * 3**0.5 * truth.task.lead_time_step)
    assert found["never_crossed_fraction"] == 0


def test_a_perfect_forecast_gets_the_horizon(truth_of):
    truth = truth_of("lorenz96-noisy", "test")
    found = outcome(valid_prediction_time, truth.values[None], truth)
    assert found["valid_prediction_time"] == pytest.approx(truth.task.test_steps * truth.task.lead_time_step)
    assert 20 <= found["valid_prediction_time"] < 20.1
    assert found["never_crossed_fraction"] == 1


def test_a_clean_task_is_capped_where_the_truth_stops_being_one(truth_of):
    truth = truth_of("lorenz63-clean", "test")
    limit = truth.task.system.known_climate().agreement_time
    found = outcome(valid_prediction_time, truth.values[None], truth)["valid_prediction_time"]
    assert found == pytest.approx(min(limit or INF, truth.task.test_steps * truth.task.lead_time_step))


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-partial"])
def test_median_and_tenth_percentile_are_those_of_the_cases(truth_of, name):
    truth = truth_of(name, "test")
    generator = torch.Generator().manual_seed(0)
    rate = 0.02 * torch.randn(16, generator=generator, dtype=torch.float64).abs()
    t = torch.arange(1, truth.values.shape[1] + 1, dtype=torch.float64)
    growth = (rate[:, None] * t).reshape(16, -1, *[1] * (truth.values.ndim - 2))
    summary = valid_prediction_time.summarise((truth.values + growth * truth.std)[None], truth)
    times, horizon = summary.cases[:, 0].numpy(), truth.task.test_steps * truth.task.lead_time_step
    assert times.std() > 1
    found = outcome(valid_prediction_time, (truth.values + growth * truth.std)[None], truth)
    for metric, share in valid_prediction_time.QUANTILES.items():
        exact = np.quantile(times, share, method="inverted_cdf")
        assert exact <= found[metric] <= exact + horizon / valid_prediction_time.RESOLUTION + 1e-9


def test_quantiles_of_one_value_are_that_value(truth_of):
    truth = truth_of("lorenz63-noisy", "test")
    found = outcome(valid_prediction_time, truth.values[None], truth)
    lost = outcome(valid_prediction_time, torch.full_like(truth.values, NAN)[None], truth)
    for metric in valid_prediction_time.QUANTILES:
        assert found[metric] == pytest.approx(truth.task.test_steps * truth.task.lead_time_step)
        assert lost[metric] == 0


@given(
    st.lists(st.lists(st.floats(0, 20), min_size=5, max_size=5), min_size=1, max_size=4),
    st.floats(1, 10),
    st.floats(0.05, 1),
)
def test_more_error_never_lasts_longer(e, factor, threshold):
    small = torch.tensor(e, dtype=torch.float64)
    before, after = crossing(small, threshold), crossing(factor * small, threshold)
    assert (after <= before + 1e-12).all()
    assert ((before >= 0) & (before <= 5)).all()
    assert (crossing(small, 2 * threshold) >= before - 1e-12).all()


def test_of_an_ensemble_the_mean_counts(truth_of):
    truth = truth_of("lorenz63-noisy", "test")
    off = 3 * truth.std
    found = outcome(valid_prediction_time, torch.stack([truth.values + off, truth.values - off]), truth)
    assert found["never_crossed_fraction"] == 1


def test_the_error_curve_is_the_root_mean_square_over_cases(truth_of):
    truth = truth_of("lorenz63-noisy", "test")
    forecast = truth.values.clone()
    forecast[:8] += 0.6 * truth.std
    forecast[8:] += 0.8 * truth.std
    summary = error_curve.summarise(forecast[None], truth)
    curve = summary.finish(summary.cases.mean(0))
    assert curve.tolist() == pytest.approx([0.5**0.5] * len(curve))
    leads = [row.lead_time for row in summary.rows]
    assert leads[0] == pytest.approx(truth.task.lead_time_step, abs=1e-6)
    assert len(leads) == len(curve) <= 120
    failed = error_curve.summarise(torch.full_like(forecast, NAN)[None], truth)
    assert (failed.finish(failed.cases.mean(0)) == metrics.LOST).all()


def correlations(forecast: torch.Tensor, truth: Truth) -> list[float]:
    summary = anomaly_correlation.summarise(forecast, truth)
    assert [row.lead_time for row in summary.rows] == [r.lead_time for r in error_curve.summarise(forecast, truth).rows]
    return summary.finish(summary.cases.mean(0)).tolist()


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy"])
def test_anomaly_correlation_sees_shapes_and_no_amplitudes(truth_of, name):
    truth = truth_of(name, "test")
    anomaly = truth.values - truth.mean
    for factor, expected in ((1.0, 1), (0.01, 1), (100.0, 1), (-0.5, -1), (0.0, 0)):
        found = correlations((truth.mean + factor * anomaly)[None], truth)
        assert found == pytest.approx([expected] * len(found), abs=1e-9)


def test_anomaly_correlation_is_that_of_its_definition(truth_of):
    truth = truth_of("lorenz96-noisy", "test")
    forecast = truth.values.flip(0)
    a, b = (((x - truth.mean) / truth.std).numpy()[3, 7] for x in (forecast, truth.values))
    expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert float(anomaly_correlation.correlation(forecast[None], truth)[3, 7]) == pytest.approx(expected)


def test_anomaly_correlation_of_independent_states_is_nothing_and_of_failures_minus_one(truth_of):
    truth = truth_of("lorenz96-noisy", "test")
    forecast = truth.mean + torch.randn(truth.values.shape, generator=torch.manual_seed(0), dtype=torch.float64)
    assert np.mean(correlations(forecast[None], truth)) == pytest.approx(0, abs=0.03)
    forecast = truth.values.clone()
    forecast[:, 9, 0] = NAN
    found = anomaly_correlation.correlation(forecast[None], truth)
    assert (found[:, :9] > 1 - 1e-12).all()
    assert (found[:, 9:] == -1).all()
