"""fourier_operator: what its layers are in Fourier space, translation, other grids, bounded slopes, training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.data import dataset, tasks
from emubench.emulator import Stepper, checked_forecast
from emubench.learning.training.descent import Log

module = baselines.get("fourier_operator")
TINY = {"steps": 6, "batch": 4, "width": 8, "checks": 2}
RINGS = [f"{system}-{track}" for system in ("lorenz96", "kuramoto_sivashinsky", "kpz") for track in ("clean", "noisy")]


def configured(name: str, **settings):
    """Task and operator with random weights in its last layer too; double precision."""
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), width=8, **settings)
    torch.manual_seed(0)
    flow = module.build(task, config)
    for parameter in flow.field.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return task, flow.double(), config


def waves(n: int, n_modes: int, n_channels: int = 1, n_cases: int = 3) -> torch.Tensor:
    """The same smooth periodic functions on a grid of ``n`` points, ``"B n c"``, of the modes below ``n_modes``."""
    x = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    draws = torch.randn(2, n_cases, n_channels, n_modes, dtype=torch.float64, generator=torch_stream(5, "waves"))
    k = torch.arange(n_modes)
    fields = draws[0, ..., None] * torch.cos(k[:, None] * x) + draws[1, ..., None] * torch.sin(k[:, None] * x)
    return fields.sum(-2).movedim(1, 2) / n_modes**0.5


# --- one layer --------------------------------------------------------------------------------------------------------


def test_a_layer_multiplies_each_mode_by_its_matrix():
    """Worked by hand: e^{ikx} in one channel becomes R_k e^{ikx} in the others; modes beyond the last only see W."""
    layer, n = module.FourierLayer(2, 3, 4).double(), 16
    matrices = torch.view_as_complex(layer.weight.detach())
    x = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    for k in (0, 1, 3, 4, 7):
        wave = torch.zeros(1, n, 2, dtype=torch.float64)
        wave[0, :, 1] = torch.cos(k * x)
        local = wave @ layer.pointwise.weight.T + layer.pointwise.bias
        factor = matrices[k, 1] if k < 4 else torch.zeros(3, dtype=torch.complex128)
        expected = (factor * torch.exp(1j * k * x)[:, None]).real
        assert torch.allclose(layer(wave)[0] - local[0], expected, atol=1e-12)


def test_a_layer_is_a_circular_convolution():
    """F⁻¹ R F is the convolution with F⁻¹ R: the sum over all sites, written out."""
    layer, n = module.FourierLayer(1, 1, 5).double(), 12
    spectrum = torch.zeros(n // 2 + 1, dtype=torch.complex128)
    spectrum[:5] = torch.view_as_complex(layer.weight.detach())[:, 0, 0]
    kernel = torch.fft.irfft(spectrum, n=n)
    u = torch.randn(n, dtype=torch.float64, generator=torch_stream(1, "u"))
    sums = torch.stack([sum(kernel[(i - j) % n] * u[j] for j in range(n)) for i in range(n)])  # type: ignore[misc]
    with torch.no_grad():
        found = (layer(u[None, :, None]) - layer.pointwise(u[None, :, None]))[0, :, 0]
    assert torch.allclose(found, sums, atol=1e-12)


# --- other grids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [24, 33, 96])
def test_a_layer_acts_on_functions_not_on_grids(n):
    """Band-limited functions: the same values at the same places whatever the grid, exactly."""
    layer = module.FourierLayer(2, 3, 6).double()
    fine, coarse = layer(waves(n * 4, 8, 2)), layer(waves(n, 8, 2))
    assert torch.allclose(fine[:, ::4], coarse, atol=1e-12)


@pytest.mark.parametrize("name", ["lorenz96-clean", "kuramoto_sivashinsky-noisy"])
def test_the_whole_operator_is_nearly_the_same_on_a_finer_grid(name):
    """Its nonlinearities make new modes, which a grid too coarse mistakes for others: less and less as grids refine."""
    _, flow, _ = configured(name, modes=8)
    field = flow.field.operator
    reference, differences = field(waves(512, 3)), []
    for n in (16, 32, 64):
        differences.append(float((field(waves(n, 3)) - reference[:, :: 512 // n]).detach().abs().max()))
    assert differences[0] > differences[1] > differences[2]
    assert differences[2] < 1e-3 * float(reference.detach().std())


def test_fewer_sites_than_modes_will_do():
    _, flow, _ = configured("lorenz96-clean", modes=21)
    assert flow.field(torch.randn(2, 10, dtype=torch.float64)).shape == (2, 10)


# --- symmetry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RINGS)
def test_a_shift_along_the_ring_shifts_the_forecast(name):
    _, flow, _ = configured(name)
    state = torch.randn(3, flow.n, dtype=torch.float64)
    after = flow.advance(state)
    assert torch.allclose(flow.advance(state.roll(7, -1)), after.roll(7, -1), atol=1e-9)
    assert float((after - state).detach().abs().max()) > 1e-3


def test_a_shift_of_all_heights_shifts_the_forecast():
    _, flow, _ = configured("kpz-noisy")
    state = torch.randn(3, flow.n, dtype=torch.float64)
    assert torch.allclose(flow.advance(state + 50.0), flow.advance(state) + 50.0, atol=1e-9)


def test_slopes_far_beyond_the_data_are_left_to_the_linear_term():
    _, flow, _ = configured("kpz-clean")
    state = torch.zeros(1, flow.n, dtype=torch.float64)
    state[0, 100] = 1e6
    radius = flow.field.radius
    differences = torch.stack([state.roll(-j, -1) - state for j in range(-radius, radius + 1)], dim=-1)
    learned = flow.field(state) - flow.field.linear(differences).squeeze(-1)
    assert 1e-3 < float(learned.detach().abs().max()) < 1e3


def test_lorenz63_is_one_point_of_three_channels():
    _, flow, _ = configured("lorenz63-clean")
    assert flow.field.operator.out.out_features == 3
    state = torch.randn(5, 3, dtype=torch.float64)
    assert flow.advance(state).shape == (5, 3)
    assert torch.allclose(flow.advance(state)[2:], flow.advance(state[2:]))


def test_a_new_operator_is_the_identity():
    for name in ("lorenz63-noisy", "lorenz96-clean", "kuramoto_sivashinsky-clean"):
        task = tasks.get(name, "tiny")
        flow = module.build(task, module.default_config(task))
        state = torch.randn(2, flow.n)
        assert torch.allclose(flow.advance(state), state, atol=1e-6)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "lorenz63-partial",
        "lorenz96-noisy",
        "kuramoto_sivashinsky-scarce",
        pytest.param("kpz-noisy", marks=pytest.mark.slow),
    ],
)
def test_it_trains_and_forecasts_on_every_kind_of_task(data, name):
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), members=5, **TINY)
    torch.manual_seed(0)
    flow, observations = module.build(task, config), dataset.load(task, data)
    before = {k: v.clone() for k, v in flow.named_parameters()}
    module.train(flow, observations, config, 0, Log())
    assert isinstance(flow, Stepper)
    moved = [k for k, v in flow.named_parameters() if k.startswith("field") and not torch.equal(v, before[k])]
    assert any(".layers." in k and k.endswith("weight") for k in moved)
    context = observations.contexts["test"][:3]
    members = 2 if task.system.stochastic else 1
    runs = [checked_forecast(flow, context, 3, 2, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert runs[0].shape == (members, 3, 3, *task.shape)
    assert torch.isfinite(runs[0]).all()
    assert torch.equal(*runs)
    assert float(flow.innovation.sum()) > 0 or not task.system.stochastic


@pytest.mark.slow
def test_an_operator_is_recovered_from_noise_free_samples():
    """Heat conduction and transport on a ring, an operator that is diagonal in Fourier space; from unseen starts."""
    task = tasks.get("lorenz96-clean", "tiny")
    small = {"width": 16, "layers": 1, "modes": 12, "steps": 300, "batch": 32, "unroll": 2}
    config = dataclasses.replace(module.default_config(task), **small)
    torch.manual_seed(0)
    flow = module.build(task, config)
    k = torch.arange(21)
    symbol = torch.exp(-0.002 * k**2 + 0.4j * k).to(torch.complex128)
    samples = [waves(40, 8, 1, 64)[..., 0]]
    for _ in range(9):
        samples.append(torch.fft.irfft(symbol * torch.fft.rfft(samples[-1]), n=40))
    run = torch.stack(samples, dim=1)
    ones = torch.ones(40, dtype=torch.float64)
    data = dataset.Observations(task, "0", "", run[:48], run[48:56], {}, 0 * ones, ones, 0 * ones)
    module.train(flow, data, config, 0, Log())
    found = checked_forecast(flow, run[56:, :1], 4, 1, torch.Generator())[0]
    error = (found - run[56:, 1:5]).square().mean().sqrt()
    assert float(error) < 0.15 * float((run[56:, 1:5] - run[56:, :1]).square().mean().sqrt())


@pytest.mark.slow
def test_rings_rougher_than_any_seen_come_to_rest(data, monkeypatch):
    """Four times as rough at the start, their width falls from 2.6 to 1.0; with ``radius=2`` it grows to 7.8."""
    monkeypatch.setattr(module, "fit_innovation", lambda *_, **__: None)  # the mean is what may run away
    task = tasks.get("kpz-noisy", "tiny")
    config = dataclasses.replace(module.default_config(task), steps=300, batch=8)
    torch.manual_seed(0)
    flow, observations = module.build(task, config), dataset.load(task, data)
    module.train(flow, observations, config, 0, Log())
    windows = observations.validation.unfold(1, 48, 48).movedim(-1, 2).flatten(0, 1)
    with torch.no_grad():
        (state,) = flow.start(windows, 1, torch.Generator().manual_seed(3))
        mean = state.mean(-1, keepdim=True)
        state = rough = mean + 4 * (state - mean)
        for _ in range(128):
            state = flow.advance(state)
    assert state.std(-1).mean() < rough.std(-1).mean()


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ({"modes": 0.5}, "modes: 0.5 where a number of at least 1 belongs"),
        ({"layers": -1}, "layers: -1 where a number of at least 1 belongs"),
        ({"width": 0}, "width: 0 where a positive number belongs"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, answer):
    with pytest.raises(EmubenchError) as error:
        dataclasses.replace(module.default_config(tasks.get("lorenz96-noisy")), **setting)
    assert str(error.value) == answer
