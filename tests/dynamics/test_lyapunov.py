"""Lyapunov exponents against closed forms, exact sums and published values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.dynamics import lyapunov
from emubench.dynamics.climates import agreement_time, leading_exponent
from emubench.dynamics.lyapunov import lyapunov_spectrum, on_attractor, twin_spectrum
from emubench.dynamics.schemes import EXPLICIT
from emubench.dynamics.spectrum import Estimate, Spectrum, kaplan_yorke_dimension
from emubench.dynamics.system import Climate, System
from emubench.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from tests.support.steppers import known, normal, true_stepper


@dataclass(frozen=True, kw_only=True)
class Saddle(System):
    """u′ = A u with the eigenvalues 0.5, −0.25, −1 and eigenvectors far from orthogonal."""

    sample_interval: float = 0.5
    solver_step: float = 0.125

    name = "saddle"
    equation = "u' = A u"
    schemes = ("rk4",)
    reference_climate = Climate(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), time_unit=2.0)
    shape = (3,)
    facts = ()

    def rhs(self, state):
        return state @ state.new_tensor([[0.5, 0.0, 0.0], [3.0, -0.25, 0.0], [-2.0, 4.0, -1.0]])

    def step(self, step, scheme, dtype, device):
        return EXPLICIT[scheme](self.rhs, step)

    def draw(self, rng, start):
        return rng.standard_normal(3)


# --- exponents that are known exactly ---------------------------------------------------------------------------------


def test_exponents_of_a_linear_system_are_those_of_its_solver():
    """RK4 multiplies an eigenvector of rate a by 1 + z + z²/2 + z³/6 + z⁴/24, z = a h: exact to rounding."""
    z = 0.125 * np.array([0.5, -0.25, -1.0])
    expected = np.log(1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24) / 0.125
    spectrum = lyapunov_spectrum(Saddle(), duration=8, n_replicas=3, settling=40, spin_up=1)
    assert spectrum.exponents.numpy() == pytest.approx(expected, abs=1e-12)
    assert float(spectrum.standard_error.max()) < 1e-12
    assert expected == pytest.approx([0.5, -0.25, -1.0], abs=3e-6)
    coarser = lyapunov_spectrum(Saddle(), 1, duration=8, n_replicas=3, settling=40, spin_up=1, step=0.5)
    assert coarser.exponents.numpy() == pytest.approx(math.log(1 + 1 / 4 + 1 / 32 + 1 / 384 + 1 / 6144) * 2, abs=1e-12)
    assert spectrum.n_positive == 1
    assert spectrum.kaplan_yorke_dimension.value == pytest.approx(2 + 0.25 / 1, abs=1e-5)


def test_the_sum_of_lorenz63_and_a_coarse_first_exponent():
    spectrum = lyapunov_spectrum(
        systems.get("lorenz63"), duration=6, n_replicas=256, step=0.02, qr_interval=0.2, spin_up=50, settling=2
    )
    assert spectrum.sum.value == pytest.approx(-41 / 3, abs=3e-3)  # of RK4 with step 0.02
    assert spectrum[0].agrees(0.9057)
    assert spectrum[1].agrees(0.0)
    assert spectrum[0].error < 0.05
    exact = lyapunov_spectrum(systems.get("lorenz63"), duration=0.1, n_replicas=4, n_blocks=1, settling=0)
    assert exact.sum.value == pytest.approx(-41 / 3, abs=2e-6)  # of the reference step


def test_the_sum_of_lorenz96_is_minus_n():
    system = systems.get("lorenz96", n_sites=7, forcing=5.0)
    spectrum = lyapunov_spectrum(system, duration=0.5, n_replicas=2, step=0.0125, n_blocks=2)
    assert spectrum.sum.value == pytest.approx(-7, abs=3e-5)


@pytest.mark.slow
def test_four_sites_of_lorenz96_are_periodic():
    """λ₁ = 0; growth along the orbit can be linear in time, so that a run of T reads up to ln T / T."""
    system = systems.get("lorenz96", n_sites=4)
    spectrum = lyapunov_spectrum(system, 2, duration=30, n_replicas=8, step=0.05, qr_interval=0.5, spin_up=400)
    assert abs(spectrum[0].value) < 3 * spectrum[0].error + math.log(30) / 30
    assert spectrum[1].value < -0.05


def test_kuramoto_sivashinsky_is_measured_where_the_mean_is_zero():
    """N − 1 exponents; those of modes that the nonlinear term doesn't reach are k² − k⁴, twice each."""
    system = KuramotoSivashinsky(length=6.0, n_sites=8, sample_interval=0.25, solver_step=0.0625)
    spectrum = lyapunov_spectrum(system, duration=5, n_replicas=2, qr_interval=0.0625, spin_up=400, settling=5)
    assert spectrum.n_dimensions == 7
    k = 2 * np.pi / 6 * np.array([1, 2, 3, 4])
    rates = k**2 - k**4  # u = 0 attracts, as the shortest wave with k < 1 does not fit
    expected = [rates[0]] * 2 + [rates[1]] * 2 + [rates[2]] * 2 + [rates[3]]
    assert spectrum.exponents.numpy() == pytest.approx(np.array(expected), rel=1e-6)
    with pytest.raises(EmubenchError, match="8 exponents asked for, where there are 7"):
        lyapunov_spectrum(system, 8, duration=1)


