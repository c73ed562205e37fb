"""One-sample gains against singular values that are known, and against exact derivatives of the true flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.emulator import Stepper
from emubench.evaluation import error_growth
from tests.support.steppers import MapStepper, Noisy, attractor, normal, true_stepper

LORENZ63 = systems.get("lorenz63")
STD63 = torch.from_numpy(LORENZ63.std)


def rotation(seed: int, n: int) -> torch.Tensor:
    return torch.linalg.qr(normal(seed, n, n)).Q


def test_the_gain_of_a_linear_map_is_its_largest_singular_value_in_sigma():
    """G = U diag(3, 1, 0.2) V in units of σ, so F = S G S⁻¹ in physical ones."""
    scaled = rotation(0, 3) @ torch.diag(torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64)) @ rotation(1, 3)
    physical = torch.diag(STD63) @ scaled @ torch.diag(1 / STD63)
    found = error_growth.map_gains(lambda u: u @ physical.mT, normal(2, 7, 3), STD63, "linear")
    assert found.numpy() == pytest.approx(3.0, rel=1e-12)
    unscaled = error_growth.map_gains(lambda u: u @ physical.mT, normal(2, 7, 3), torch.ones(3).double(), "linear")
    assert unscaled.numpy() == pytest.approx(np.linalg.norm(physical.numpy(), 2), rel=1e-12)
    assert abs(float(unscaled[0]) - 3.0) > 0.01  # so that the scaling is seen


def test_the_gain_of_a_nonlinear_map_differs_between_states():
    """u → sin u, component by component: the largest |cos u|."""
    states = normal(3, 50, 6)
    found = error_growth.map_gains(torch.sin, states, torch.ones(6).double(), "sine")
    assert found.numpy() == pytest.approx(states.cos().abs().max(1).values.numpy())


def test_a_batch_that_does_not_fit_is_cut_without_a_change(monkeypatch):
    states, done = normal(4, 23, 5), []
    whole = error_growth.map_gains(torch.sin, states, torch.ones(5).double(), "sine")
    monkeypatch.setattr(error_growth, "AT_ONCE", 100)
    cut = error_growth.map_gains(torch.sin, states, torch.ones(5).double(), "sine", lambda k, n: done.append((k, n)))
    assert torch.equal(whole, cut)
    assert done == [(4, 23), (8, 23), (12, 23), (16, 23), (20, 23), (23, 23)]


def test_a_jacobian_that_is_not_finite_has_an_infinite_gain():
    states = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    found = error_growth.map_gains(lambda u: u.sqrt(), states, torch.ones(2).double(), "root")
    assert found.tolist() == [0.5, float("inf")]


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
@pytest.mark.parametrize("distance", [0.0, 2.0])
def test_the_gain_of_the_true_flow_is_that_of_its_exact_derivative(name, distance):
    """Differences of the fast solver's twins against forward differentiation of the reference solver."""
    system = systems.get(name)
    found = error_growth.system_gains(system, 6, 5, distance)
    states = error_growth.sample_states(system, 6, 5)
    states = error_growth.outside(states, system, distance) if distance else states
    step = true_stepper(system).function
    exact = error_growth.map_gains(step, states, torch.from_numpy(system.std), name)
    assert found.numpy() == pytest.approx(exact.numpy(), rel=1e-5)
    assert float(exact.max()) > 1.1


def test_outside_is_two_sigma_further_along_the_same_ray():
    system = systems.get("lorenz96")
    states = attractor(system, 9)[:, 0]
    moved = error_growth.outside(states, system)
    before, after = ((u - 2.339) / 3.639 for u in (states, moved))
    radius = before.square().mean(1).sqrt()
    assert after.square().mean(1).sqrt().numpy() == pytest.approx((radius + 2).numpy())
    assert torch.nn.functional.cosine_similarity(before, after).numpy() == pytest.approx(1.0)
    assert (moved - states).div(3.639).square().mean(1).sqrt().numpy() == pytest.approx(2.0)


# --- emulators whose state is the system's, in other units ----------------------------------------------------------


class Scaled(MapStepper):
    """A true stepper with a state in σ, its components in another order."""

    order = (2, 0, 1)

    def __init__(self, system, dtype=torch.float64):
        super().__init__(true_stepper(system, 0.0125).function, dtype)
        self.mean, self.std = torch.from_numpy(system.mean), torch.from_numpy(system.std)
        self.inverse = tuple(sorted(range(3), key=self.order.__getitem__))

    def start(self, context, n_members, generator):
        return ((context[:, -1] - self.mean) / self.std)[:, list(self.order)].to(self.dtype)[None]

    def read(self, state):
        return state[..., list(self.inverse)] * self.std + self.mean

    def step(self, state, generator):
        following = self.function(self.read(state).double())
        return ((following - self.mean) / self.std)[..., list(self.order)].to(self.dtype)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_units_and_order_of_the_state_make_no_difference(dtype, precision):
    emulator, states = Scaled(LORENZ63, dtype), attractor(LORENZ63, 12)[:, 0]
    assert isinstance(emulator, Stepper)
    advance = error_growth.physical_map(emulator, states[:, None], LORENZ63)
    direct = true_stepper(LORENZ63, 0.0125).function
    assert advance(states).numpy() == pytest.approx(direct(states).numpy(), rel=10 * precision, abs=10 * precision)
    found, expected = (error_growth.map_gains(f, states, STD63, "map") for f in (advance, direct))
    assert found.numpy() == pytest.approx(expected.numpy(), rel=10 * precision)


class Delayed(MapStepper):
    """Its state is this sample and the last."""

    def start(self, context, n_members, generator):
        return context[:, -1].repeat(1, 2)[None]

    def read(self, state):
        return state[..., :3]


class Curved(MapStepper):
    """Its state is the cube root of the system's."""

    def start(self, context, n_members, generator):
        return context[None, :, -1].abs() ** (1 / 3)

    def read(self, state):
        return state**3


class Blind(MapStepper):
    """It shows the sum of its components only."""

    def read(self, state):
        return state.sum(-1, keepdim=True).expand_as(state)


class Stateless:
    def forecast(self, context, n_steps, n_members, generator):
        return context[None, :, -1:].expand(1, -1, n_steps, -1)


@pytest.mark.parametrize(
    ("emulator", "message"),
    [
        (Stateless(), "Stateless: its one-sample Jacobian is not available: it is no Stepper"),
        (Noisy(lambda u: u), "Noisy: .* not available: it is stochastic"),
        (Delayed(lambda u: u), "Delayed: .* its state has 6 numbers, the system's 3"),
        (Curved(lambda u: u), "Curved: .* its state is not the system's up to an affine map"),
        (Blind(lambda u: u), "Blind: .* its state is not the system's up to an affine map"),
    ],
)
def test_what_has_no_map_of_the_systems_state_is_told_why(emulator, message):
    with pytest.raises(EmubenchError, match=message):
        error_growth.physical_map(emulator, 2 + normal(6, 4, 2, 3).abs(), LORENZ63)


def test_a_partly_observed_state_is_not_the_systems():
    with pytest.raises(EmubenchError, match="its state has 1 numbers, the system's 3"):
        error_growth.physical_map(MapStepper(lambda u: u), normal(7, 4, 2, 1), LORENZ63)
