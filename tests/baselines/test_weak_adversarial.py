"""weak_adversarial: its closed form against the fields of the systems, its flow, its training on every kind of task."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.dynamics.simulate import simulate
from emubench.emulator import Stepper, checked_forecast, load_weights, save_weights
from emubench.learning.objectives.weak_windows import bump_family, residuals
from emubench.learning.training.descent import Log
from tests.support.oscillations import oscillations, turn

module = baselines.get("weak_adversarial")


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
    return flow, module.Smoothed(flow.in_band(u), u, torch.ones_like(u[:, 0])), states


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


def test_products_of_noise_have_no_mean_in_the_library():
    flow, _, _ = true_estimates("kuramoto_sivashinsky")
    band = (torch.arange(33) < 14).float()
    flow.set_band(band)
    noise = flow.in_band(0.5 * torch.randn(16, 64, 64))
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
        module.fit_quadratic(flow, module.Smoothed(observed, observed, estimates.weight), family, noise)
        wrong = (torch.fft.rfft(flow.tendency(flow.in_band(u)) - exact).abs()[..., :7].square().mean()).sqrt()
        errors.append(float(wrong.detach()))
    assert errors[1] < 0.4 * errors[0]
    assert torch.equal(flow.symbol[9:14], flow.symbol[8].expand(5))


# --- the baseline -----------------------------------------------------------------------------------------------------


def configured(name: str, **settings):
    task = tasks.get(name, "tiny")
    default = module.default_config(task)
    small = {"width": 8, "batch": 4, "members": 5, "checks": 2, "steps": 4, "twins": min(32, default.twins)}
    small |= {} if task.system.stochastic else {"pool": 16, "filtered": (2, 96)}
    config = dataclasses.replace(default, **(small | settings))
    torch.manual_seed(0)
    return task, module.build(task, config), config


@pytest.mark.parametrize("objective", module.OBJECTIVES)
@pytest.mark.parametrize(
    "name",
    [
        *("lorenz63-noisy", "lorenz63-scarce"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("lorenz96-partial", "kuramoto_sivashinsky-noisy", "kpz-partial")
        ),
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
    state = flow.in_band(torch.randn(3, 64))
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
    state = flow.in_band(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)))
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
            twins=768,
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


@pytest.mark.parametrize("name", ["lorenz63-noisy", pytest.param("kpz-noisy", marks=pytest.mark.slow)])
def test_training_noise_is_added_where_it_is_asked_for(data, name):
    ends = []
    for noise in (0.0, 0.0, 0.3):
        task, flow, config = configured(name, checks=1, average=0.0, training_noise=noise)
        module.train(flow, dataset.load(task, data), config, 0, Log())
        ends.append(torch.cat([p.detach().flatten() for p in flow.field.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