# --- Kaplan–Yorke -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exponents", "dimension"),
    [
        ([0.9056, 0.0, -14.5723], 2 + 0.9056 / 14.5723),
        ([-14.5723, 0.9056, 0.0], 2 + 0.9056 / 14.5723),  # in any order
        ([-0.1, -0.2], 0.0),  # a fixed point
        ([0.0, -1.0], 1.0),  # a cycle
        ([0.0, 0.0, -1.0], 2.0),  # a torus
        ([0.5, -0.5], 2.0),  # volume is kept
        ([0.5, 0.2, -0.1], 3.0),  # volume grows
        ([0.5, -0.25, -0.25, -1.0], 3.0),
        ([1.0, -2.0], 1.5),
        ([-3.0], 0.0),
        ([3.0], 1.0),
    ],
)
def test_kaplan_yorke_dimension(exponents, dimension):
    assert kaplan_yorke_dimension(torch.tensor(exponents, dtype=torch.float64)) == pytest.approx(dimension, abs=1e-12)


def test_kaplan_yorke_dimension_needs_enough_exponents():
    exponents = torch.tensor([0.5, 0.1, -0.2])
    assert kaplan_yorke_dimension(exponents, 3) == 3.0
    with pytest.raises(EmubenchError, match="not available from 3 of 5 exponents"):
        kaplan_yorke_dimension(exponents, 5)
    assert kaplan_yorke_dimension(torch.tensor([0.5, -1.0]), 5) == 1.5


# --- standard errors --------------------------------------------------------------------------------------------------


def test_standard_errors_of_a_spectrum():
    rates = torch.tensor([1.0, 0.0, -2.0]) + 0.1 * normal(4, 400, 5, 3)
    spectrum = Spectrum(rates, 3)
    assert spectrum.standard_error.numpy() == pytest.approx(0.1 / 2000**0.5, rel=0.15)
    assert spectrum.block_standard_error.numpy() == pytest.approx(0.1 / 2000**0.5, rel=0.1)
    assert spectrum.sum.error == pytest.approx(3**0.5 * 0.1 / 2000**0.5, rel=0.15)
    linear = math.hypot(0.5, 0.5, 0.25) * 0.1 / 2000**0.5  # D = 2 + (a + b) / |c|
    assert spectrum.kaplan_yorke_dimension.error == pytest.approx(linear, rel=0.15)
    assert spectrum.n_positive == 1
    single = Spectrum(rates[:1], 3)
    assert single.standard_error.numpy() == pytest.approx(single.block_standard_error.numpy())


def test_an_estimate_agrees_within_three_standard_errors_of_both():
    assert Estimate(1.0, 0.3).agrees(2.2, 0.4, 2.5)
    assert not Estimate(1.0, 0.3).agrees(2.2, 0.4, 2.3)
    assert not Estimate(float("nan"), 1.0).agrees(0.0)


# --- what has no exponents --------------------------------------------------------------------------------------------


def test_a_stochastic_system_has_no_exponents_and_no_agreement_time():
    kpz = systems.get("kpz")
    for diagnostic in (lambda s: lyapunov_spectrum(s, duration=1), leading_exponent, agreement_time):
        with pytest.raises(EmubenchError, match="kpz: .*not available for a stochastic system"):
            diagnostic(kpz)


# --- published and independently computed exponents -------------------------------------------------------------------


@pytest.mark.slow
def test_the_spectrum_of_lorenz63():
    """2·10⁵ time units in all, with the truth's own step; about 10 s."""
    system = systems.get("lorenz63")
    state = torch.from_numpy(on_attractor(system, 2048, round(100 / system.sample_interval), seed=8))
    spectrum = twin_spectrum(system, state, duration=100, settling=10, seed=8)
    assert spectrum[0].agrees(known(system, "lyapunov exponent 1"), 0.0002)
    assert spectrum[0].error < 0.0007
    assert spectrum[1].agrees(0.0)
    assert spectrum[2].agrees(-14.5724)
    assert spectrum.sum.value == pytest.approx(known(system, "sum of lyapunov exponents"), abs=1e-6)
    assert spectrum.kaplan_yorke_dimension.value == pytest.approx(known(system, "kaplan-yorke dimension"), abs=0.001)
    assert spectrum.n_positive == 1


