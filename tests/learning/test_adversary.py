"""Weak forms, their normal equations, and the game of field and adversary: exact solutions, closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics.simulate import simulate
from emubench.learning.objectives.weak_windows import (
    bump_family,
    normal_equations,
    residuals,
)
from tests.support.oscillations import oscillations, turn

module = baselines.get("weak_adversarial")
Adversary, Game = module.Adversary, module.Game
ONE = torch.ones(1)


def family(half_widths=(4, 6), power=4, space=(), noise=0.1, rate=0.02):
    return bump_family(half_widths, power, space, noise, rate)


def doubled(found):
    """The family in float64."""
    parts = {name: getattr(found, name).double() for name in ("values", "slopes", "space")}
    return dataclasses.replace(found, **parts)


# --- the weak form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [3, 5, 7])
def test_the_weak_form_of_an_exact_solution_vanishes_with_the_order_of_its_quadrature(power):
    """Wider windows sample the same product more finely; a bump with p − 1 vanishing derivatives gives order > p."""
    worst = []
    for m in (8, 16):
        states = oscillations(2.0 / m, 4, 2 * m + 1)
        found = residuals(doubled(family((m,), power)), states, turn(2.0 / m, states))
        worst.append(float(found.abs().max()))
    assert math.log2(worst[0] / worst[1]) > power
    states = oscillations(0.2, 4, 17)
    wrong = residuals(doubled(family((8,), power)), states, turn(0.22, states))
    assert float(wrong.abs().max()) > 1000 * worst[1]


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
def test_the_true_field_of_a_system_has_no_weak_residual(name):
    system = systems.get(name)
    rng = np.random.default_rng(0)
    start = np.stack([system.draw(rng, system.starts[0]) for _ in range(2)])
    states = torch.from_numpy(simulate(system, start, 240)[:, 200:])
    rate = system.sample_interval * system.rhs(states)
    space = (0, 3) if system.grid else ()
    parts = doubled(family((10,), 8, space))
    size = residuals(parts, states, 0 * rate).square().mean().sqrt()
    assert float(residuals(parts, states, rate).square().mean().sqrt()) < 5e-3 * float(size)
    assert float(residuals(parts, states, 0.9 * rate).square().mean().sqrt()) > 0.05 * float(size)


def test_noise_is_summed_not_differentiated():
    """Residuals of pure noise have the covariance that normalises them."""
    noise = 0.1 * torch.from_numpy(stream(0, "noise").standard_normal((400, 40, 5))).float()
    for space in ((), (0, 1)):
        found = family((4, 6), 4, space, 0.1, 1e-9)
        r = residuals(found, noise, 0 * noise).flatten(0, -2).double()
        covariance = r.T @ r / len(r)
        scale = found.gram.double().diagonal().sqrt()
        assert float(((covariance - found.gram.double()) / scale / scale[:, None]).abs().max()) < 0.05


def test_bumps_have_compact_support_and_their_own_slopes():
    found = family((3, 6), 4)
    assert found.values.shape == found.slopes.shape == (4, 13)
    assert float(found.values[:2, :4].abs().max()) == 0
    fine = bump_family((2000,), 4, (), 0.1, 0.1)
    assert np.allclose(np.gradient(fine.values.double().numpy(), axis=1), fine.slopes.numpy(), atol=2e-6)


def test_residuals_on_a_ring_are_summed_over_neighbouring_sites():
    u, rate = torch.randn(2, 9, 12), torch.randn(2, 9, 12)
    plain = residuals(family((4,), 4, (0,)), u, rate)
    both = residuals(family((4,), 4, (0, 2)), u, rate)
    assert torch.allclose(both[..., 0], plain[..., 0], atol=1e-5)
    weights = [(1 - (j / 2) ** 2) ** 4 for j in range(-2, 3)]
    by_hand = sum(w * plain[..., 0].roll(-j, 2) for j, w in zip(range(-2, 3), weights, strict=True))
    assert torch.allclose(both[..., 1], by_hand, atol=1e-5)
    assert torch.equal(
        residuals(family((4,), 4), u.repeat(1, 2, 1), rate.repeat(1, 2, 1), 3),
        residuals(family((4,), 4), u.repeat(1, 2, 1), rate.repeat(1, 2, 1))[:, ::3],
    )


# --- the adversary ----------------------------------------------------------------------------------------------------


def model_error(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals of oscillations with a field that is wrong where the first component is positive, and the states."""
    states = oscillations(0.3, 32, 40, seed).float()
    rate = turn(0.3, states) + 0.05 * (states[..., :1] > 0)
    noisy = states + 0.1 * torch.from_numpy(stream(seed, "noise").standard_normal(states.shape)).float()
    return residuals(family(), noisy, rate), states[:, : 40 - 12]


