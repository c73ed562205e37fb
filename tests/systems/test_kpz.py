"""KPZ against its exact laws: Edwards–Wilkinson mode by mode, the stationary measure, amplitudes of growth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from emubench import testing
from emubench.core.random import stream
from emubench.dynamics.simulate import rollout, simulate
from emubench.systems.kpz import KPZ
from tests.support.wrong_systems import CentralKPZ


def generators(label: str, n: int) -> list[np.random.Generator]:
    return [stream(0, label, i) for i in range(n)]


def draws(system: KPZ, start: str, n: int) -> np.ndarray:
    return np.stack([system.draw(rng, start) for rng in generators("draws", n)])


def slope_variance(system: KPZ, h: np.ndarray) -> float:
    """Mean squared one-sided slope over its stationary value on the ring."""
    slopes = (np.roll(h, -1, axis=-1) - h) / system.dx
    return (slopes**2).mean() / (system.slope_variance * (1 - 1 / system.n_sites))


# --- λ = 0: Edwards–Wilkinson, solved mode by mode ------------------------------------------------------------------

RING = {"n_sites": 24, "nu": 0.7, "noise": 1.3, "dx": 0.8}


def edwards_wilkinson(system: KPZ, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every mode of ``np.fft.fft``: the decay of its mean, and the variance that noise gives it, after ``time``."""
    n = system.n_sites
    rate = 4 * system.nu / system.dx**2 * np.sin(np.pi * np.arange(n) / n) ** 2
    intensity = 2 * system.noise / system.dx * n  # of the transform of white noise on n sites
    grown = np.array([intensity * time if r == 0 else intensity * (1 - np.exp(-2 * r * time)) / (2 * r) for r in rate])
    return np.exp(-rate * time), grown


def variances(covariance: np.ndarray) -> np.ndarray:
    """Variance of every Fourier mode for the covariance matrix of the sites."""
    f = np.fft.fft(np.eye(len(covariance)))
    return np.einsum("ki,ij,kj->k", f, covariance, f.conj()).real


@pytest.mark.parametrize(("step", "n_steps"), [(0.01, 1), (0.01, 200), (2.0, 1), (2.0, 7), (500.0, 1)])
def test_edwards_wilkinson_law_is_exact_for_any_step(step, n_steps):
    """The step is linear in state and noise: its responses to unit vectors give mean and covariance, unsampled."""
    system = KPZ(lam=0.0, **RING)
    n, advance = system.n_sites, system.solver(step)
    eye, zero = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    decay, response = advance(eye, zero).numpy(), advance(zero, eye).numpy()  # rows: one unit vector each
    mean, covariance = np.eye(n), np.zeros((n, n))
    for _ in range(n_steps):
        mean, covariance = mean @ decay, decay.T @ covariance @ decay + response.T @ response
    factor, variance = edwards_wilkinson(system, n_steps * step)
    assert variances(covariance) == pytest.approx(variance, rel=1e-11)
    given_state = draws(system, "stationary", 1)[0]
    expected = np.fft.ifft(factor * np.fft.fft(given_state)).real
    assert given_state @ mean == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("start", KPZ.starts)
@pytest.mark.parametrize("solver_step", [0.05, 1.0])
def test_simulated_edwards_wilkinson_has_that_law(start, solver_step):
    """The same through ``simulate`` with its own noise: 4000 trajectories from one state, means and variances."""
    system, n = KPZ(lam=0.0, solver_step=solver_step, **RING), 4000
    state = np.repeat(draws(system, start, 1), n, axis=0)
    samples = simulate(system, state, 3, generators("edwards-wilkinson", n))
    for t in (1, 3):
        factor, variance = edwards_wilkinson(system, float(t))
        modes = np.fft.fft(samples[:, t - 1])
        mean = factor * np.fft.fft(state[0])
        assert (np.abs(modes.mean(0) - mean) < 5 * np.sqrt(variance / n)).all()
        assert (np.abs(modes - mean) ** 2).mean(0) == pytest.approx(variance, rel=5 * np.sqrt(2 / n))


