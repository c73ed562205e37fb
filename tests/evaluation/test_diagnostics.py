"""Diagnostics of emulators against the true system itself, closed forms and known violations."""

from __future__ import annotations

import json
import math

import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.dynamics import lyapunov
from emubench.dynamics.climate import leading_exponent
from emubench.dynamics.spectrum import Estimate, Spectrum
from emubench.evaluation import diagnostics, jacobian_gain, scoring
from emubench.evaluation.diagnostics import Subject, measure
from emubench.files import run_files
from emubench.runs import jobs, stages
from tests.support.steppers import MapStepper, Noisy, normal, true_stepper

LORENZ63 = tasks.get("lorenz63-noisy", "tiny")


def values(diagnostic: run_files.Diagnostic) -> dict[str, float | None]:
    """Value of every row; that of the longest lead where there are several."""
    return {row.metric: row.value for row in diagnostic.rows}


def interval_of(diagnostic: run_files.Diagnostic, metric: str) -> tuple[float, float]:
    (row,) = [row for row in diagnostic.rows if row.metric == metric]
    assert row.low is not None
    assert row.high is not None
    return row.low, row.high


class Constant:
    """It ignores its context's last samples' noise: a climatology."""

    def forecast(self, context, n_steps, n_members, generator):
        return context.new_zeros(1, len(context), n_steps, *context.shape[2:])


# --- Lyapunov spectrum ------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    """Lyapunov spectra over two Lyapunov times at tiny size."""
    monkeypatch.setattr(diagnostics, "MAX_DURATION", 16.0)


@pytest.mark.slow
def test_a_stepper_of_the_true_system_has_its_spectrum(data):
    """12.5 Lyapunov times; RK4 with a step of 0.025 moves the sum of the exponents by 0.04 %, one of 0.05 by 0.8 %."""
    found = measure("lyapunov_spectrum", Subject(true_stepper(LORENZ63.system, 0.025), LORENZ63, data))
    figures = values(found)
    assert not found.note
    assert figures["state_dimension"] == figures["true_state_dimension"] == 3
    for name in ("lyapunov_exponent_1", "kaplan_yorke_dimension"):
        low, high = interval_of(found, f"{name}_error")
        assert low < 0 < high
        assert figures[f"{name}_error"] == pytest.approx(figures[name] - figures[f"true_{name}"])  # type: ignore
    assert abs(figures["kaplan_yorke_dimension_error"] or 9) < 0.02
    for prefix, precision in (("", 1e-3), ("true_", 1e-6)):
        assert sum(found.series[f"{prefix}exponents"]) == pytest.approx(-41 / 3, rel=precision)
        assert len(found.series[f"{prefix}standard_errors"]) == 3


@pytest.mark.slow
def test_a_slower_emulator_has_smaller_exponents(data):
    """One that advances by 0.04 where 0.05 is asked for: every exponent is 0.8 of the true one."""
    solver = LORENZ63.system.solver(0.02)
    found = measure("lyapunov_spectrum", Subject(MapStepper(lambda u: solver(solver(u, None), None)), LORENZ63, data))
    assert sum(found.series["exponents"]) == pytest.approx(-0.8 * 41 / 3, rel=1e-3)
    low, high = interval_of(found, "lyapunov_exponent_1_error")
    assert low < -0.2 * 0.9057 < high
    assert (values(found)["lyapunov_exponent_1_error"] or 0) < -0.05


@pytest.mark.slow
def test_a_wrong_parameter_moves_the_first_exponent_its_own_way(data):
    """λ₁ of Lorenz-63 rises with ρ; the value at ρ = 45 is measured by twins of the fast solver."""
    wrong = systems.get("lorenz63", rho=45.0, climate=LORENZ63.system.climate)
    direct = leading_exponent(wrong, n_trajectories=64, accuracy=0.02)
    assert direct.value > 1.1
    found = measure("lyapunov_spectrum", Subject(true_stepper(wrong, 0.025), LORENZ63, data))
    assert values(found)["lyapunov_exponent_1"] == pytest.approx(direct.value, rel=0.15)
    assert (values(found)["lyapunov_exponent_1_error"] or 0) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy"])
def test_the_errors_of_a_true_stepper_vanish(data, monkeypatch, name):
    """Fifty Lyapunov times of eight replicas: λ₁ and the dimension to a few percent, and within their intervals."""
    monkeypatch.setattr(diagnostics, "MAX_DURATION", 400.0)
    task = tasks.get(name, "tiny")
    found = measure("lyapunov_spectrum", Subject(true_stepper(task.system, 0.025), task, data))
    for figure, tolerance in (("lyapunov_exponent_1", 0.06), ("kaplan_yorke_dimension", 0.02)):
        low, high = interval_of(found, f"{figure}_error")
        true = values(found)[f"true_{figure}"]
        assert true is not None
        assert low < 0 < high
        assert high - low < 4 * tolerance * true
        fact = {"lorenz63": (0.9057, 2.062), "lorenz96": (1.689, 27.04)}[task.system.name]
        assert true == pytest.approx(fact[figure != "lyapunov_exponent_1"], rel=tolerance)


