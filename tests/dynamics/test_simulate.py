"""The integrators against closed forms: orders, coefficients, exact cases, and what is said of faults."""

from __future__ import annotations

import decimal
from decimal import Decimal

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics.schemes import EXPLICIT, etd1, etdrk4, etdrk4_coefficients, ornstein_uhlenbeck
from emubench.dynamics.simulate import rollout, simulate
from emubench.systems.lorenz63 import Lorenz63

ETD = {"etd1": etd1, "etdrk4": etdrk4}
CPU = (torch.complex128, "cpu")


def orders(errors: list[float]) -> np.ndarray:
    """Observed order between each step and the next, which is half as long."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


# --- explicit Runge–Kutta ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_explicit_order_on_the_logistic_equation(scheme, order):
    start = torch.linspace(0.1, 0.9, 15, dtype=torch.float64).reshape(5, 3)  # a batch of states
    exact = start * np.exp(2.0) / (1 + start * (np.exp(2.0) - 1))
    errors = []
    for n_steps in (20, 40, 80):
        step = EXPLICIT[scheme](lambda u: u * (1 - u), 2.0 / n_steps)
        errors.append(float((rollout(step, start, 1, n_steps)[:, 0] - exact).abs().max()))
    assert orders(errors) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("scheme", "degree"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_explicit_step_of_a_linear_equation_is_the_truncated_exponential(scheme, degree):
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    expected, term = torch.ones_like(z), torch.ones_like(z)
    for k in range(1, degree + 1):
        term = term * z / k
        expected = expected + term
    assert torch.allclose(
        EXPLICIT[scheme](lambda u: z * u, 1.0)(torch.ones_like(z), None), expected, rtol=1e-14, atol=0
    )


# --- exponential time differencing ---------------------------------------------------------------------------------


def exact_coefficients(z: Decimal) -> dict[str, Decimal]:
    """The coefficients of ETDRK4 over h, with 100 digits, so that their cancellation near zero does no harm."""
    with decimal.localcontext(prec=100):
        e, half = z.exp(), (z / 2).exp()
        return {
            "exp": e,
            "exp_half": half,
            "q": (half - 1) / z,
            "f1": (-4 - z + e * (4 - 3 * z + z * z)) / z**3,
            "f2": (2 + z + e * (z - 2)) / z**3,
            "f3": (-4 - 3 * z - z * z + e * (4 - z)) / z**3,
        }


def test_etdrk4_coefficients_at_small_and_large_arguments():
    h = 0.25  # a power of two, so that z is the same number to both
    symbol = np.array([sign * 2.0**k for k in range(-40, 12) for sign in (-1, 1) if sign < 0 or k <= 4])
    found = etdrk4_coefficients(symbol, h)
    for i, value in enumerate(symbol):
        for name, expected in exact_coefficients(Decimal(h * value)).items():
            scale = 1 if name.startswith("exp") else h
            assert getattr(found, name)[i] == pytest.approx(scale * float(expected), rel=1e-12), (name, value)


def test_etdrk4_coefficients_at_zero_are_those_of_rk4():
    c = etdrk4_coefficients(np.zeros(1), 0.3)
    found = [float(v[0]) for v in (c.exp, c.exp_half, c.q, c.f1, 2 * c.f2, c.f3)]
    assert found == pytest.approx([1, 1, 0.15, 0.05, 0.1, 0.05], rel=1e-13)


@pytest.mark.parametrize("scheme", ETD)
@pytest.mark.parametrize("h", [0.01, 10.0])
def test_etd_is_exact_for_a_linear_equation_with_constant_forcing(scheme, h):
    symbol = np.array([0.0, -1e-9, -1e-3, -1.0, -30.0, 0.2])
    forcing = np.array([1.0, 2.0, -1.0, 0.5, 3.0, 1.0]) * (1 + 2j)
    state = np.linspace(1, 2, 12).reshape(2, 6) * (1 - 1j)
    growth = np.array([h if s == 0 else np.expm1(h * s) / s for s in symbol])
    expected = np.exp(h * symbol) * state + growth * forcing
    step = ETD[scheme](symbol, lambda v: torch.from_numpy(forcing).expand_as(v), h, *CPU)
    assert step(torch.from_numpy(state), None).numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("scheme", "order"), [("etdrk4", 4), ("etd1", 1)])
def test_etd_order_on_kuramoto_sivashinsky(scheme, order):
    system = systems.get("kuramoto_sivashinsky", n_sites=32)  # with more modes the stiffest lower the order to 3.5
    start = np.stack([system.draw(stream(0, "order", i), "attractor") for i in range(3)])
    start = torch.from_numpy(simulate(system, start, 50)[:, -1].copy())
    duration = 4.0
    fine = rollout(system.solver(duration / 4096), start, 1, 4096)
    errors = [
        float((rollout(system.solver(duration / n, scheme), start, 1, n) - fine).abs().max()) for n in (256, 512, 1024)
    ]
    assert orders(errors) == pytest.approx(order, abs=0.15)


# --- the Ornstein–Uhlenbeck step -----------------------------------------------------------------------------------


def test_ornstein_uhlenbeck_without_damping_is_a_random_walk():
    step = ornstein_uhlenbeck(np.zeros(5), intensity=2.0, h=0.5, dtype=torch.float64, device="cpu")
    noise = torch.from_numpy(stream(0, "walk").standard_normal((3, 8)))
    assert torch.allclose(step(torch.ones(3, 8, dtype=torch.float64), noise), 1 + noise, atol=1e-14)


@pytest.mark.parametrize("n", [8, 9])
def test_two_ornstein_uhlenbeck_steps_have_the_law_of_one_twice_as_long(n):
    symbol = -(np.arange(n // 2 + 1.0) ** 2)
    eye, zero = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)

    def decay_and_covariance(h: float) -> tuple[torch.Tensor, torch.Tensor]:
        step = ornstein_uhlenbeck(symbol, 1.5, h, torch.float64, "cpu")
        response = step(zero, eye)
        return step(eye, zero), response.T @ response  # rows are responses to unit vectors

    decay, covariance = decay_and_covariance(0.3)
    twice, total = decay_and_covariance(0.6)
    assert torch.allclose(decay @ decay, twice, atol=1e-14)
    assert torch.allclose(decay.T @ covariance @ decay + covariance, total, atol=1e-13)


# --- rollout and simulate ------------------------------------------------------------------------------------------


def test_rollout_keeps_every_kth_state_and_draws_noise_for_each_step():
    start = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    drawn = iter(range(1, 7))
    samples = rollout(lambda u, xi: u + xi, start, 3, 2, noise=lambda: torch.tensor(float(next(drawn))))
    assert samples.shape == (2, 3, 1)
    assert samples[..., 0].tolist() == [[4.0, 11.0, 22.0], [5.0, 12.0, 23.0]]


def test_simulate_is_a_rollout_of_the_reference_solver():
    system = systems.get("lorenz96")
    start = np.stack([system.draw(stream(0, i), "attractor") for i in range(2)])
    expected = rollout(system.solver(), torch.from_numpy(start), 3, system.steps_per_sample).numpy()
    assert (simulate(system, start, 3, reference=True) == expected).all()


def test_simulate_wants_one_generator_per_trajectory():
    system = systems.get("kpz")
    for rngs in (None, [], [stream(0)]):
        with pytest.raises(ValueError, match="one generator per trajectory"):
            simulate(system, np.zeros((2, 256)), 1, rngs)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    ("name", "parameters", "cause"),
    [
        ("lorenz63", {"sample_interval": 0.5, "solver_step": 0.5}, "solver_step 0.5 is too long for these parameters"),
        ("lorenz96", {"forcing": 1e6}, "solver_step 0.00125 is too long for these parameters"),
        ("kuramoto_sivashinsky", {"solver_step": 1.0}, "solver_step 1.0 is too long"),
        ("kpz", {"lam": 1e3}, r"a slope exceeds 50: lambda 1000.0 is too large for dx 1.0 and step 0.05"),
    ],
)
def test_a_blow_up_names_trajectory_time_and_cause(name, parameters, cause, reference):
    system = systems.get(name, **parameters)
    rngs = [stream(0, "blow up", i) for i in range(2)]
    start = np.stack([10 * system.draw(rng, system.starts[0]) for rng in rngs])
    with pytest.raises(EmubenchError, match=rf"{name}: trajectory \d at time [\d.]+: .*{cause}"):
        simulate(system, start, 50, rngs, reference=reference)


def test_the_one_trajectory_that_blows_up_is_named():
    system = systems.get("lorenz96")
    start = np.stack([system.draw(stream(0, i), "attractor") for i in range(4)])
    start[2, 7] = 1e200
    with pytest.raises(EmubenchError, match=r"lorenz96: trajectory 2 at time 0\.05: "):
        simulate(system, start, 3)


def test_a_finite_fault_is_located_in_trajectory_and_time():
    class Bounded(Lorenz63):
        def fault(self, samples):
            return "x left its range" if samples.size and samples[..., 0].max() > 15 else None

    start = np.stack([Lorenz63().draw(stream(1, i), "attractor") for i in range(3)])
    samples = simulate(Lorenz63(), start, 200)
    trajectory, sample = np.argwhere(samples[..., 0] > 15)[0]
    assert (trajectory, sample) != (0, 0)
    with pytest.raises(
        EmubenchError, match=f"trajectory {trajectory} at time {(sample + 1) * 0.05:g}: x left its range"
    ):
        simulate(Bounded(), start, 200)


def test_a_subclass_is_not_served_by_its_parent_s_kernel():
    """It may have changed the equation; the kernel is found by name and would not know."""

    class Still(Lorenz63):
        def rhs(self, state):
            return 0 * state

    start = np.ones((2, 3))
    assert (simulate(Still(), start, 2) == 1).all()
    assert not (simulate(Lorenz63(), start, 2) == 1).any()
