"""Diagnostics of emulators against the true system itself, closed forms and known violations."""

from __future__ import annotations

import math

import pytest
import torch

from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.data.observation import observed_symmetry
from emubench.dynamics.spectrum import Estimate
from emubench.evaluation import diagnostics, scoring
from emubench.evaluation.diagnostics import Subject, measure
from emubench.files import run_files
from tests.support.diagnosed import LORENZ63, Constant, interval_of, values
from tests.support.steppers import MapStepper, Noisy, true_stepper

# --- growth between twins ---------------------------------------------------------------------------------------------


def test_the_true_system_as_an_emulator_separates_its_twins_as_the_truth_does(data):
    """Started from the noisy last sample, so not from the same states: the same mean within the interval."""
    found = measure("twin_separation", Subject(true_stepper(LORENZ63.system, 0.0125), LORENZ63, data))
    figures = values(found)
    low, high = interval_of(found, "twin_separation_time")
    true_low, true_high = interval_of(found, "true_twin_separation_time")
    assert max(low, true_low) < min(high, true_high)
    assert figures["true_twin_separation_time"] == pytest.approx(math.log(10), rel=0.5)  # in Lyapunov times
    assert figures["twins_never_apart"] == 0


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz63-partial"])
def test_the_truths_twins_start_from_the_truth(data, name):
    """The unperturbed forecast is the stored truth; what is not scored keeps its true value."""
    task = tasks.get(name, "tiny")
    subject = Subject(Constant(), task, data)
    present = subject.true_context()[:, -1]
    scored = torch.from_numpy(task.observation.select(present.numpy()).copy())[:, None]
    forecast = diagnostics.TrueForecast(task, present).forecast(scored, 20, 1, torch.Generator())
    values, _, _ = scoring.load_truth(task, data, "test")
    assert forecast[0].numpy() == pytest.approx(values[:, :20].numpy(), abs=1e-9)


def test_an_emulator_that_forgets_never_separates(data):
    found = values(measure("twin_separation", Subject(Constant(), LORENZ63, data)))
    assert found["twins_never_apart"] == 1
    assert found["twin_separation_time"] == pytest.approx(LORENZ63.test_steps * LORENZ63.lead_time_step)
    assert found["true_twins_never_apart"] == 0


# --- twice the noise --------------------------------------------------------------------------------------------------


def test_an_emulator_that_ignores_its_context_does_not_mind_the_noise(data):
    found = measure("noise_doubling", Subject(Constant(), LORENZ63, data))
    assert values(found)["noise_doubling_change"] == 0
    assert interval_of(found, "noise_doubling_change") == (0, 0)


class Recorder(Constant):
    """It keeps the contexts it was given, and those of its copies."""

    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def forecast(self, context, n_steps, n_members, generator):
        self.seen.append(context)
        return super().forecast(context, n_steps, n_members, generator)


@pytest.mark.parametrize("name", ["lorenz96-partial", "kpz-noisy", "lorenz63-scarce"])
def test_the_noise_is_the_same_draws_twice_as_large_with_the_same_gaps(data, name):
    task, emulator = tasks.get(name, "tiny"), Recorder()
    assert not measure("noise_doubling", Subject(emulator, task, data)).note
    given, doubled = emulator.seen[0], emulator.seen[-1]  # halves of an ensemble are asked apart
    assert torch.equal(given.isnan(), doubled.isnan())
    assert torch.equal(given.nan_to_num(), dataset.load(task, data).contexts["test"].nan_to_num())
    extra = (doubled - given)[~given.isnan()]
    noise = float(torch.from_numpy(task.observation.noise_std(task.system)).mean())
    assert float(extra.std()) == pytest.approx(noise, rel=0.06)
    assert float(extra.mean()) == pytest.approx(0, abs=5 * noise / len(extra) ** 0.5)


def test_a_start_from_the_last_noisy_sample_loses_a_logarithm(data):
    """The true model from twice the error: ln 2 Lyapunov times less, in the mean of 16 cases within the interval."""
    found = measure("noise_doubling", Subject(true_stepper(LORENZ63.system, 0.0125), LORENZ63, data))
    low, high = interval_of(found, "noise_doubling_change")
    assert low - 0.2 < -math.log(2) < high + 0.2
    assert high < 0
    figures = values(found)
    before, after = figures["valid_prediction_time_at_noise"], figures["valid_prediction_time_at_double_noise"]
    assert before is not None
    assert after is not None
    assert figures["noise_doubling_change"] == pytest.approx(after - before)


