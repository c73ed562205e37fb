"""Weak forms, the game of field and adversary, smoothers, the baseline: against exact solutions and closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import dataset, tasks
from emubench.dynamics.simulate import simulate
from emubench.emulator import Stepper, checked_forecast, load_weights, save_weights
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.filters.wiener import lag_covariances, smoothed
from emubench.learning.objectives.adversary import (
    Adversary,
    Game,
    bump_family,
    combined_loss,
    fixed_loss,
    normal_equations,
    residuals,
)
from emubench.learning.training.descent import Log

module = baselines.get("weak_adversarial")
ONE = torch.ones(1)


def oscillations(omega: float, n: int, length: int, seed: int = 0) -> torch.Tensor:
    """Points on circles, turning by ``omega`` per sample "B T 2"."""
    phase = torch.from_numpy(stream(seed, "phase").uniform(0, 2 * np.pi, (n, 1))) + omega * torch.arange(length)
    return torch.stack([phase.cos(), phase.sin()], dim=-1)


def turn(omega: float, states: torch.Tensor) -> torch.Tensor:
    return omega * torch.stack([-states[..., 1], states[..., 0]], dim=-1)


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
    before = float(combined_loss(fresh, adversary(fresh_seen), game.family, ONE).detach())
    first = adversary(seen) * game.family.gram.diagonal().sqrt()
    assert torch.allclose(first, torch.full_like(first, 0.5))
    for _ in range(150):
        game(residual, seen, ONE)
    after = adversary(fresh_seen)
    assert float(combined_loss(fresh, after, game.family, ONE).detach()) > 1.15 * before
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
    value = float(combined_loss(residual[32:], game.adversary(seen[32:]), game.family, ONE).detach())
    assert value == pytest.approx(1.0, abs=0.1)


def test_the_loss_is_scale_free_in_the_test_function_and_blind_to_untrusted_windows():
    residual, seen = model_error(2)
    combined = torch.rand_like(residual) - 0.3
    one, double = (combined_loss(residual, c, family(), ONE) for c in (combined, 2 * combined))
    assert torch.allclose(one, double)
    weight = torch.zeros(32, 1, 2)
    weight[:4] = 1
    spoilt = torch.cat([residual[:4], 1e6 * residual[4:]])
    assert torch.allclose(fixed_loss(spoilt, family(), weight), fixed_loss(residual[:4], family(), ONE))
    alone = torch.zeros_like(residual)
    alone[..., 0] = 1
    by_hand = residual[..., 0].square().mean() / family().gram[0, 0]
    assert torch.allclose(combined_loss(residual, alone, family(), ONE), by_hand)


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


# --- estimates of the states ------------------------------------------------------------------------------------------


def waves(noise: float, gaps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Travelling random waves on a ring of 24 sites, and noisy, gappy observations of them."""
    rng = stream(3, "waves")
    x, t = torch.arange(24) / 24 * 2 * torch.pi, 0.2 * torch.arange(160)
    phases = torch.from_numpy(rng.uniform(0, 2 * np.pi, (64, 4, 1, 1)))
    truth = sum(torch.cos(k * x - k * t[:, None] + phases[:, k]) for k in range(1, 4))
    observed = truth + noise * torch.from_numpy(rng.standard_normal(truth.shape))
    if gaps:
        hidden = torch.from_numpy(rng.uniform(size=(64, 1, 24)) < 0.5).expand_as(observed)
        observed = torch.where(hidden, torch.nan, observed)
    return truth, observed


@pytest.mark.parametrize("gaps", [False, True])
def test_the_linear_smoother_knows_its_error_and_beats_the_data(gaps):
    truth, observed = waves(0.3, gaps)
    states, variance = smoothed(observed, torch.full((24,), 0.3, dtype=torch.float64), 3, ring=True)
    assert states.shape == (64, 154, 24)
    error = (states - truth[:, 3:-3]).square().mean(1)
    assert float(error.mean().sqrt()) < 0.15
    ratio = float(variance.mean() / error.mean())  # few pairs make the covariances, and so the variance, too large
    assert 0.8 < ratio < (2.0 if gaps else 1.4)


