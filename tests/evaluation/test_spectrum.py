"""Exponents of an emulator: against eigenvalues, the true system, log-determinants; or a reason why there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.dynamics import lyapunov
from emubench.dynamics.climates import leading_exponent
from emubench.dynamics.lyapunov import lyapunov_spectrum
from emubench.dynamics.spectrum import Spectrum
from emubench.evaluation import diagnostics, error_growth
from emubench.evaluation.diagnostics import Subject, measure
from emubench.evaluation.error_growth import emulator_spectrum
from tests.support.diagnosed import LORENZ63, interval_of, values
from tests.support.steppers import MapStepper, Noisy, attractor, known, normal, true_stepper

# --- exponents that are known exactly ---------------------------------------------------------------------------------


def test_exponents_of_a_linear_stepper_are_the_moduli_of_its_eigenvalues():
    """Two real eigenvalues and a rotating pair, of which any interval gives the sum exactly."""
    blocks = torch.zeros(4, 4, dtype=torch.float64)
    blocks[0, 0], blocks[3, 3] = 1.2, -0.4
    blocks[1:3, 1:3] = 0.7 * blocks.new_tensor([[0.6, -0.8], [0.8, 0.6]])
    basis = torch.eye(4, dtype=torch.float64) + 0.4 * normal(0, 4, 4)
    matrix = torch.linalg.inv(basis) @ blocks @ basis
    emulator = MapStepper(lambda u: u @ matrix)
    spectrum = emulator_spectrum(emulator, normal(1, 3, 5, 4), 0.25, duration=50, settling=50)
    found = spectrum.exponents.numpy() * 0.25
    assert found[[0, 3]] == pytest.approx([math.log(1.2), math.log(0.4)], abs=1e-10)
    assert found[1] + found[2] == pytest.approx(2 * math.log(0.7), abs=1e-10)
    assert found[1] == pytest.approx(math.log(0.7), abs=0.01)
    moduli = np.sort(np.abs(np.linalg.eigvals(matrix.numpy())))[::-1]
    assert moduli == pytest.approx([1.2, 0.7, 0.7, 0.4])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_henon_map(dtype):
    """x → 1 − 1.4 x² + y, y → 0.3 x: the determinant is −0.3 everywhere; λ₁ = 0.4192 (Sprott 2003)."""

    def henon(state):
        x, y = state.unbind(-1)
        return torch.stack([1 - 1.4 * x**2 + y, 0.3 * x], dim=-1)

    context = 0.1 * normal(2, 64, 1, 2)
    spectrum = emulator_spectrum(MapStepper(henon, dtype), context, 1.0, duration=400, settling=100)
    assert spectrum.sum.value == pytest.approx(math.log(0.3), abs=1e-12 if dtype == torch.float64 else 1e-6)
    assert spectrum[0].agrees(0.4192)
    assert spectrum[0].error < 0.003
    assert spectrum.kaplan_yorke_dimension.agrees(1.258, 0.001)


@pytest.mark.slow
def test_a_stepper_around_the_true_system_has_its_spectrum():
    system = systems.get("lorenz96", n_sites=6, forcing=8.0, climate=systems.get("lorenz96").climate)
    direct = lyapunov_spectrum(system, 3, duration=8, n_replicas=24, step=0.025, spin_up=20, settling=4)
    wrapped = emulator_spectrum(
        true_stepper(system, 0.025), attractor(system, 24, 400), 0.05, 3, duration=8, settling=4
    )
    for i in range(3):
        assert wrapped[i].agrees(direct[i].value, direct[i].error), i
        assert wrapped[i].error < 0.15


def test_a_network_in_single_precision_has_the_sum_of_its_log_determinants():
    """The average of log |det DF| along the orbit, from Jacobians by back-propagation, is the sum of the exponents."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    emulator = MapStepper(lambda u: 0.9 * u + 0.5 * network(u), torch.float32)
    context = normal(3, 2, 1, 3)
    spectrum = emulator_spectrum(emulator, context, 1.0, duration=16, settling=0)
    expected = np.zeros(2)
    for b in range(2):
        state = context[b, -1].float()
        for _ in range(16):
            jacobian = torch.autograd.functional.jacobian(emulator.function, state)
            expected[b] += float(torch.linalg.slogdet(jacobian.double()).logabsdet) / 16
            state = emulator.function(state).detach()
    assert spectrum.rates.mean(1).sum(-1).numpy() == pytest.approx(expected, abs=1e-4)