def test_the_score_before_is_the_score_of_the_run(data):
    emulator = true_stepper(LORENZ63.system, 0.05)
    result = scoring.evaluate(emulator, LORENZ63, data)
    (row,) = [r for r in result.scores.rows if r.metric == "valid_prediction_time"]
    found = values(measure("noise_doubling", Subject(emulator, LORENZ63, data)))
    assert found["valid_prediction_time_at_noise"] == pytest.approx(row.value, rel=1e-12)


def test_without_noise_there_is_nothing_to_double(data):
    found = measure("noise_doubling", Subject(Constant(), tasks.get("lorenz63-clean", "tiny"), data))
    assert found == run_files.Diagnostic(note="not available: lorenz63-clean has no noise")


# --- one-sample gain --------------------------------------------------------------------------------------------------


def test_the_true_stepper_has_the_true_flows_gains(data):
    figures = values(measure("one_sample_gain", Subject(true_stepper(LORENZ63.system, 0.0125), LORENZ63, data)))
    for place in ("gain", "gain_outside"):
        for statistic in ("median", "q99", "max"):
            assert figures[f"{place}_{statistic}"] == pytest.approx(figures[f"true_{place}_{statistic}"], rel=1e-3)
    assert figures["gain_median"] < figures["gain_q99"] <= figures["gain_max"]
    assert len(figures) == 12


def test_the_gain_of_a_map_that_is_linear_in_sigma(data):
    found = measure("one_sample_gain", Subject(MapStepper(lambda u: 1.5 * u), LORENZ63, data))
    figures = {k: v for k, v in values(found).items() if not k.startswith("true_")}
    assert figures == pytest.approx(dict.fromkeys(figures, 1.5))


def test_a_map_that_blows_up_outside_has_no_finite_gain_there(data):
    limit = 60.0
    emulator = MapStepper(lambda u: torch.where(u.abs().amax(-1, keepdim=True) > limit, u / 0.0, u))
    found = values(measure("one_sample_gain", Subject(emulator, LORENZ63, data)))
    assert found["gain_max"] == pytest.approx(1.0)
    assert found["gain_outside_max"] is None


# --- symmetry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz63-partial", "lorenz96-partial", "kpz-noisy"])
def test_a_symmetric_emulator_violates_nothing(data, name):
    class Last:
        def forecast(self, context, n_steps, n_members, generator):
            last = torch.nan_to_num(context[:, -1:])
            height = last.mean(-1, keepdim=True) if name.startswith("kpz") else 0.0
            return (height + (last - height)).expand(-1, n_steps, *context.shape[2:])[None].clone()

    task = tasks.get(name, "tiny")
    found = measure("symmetry_violation", Subject(Last(), task, data))
    assert not found.note
    assert len(found.rows) == 2 * len(task.system.symmetries())
    assert [row.value for row in found.rows] == pytest.approx([0.0] * len(found.rows), abs=1e-12)


def test_a_known_violation(data):
    """A drift d in x breaks (x, y, z) → (−x, −y, z) by 2 d after every sample, in one of three components."""
    drift = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    emulator = MapStepper(lambda u: u + drift)
    found = measure("symmetry_violation", Subject(emulator, LORENZ63, data))
    per_sample = 2 * 0.5 / 7.92 / 3**0.5
    n = round(1 / LORENZ63.lead_time_step)
    assert [row.lead_time for row in found.rows] == pytest.approx([0.05 / 1.104, 22 * 0.05 / 1.104])
    assert [row.value for row in found.rows] == pytest.approx([per_sample, n * per_sample])
    upwards = MapStepper(lambda u: u + drift.roll(2))  # along z nothing is broken
    assert all(row.value == 0 for row in measure("symmetry_violation", Subject(upwards, LORENZ63, data)).rows)