# --- the nonlinear term --------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.sampled_from([-5.0, 0.5, 3.0]), st.floats(0.1, 3))
def test_growth_is_the_lam_shin_average_of_the_slopes_and_keeps_their_squares(seed, n_sites, lam, dx):
    system = KPZ(n_sites=n_sites, lam=lam, dx=dx)
    h = 3 * stream(seed).standard_normal((2, n_sites))
    slope = [[(h[b, (i + 1) % n_sites] - h[b, i]) / dx for i in range(n_sites)] for b in range(2)]
    expected = [[lam / 2 * (s[i - 1] ** 2 + s[i - 1] * s[i] + s[i] ** 2) / 3 for i in range(n_sites)] for s in slope]
    growth = system.growth(torch.from_numpy(h)).numpy()
    assert growth == pytest.approx(np.array(expected), rel=1e-10, abs=1e-10)
    a = np.array(slope)
    change = a * (np.roll(growth, -1, -1) - growth) / dx  # d/dt of a²/2
    assert np.abs(change.sum(-1)).max() <= 1e-13 * np.abs(a).sum() * np.abs(growth).max() / dx


def test_growth_keeps_the_volume_of_slope_space():
    """With it and the sum of squares, the flow keeps the law of independent Gaussian slopes."""
    system = KPZ(n_sites=12)

    def tendency(slopes: torch.Tensor) -> torch.Tensor:
        growth = system.growth(torch.cumsum(slopes, -1).roll(1, -1) * system.dx)
        return (growth.roll(-1, -1) - growth) / system.dx

    slopes = torch.from_numpy(stream(0).standard_normal(12))
    slopes = slopes - slopes.mean()
    jacobian = torch.autograd.functional.jacobian(tendency, slopes)
    assert abs(float(torch.trace(jacobian))) < 1e-12
    assert float(jacobian.diagonal().abs().max()) > 0.1  # the sum vanishes, not each


def kpz_tendency(h: np.ndarray, nu: float, lam: float) -> np.ndarray:
    """Drift at dx = 1, site by site."""
    n = len(h)
    out = np.zeros(n)
    for i in range(n):
        a, b = h[i] - h[i - 1], h[(i + 1) % n] - h[i]
        out[i] = nu * (b - a) + lam / 6 * (a * a + a * b + b * b)
    return out


def test_without_noise_strang_converges_with_order_two_to_another_integrator():
    system = KPZ(n_sites=16, nu=0.8, lam=2.0)
    start = draws(system, "stationary", 2)
    zero = torch.zeros(2, 16, dtype=torch.float64)
    solved = [solve_ivp(lambda t, h: kpz_tendency(h, 0.8, 2.0), (0, 1), h, rtol=1e-12, atol=1e-12) for h in start]
    expected = np.stack([s.y[:, -1] for s in solved])
    errors = []
    for n_steps in (20, 40, 80):
        found = rollout(system.solver(1 / n_steps), torch.from_numpy(start), 1, n_steps, noise=lambda: zero)
        errors.append(np.abs(found[:, 0].numpy() - expected).max())
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2, abs=0.1)
    assert system.drift(torch.from_numpy(start)).numpy()[0] == pytest.approx(kpz_tendency(start[0], 0.8, 2.0))


# --- the stationary measure ----------------------------------------------------------------------------------------


def test_the_stationary_draw_is_a_brownian_bridge_of_zero_mean():
    system = KPZ(n_sites=48, dx=0.5, nu=2.0, noise=3.0)
    h = draws(system, "stationary", 4000)
    assert np.abs(h.mean(-1)).max() < 1e-13
    assert slope_variance(system, h) == pytest.approx(1, abs=5 * np.sqrt(2 / h.size))
    width = (h**2).mean(-1)
    assert width.mean() == pytest.approx(system.saturated_width_squared, abs=5 * width.std() / 4000**0.5)


