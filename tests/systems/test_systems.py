"""The deterministic systems against independent computations: tendencies written out anew, and another integrator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics.simulate import SimulationError, simulate
from emubench.systems.kpz import KPZ
from emubench.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from emubench.systems.lorenz63 import Lorenz63
from emubench.systems.lorenz96 import Lorenz96

seeds = st.integers(0, 2**32 - 1)


def attractor(system, n: int) -> np.ndarray:
    """``n`` states after the system's own spin-up."""
    start = np.stack([system.draw(stream(0, "attractor", i), system.starts[0]) for i in range(n)])
    return simulate(system, start, system.spin_up_samples)[:, -1]


# --- tendencies, written out as in the literature ------------------------------------------------------------------


def lorenz63_tendency(u, sigma=10.0, rho=28.0, beta=8 / 3):
    x, y, z = u
    return np.array([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])


def lorenz96_tendency(u, forcing=8.0):
    n = len(u)
    return np.array([(u[(i + 1) % n] - u[i - 2]) * u[i - 1] - u[i] + forcing for i in range(n)])


@given(seeds)
def test_rhs_of_lorenz63(seed):
    u = 20 * stream(seed).standard_normal((2, 3, 3))
    expected = np.apply_along_axis(lorenz63_tendency, -1, u, 16.0, 45.92, 4.0)
    system = Lorenz63(sigma=16.0, rho=45.92, beta=4.0)
    assert system.rhs(torch.from_numpy(u)).numpy() == pytest.approx(expected, rel=1e-12, abs=1e-11)


@given(seeds, st.integers(4, 41))
def test_rhs_of_lorenz96(seed, n_sites):
    u = 5 * stream(seed).standard_normal((2, n_sites))
    expected = np.apply_along_axis(lorenz96_tendency, -1, u, 10.0)
    system = Lorenz96(n_sites=n_sites, forcing=10.0)
    assert system.rhs(torch.from_numpy(u)).numpy() == pytest.approx(expected, rel=1e-12, abs=1e-11)


@given(seeds, st.sampled_from([32, 33, 64]), st.floats(10.0, 40.0))
def test_rhs_of_kuramoto_sivashinsky_is_the_differential_equation(seed, n_sites, length):
    """A sum of sines, differentiated by hand; its modes are few, so that all of u u_x is resolved."""
    rng = stream(seed)
    x = length / n_sites * np.arange(n_sites)
    u, ux, uxx, uxxxx = np.zeros((4, n_sites))
    for j in range(1, (n_sites - 1) // 6 + 1):
        k, a, phase = 2 * np.pi * j / length, rng.standard_normal(), rng.uniform(0, 2 * np.pi)
        u = u + a * np.sin(k * x + phase)
        ux = ux + a * k * np.cos(k * x + phase)
        uxx = uxx - a * k**2 * np.sin(k * x + phase)
        uxxxx = uxxxx + a * k**4 * np.sin(k * x + phase)
    expected = -u * ux - uxx - uxxxx
    found = KuramotoSivashinsky(n_sites=n_sites, length=length).rhs(torch.from_numpy(u)).numpy()
    assert np.abs(found - expected).max() < 1e-11 * (1 + np.abs(uxxxx).max())


# --- short trajectories by another integrator ----------------------------------------------------------------------


def integrate(tendency, start: np.ndarray, times: np.ndarray) -> np.ndarray:
    """``"T *S"`` by an adaptive method of order 8."""
    options = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-13}
    return solve_ivp(lambda t, u: tendency(u), (0, times[-1]), start, t_eval=times, **options).y.T


@pytest.mark.parametrize(
    ("system", "tendency", "tolerance"),
    [(Lorenz63(), lorenz63_tendency, 2e-8), (Lorenz96(), lorenz96_tendency, 1e-8)],
    ids=["lorenz63", "lorenz96"],
)
def test_trajectories_of_the_lorenz_systems(system, tendency, tolerance):
    start = attractor(system, 3)
    times = system.sample_interval * np.arange(1, 21)
    expected = np.stack([integrate(tendency, u, times) for u in start])
    found = simulate(system, start, 20)
    assert np.abs(found - expected).max() < tolerance * system.std.max()


