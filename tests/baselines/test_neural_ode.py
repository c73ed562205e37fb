"""neural_ode: the order of its solver, agreement with torchdiffeq, augmentation, segments, refusals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.dynamics.schemes import etdrk4_coefficients, three_eighths
from emubench.emulator import Stepper, checked_forecast
from emubench.learning.models.networks import ProductMlp
from emubench.learning.training.descent import Log

module = baselines.get("neural_ode")
TINY = {"steps": 6, "batch": 4, "width": 8, "checks": 2}


def configured(name: str, **settings):
    """Task, emulator with random output weights, configuration; tiny."""
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), width=8, **settings)
    torch.manual_seed(0)
    flow = module.build(task, config)
    nn.init.normal_((flow.field.network if task.system.grid else flow.field).out.weight, std=0.3)
    return task, flow, config


class Known(nn.Module):
    """A system's own tendency, frozen, per sample interval."""

    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, state):
        return self.system.sample_interval * self.system.rhs(state)


class Rotation(nn.Module):
    """Three oscillators that know their solution."""

    matrix = torch.tensor([[0.0, -1.2, 0.4], [1.2, 0.0, -0.7], [-0.4, 0.7, 0.0]], dtype=torch.float64)

    def forward(self, state):
        return state @ self.matrix.T