def test_twins_of_the_fast_solver_give_the_exact_spectrum():
    """Same states, same directions. An offset of 10⁻⁷ of the state bends a difference by about as much per sample."""
    climate = systems.get("lorenz96").climate
    system = systems.get("lorenz96", n_sites=6, solver_step=0.0125, climate=climate)
    state = normal(0, 3, 6) + 2
    schedule = lyapunov.Schedule.of(0.05, 0.05, 2.0, 1.0, 4)
    exact = lyapunov.tangent_spectrum(true_stepper(system).function, state, schedule)
    twins = lyapunov.twin_spectrum(system, state, duration=2.0, settling=1.0, n_blocks=4)
    assert twins.rates.numpy() == pytest.approx(exact.rates.numpy(), abs=5e-5)
    assert twins.sum.value == pytest.approx(exact.sum.value, abs=1e-5)
    assert exact.sum.value == pytest.approx(-6, abs=1e-4)


def test_twins_give_the_exact_spectrum_on_a_field():
    system = systems.get("kuramoto_sivashinsky", solver_step=0.125, climate=systems.get("kuramoto_sivashinsky").climate)
    state = torch.from_numpy(lyapunov.on_attractor(system, 2, 60, seed=0))
    schedule = lyapunov.Schedule.of(1.0, 1.0, 16.0, 16.0, 4)
    exact = lyapunov.tangent_spectrum(
        true_stepper(system).function, state, schedule, 9, n_dimensions=63, project=system.project
    )
    twins = lyapunov.twin_spectrum(system, state, 9, duration=16.0, settling=16.0, n_blocks=4)
    assert twins.rates.numpy() == pytest.approx(exact.rates.numpy(), abs=5e-5)
    assert exact[0].value > 0 > exact[8].value


def test_twins_resolve_no_more_than_they_can():
    system = systems.get("kuramoto_sivashinsky")
    state = jacobian_gain.sample_states(system, 2, 0)
    with pytest.raises(lyapunov.Unresolved, match="perturbations vanish"):
        lyapunov.twin_spectrum(system, state, 30, duration=4.0)
    found = diagnostics.as_many_as_resolved(
        lambda n: lyapunov.twin_spectrum(system, state, n, duration=4.0, settling=2.0, n_blocks=2), 30
    )
    assert found.n_dimensions == 63
    assert 9 <= found.rates.shape[-1] < 20


def test_a_mean_that_both_conserve_has_no_exponent(data):
    """KS conserves the mean; a stepper that does so has its 63 dimensions, one that damps it towards 1 all 64."""
    task = tasks.get("kuramoto_sivashinsky-noisy", "tiny")
    system, state = task.system, jacobian_gain.sample_states(task.system, 2, 0)

    def keeps(u):
        return u - 0.1 * (u.roll(1, -1) - u) ** 1

    assert diagnostics.conserved(system, state, keeps) == system.project
    assert diagnostics.conserved(system, state, lambda u: u - 0.1 * u**3) is None
    assert diagnostics.conserved(system, state[:, :5], keeps) is None
    assert diagnostics.conserved(LORENZ63.system, state[:, :3], lambda u: u) is None


def test_a_longer_state_is_reported_with_its_size(data, short):
    """Two decoupled copies, the second damped: three more exponents, all −ln 2 per sample."""
    true = true_stepper(LORENZ63.system, 0.025)

    class Augmented(MapStepper):
        def start(self, context, n_members, generator):
            return torch.cat([context[:, -1], torch.ones_like(context[:, -1])], dim=-1)[None]

        def read(self, state):
            return state[..., :3]

    emulator = Augmented(lambda u: torch.cat([true.function(u[..., :3]), u[..., 3:] / 2], dim=-1))
    found = measure("lyapunov_spectrum", Subject(emulator, LORENZ63, data))
    assert values(found)["state_dimension"] == 6
    assert values(found)["true_state_dimension"] == 3
    damped = -math.log(2) / 0.05
    assert sum(found.series["exponents"]) == pytest.approx(-41 / 3 + 3 * damped, abs=0.01)
    note = measure("one_sample_gain", Subject(emulator, LORENZ63, data)).note
    assert "its state has 6 numbers, the system's 3" in note


