"""ot_regularized: its features, its losses on known cases, training on every kind of task, the network without."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.emulator import Stepper, checked_forecast, load_weights, save_weights
from emubench.learning.training.descent import Log

module = baselines.get("ot_regularized")
NAN = math.nan


def configured(name: str, **settings):
    task = tasks.get(name, "tiny")
    small = {"width": 8, "batch": 4, "runs": 3, "points": 24, "checks": 2, "steps": 4, **settings}
    config = dataclasses.replace(module.default_config(task), **small)
    torch.manual_seed(0)
    return task, module.build(task, config), config


def test_features_are_values_beside_and_before():
    runs = torch.arange(2 * 6 * 5.0).view(2, 6, 5)
    beside, before = module.features(runs, (0, 2), ring=True, growing=False)
    assert beside.view(2, 4, 5, 3)[1, 3, 4].tolist() == [runs[1, 5, 4], runs[1, 5, 0], runs[1, 5, 1]]
    assert before.view(2, 4, 5, 2)[0, 0, 1].tolist() == [runs[0, 2, 1], runs[0, 0, 1]]
    states, *components = module.features(runs, (0, 2), ring=False, growing=False)
    assert torch.equal(states, runs[:, 2:].flatten(0, 1))
    assert len(components) == 5
    assert components[3].view(2, 4, 2)[1, 0].tolist() == [runs[1, 2, 3], runs[1, 0, 3]]


def test_features_of_a_growing_height_know_no_level():
    runs = torch.randn(2, 6, 8)
    shown, raised = (module.features(runs + level, (0, 1), ring=True, growing=True) for level in (0, 100))
    assert [x.shape for x in shown] == [(80, 3), (80, 2)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(shown, raised, strict=True))


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy"])
def test_the_cloud_loss_is_small_for_the_right_climate_and_sees_a_wrong_one(data, name):
    """Other trajectories of the same system: what is left is the clouds' finite size."""
    task, flow, config = configured(name, points=400)
    observations = dataset.load(task, data)
    flow.prepare(observations)
    observed, runs = flow.normalised(observations.train).chunk(2)

    def loss(forecast: torch.Tensor) -> float:
        return float(module.cloud_loss(flow, forecast, observed, config, torch.Generator().manual_seed(0)))

    assert 0 < 3 * loss(runs) < min(loss(0.5 * runs), loss(1.5 * runs), loss(runs + 0.5))


def test_the_cloud_loss_leaves_out_what_was_not_observed():
    task, flow, config = configured("lorenz96-partial", iterations=100)
    observed, forecast = torch.randn(4, 30, 40), torch.randn(4, 30, 40)

    def loss(seen: torch.Tensor) -> float:
        return float(module.cloud_loss(flow, forecast, seen, config, torch.Generator().manual_seed(0)))

    observed[2:] = NAN
    assert loss(observed) == loss(observed[:2])
    observed[:, ::2, ::4] = NAN
    assert 0 < loss(observed) < 10
    unseen = torch.full_like(observed, NAN)
    assert loss(unseen) == 0


def test_the_field_loss_prefers_the_crest_nearby_and_fills_gaps_alike():
    _, _, config = configured("kuramoto_sivashinsky-noisy", iterations=200)
    x = torch.arange(64) / 64 * 2 * torch.pi
    observed = 2 * torch.cos(2 * x)[None, None]

    def loss(forecast: torch.Tensor, seen: torch.Tensor) -> float:
        return float(module.field_loss(forecast, seen, config))

    near, far = observed.roll(4, -1), observed.roll(14, -1)
    assert loss(observed, observed) == pytest.approx(0, abs=1e-6)
    assert loss(far, observed) > 3 * loss(near, observed) > 0
    assert loss(near + 5, observed) == pytest.approx(loss(near, observed), rel=1e-4)
    gappy = observed.clone()
    gappy[..., ::3] = NAN
    assert loss(observed, gappy) == pytest.approx(0, abs=1e-6)
    assert loss(far, gappy) > 3 * loss(near, gappy)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "kuramoto_sivashinsky-noisy", "kpz-noisy"])
def test_a_spun_state_stays_within_the_bounds_of_a_climate(name):
    """A flow that grows tenfold with every sample, and a height that rises for ever."""
    task, flow, _ = configured(name)
    flow.advance = (lambda state: state + 100.0) if flow.growing else (lambda state: 10 * state)
    state = module.spun(flow, torch.randn(2, flow.n_state), 400, torch.Generator().manual_seed(0))
    assert torch.isfinite(state).all()
    assert float(state.abs().max()) <= 6
    assert not state.requires_grad