# --- what has no exponents --------------------------------------------------------------------------------------------


class Persistence:
    def forecast(self, context, n_steps, n_members, generator):
        return context[None, :, -1:].expand(1, -1, n_steps, *context.shape[2:])


class Members(MapStepper):
    def start(self, context, n_members, generator):
        return super().start(context, n_members, generator).expand(2, -1, -1).clone()


UNAVAILABLE = [
    (Persistence(), "Persistence: Lyapunov exponents are not available: it is no Stepper"),
    (Noisy(lambda u: u), "Noisy: Lyapunov exponents are not available: it is stochastic"),
    (Members(lambda u: u), "Members: .* it is stochastic"),
    (MapStepper(lambda u: u, torch.int64), "not available: its state is of torch.int64"),
    (MapStepper(lambda u: torch.from_numpy(2 * u.numpy())), "not available: its step can't be differentiated forward"),
    (MapStepper(lambda u: u.detach() / 2), "perturbations vanish or turn parallel .* hides its derivative"),
    (MapStepper(lambda u: u * u.new_tensor([1.0, 1e-20])), "turn parallel within 1 time units: take a shorter"),
    (MapStepper(lambda u: 1e30 * u), "replica 0 is not finite at time 11: it has no attractor"),
]


@pytest.mark.parametrize(("emulator", "message"), UNAVAILABLE, ids=range(len(UNAVAILABLE)))
def test_an_emulator_without_exponents_is_told_why(emulator, message):
    context = 1 + normal(5, 2, 1, 2).abs()
    with pytest.raises(EmubenchError, match=message):
        emulator_spectrum(emulator, context, 1.0, duration=16)


@pytest.mark.parametrize("kind", [KeyError, RuntimeError])
def test_an_error_of_the_emulator_itself_is_not_hidden(kind):
    calls = []

    def broken(state):
        calls.append(1)
        if len(calls) > 2:  # the two calls that tell whether it is deterministic pass
            raise kind("weights")
        return state

    with pytest.raises(kind, match="weights"):
        emulator_spectrum(MapStepper(broken), normal(6, 2, 1, 2), 1.0, duration=1)


# --- published and independently computed exponents -------------------------------------------------------------------


@pytest.mark.slow
def test_a_stepper_of_the_true_kuramoto_sivashinsky_keeps_its_exponents():
    """One step of the solver per sample interval, as an emulator of a practitioner's kind; with ``project``."""
    system = systems.get("kuramoto_sivashinsky")
    spectrum = emulator_spectrum(
        true_stepper(system, 0.5), attractor(system, 32), 1.0, 5, duration=800, project=system.project
    )
    assert spectrum[0].agrees(0.0482, 0.0003)
    assert spectrum[4].agrees(known(system, "lyapunov exponent 5"), 0.001)


# --- the diagnostic, beside the truth's -------------------------------------------------------------------------------


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
    direct, _ = leading_exponent(wrong, n_trajectories=64, accuracy=0.02)
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


def test_twins_resolve_no_more_than_they_can():
    system = systems.get("kuramoto_sivashinsky")
    state = error_growth.sample_states(system, 2, 0)
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
    system, state = task.system, error_growth.sample_states(task.system, 2, 0)

    def keeps(u):
        return u - 0.1 * (u.roll(1, -1) - u) ** 1

    assert diagnostics.conserved(system, state, keeps) == system.project
    assert diagnostics.conserved(system, state, lambda u: u - 0.1 * u**3) is None
    assert diagnostics.conserved(system, state[:, :5], keeps) is None
    assert diagnostics.conserved(LORENZ63.system, state[:, :3], lambda u: u) is None


def test_a_longer_state_is_reported_with_its_size(data, short_spectra):
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