def kuramoto_sivashinsky_tendency(packed: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The equation on modes 1 … K: û_j′ = (k² − k⁴) û_j − (ik/2) Σ û_l û_{j−l}, the sum written out, no transform."""
    n = len(k)
    positive = packed[:n] + 1j * packed[n:]
    full = np.concatenate([positive[::-1].conj(), [0], positive])  # modes −K … K
    product = np.convolve(full, full)[2 * n + 1 : 3 * n + 1]  # its modes 1 … K
    change = (k**2 - k**4) * positive - 0.5j * k * product
    return np.concatenate([change.real, change.imag])


def test_trajectories_of_kuramoto_sivashinsky():
    system = KuramotoSivashinsky(n_sites=32, climate=KuramotoSivashinsky.reference_climate)
    start = attractor(system, 2)
    n_kept = 10  # modes below 32/3
    k = 2 * np.pi / system.length * np.arange(1, n_kept + 1)
    modes = np.fft.rfft(start)[:, 1 : n_kept + 1] / system.n_sites
    times = np.arange(1.0, 6.0)
    packed = [integrate(lambda u: kuramoto_sivashinsky_tendency(u, k), np.r_[m.real, m.imag], times) for m in modes]
    solved = np.stack(packed)
    hat = np.zeros((2, 5, system.n_sites // 2 + 1), dtype=complex)
    hat[..., 1 : n_kept + 1] = (solved[..., :n_kept] + 1j * solved[..., n_kept:]) * system.n_sites
    expected = np.fft.irfft(hat, n=system.n_sites)
    assert np.abs(simulate(system, start, 5) - expected).max() < 1e-6 * system.std.max()


def test_64_sites_resolve_kuramoto_sivashinsky():
    """Twice the sites give the same solution: what is solved is the differential equation."""
    coarse, fine = (KuramotoSivashinsky(n_sites=n, climate=KuramotoSivashinsky.reference_climate) for n in (64, 128))
    start = attractor(coarse, 2)
    hat = np.zeros((2, 65), dtype=complex)
    hat[:, :33] = 2 * np.fft.rfft(start)
    finer = simulate(fine, np.fft.irfft(hat, n=128), 5)[..., ::2]
    assert np.abs(simulate(coarse, start, 5) - finer).max() < 1e-7


# --- what else the files promise -----------------------------------------------------------------------------------


def test_kuramoto_sivashinsky_starts_have_zero_mean_and_the_climate_s_spread():
    system = KuramotoSivashinsky()
    start = np.stack([system.draw(stream(0, i), "attractor") for i in range(500)])
    assert np.abs(start.mean(-1)).max() < 1e-14
    assert start.std() == pytest.approx(1.186, rel=0.06)


def test_kuramoto_sivashinsky_takes_the_mean_away():
    system = KuramotoSivashinsky()
    start = attractor(system, 1)
    assert np.abs(simulate(system, start + 0.5, 2) - simulate(system, start, 2)).max() < 1e-12


def test_a_laminar_kuramoto_sivashinsky_run_is_a_fault():
    system = KuramotoSivashinsky(length=8.0, n_sites=32)
    start = system.draw(stream(0), "attractor")[None]
    with pytest.raises(EmubenchError, match=r"trajectory 0 at time \d+: laminar: the energy was steady.* L 8 is not"):
        simulate(system, start, 300)


def test_a_run_that_turns_laminar_late_is_found_among_chaotic_ones():
    system = KuramotoSivashinsky()
    start = attractor(system, 3)
    samples = simulate(system, start, 300)
    assert system.fault(samples) is None
    samples[1, 200:] = np.roll(samples[1, 199], 3)
    assert "laminar" in (system.fault(samples) or "")
    assert system.fault(samples[:, :280]) is None  # not steady for long enough


def test_a_length_that_the_sites_do_not_resolve_is_refused():
    with pytest.raises(EmubenchError, match="64 sites do not resolve length 200: .* at least 94"):
        KuramotoSivashinsky(length=200.0)
    assert KuramotoSivashinsky(length=200.0, n_sites=94).n_unstable == 31


@pytest.mark.parametrize(("length", "n_sites", "enough"), [(22.0, 12, 22), (36.0, 19, 35)])
def test_sites_that_keep_no_damping_are_the_cause_of_a_blow_up(length, n_sites, enough):
    coarse = KuramotoSivashinsky(length=length, n_sites=n_sites, solver_step=0.125)
    state = np.stack([coarse.draw(stream(0, i), "attractor") for i in range(4)])
    with pytest.raises(SimulationError, match=f"{n_sites} sites are too few for length {length:g}: take {enough}$"):
        simulate(coarse, state, 150)
    fine = dataclasses.replace(coarse, n_sites=enough)
    state = np.stack([fine.draw(stream(0, i), "attractor") for i in range(4)])
    assert simulate(fine, state, 150)[:, 100:].std() == pytest.approx(1.25, abs=0.15)


@pytest.mark.parametrize("name", systems.names())
def test_a_solver_step_that_does_not_divide_the_sample_interval_is_refused(name):
    system = systems.get(name)
    for step in (0.3 * system.sample_interval, 2 * system.sample_interval, 0.0, -0.05):
        with pytest.raises(EmubenchError, match=f"{name}: solver_step .* does not divide sample_interval"):
            dataclasses.replace(system, solver_step=step)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lorenz96", {"n_sites": 0}),
        ("lorenz96", {"n_sites": -4}),
        ("kuramoto_sivashinsky", {"length": 0.0}),
        ("kuramoto_sivashinsky", {"length": -22.0}),
        ("kpz", {"n_sites": 0}),
        ("kpz", {"nu": 0.0}),
        ("kpz", {"nu": -1.0}),
        ("kpz", {"dx": 0.0}),
        ("kpz", {"dx": -1.0}),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named_with_what_belongs(name, parameters):
    ((key, value),) = parameters.items()
    with pytest.raises(EmubenchError, match=f"^{name}: {key}: {value}, where a number above 0 belongs$"):
        systems.get(name, **parameters)


@pytest.mark.parametrize("name", systems.names())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_parameter_has_to_be_finite(name, value):
    for key in systems.get(name).parameters():
        with pytest.raises(EmubenchError, match=f"^{name}: {key}: {value}, where a finite number belongs$"):
            systems.get(name, **{key: value})


def test_noise_may_vanish_but_not_be_negative():
    assert KPZ(noise=0.0, n_sites=8).slope_variance == 0
    with pytest.raises(EmubenchError, match="^kpz: noise: -1.0, where 0 .none. or a number above 0 belongs$"):
        KPZ(noise=-1.0)


@pytest.mark.parametrize("name", systems.names())
def test_the_climate_is_known_for_the_default_parameters_alone(name):
    system = systems.get(name)
    assert system.climate == system.reference_climate
    other = systems.get(name, solver_step=system.solver_step / 2)
    with pytest.raises(EmubenchError, match=f"{name}: no climate is stored for the parameters"):
        _ = other.std
    given_one = systems.get(name, solver_step=system.solver_step / 2, climate=system.climate)
    assert (given_one.std == system.std).all()


@pytest.mark.parametrize("name", systems.names())
def test_spin_up_lasts_at_most_ten_lyapunov_times(name):
    system = systems.get(name)
    assert system.spin_up_samples * system.sample_interval <= 10 * system.time_unit
    assert system.stochastic or (system.spin_up_samples + 1) * system.sample_interval > 10 * system.time_unit