def test_a_ring_with_a_marked_site_is_seen(data):
    task = tasks.get("lorenz96-noisy", "tiny")
    mark = torch.zeros(40, dtype=torch.float64)
    mark[3] = 3.639
    found = measure("symmetry_violation", Subject(MapStepper(lambda u: 0 * u + mark), task, data))
    assert [row.value for row in found.rows] == pytest.approx([(2 / 40) ** 0.5] * 2)


class Ensemble:
    """``drift`` per sample, and independent noise for every member."""

    def __init__(self, drift):
        self.drift = drift

    def forecast(self, context, n_steps, n_members, generator):
        shape = (n_members, len(context), n_steps, *context.shape[2:])
        start = torch.nan_to_num(context[:, -1:])
        steps = torch.arange(1, n_steps + 1).reshape(1, 1, -1, *[1] * (context.ndim - 2))
        return start + self.drift * steps + torch.randn(shape, generator=generator, dtype=context.dtype)


def test_in_law_sampling_is_no_violation(data):
    task = tasks.get("kpz-noisy", "tiny")
    for found in measure("symmetry_violation", Subject(Ensemble(0.0), task, data)).rows:
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 0 <= found.high, found
        assert abs(found.value or 0) < 0.02  # of σ = 4.6: plain differences of means would give 0.08
    wedge = torch.zeros(256, dtype=torch.float64)
    wedge[:128] = 4.62 / 8
    broken = {
        (row.metric, row.lead_time): row.value
        for row in measure("symmetry_violation", Subject(Ensemble(wedge), task, data)).rows
    }
    expected = 1.0  # at lead 8 the two halves differ by σ where they are exchanged
    assert broken["symmetry_violation_reflection", 8.0] == pytest.approx(expected, rel=0.02)
    assert broken["symmetry_violation_shift_of_height", 8.0] == pytest.approx(0, abs=0.02)


def test_one_random_member_is_not_comparable(data):
    class Single(Ensemble):
        def forecast(self, context, n_steps, n_members, generator):
            return super().forecast(context, n_steps, 1, generator)

    found = measure("symmetry_violation", Subject(Single(0.0), LORENZ63, data))
    assert found == run_files.Diagnostic(
        note="not available: the emulator draws random numbers, but gives a single member"
    )


def test_a_lost_forecast_violates_by_ten_sigma(data):
    class Lost(Constant):
        def forecast(self, context, n_steps, n_members, generator):
            return super().forecast(context, n_steps, n_members, generator) + torch.nan

    found = measure("symmetry_violation", Subject(Lost(), LORENZ63, data))
    assert [row.value for row in found.rows] == [10.0, 10.0]


def test_a_symmetry_that_mixes_what_is_never_observed_is_not_available():
    task = tasks.get("lorenz63-partial", "tiny")
    with pytest.raises(EmubenchError, match="mixes components that are never observed"):
        observed_symmetry(lambda u: u.roll(1, -1), task.observation, task.system)


# --- what is not available, and files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emulator", "task", "notes"),
    [
        (Constant(), "lorenz63-noisy", {"lyapunov_spectrum": "no Stepper", "one_sample_gain": "no Stepper"}),
        (
            Noisy(lambda u: u),
            "lorenz63-noisy",
            {"lyapunov_spectrum": "stochastic", "one_sample_gain": "stochastic", "twin_separation": "stochastic"}
            | {"symmetry_violation": "single member"},
        ),
        (
            Constant(),
            "kpz-noisy",
            {"lyapunov_spectrum": "kpz is stochastic", "one_sample_gain": "kpz is stochastic"}
            | {"twin_separation": "kpz is stochastic"},
        ),
    ],
)
def test_what_is_not_available_is_said_in_a_line(data, emulator, task, notes):
    subject = Subject(emulator, tasks.get(task, "tiny"), data)
    for name in diagnostics.DIAGNOSTICS:
        found = measure(name, subject)
        assert bool(found.note) == (name in notes), (name, found.note)
        assert notes.get(name, "") in found.note
        assert "\n" not in found.note
        assert bool(found.rows) != bool(found.note)


def test_an_interval_is_that_of_student():
    assert diagnostics.interval(Estimate(2.0, 0.5), 4) == pytest.approx(
        (2.0, 2 - 3.182 * 0.5, 2 + 3.182 * 0.5), abs=1e-3
    )