def test_the_adversary_raises_the_residual_within_its_bounds():
    """From ½ everywhere it finds better combinations, on windows that it was not trained on as well."""
    adversary = Adversary(2, 2, family(), 16, torch.Generator().manual_seed(0))
    game = Game(adversary, 3e-3, 1.0)
    (residual, seen), (fresh, fresh_seen) = model_error(0), model_error(1)
    before = float(game.family.combined_loss(fresh, adversary(fresh_seen), ONE).detach())
    first = adversary(seen) * game.family.gram.diagonal().sqrt()
    assert torch.allclose(first, torch.full_like(first, 0.5))
    for _ in range(150):
        game(residual, seen, ONE)
    after = adversary(fresh_seen)
    assert float(game.family.combined_loss(fresh, after, ONE).detach()) > 1.15 * before
    bounded = after * game.family.gram.diagonal().sqrt()
    assert float(bounded.detach().min()) >= -0.5
    assert float(bounded.detach().max()) <= 1.5


def test_windows_longer_than_the_stretches_are_refused():
    with pytest.raises(EmubenchError, match="half_widths: windows of 13 samples do not fit into stretches of 12"):
        residuals(family(), torch.zeros(1, 12, 1), torch.zeros(1, 12, 1))


def test_residuals_of_a_part_of_the_sites_are_those_of_all():
    u, rate = torch.randn(2, 9, 12), torch.randn(2, 9, 12)
    for space in ((0,), (0, 2)):
        every = residuals(family((4,), 4, space), u, rate)
        assert torch.allclose(residuals(family((4,), 4, space), u, rate, 1, 3), every[:, :, ::3], atol=1e-6)


def test_an_adversary_gains_nothing_from_noise_alone():
    noise = 0.1 * torch.from_numpy(stream(5, "noise").standard_normal((64, 40, 2))).float()
    found = family(rate=1e-9)
    residual, seen = residuals(found, noise, 0 * noise), torch.randn(64, 28, 2)
    game = Game(Adversary(2, 2, found, 16, torch.Generator().manual_seed(0)), 3e-3, 1.0)
    for _ in range(100):
        game(residual[:32], seen[:32], ONE)
    value = float(game.family.combined_loss(residual[32:], game.adversary(seen[32:]), ONE).detach())
    assert value == pytest.approx(1.0, abs=0.1)


def test_the_loss_is_scale_free_in_the_test_function_and_blind_to_untrusted_windows():
    residual, seen = model_error(2)
    combined = torch.rand_like(residual) - 0.3
    one, double = (family().combined_loss(residual, c, ONE) for c in (combined, 2 * combined))
    assert torch.allclose(one, double)
    weight = torch.zeros(32, 1, 2)
    weight[:4] = 1
    spoilt = torch.cat([residual[:4], 1e6 * residual[4:]])
    assert torch.allclose(family().fixed_loss(spoilt, weight), family().fixed_loss(residual[:4], ONE))
    alone = torch.zeros_like(residual)
    alone[..., 0] = 1
    by_hand = residual[..., 0].square().mean() / family().gram[0, 0]
    assert torch.allclose(family().combined_loss(residual, alone, ONE), by_hand)


def test_ascent_moves_the_adversary_and_not_the_model():
    residual, seen = model_error(3)
    residual.requires_grad_()
    game = Game(Adversary(2, 2, family(), 16, torch.Generator().manual_seed(0)), 1e-2, 0.5)
    weights = [p.detach().clone() for p in game.adversary.parameters()]
    loss = game(residual, seen, ONE)
    assert residual.grad is None
    assert any(not torch.equal(w, p) for w, p in zip(weights, game.adversary.parameters(), strict=True))
    moved = [p.detach().clone() for p in game.adversary.parameters()]
    loss.backward()
    assert residual.grad is not None
    assert all(torch.equal(w, p) for w, p in zip(moved, game.adversary.parameters(), strict=True))


# --- the closed form --------------------------------------------------------------------------------------------------


def test_normal_equations_are_those_of_least_squares():
    found = family((4,), 4)
    u, features = torch.randn(3, 30, 1), torch.randn(3, 30, 1, 2)
    weight = torch.tensor([1.0, 1.0, 0.0])[:, None, None]
    gram, moment = normal_equations(found, [(u, features)], weight)
    solution = torch.linalg.solve(gram, moment).float()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return found.fixed_loss(residuals(found, u, features @ w, stride=4), weight)

    (gradient,) = torch.autograd.grad(loss(at := solution.requires_grad_()), at)
    assert float(gradient.abs().max()) < 1e-3 * float(loss(at).detach())


def test_products_of_twins_are_free_of_the_noise_s_bias():
    """u′ = 0.7 g with noise as large as g: least squares halves the coefficient, twins don't."""
    t, phase = torch.arange(60.0)[None, :, None], 6.28 * torch.rand(4000, 1, 1)
    u, g = torch.sin(0.3 * t + phase), 0.3 / 0.7 * torch.cos(0.3 * t + phase)
    noise = float(g.std())
    found, weight = family((6,), 4), torch.ones(1, 1, 1)
    copies = [(u, (g + noise * torch.randn_like(g))[..., None]) for _ in range(2)]
    single, twins = (normal_equations(found, copies[:n], weight) for n in (1, 2))
    assert float(single[1] / single[0]) < 0.65
    assert float(twins[1] / twins[0]) == pytest.approx(0.7, abs=0.01)