def test_the_linear_smoother_is_the_gaussian_conditional_mean():
    """Of an autoregressive process, whose covariances are known, against the conditional mean by the joint matrix."""
    rng, a, noise = stream(0, "ar"), 0.9, 0.5
    x = np.zeros((64, 2000))
    x[:, 0] = rng.standard_normal(64)
    for t in range(1, 2000):
        x[:, t] = a * x[:, t - 1] + math.sqrt(1 - a**2) * rng.standard_normal(64)
    truth = torch.from_numpy(x)[..., None]
    observed = truth + noise * torch.from_numpy(rng.standard_normal(truth.shape))
    covariance = torch.tensor([[a ** abs(i - j) for j in range(5)] for i in range(5)], dtype=torch.float64)
    gain = torch.linalg.solve(covariance + noise**2 * torch.eye(5, dtype=torch.float64), covariance[:, 2])
    states, variance = smoothed(observed, torch.tensor([noise], dtype=torch.float64), 2, ring=False)
    assert torch.allclose(states[..., 0], observed[..., 0].unfold(1, 5, 1) @ gain, atol=0.05)
    assert float(variance[0]) == pytest.approx(float(1 - covariance[2] @ gain), abs=0.02)


def test_lag_covariances_use_observed_pairs_only():
    _, observed = waves(0.0, True)
    truth, _ = waves(0.0, False)
    found, exact = lag_covariances(observed, 3, True), lag_covariances(truth, 3, True)
    assert float((found - exact).abs().max()) < 0.15 * float(exact[0, 0, 0])
    assert torch.allclose(exact[1, 0], exact[1, 5].roll(-5), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.0, 3.0])