@pytest.mark.slow
def test_the_spectrum_of_lorenz96():
    """1.3·10⁴ time units in all, with the truth's own step; about 60 s."""
    system = systems.get("lorenz96")
    state = torch.from_numpy(on_attractor(system, 64, round(20 / system.sample_interval), seed=8))
    spectrum = twin_spectrum(system, state, duration=200, settling=60, seed=8)
    assert spectrum[0].agrees(known(system, "lyapunov exponent 1"), 0.008)
    assert spectrum[0].error < 0.008
    assert spectrum.n_positive == 13
    assert abs(spectrum[13].value) < 3 * spectrum[13].error + 1 / 200  # along the orbit
    assert spectrum.kaplan_yorke_dimension.agrees(known(system, "kaplan-yorke dimension"))
    assert spectrum.kaplan_yorke_dimension.error < 0.03
    assert spectrum.sum.value == pytest.approx(known(system, "sum of lyapunov exponents"), abs=1e-6)


@pytest.mark.slow
def test_the_spectrum_of_kuramoto_sivashinsky():
    """Zero-mean subspace, 8·10⁴ time units in all, after 1000 for the nearly neutral directions; about 10 s.

    By twins and a short step: one of 0.5 moves the fifth to the ninth exponent by −0.001 to −0.002. Orbits
    differ wherever a processor rounds differently, so seven figures within three errors, themselves from few replicas,
    would fail on one in twenty: errors are those of the run that the facts come from, and four are allowed.
    """
    system = systems.get("kuramoto_sivashinsky", solver_step=0.125, climate=KuramotoSivashinsky.reference_climate)
    state = torch.from_numpy(on_attractor(system, 16, 300, seed=8))
    spectrum = twin_spectrum(system, state, 9, duration=5000, settling=1000, seed=8)
    assert spectrum.n_dimensions == 63
    errors = (0.0008, 0.0004, 0.0001, 0.0007, 0.0011, 0.0009, 0.0008, 0.0008, 0.0005)
    for i, error in enumerate(errors):
        fact = known(system, f"lyapunov exponent {i + 1}")
        algebraic = math.log(5000) / 5000 if fact == 0 else 0.0  # a shift grows by a power of time
        assert abs(spectrum[i].value - fact) < 4 * math.hypot(error, 0.0004) + algebraic, i
        assert spectrum[i].error < 2 * error
    dimension = spectrum.kaplan_yorke_dimension
    assert abs(dimension.value - known(system, "kaplan-yorke dimension")) < 4 * 0.005
    assert dimension.error < 0.01


# --- twins of the fast solver -----------------------------------------------------------------------------------------


def test_twins_of_the_fast_solver_give_the_exact_spectrum():
    """Same states, same directions. An offset of 10⁻⁷ of the state bends a difference by about as much per sample."""
    climate = systems.get("lorenz96").climate
    system = systems.get("lorenz96", n_sites=6, solver_step=0.0125, climate=climate)
    state = normal(0, 3, 6) + 2
    schedule = lyapunov.Schedule(0.05, 0.05, 2.0, 1.0, 4)
    exact = lyapunov.tangent_spectrum(true_stepper(system).function, state, schedule)
    twins = lyapunov.twin_spectrum(system, state, duration=2.0, settling=1.0, n_blocks=4)
    assert twins.rates.numpy() == pytest.approx(exact.rates.numpy(), abs=5e-5)
    assert twins.sum.value == pytest.approx(exact.sum.value, abs=1e-5)
    assert exact.sum.value == pytest.approx(-6, abs=1e-4)


def test_twins_give_the_exact_spectrum_on_a_field():
    system = systems.get("kuramoto_sivashinsky", solver_step=0.125, climate=systems.get("kuramoto_sivashinsky").climate)
    state = torch.from_numpy(lyapunov.on_attractor(system, 2, 60, seed=0))
    schedule = lyapunov.Schedule(1.0, 1.0, 16.0, 16.0, 4)
    exact = lyapunov.tangent_spectrum(
        true_stepper(system).function, state, schedule, 9, n_dimensions=63, project=system.project
    )
    twins = lyapunov.twin_spectrum(system, state, 9, duration=16.0, settling=16.0, n_blocks=4)
    assert twins.rates.numpy() == pytest.approx(exact.rates.numpy(), abs=5e-5)
    assert exact[0].value > 0 > exact[8].value