@pytest.mark.parametrize("known", ["rotation", "lorenz63", "lorenz96"])
def test_halving_the_step_reduces_the_error_sixteen_times(known):
    """Frozen to a linear field its step is judged by the matrix exponential, to a system by that system's solver."""
    torch.manual_seed(1)
    if known == "rotation":
        field, start = Rotation(), torch.randn(8, 3, dtype=torch.float64)
        exact = start @ torch.linalg.matrix_exp(Rotation.matrix).T
    else:
        system = systems.get(known)
        field, start = Known(system), torch.from_numpy(system.mean) + torch.randn(8, *system.shape).double()
        fine, exact = system.solver(system.sample_interval / 512), start
        for _ in range(512):
            exact = fine(exact, None)
    errors = []
    for n in (8, 16):
        state, step = start, three_eighths(field, 1 / n)
        for _ in range(n):
            state = step(state, None)
        errors.append(float((state - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.25)


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-noisy", "kpz-clean"])
@pytest.mark.parametrize("substeps", [1, 3])
def test_its_steps_are_those_of_torchdiffeq(name, substeps):
    _, flow, config = configured(name, substeps=substeps)
    flow.double()
    state = torch.randn(4, flow.n, dtype=torch.float64)
    flow.config = dataclasses.replace(config, adjoint=False)
    theirs = module.by_torchdiffeq(flow, state, torch.arange(3.0))
    ours = flow.unroll(state, 2).transpose(0, 1)
    assert torch.allclose(ours, theirs[1:], rtol=1e-12, atol=1e-12)
    assert float((ours[0] - state).detach().abs().max()) > 0.01


@pytest.mark.parametrize("solver", module.SOLVERS)
def test_adaptive_solvers_agree_with_small_fixed_steps(solver):
    _, flow, config = configured("lorenz63-clean")
    flow.double()
    state = torch.randn(4, 3, dtype=torch.float64)
    flow.config = dataclasses.replace(config, substeps=32)
    fixed = flow.unroll(state, 2)
    flow.config = dataclasses.replace(config, solver=solver, substeps=32, tolerance=1e-7)
    assert torch.allclose(flow.unroll(state, 2), fixed, atol=1e-4)
    flow.config = dataclasses.replace(config, solver="dopri5", tolerance=0.3)
    assert not torch.allclose(flow.unroll(state, 2), fixed, rtol=0, atol=1e-12)


def gradients(flow, state) -> list[torch.Tensor]:
    start = state.clone().requires_grad_()
    parameters = list(flow.field.parameters())
    return list(torch.autograd.grad(flow.unroll(start, 2).square().sum(), [start, *parameters]))


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean"])
def test_the_adjoint_gradient_is_that_of_back_propagation(name, solver):
    _, flow, config = configured(name)
    flow.double()
    state = torch.randn(3, flow.n, dtype=torch.float64)
    flow.config = dataclasses.replace(config, substeps=16)
    by_steps = gradients(flow, state)
    flow.config = dataclasses.replace(config, substeps=16, solver=solver, adjoint=True, tolerance=1e-8)
    for ours, theirs in zip(by_steps, gradients(flow, state), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-4 * (1 + float(ours.abs().max()))
    assert max(float(g.abs().max()) for g in by_steps) > 0.1


def test_a_partly_observed_state_is_augmented_and_started_by_the_encoder():
    task, flow, config = configured("lorenz63-partial")
    assert config.latent > 0
    assert flow.field.out.out_features == 1 + config.latent
    generator = torch.Generator().manual_seed(0)
    state = flow.start(torch.randn(5, config.window, 1, dtype=torch.float64), 1, generator)
    assert state.shape == (1, 5, 1 + config.latent)
    assert flow.read(flow.step(state, generator)).shape == (1, 5, 1)
    hidden = state.clone()
    hidden[..., 1:] += 1.0
    after = [flow.read(flow.step(s, generator)).detach() for s in (state, hidden)]
    assert float((after[0] - after[1]).abs().min()) > 0, "the latent components have no influence on what is observed"
    with torch.no_grad():
        flow.encoder.network.out.bias[1:] += 1.0
    shifted = flow.start(torch.zeros(1, config.window, 1, dtype=torch.float64), 1, generator)
    assert float(shifted[0, 0, 1:].detach().mean()) == pytest.approx(1.0, abs=0.5)


def test_fully_observed_states_are_not_augmented():
    assert configured("lorenz63-noisy")[1].field.out.out_features == 3


def test_what_is_latent_starts_at_zero_where_samples_have_no_noise():
    flow = configured("lorenz63-clean", latent=2)[1]
    context = torch.randn(4, 6, 3, dtype=torch.float64)
    state = flow.start(context, 1, torch.Generator())
    torch.testing.assert_close(flow.read(state)[0], context[:, -1].float())
    assert state.shape[-1] == 5
    assert not state[..., 3:].any()
    assert flow.step(state, torch.Generator()).shape == state.shape


@pytest.mark.parametrize("name", tasks.names())
def test_segments_last_at_most_three_tenths_of_a_lyapunov_time(name):
    task = tasks.get(name)
    config = module.default_config(task)
    assert config.unroll >= 1
    assert task.system.stochastic or config.unroll * task.lead_time_step <= 0.3
    if not task.system.stochastic:
        with pytest.raises(EmubenchError, match=rf"unroll: segments of 99 samples, where at most \d belong on {name}"):
            module.build(task, dataclasses.replace(config, unroll=99))


def test_segments_grow_from_one_sample_to_all_of_them_in_half_of_the_steps(data, monkeypatch):
    task = tasks.get("lorenz63-noisy", "tiny")
    config = dataclasses.replace(
        module.default_config(task), members=5, **TINY | {"steps": 40, "polish": 0, "rounds": 0}
    )
    loss, horizons = module.shooting_loss, []

    def recorded(flow, batch, horizon, *rest):
        if flow.training:
            horizons.append(horizon)
        return loss(flow, batch, horizon, *rest)

    monkeypatch.setattr(module, "shooting_loss", recorded)
    module.train(module.build(task, config), dataset.load(task, data), config, 0, Log())
    assert config.unroll > 2
    assert horizons[0] == 1
    assert horizons == sorted(horizons)
    assert set(horizons) == set(range(1, config.unroll + 1))
    assert set(horizons[20:]) == {config.unroll}


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean"])
@pytest.mark.parametrize("damping", [0.2, 300.0])
def test_the_linear_term_is_solved_exactly_however_stiff(name, damping):
    task = tasks.get(name, "tiny")
    flow = module.build(task, dataclasses.replace(module.default_config(task), damping=damping, substeps=2))
    state = torch.randn(4, flow.n)
    after = flow.advance(state)  # by a network that starts at zero
    if name == "lorenz63-clean":
        expected = state * math.exp(-damping)
    else:
        rate = damping / 16 * (2 - 2 * torch.cos(2 * math.pi * torch.arange(21).double() / 40)) ** 2
        expected = torch.fft.irfft(torch.fft.rfft(state) * torch.exp(-rate), n=40)
    assert torch.allclose(after, expected.to(after), atol=1e-6)


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean", "kuramoto_sivashinsky-noisy"])
def test_exponential_steps_solve_the_same_equation_as_torchdiffeq(name):
    """Of the same field with the same linear term, here mild: by ETDRK4 and by an adaptive solver."""
    _, flow, config = configured(name, damping=3.0, substeps=16, coarse=1)
    flow.double()
    state = flow.in_band(torch.randn(4, flow.n, dtype=torch.float64))
    ours = flow.unroll(state, 2)
    flow.config = dataclasses.replace(flow.config, solver="dopri8", tolerance=1e-10)
    assert torch.allclose(ours, flow.unroll(state, 2), atol=1e-5)
    flow.config = dataclasses.replace(config, solver="dopri8", tolerance=1e-10, damping=0.0)
    assert not torch.allclose(ours, flow.unroll(state, 2), atol=1e-2)


def test_exponential_steps_are_of_fourth_order():
    errors = []
    for substeps in (4, 8, 64):
        _, flow, _ = configured("lorenz96-clean", damping=3.0, substeps=substeps)
        torch.manual_seed(3)
        flow.double().exponential = torch.from_numpy(
            np.stack(etdrk4_coefficients(flow.symbol, 1 / substeps))
        )  # in double precision
        errors.append(flow.advance(0.5 * torch.randn(8, 40, dtype=torch.float64)).detach())
    coarse, fine = (float((e - errors[2]).abs().max()) for e in errors[:2])
    assert math.log2(coarse / fine) == pytest.approx(4, abs=0.4)


def test_a_field_in_exponential_steps_sees_only_the_modes_of_the_band():
    _, flow, _ = configured("kuramoto_sivashinsky-noisy", damping=30.0)
    flow.set_band((torch.arange(33) < 9).float())
    seen = []
    flow.field.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    after = flow.advance(torch.randn(3, 64))
    for field in (*seen, after.detach()):
        assert float(torch.fft.rfft(field)[:, 9:].abs().max()) < 1e-4 * float(torch.fft.rfft(field).abs().max())


class Square(nn.Module):
    """A field that makes of the modes below b those below 2b − 1."""

    def forward(self, u):
        return u.square() - 0.3 * u.roll(0, -1)


def test_half_the_sites_carry_a_narrow_band():
    """Products of modes up to 5 alias on 32 sites to modes from 22 on, outside the band: the same steps."""
    ends = []
    for coarse in (1, 2):
        _, flow, _ = configured("kuramoto_sivashinsky-noisy", damping=300.0, coarse=coarse)
        flow.double().set_band((torch.arange(33) < 6).double())
        flow.field = Square()
        torch.manual_seed(2)
        ends.append(flow.unroll(flow.in_band(0.3 * torch.randn(4, 64, dtype=torch.float64)), 2))
    assert torch.allclose(*ends, atol=1e-9)
    assert float((ends[0][:, 1] - ends[0][:, 0]).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lorenz96-clean", {"damping": 1.0, "coarse": 3}),
        ("lorenz96-clean", {"coarse": 2}),
        ("lorenz63-clean", {"damping": 1.0, "coarse": 3}),
    ],
)
def test_a_coarse_field_needs_a_ring_of_as_many_sites_and_damping(name, settings):
    settings = {"damping": 0.0} | settings
    with pytest.raises(EmubenchError, match=r"coarse: \d needs damping and a ring of so many times as many sites"):
        configured(name, **settings)


def test_products_are_learned_by_the_output_layers_alone():
    """x₁x₂ as ((x₁ + x₂)² − (x₁ − x₂)²)/4, exactly, with the hidden layer silent."""
    network = ProductMlp(2, 1, 2).double()
    directions = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        for layer in (network.gate, network.value):
            layer.weight.copy_(directions)
            layer.bias.zero_()
        network.products.weight.copy_(torch.tensor([[0.25, -0.25]]))
        network.linear.weight.copy_(torch.tensor([[3.0, 0.0]]))
    x = torch.randn(20, 2, dtype=torch.float64)
    assert torch.allclose(network(x)[:, 0], x[:, 0] * x[:, 1] + 3 * x[:, 0], atol=1e-12)


def test_noise_is_added_to_starts_where_it_is_asked_for():
    _, flow, config = configured("lorenz63-clean")
    batch = torch.randn(6, config.window + 2, 3)
    exact = [module.shooting_loss(flow, batch, 2, 1) for _ in range(2)]
    assert torch.equal(*exact)
    assert not torch.equal(module.shooting_loss(flow, batch, 2, 1, 0.1), exact[0])


def test_the_loss_of_two_segments_is_data_misfit_and_gap():
    _, flow, config = configured("lorenz63-noisy", continuity=2.0, training_noise=0.0)
    batch = torch.randn(4, config.window + 4, 3)
    batch[0, config.window + 1, 2] = math.nan
    w = config.window
    first, second = flow.unroll(flow.encode(batch[:, :w]), 2), flow.unroll(flow.encode(batch[:, 2 : w + 2]), 2)
    errors = (torch.cat([first, second], dim=1) - batch[:, w:]).square()
    misfit = errors[~errors.isnan()].mean()
    gap = (first[:, -1] - flow.encode(batch[:, 2 : w + 2])).square().mean()
    assert torch.allclose(module.shooting_loss(flow, batch, 2, 2), misfit + 2 * gap)
    flow.eval()
    assert torch.allclose(module.shooting_loss(flow, batch, 2, 2), misfit)


@pytest.mark.parametrize(
    "name",
    [
        "lorenz63-partial",
        "lorenz96-noisy",
        "kpz-noisy",
        pytest.param("kuramoto_sivashinsky-scarce", marks=pytest.mark.slow),
    ],
)
def test_it_trains_and_forecasts_on_every_kind_of_task(data, name):
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), members=5, **TINY)
    torch.manual_seed(0)
    flow, observations = module.build(task, config), dataset.load(task, data)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    module.train(flow, observations, config, 0, Log())
    assert isinstance(flow, Stepper)
    assert any(not torch.equal(v, before[k]) for k, v in flow.state_dict().items() if k.startswith("field"))
    context = observations.contexts["test"][:3]
    members = 2 if task.system.stochastic else 1
    runs = [checked_forecast(flow, context, 3, 2, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert runs[0].shape == (members, 3, 3, *task.shape)
    assert torch.isfinite(runs[0]).all()
    assert torch.equal(*runs)


def test_a_vector_field_is_recovered_from_noise_free_samples():
    """A linear oscillator in the three components of lorenz63: far past its training segments, from unseen starts."""
    task = tasks.get("lorenz63-clean", "tiny")
    small = {"width": 16, "steps": 200, "batch": 64, "unroll": 2, "substeps": 1, "polish": 0}
    config = dataclasses.replace(module.default_config(task), **small)
    torch.manual_seed(0)
    flow = module.build(task, config)
    turn = torch.linalg.matrix_exp(0.1 * Rotation.matrix)
    samples = [torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))]
    for _ in range(29):
        samples.append(samples[-1] @ turn.T)
    run = torch.stack(samples, dim=1)
    ones = torch.ones(3, dtype=torch.float64)
    data = dataset.Observations(task, "0", "", run[:48], run[48:56], {}, 0 * ones, ones, 0 * ones)
    module.train(flow, data, config, 0, Log())
    errors = [checked_forecast(flow, run[56:, :1], 29, 1, torch.Generator())[0] - run[56:, 1:]]
    assert float(errors[0].square().mean().sqrt()) < 0.2
    flow.config = polished = dataclasses.replace(config, polish=200)
    module.train(flow, data, polished, 0, Log())
    errors.append(checked_forecast(flow, run[56:, :1], 29, 1, torch.Generator())[0] - run[56:, 1:])
    assert float(errors[1].square().mean().sqrt()) < 0.5 * float(errors[0].square().mean().sqrt())
    assert float((run[56:, 1:] - run[56:, :1]).square().mean().sqrt()) > 1


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ({"solver": "dopri"}, "unknown solver of neural_ode 'dopri': did you mean dopri8 or dopri5?"),
        ({"substeps": 0}, "substeps: 0 where a positive number belongs"),
        ({"polish": 70}, "polish: 70 where a multiple of 50 belongs"),
        ({"tolerance": 0.0}, "tolerance: 0.0 where a positive number belongs"),
        ({"tolerance": math.nan}, "tolerance: nan where a positive number belongs"),
        ({"damping": -1.0}, "damping: -1.0 where a number of at least 0 belongs"),
        ({"width": -3}, "width: -3 where a positive number belongs"),
        ({"average": 1.0}, "average: 1.0 where a decay of at least 0 and under 1 belongs"),
        ({"members": 1}, "members: 1 where a number of at least 2 belongs"),
        ({"training_noise": -0.1}, "training_noise: -0.1 where a number of at least 0 belongs"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, answer):
    config = module.default_config(tasks.get("lorenz63-noisy"))
    with pytest.raises(EmubenchError) as error:
        dataclasses.replace(config, **setting)
    assert str(error.value).startswith(answer)
    assert "\n" not in str(error.value)


def test_a_neighbourhood_wider_than_the_ring_is_refused():
    with pytest.raises(EmubenchError, match="radius: 20 where at most 19 belongs, on a ring of 40 sites"):
        configured("lorenz96-clean", radius=20)