def test_the_climate_of_kpz_is_that_of_its_stationary_draw():
    system = KPZ()
    assert system.std[0] ** 2 == pytest.approx(system.saturated_width_squared)


def test_the_flat_start_is_flat():
    assert (KPZ().draw(stream(0), "flat") == 0).all()


@pytest.mark.parametrize("lam", [3.0, -3.0])
@pytest.mark.parametrize("n_sites", [16, 17])
def test_the_narrow_wedge_grows_at_its_tip(lam, n_sites):
    """Slopes of five standard deviations to either side of the tip, turned so that they drive the tip outward."""
    system = KPZ(n_sites=n_sites, lam=lam, dx=0.5, noise=2.0)
    h = system.draw(stream(0), "narrow_wedge")
    assert h[n_sites // 2] == 0
    slopes = np.diff(h) / system.dx
    rising = np.sign(lam) * 5 * np.sqrt(system.slope_variance)
    assert slopes[: n_sites // 2] == pytest.approx(rising)
    assert slopes[n_sites // 2 :] == pytest.approx(-rising)
    assert system.fault(h[None, None]) is None
    assert "narrow_wedge" not in system.starts


@pytest.mark.parametrize("solver_step", [0.05, 0.1])
def test_strang_reaches_the_stationary_measure_from_flat(solver_step):
    """After long integration the slope variance is within 1 % of exact, though nothing was drawn from the measure."""
    system = KPZ(n_sites=64, solver_step=solver_step)
    n = 128
    samples = simulate(system, draws(system, "flat", n), 600, generators("long", n))[:, 250:]
    assert slope_variance(system, samples) == pytest.approx(1, abs=0.01)
    heights = samples.mean(-1)
    velocity = (heights[:, -1] - heights[:, 0]).mean() / (samples.shape[1] - 1)
    assert velocity == pytest.approx(system.stationary_velocity, rel=0.015)
    width = samples.var(-1).mean(-1)
    assert width.mean() == pytest.approx(system.saturated_width_squared, abs=4 * width.std() / n**0.5)


@pytest.mark.slow
def test_twice_the_step_keeps_the_stationary_facts():
    facts = testing.measure_facts(dataclasses.replace(KPZ(), solver_step=0.1))
    assert {name for name, fact in facts.items() if not fact.holds} == set()


def test_other_parameters_keep_their_own_stationary_facts():
    system = KPZ(nu=2.0, lam=-4.0, noise=0.5, dx=0.5, n_sites=64, solver_step=0.025)
    facts = testing.measure_facts(dataclasses.replace(system, climate=KPZ.reference_climate))
    for name, fact in facts.items():  # a quarter of the sites: twice the error; |λ| A is less
        assert abs(fact.measured - fact.value) <= 2 * fact.tolerance, name


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_euler_maruyama_blows_up_where_strang_does_not():
    system, n, step = KPZ(), 16, 0.1
    start = torch.from_numpy(draws(system, "stationary", n))

    def run(scheme: str) -> np.ndarray:
        rng = stream(0, "blow up")
        noise = lambda: torch.from_numpy(rng.standard_normal(start.shape))  # noqa: E731
        return rollout(system.solver(step, scheme), start, 64, 10, noise).numpy()

    def lost(samples: np.ndarray) -> int:
        return sum(system.fault(samples[b : b + 1]) is not None for b in range(n))

    assert lost(run("euler_maruyama")) > n // 2
    assert lost(run("strang")) == 0


def test_a_slope_is_judged_across_the_seam_and_in_units_of_dx():
    system = KPZ(n_sites=8, dx=0.5)
    h = np.zeros((1, 1, 8))
    h[..., 0] = 24.0
    assert system.fault(h) is None
    h[..., 0] = 36.0  # slopes of ±72, over 50 √2
    assert "a slope exceeds 70.7" in (system.fault(h) or "")
    assert system.fault(np.full((1, 1, 8), np.nan)) is not None
    assert system.fault(np.full((1, 1, 8), np.inf)) is not None
    ramp = np.linspace(0, 70, 8)[None, None]  # slopes of 20 but across the seam
    assert system.fault(ramp) is not None


# --- amplitudes, which tell a right scheme from a plausible one ----------------------------------------------------


@pytest.mark.slow
def test_saturated_width_and_velocity_tell_the_central_difference():
    """At λ = 3 its width is 12 % too small and its velocity 29 %, with a slope variance that is right to 1 %."""
    right, wrong = (cls(n_sites=64, solver_step=0.1) for cls in (KPZ, CentralKPZ))
    n, ratio, velocity = 512, {}, {}
    for system in (right, wrong):
        samples = simulate(system, draws(system, "stationary", n), 800, generators("width", n))[:, 300:]
        ratio[system.name] = samples.var(-1).mean() / system.saturated_width_squared
        heights = samples.mean(-1)
        rise = (heights[:, -1] - heights[:, 0]).mean() / (samples.shape[1] - 1)
        velocity[system.name] = rise / system.stationary_velocity
        assert slope_variance(system, samples) == pytest.approx(1, abs=0.015)
    assert ratio["kpz"] == pytest.approx(1, abs=0.03)  # its standard error is 0.006
    assert ratio["kpz_central"] == pytest.approx(0.88, abs=0.03)
    assert velocity["kpz"] == pytest.approx(1, abs=0.004)
    assert velocity["kpz_central"] == pytest.approx(0.71, abs=0.02)


# --- long runs against exact laws ----------------------------------------------------------------------------------

GOE = (-0.76007, 0.63805, 0.29346, 0.16524)
"""Mean, variance, skewness and excess kurtosis of χ from flat, h = v t + (Γt)^(1/3) χ with Γ = |λ| A² / 2: the
distribution of Tracy & Widom for the Gaussian orthogonal ensemble, 2^(−2/3) times (Prähofer & Spohn 2000,
doi:10.1103/PhysRevLett.84.4882)."""
GUE = (-1.77109, 0.81320, 0.22408, 0.09345)
"""The same at the tip of a droplet: unitary ensemble (Sasamoto & Spohn 2010, doi:10.1103/PhysRevLett.104.230602)."""
TIMES = (10, 20, 50, 100, 200)


def grown(start: str, n: int) -> tuple[KPZ, np.ndarray]:
    """Heights in the frame of the stationary velocity of an infinite ring, ``"n t x"`` at TIMES, N = 1024."""
    system = KPZ(n_sites=1024, solver_step=0.1)
    kept = [t - 1 for t in TIMES]
    rngs = generators(f"growth from {start}", n)
    parts = [
        simulate(system, draws(system, start, 128), TIMES[-1], rngs[i : i + 128])[:, kept] for i in range(0, n, 128)
    ]
    velocity = system.lam / 3 * system.slope_variance
    return system, np.concatenate(parts) - velocity * np.array(TIMES)[:, None]


def moments(h: np.ndarray) -> np.ndarray:
    """Mean, variance, skewness, excess kurtosis; mean heights are part of the ensemble."""
    centred = h - h.mean()
    variance = (centred**2).mean()
    return np.array([h.mean(), variance, (centred**3).mean() / variance**1.5, (centred**4).mean() / variance**2 - 3])


def compare_growth(system: KPZ, h: np.ndarray, law: tuple[float, ...], tolerances: tuple[float, ...]) -> None:
    """Variance (relative), skewness and kurtosis at each time; the mean from its increase, which no offset changes."""
    gamma = system.lam * (system.noise / system.nu) ** 2 / 2
    scale = (gamma * np.array(TIMES)) ** (1 / 3)
    found = np.array([moments(h[:, k] / scale[k]) for k in range(len(TIMES))])
    assert found[:, 1] / law[1] == pytest.approx(1, abs=tolerances[1])
    assert found[:, 2] == pytest.approx(law[2], abs=tolerances[2])
    assert found[:, 3] == pytest.approx(law[3], abs=tolerances[3])
    rise = (found[-1, 0] * scale[-1] - found[1, 0] * scale[1]) / (scale[-1] - scale[1])
    assert rise == pytest.approx(law[0], abs=tolerances[0])


@pytest.mark.slow
def test_growth_from_flat_is_that_of_tracy_and_widom():
    """Standard errors of mean, variance, skewness, kurtosis with 1024 runs: 0.01, 1 %, 0.01, 0.03.

    Measured with 2048 runs: mean −0.77; variance ratio 0.973 at t = 10, 0.99 at 50, 1.00 at 200; skewness 0.29 to
    0.32; kurtosis 0.16 to 0.20. The central difference would give a variance of 0.85 of it.
    """
    system, h = grown("flat", 1024)
    compare_growth(system, h, GOE, (0.04, 0.05, 0.05, 0.12))


@pytest.mark.slow
def test_growth_from_a_narrow_wedge_is_that_of_the_unitary_ensemble():
    """Within 128 sites of the tip, the parabola −x²/(2λt) taken away: there the law is the same at every site.

    Measured with 2048 runs: variance ratio 0.98 to 1.01 (± 0.015), skewness 0.20 to 0.25 (± 0.02), mean −1.716 ± 0.018:
    at t ≤ 200 its approach to −1.771 isn't over, and 5 % is what these times allow.
    """
    system, h = grown("narrow_wedge", 1024)
    x = np.arange(1024) - 512
    near = np.abs(x) <= 128
    h = h[..., near] + x[near] ** 2 / (2 * system.lam * np.array(TIMES)[:, None])
    compare_growth(system, h, GUE, (0.12, 0.08, 0.1, 0.25))


@pytest.mark.slow
def test_the_ring_of_the_benchmark_is_too_small_for_tracy_and_widom():
    """At N = 256 the width within a run is 17 % under the infinite system's at t = 64 and 35 % at t = 200."""
    system, n = KPZ(solver_step=0.1), 2048
    samples = simulate(system, draws(system, "flat", n), 200, generators("ring", n))
    for t, expected in ((64, 0.83), (200, 0.65)):
        ratio = samples[:, t - 1].var(-1).mean() / ((1.5 * t) ** (2 / 3) * GOE[1])
        assert ratio == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("solver_step", [0.05, 0.1])
def test_long_after_a_flat_start_the_state_is_the_exact_stationary_one(solver_step):
    """Slope variance to 0.3 %, so that its time-step bias is far under 1 %; velocity, width; Gaussian heights."""
    system, n = KPZ(n_sites=64, solver_step=solver_step), 768
    samples = simulate(system, draws(system, "flat", n), 700, generators("saturated", n))[:, 300:]
    assert slope_variance(system, samples) == pytest.approx(1, abs=0.003)
    heights = samples.mean(-1)
    velocity = (heights[:, -1] - heights[:, 0]).mean() / (samples.shape[1] - 1)
    assert velocity == pytest.approx(system.stationary_velocity, rel=0.003)
    width = samples.var(-1).mean(-1)
    assert width.mean() == pytest.approx(system.saturated_width_squared, abs=4 * width.std() / n**0.5)
    assert width.std() / n**0.5 < 0.01 * width.mean()
    one_point = samples - heights[..., None]
    parts = np.array([moments(part) for part in np.split(one_point, 16)])
    errors = parts.std(axis=0, ddof=1) / 4
    assert errors[2] < 0.02
    assert errors[3] < 0.04
    assert (np.abs(parts.mean(axis=0)[2:]) < 4 * errors[2:]).all()  # skewness and excess kurtosis