@pytest.mark.parametrize("name", ["lorenz63-clean", "kuramoto_sivashinsky-clean"])
def test_transport_of_a_flow_that_blows_up_is_finite(name):
    """A flow of half-trained weights can diverge beyond its own horizon; the loss must bring it back, not end there."""
    task, flow, config = configured(name)
    push = torch.nn.Parameter(torch.tensor(50.0))
    flow.advance = lambda state: state + push * (state**3 + state)
    batch = torch.randn(3, config.window + config.unroll + config.ahead, *task.shape)
    loss = module.transport_loss(flow, batch, config, torch.zeros(task.shape), torch.Generator().manual_seed(0))
    loss.backward()
    assert push.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(push.grad))


@pytest.mark.parametrize("name", ["lorenz63-noisy", "kuramoto_sivashinsky-noisy", "kpz-noisy"])
def test_the_transport_loss_moves_every_weight_of_the_flow(name):
    task, flow, config = configured(name)
    batch = torch.randn(3, config.window + config.unroll + config.ahead, *task.shape)
    loss = module.transport_loss(flow, batch, config, torch.full(task.shape, 0.1), torch.Generator().manual_seed(0))
    loss.backward()
    gradients = [p.grad for p in flow.field.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)
    assert max(float(g.abs().max()) for g in gradients if g is not None) > 0


@pytest.mark.parametrize(
    "name",
    [
        *("lorenz63-clean", "lorenz63-partial", "lorenz96-partial", "kuramoto_sivashinsky-scarce"),
        pytest.param("kpz-partial", marks=pytest.mark.slow),
    ],
)
def test_it_trains_forecasts_and_is_saved_on_every_kind_of_task(data, tmp_path, name):
    task, flow, config = configured(name)
    observations = dataset.load(task, data)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    module.train(flow, observations, config, 0, Log())
    assert isinstance(flow, Stepper)
    assert any(not torch.equal(v, before[k]) for k, v in flow.state_dict().items() if k.startswith("field"))
    context, members = observations.contexts["test"][:3], 2 if task.system.stochastic else 1
    run = checked_forecast(flow, context, 3, 2, torch.Generator().manual_seed(0))
    assert run.shape == (members, 3, 3, *task.shape)
    assert torch.isfinite(run).all()
    save_weights(flow, tmp_path / "model.safetensors")
    again = module.build(task, config)
    load_weights(again, tmp_path / "model.safetensors")
    assert torch.equal(checked_forecast(again, context, 3, 2, torch.Generator().manual_seed(0)), run)


@pytest.mark.parametrize("name", tasks.names())
def test_its_windows_fit_into_the_data(name):
    task = tasks.get(name)
    config = module.default_config(task)
    assert config.window + config.unroll + config.ahead <= min(task.train.length, task.validation.length)
    assert max(config.lags) < config.ahead


def test_without_weights_it_is_the_same_network_without_transport(data):
    """The draws of the transport come from the same generator, and are not made."""
    from emubench.learning.models.flow import rollout_loss
    from emubench.learning.training.descent import Descent

    task, flow, config = configured("lorenz63-noisy", field_weight=0.0, cloud_weight=0.0)
    observations = dataset.load(task, data)
    module.train(flow, observations, config, 0, Log())
    _, plain, _ = configured("lorenz63-noisy", field_weight=0.0, cloud_weight=0.0)
    plain.prepare(observations)
    pool, check = (plain.pool(p, config.window + config.unroll) for p in (observations.train, observations.validation))
    check = check[:: max(1, len(check) // 256)]
    generator = torch.Generator().manual_seed(0)
    for _ in (descent := Descent(plain, config, Log(), lambda: rollout_loss(plain, check, config.unroll))):
        batch = pool[torch.randint(len(pool), (config.batch,), generator=generator)]
        descent(rollout_loss(plain, batch, config.unroll, config.training_noise))
    assert all(torch.equal(a, b) for a, b in zip(flow.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ({"points": 0}, "points: 0 where a positive number belongs"),
        ({"cloud_weight": -1.0}, "cloud_weight: -1.0 where a number of at least 0 belongs"),
        ({"cloud_blur": NAN}, "cloud_blur: nan where a positive number belongs"),
        ({"lags": (0, 40)}, "lags: (0, 40) where samples of a rollout of 24 belong"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, answer):
    config = module.default_config(tasks.get("lorenz63-noisy"))
    with pytest.raises(EmubenchError) as error:
        dataclasses.replace(config, field_weight=0.1, ahead=24, **setting)
    assert str(error.value).startswith(answer)