def test_a_fixed_lag_smoother_is_better_than_the_filter(radius):
    """Shifted waves on a ring, a known model: later observations help; without lag it is the filter itself."""
    truth, observed = waves(0.3, False)
    components = 8 if radius else 24
    truth, observed = truth[..., :: 24 // components], observed[..., :: 24 // components]

    def advance(ensemble: torch.Tensor) -> torch.Tensor:
        hat = torch.fft.rfft(ensemble)
        return torch.fft.irfft(hat * torch.exp(-0.2j * torch.arange(hat.shape[-1])), n=ensemble.shape[-1])

    smoother = ClimateFilter(components, list(range(components)), 40, 1.02, radius)
    smoother.noise.fill_(0.3)
    smoother.set_first(truth[:, ::4].flatten(0, 1), torch.Generator().manual_seed(0))
    errors = []
    for lag in (0, 6):
        states = smoother.smoothed(advance, observed, lag)
        assert states.shape == (64, 160 - lag, components)
        errors.append(float((states - truth[:, : 160 - lag])[:, 4:40].square().mean().sqrt()))
    assert errors[1] < 0.9 * errors[0]
    plain = ClimateFilter(components, list(range(components)), 40, 1.0, radius)
    plain.noise.fill_(0.3)
    plain.first.copy_(smoother.first)
    assert torch.allclose(plain.smoothed(advance, observed, 0), plain.analyses(advance, observed), atol=1e-8)


# --- the closed form --------------------------------------------------------------------------------------------------


def true_estimates(name: str, length: int = 256):
    """Noise-free samples of a system as estimates of themselves, in σ, and an untrained flow of its clean task."""
    task, flow, _ = configured(f"{name}-clean", half_widths=(10,), power=8, space=(0, 6) if name[0] == "k" else ())
    rng, system = np.random.default_rng(1), task.system
    start = np.stack([system.draw(rng, system.starts[0]) for _ in range(4)])
    states = torch.from_numpy(simulate(system, start, 200 + length)[:, 200:])
    flow.mean.copy_(torch.from_numpy(system.mean))
    flow.std.copy_(torch.from_numpy(system.std))
    if flow.config.stiff:
        flow.set_band(((torch.arange(33) > 0) & (torch.arange(33) < 14)).float())
        flow.seen = flow.band > 0
    u = flow.normalised(states)
    return flow, module.Estimates(flow.limit(u), u, torch.ones_like(u[:, 0])), states


@pytest.mark.parametrize(("name", "tolerance"), [("lorenz63", 0.02), ("lorenz96", 0.02), ("kuramoto_sivashinsky", 0.1)])
def test_the_closed_form_finds_the_field_of_a_system(name, tolerance):
    """Without noise a system's own tendency, whose quadratic part it has, on states that it was not fitted to."""
    flow, estimates, states = true_estimates(name)
    flow.config = dataclasses.replace(flow.config, ridge=1e-8, batch=16, pool=32)
    family = bump_family((10,), 8, flow.config.space, 0.01, 0.02)
    module.fit_quadratic(flow, estimates, family)
    system = tasks.get(f"{name}-clean").system
    exact = system.sample_interval * system.rhs(states) / flow.std
    error = (flow.tendency(estimates.states) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert float(error.detach()) < tolerance


def test_a_second_closed_form_goes_half_the_way():
    """Weights three times too large come to twice."""
    flow, estimates, _ = true_estimates("lorenz63")
    family = bump_family((10,), 8, (), 0.01, 0.02)
    module.fit_quadratic(flow, estimates, family)
    once = flow.field.weight.detach().clone()
    with torch.no_grad():
        flow.field.weight.mul_(3.0)
    module.fit_quadratic(flow, estimates, family)
    assert torch.allclose(flow.field.weight, 2 * once, rtol=1e-3, atol=1e-3 * float(once.abs().max()))


def test_one_step_starts_from_differences():
    """Of a linear oscillation: the central difference is too small by sin(ω)/ω."""
    states = oscillations(0.3, 8, 80)
    r = residuals(module.DIFFERENCE, states.float(), turn(math.sin(0.3), states).float())
    assert float(r.abs().max()) < 1e-5


def test_normal_equations_are_those_of_least_squares():
    found = family((4,), 4)
    u, features = torch.randn(3, 30, 1), torch.randn(3, 30, 1, 2)
    weight = torch.tensor([1.0, 1.0, 0.0])[:, None, None]
    gram, moment = normal_equations(found, [(u, features)], weight)
    solution = torch.linalg.solve(gram, moment).float()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return fixed_loss(residuals(found, u, features @ w, stride=4), found, weight)

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


def test_products_of_noise_have_no_mean_in_the_library():
    flow, _, _ = true_estimates("kuramoto_sivashinsky")
    band = (torch.arange(33) < 14).float()
    flow.set_band(band)
    noise = flow.limit(0.5 * torch.randn(16, 64, 64))
    plain, unbiased = (flow.library(noise, level).mean((0, 1, 2))[10:-13] for level in (None, torch.full((64,), 0.5)))
    assert len(plain) == 45
    assert float(plain.abs().max()) > 0.05
    assert float(unbiased.abs().max()) < 0.005


@pytest.mark.slow
def test_twins_find_the_field_where_estimates_are_biased():
    """Kuramoto–Sivashinsky under the task's noise, and hidden modes that are damped like the last seen."""
    flow, estimates, states = true_estimates("kuramoto_sivashinsky", length=2000)
    flow.seen = (torch.arange(33) > 0) & (torch.arange(33) < 9)
    flow.config = dataclasses.replace(flow.config, pool=256, twins=256, space=(12, 20))
    generator = torch.Generator().manual_seed(0)
    u = flow.normalised(states)
    observed = u + 0.1 * torch.randn(u.shape, generator=generator)
    family = bump_family((4, 6, 8), 4, (12, 20), 0.1, 0.02)
    exact = tasks.get("kuramoto_sivashinsky-clean").system.rhs(states) / flow.std
    errors = []
    for noise in (None, torch.full((64,), 0.1)):
        flow.symbol.data.zero_()
        flow.field.network.weight.data.zero_()
        module.fit_quadratic(flow, module.Estimates(observed, observed, estimates.weight), family, noise)
        wrong = (torch.fft.rfft(flow.tendency(flow.limit(u)) - exact).abs()[..., :7].square().mean()).sqrt()
        errors.append(float(wrong.detach()))
    assert errors[1] < 0.4 * errors[0]
    assert torch.equal(flow.symbol[9:14], flow.symbol[8].expand(5))


# --- the baseline -----------------------------------------------------------------------------------------------------


def configured(name: str, **settings):
    task = tasks.get(name, "tiny")
    small = {"width": 8, "batch": 4, "members": 5, "checks": 2, "steps": 4, **settings}
    small |= {} if task.system.stochastic else {"pool": 16, "filtered": (2, 96)}
    config = dataclasses.replace(module.default_config(task), **small)
    torch.manual_seed(0)
    return task, module.build(task, config), config


@pytest.mark.parametrize("objective", module.OBJECTIVES)
@pytest.mark.parametrize(
    "name",
    [
        *("lorenz63-noisy", "lorenz63-scarce", "kpz-partial"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("lorenz96-partial", "kuramoto_sivashinsky-noisy")),
    ],
)
def test_it_trains_forecasts_and_is_saved_on_every_kind_of_task(data, tmp_path, name, objective):
    rounds = {} if name.startswith("kpz") else {"rounds": 1}
    task, flow, config = configured(name, objective=objective, **rounds)
    observations = dataset.load(task, data)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    module.train(flow, observations, config, 0, Log())
    assert isinstance(flow, Stepper)
    assert any(not torch.equal(v, before[k]) for k, v in flow.state_dict().items() if k.startswith("field"))
    context, members = observations.contexts["test"][:3], 2 if task.system.stochastic else 1
    run = checked_forecast(flow, context, 4, 2, torch.Generator().manual_seed(0))
    assert run.shape == (members, 3, 4, *task.shape)
    assert torch.isfinite(run).all()
    save_weights(flow, tmp_path / "model.safetensors")
    again = module.build(task, config)
    load_weights(again, tmp_path / "model.safetensors")
    assert torch.equal(checked_forecast(again, context, 4, 2, torch.Generator().manual_seed(0)), run)


@pytest.mark.parametrize("name", tasks.names())
def test_it_can_be_built_for_every_task(name):
    task = tasks.get(name)
    config = module.default_config(task)
    flow = module.build(task, config)
    assert (flow.climate is not None) == (task.observation.noise > 0 and not task.system.stochastic)
    assert sum(p.numel() for p in flow.parameters()) < 30_000


def test_delay_coordinates_put_the_present_first():
    _, flow, config = configured("lorenz63-partial", latent=2, spacing=2)
    values = torch.arange(8.0)[None, :, None]
    assert flow.lifted(values)[0].tolist() == [[4, 2, 0], [5, 3, 1], [6, 4, 2], [7, 5, 3]]
    assert flow.field.weight.shape == (10, 3)
    state = torch.randn(1, 4, 3)
    assert flow.read(state).shape == (1, 4, 1)


def test_a_stiff_linear_field_is_integrated_exactly():
    """The network's part at zero: every mode within the band decays by exp of its symbol, however fast."""
    _, flow, _ = configured("kuramoto_sivashinsky-noisy")
    flow.field = nn.Identity()
    flow.field.forward = torch.zeros_like
    flow.set_band((torch.arange(33) < 20).float())
    with torch.no_grad():
        flow.symbol.copy_(-torch.linspace(0, 1, 33))
    state = flow.limit(torch.randn(3, 64))
    rates = (flow.scale * flow.symbol).detach()
    assert float(rates[:20].min()) < -100
    expected = torch.fft.irfft(torch.fft.rfft(state) * torch.exp(rates), n=64)
    assert torch.allclose(flow.advance(state), expected, atol=1e-5)
    assert torch.allclose(
        flow.tendency(state), torch.fft.irfft(torch.fft.rfft(state) * rates, n=64), atol=1e-3 * float(rates.abs().max())
    )


def test_the_exponential_step_has_a_gradient_by_its_symbol():
    """Against a finite difference of the linear growth of slow modes."""
    _, flow, _ = configured("kuramoto_sivashinsky-noisy")
    flow.set_band((torch.arange(33) < 6).float())
    state = flow.limit(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)))
    target = flow.advance(state).detach() + 0.1 * state

    def loss() -> torch.Tensor:
        return (flow.advance(state) - target).square().mean()

    (gradient,) = torch.autograd.grad(loss(), flow.symbol)
    for mode in (1, 3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                flow.symbol[mode] += sign * 1e-3
                values.append(float(loss()))
                flow.symbol[mode] -= sign * 1e-3
        assert float(gradient[mode]) == pytest.approx((values[0] - values[1]) / 2e-3, rel=0.1)


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ({"objective": "weka"}, "unknown objective of weak_adversarial 'weka': did you mean weak?"),
        ({"adversary": 1.5}, "adversary: 1.5 where a share between 0 and 1 belongs"),
        ({"rate_noise": math.nan}, "rate_noise: nan where a positive number belongs"),
        ({"half_widths": ()}, "half_widths: () where numbers of at least 2 belong"),
        ({"spacing": 0}, "spacing: 0 where a positive number belongs"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, answer):
    config = module.default_config(tasks.get("lorenz63-noisy"))
    with pytest.raises(EmubenchError) as error:
        dataclasses.replace(config, **setting)
    assert str(error.value).startswith(answer)


@pytest.mark.slow
def test_under_noise_the_weak_form_beats_one_step_regression(data):
    """Tiny data of lorenz96, everything else equal: valid prediction times of 64 fresh contexts, paired."""
    from benchmarks.maintain.perfect_model import fresh_cases
    from emubench.metrics import valid_prediction_time

    task = tasks.get("lorenz96-noisy", "tiny")
    context, truth = fresh_cases(task, 7, 0)
    scores = []
    for objective in module.OBJECTIVES:
        _, flow, config = configured(
            "lorenz96-noisy",
            objective=objective,
            width=16,
            batch=8,
            members=20,
            steps=30,
            rounds=1,
            pool=128,
            filtered=(4, 160),
        )
        module.train(flow, dataset.load(task, data), config, 0, Log())
        forecast = checked_forecast(flow, context, task.test_steps, 1, torch.Generator().manual_seed(0))
        scores.append(valid_prediction_time.summarise(forecast, truth).cases[:, 0])
    difference = scores[0] - scores[1]
    assert float(difference.mean()) > 4 * float(difference.std()) / len(difference) ** 0.5
    assert float(scores[0].mean()) > 1.5


@pytest.mark.parametrize(
    "settings", [{"smoothing": 4, "lag": 5}, {"smoothing": 2, "lag": 9}, {"smoothing": 8, "lag": 3}]
)
def test_what_the_adversary_sees_does_not_know_the_noise_of_its_window(settings):
    """States seen are estimated from data before the first sample that a test function weighs."""
    task = tasks.get("lorenz63-noisy", "tiny")
    config = dataclasses.replace(module.default_config(task), **settings)
    flow = module.build(task, config)
    family = module.new_game(flow, 0.1, torch.Generator().manual_seed(0)).family
    states = torch.arange(60.0)[None, :, None].expand(1, 60, 3)  # each says when it was
    _, seen = module.weak_residuals(flow, family, states, states)
    latest = torch.zeros(1, 60, 3)
    latest[:, int(seen[0, 0, 0]) + max(config.smoothing, config.lag)] = 1.0  # all that the first one may know
    residual, _ = module.weak_residuals(flow, family, torch.zeros(1, 60, 3), latest)
    assert not residual[0, 0].any()


@pytest.mark.parametrize("name", ["lorenz63-noisy", "kpz-noisy"])
def test_training_noise_is_added_where_it_is_asked_for(data, name):
    task = tasks.get(name, "tiny")
    ends = []
    for noise in (0.0, 0.0, 0.3):
        small = {"steps": 4, "checks": 1, "batch": 4, "width": 8, "average": 0.0, "training_noise": noise}
        config = dataclasses.replace(module.default_config(task), **small)
        torch.manual_seed(0)
        flow = module.build(task, config)
        module.train(flow, dataset.load(task, data), config, 0, Log())
        ends.append(torch.cat([p.detach().flatten() for p in flow.field.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