def test_too_few_exponents_give_no_dimension_and_say_so():
    rates = torch.tensor([1.0, 0.5, -0.1]).double().expand(4, 2, 3) + 0.01 * normal(1, 4, 2, 3)
    whole = Spectrum(torch.cat([rates, rates[..., :1] - 6], dim=-1), 4)
    subject = Subject(None, LORENZ63, None)  # type: ignore[arg-type]
    rows, note = diagnostics._compare(subject, Spectrum(rates, 5), whole)
    assert "Kaplan-Yorke dimension: not available from 3 of 5 exponents" in note
    assert [row.metric for row in rows] == [
        f"{p}lyapunov_exponent_1{s}" for p, s in (("", ""), ("true_", ""), ("", "_error"))
    ]
    rows, note = diagnostics._compare(subject, whole, whole)
    assert not note
    assert len(rows) == 6


# --- growth between twins -------------------------------------------------------------------------------------------


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
    """It keeps the contexts it was given."""

    def __init__(self):
        self.seen = []

    def forecast(self, context, n_steps, n_members, generator):
        self.seen.append(context)
        return super().forecast(context, n_steps, n_members, generator)


@pytest.mark.parametrize("name", ["lorenz96-partial", "kpz-noisy", "lorenz63-scarce"])
def test_the_noise_is_the_same_draws_twice_as_large_with_the_same_gaps(data, name):
    task, emulator = tasks.get(name, "tiny"), Recorder()
    assert not measure("noise_doubling", Subject(emulator, task, data)).note
    given, doubled = emulator.seen
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
    result, _ = scoring.evaluate(emulator, LORENZ63, data)
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
        diagnostics.observed_symmetry(lambda u: u.roll(1, -1), task)


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


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A trained run of the smallest learned kind."""
    job = jobs.Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"steps": 20, "width": 8})
    return stages.train(job, data, tmp_path_factory.mktemp("runs"))


def test_a_run_is_diagnosed_once_and_goes_on_where_it_was(data, run, short, monkeypatch):
    first = stages.diagnose(run, data)
    assert list(first.diagnostics) == list(diagnostics.DIAGNOSTICS)
    assert stages.read_diagnostics(run) == first
    text = (run / "diagnostics.json").read_text()
    kept = json.loads(text)
    del kept["diagnostics"]["noise_doubling"]
    (run / "diagnostics.json").write_text(json.dumps(kept))
    calls = []
    monkeypatch.setattr(diagnostics, "measure", lambda name, subject: calls.append(name) or measure(name, subject))
    again = stages.diagnose(run, data)
    assert calls == ["noise_doubling"]
    assert again.diagnostics == first.diagnostics  # deterministic
    assert stages.diagnose(run, data, again=True).diagnostics == first.diagnostics
    assert calls[1:] == list(diagnostics.DIAGNOSTICS)


def test_diagnostics_of_other_data_are_made_anew(data, run, short, monkeypatch):
    stages.diagnose(run, data)
    monkeypatch.setattr(scoring, "truth_digest", lambda task, data: "0" * 64)
    monkeypatch.setattr(diagnostics, "measure", lambda name, subject: run_files.Diagnostic(note="anew"))
    assert {d.note for d in stages.diagnose(run, data).diagnostics.values()} == {"anew"}


def test_the_command_prints_and_stores_them(data, run, short, emubench, refused):
    shown = emubench("score", run, "--data", data, "--diagnostics")
    assert shown.status == 0, shown.err
    assert "twin_separation_time" in shown.out
    assert "(reported, never ranked)" in " ".join(shown.out.split())
    rows = json.loads(emubench("score", run, "--data", data, "--diagnostics", "--json").out)
    assert {"valid_prediction_time", "lyapunov_exponent_1", "true_gain_max"} <= {row["metric"] for row in rows}
    compared = emubench("compare", run)
    assert "symmetry: worst violation" in compared.out
    line = refused("score", "--forecast", "x.npz", "--task", "lorenz63-noisy", "--data", data, "--diagnostics")
    assert "--diagnostics needs RUN folders" in line


def test_diagnostics_leave_the_ranking_alone(data, run, short, emubench):
    emubench("score", run, "--data", data)
    (run / "diagnostics.json").unlink(missing_ok=True)
    before = emubench("compare", run, "--json").out
    stages.diagnose(run, data)
    assert emubench("compare", run, "--json").out == before


def test_a_diagnostics_file_is_checked(data, run, short, refused):
    stages.diagnose(run, data)
    path = run / "diagnostics.json"
    path.write_text(path.read_text().replace('"note"', '"remark"', 1))
    try:
        assert "remark" in refused("score", run, "--data", data, "--diagnostics")
    finally:
        path.unlink()
