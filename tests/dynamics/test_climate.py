"""Agreement of solvers and measured climates, against closed forms and stored values."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.dynamics import climates
from emubench.dynamics.climates import agreement_time, measure_climate
from emubench.dynamics.simulate import SimulationError, simulate
from tests.support.steppers import attractor, normal

# --- agreement of solvers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected", "tolerance"), [("lorenz63", 3.2, 0.3), ("lorenz96", 7.2, 0.4)])
def test_agreement_time_of_a_step_of_a_twentieth(name, expected, tolerance):
    system = dataclasses.replace(systems.get(name), solver_step=0.05, climate=systems.get(name).climate)
    found = agreement_time(system, dataclasses.replace(system, solver_step=0.0025), n_cases=128)
    assert found.mean.value == pytest.approx(expected, abs=tolerance)
    assert 0.02 < found.mean.error < 0.3
    assert found.never == 0
    by_default = agreement_time(system, n_cases=128)  # against a step of a quarter
    assert by_default.mean.value == pytest.approx(found.mean.value, abs=0.1)


def test_a_setting_agrees_with_itself_up_to_the_horizon():
    system = systems.get("lorenz63")
    found = agreement_time(system, system, n_cases=4, horizon=2.5)
    assert found.times.tolist() == [2.5] * 4
    assert found.never == 1
    assert found.mean == (2.5, 0.0)


def test_agreement_needs_states_that_can_be_compared():
    system = systems.get("lorenz96")
    with pytest.raises(EmubenchError, match="same shape and sample interval"):
        agreement_time(system, systems.get("lorenz96", n_sites=20, climate=system.climate))
    with pytest.raises(EmubenchError, match="no climate is stored"):
        agreement_time(systems.get("lorenz96", forcing=9.0))


# --- climate ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_climate_of_other_parameters():
    """Lorenz-63 at σ = 16, ρ = 45.92, β = 4: λ₁ = 2.16 bits per unit of time (Wolf et al. 1985)."""
    system = systems.get("lorenz63", sigma=16.0, rho=45.92, beta=4.0)
    with pytest.raises(EmubenchError, match="measure_climate"):
        system.known_climate()
    climate = measure_climate(system, n_cases=16)
    assert 1 / climate.time_unit == pytest.approx(2.16 * math.log(2), rel=0.02)
    states = attractor(system, 64, 3000).numpy()[:, 0]
    long = simulate(system, states, 2000)
    assert climate.std == pytest.approx(tuple(long.std((0, 1))), rel=0.02)
    assert climate.mean == pytest.approx(tuple(long.mean((0, 1))), abs=0.02 * max(climate.std))
    assert long[..., 0].var() * 1.0 == pytest.approx(4 * long[..., 2].mean(), rel=0.05)  # <x^2> = beta <z>
    assert climate.agreement_time is not None
    assert 10 < climate.agreement_time < 30
    known = dataclasses.replace(system, climate=climate)
    assert known.std == pytest.approx(climate.std)
    assert known.spin_up_samples > 0


@pytest.mark.slow
def test_the_climate_of_a_ring_is_pooled_over_its_sites():
    system = systems.get("lorenz96")
    climate = measure_climate(systems.get("lorenz96", solver_step=0.025), n_cases=8)
    assert climate.mean == pytest.approx(system.reference_climate.mean, abs=0.01)
    assert climate.std == pytest.approx(system.reference_climate.std, abs=0.01)
    assert climate.time_unit == pytest.approx(0.592, rel=0.03)


def test_the_climate_of_kpz_is_that_of_its_stationary_measure():
    system = systems.get("kpz", nu=0.5, noise=2.0, lam=1.0, n_sites=64)
    climate = measure_climate(system)
    assert climate.mean == pytest.approx((0.0,), abs=1e-12)
    assert climate.std[0] ** 2 == pytest.approx(system.saturated_width_squared, rel=0.04)
    assert climate.time_unit == system.sample_interval
    assert climate.agreement_time is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("lorenz96", {"n_sites": 4}), ("lorenz63", {"rho": 20.0}), ("kuramoto_sivashinsky", {"length": 8.0})],
)
def test_without_chaos_there_is_no_climate(name, parameters):
    with pytest.raises(EmubenchError, match=f"{name}: no chaos found at the parameters .*( exponent is|a constant)"):
        measure_climate(systems.get(name, **parameters), n_trajectories=8, max_samples=512)


@pytest.mark.filterwarnings("error")
def test_a_blow_up_is_named_without_warnings():
    unstable = systems.get("lorenz63", rho=200.0, solver_step=0.05)
    with pytest.raises(SimulationError, match="lorenz63: trajectory .* at time .*: the solution blew up"):
        measure_climate(unstable)


@pytest.mark.parametrize("parameters", [{"noise": 0.0}, {"n_sites": 1}])
def test_what_does_not_vary_has_no_climate(parameters):
    with pytest.raises(EmubenchError, match="kpz: nothing varies at the parameters"):
        measure_climate(systems.get("kpz", **parameters))


def test_running_moments_are_those_of_all_samples():
    samples = 5 + np.arange(4) + normal(12, 7, 6, 4).numpy()
    moments = climates.Moments((4,))
    for batch in samples:
        moments.add(batch)
    flat = samples.reshape(-1, 4)
    mean, std = moments.mean_and_std(())
    assert mean == pytest.approx(tuple(flat.mean(0)))
    assert std == pytest.approx(tuple(flat.std(0)))
    mean, std = moments.mean_and_std((3,))
    assert mean == pytest.approx((flat.mean(),))
    assert std == pytest.approx((flat.std(),))


# --- what the systems store -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
def test_the_stored_agreement_times(name):
    """The truth against a quarter of its step, from states of another seed; 64 cases, seconds each."""
    system = systems.get(name)
    found = agreement_time(system, n_cases=64, seed=1)
    fact = next(fact for fact in system.facts if fact.name == "agreement time")
    assert system.known_climate().agreement_time == fact.value
    assert abs(found.mean.value - fact.value) < fact.tolerance + 3 * found.mean.error
    assert found.mean.value > (12 if name == "kuramoto_sivashinsky" else 20)
    assert found.mean.error < 0.6
    assert found.never < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
def test_the_stored_climates(name):
    climate, stored = measure_climate(systems.get(name)), systems.get(name).known_climate()
    assert stored.agreement_time is not None
    assert climate.agreement_time == pytest.approx(stored.agreement_time, abs=1.5)
    assert climate.mean == pytest.approx(stored.mean, abs=0.03 * max(stored.std))
    assert climate.std == pytest.approx(stored.std, rel=0.01)
    assert climate.time_unit == pytest.approx(stored.time_unit, rel=0.04)
