"""resnet_ode's options: untied blocks, bounded residual branches and their inverse, the order of its blocks."""

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
from emubench.emulator import checked_forecast
from emubench.learning.models.networks import GrowthField
from emubench.learning.rings import neighbourhoods
from emubench.learning.training.descent import Log

module = baselines.get("resnet_ode")
KINDS = ["lorenz63-clean", "lorenz63-partial", "lorenz96-noisy", "kuramoto_sivashinsky-clean", "kpz-noisy"]
TINY = {"steps": 6, "batch": 4, "width": 8, "checks": 2}


def configured(name: str, spread: float = 3.0, **settings):
    """Task and a flow whose weights are so large that every bound binds."""
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), width=16, **settings)
    torch.manual_seed(0)
    flow = module.build(task, config)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=spread)
    return task, flow


def states(flow, n: int = 8, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, flow.n_state, dtype=dtype, generator=torch_stream(3, "states"))


def jacobian(f, state: torch.Tensor) -> torch.Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda u: f(u[None])[0]))(state)


# --- bounded residual branches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [9, 40, 101])
@pytest.mark.parametrize("growing", [False, True])
def test_the_norm_of_a_circular_convolution_is_that_of_its_matrix(n, growing):
    """The operator, written out as a matrix on a ring: the bound holds for any length and is reached for long ones."""
    field, radius = module.LipschitzField(n, 5, 0.5, 4, growing), 4
    weight = torch.randn(5, 2 * radius + 1, generator=torch_stream(1, "weight")).double()
    eye = torch.eye(n, dtype=torch.float64)
    local = neighbourhoods(eye, radius) - (eye[..., None] if growing else 0)  # of each unit vector: "n n w"
    matrix = (local @ weight.T).permute(1, 2, 0).reshape(-1, n)
    exact, bound = float(torch.linalg.matrix_norm(matrix, 2)), float(field.convolution_norm(weight))
    assert exact <= bound
    assert bound == pytest.approx(exact, rel={9: 0.4, 40: 0.05, 101: 0.01}[n])


@pytest.mark.parametrize("lipschitz", [0.3, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_no_residual_branch_stretches_by_more_than_its_bound(name, lipschitz):
    """Measured two ways: singular values of the Jacobian, and distances of pairs near and far."""
    _, flow = configured(name, lipschitz=lipschitz)
    flow.double()
    (field,) = {flow.field}
    state = states(flow)
    stretch = torch.linalg.matrix_norm(jacobian(lambda u: flow.residual(field, u), state), 2).detach()
    assert float(stretch.max()) < lipschitz
    assert float(stretch.max()) > 0.01 * lipschitz, "so small that nothing was tested"
    for scale in (1e-3, 1.0, 30.0):
        other = state + scale * states(flow).flip(0)
        moved = (flow.residual(field, other) - flow.residual(field, state)).norm(dim=-1)
        assert float((moved / (other - state).norm(dim=-1)).detach().max()) < lipschitz


def test_the_bound_is_reached_by_a_branch_that_could_do_so():
    """One channel that passes the largest mode on: the constant is the bound but for φ, whose slope is near 1/1.1."""
    field = module.LipschitzField(3, 1, 0.8).double()
    with torch.no_grad():
        for layer in (field.first, field.hidden, field.out):
            weight = layer.parametrizations.weight.original
            weight.copy_(50 * torch.eye(*weight.shape))
            layer.bias.fill_(6.0)
    slope = torch.linalg.matrix_norm(jacobian(field, torch.zeros(1, 3).double()), 2)
    assert float(slope.detach()) == pytest.approx(0.8 / 1.21, rel=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_inverse_undoes_a_sample_interval(name, tied):
    _, flow = configured(name, lipschitz=0.8, tied=tied)
    start = states(flow, dtype=torch.float32)
    end = flow.advance(start).detach()
    assert float((end - start).abs().max()) > 0.01
    assert float((flow.inverse(end) - start).abs().max()) < 1e-5
    assert float((flow.advance(flow.inverse(start)) - start).detach().abs().max()) < 1e-5


def test_the_inverse_undoes_a_whole_forecast():
    _, flow = configured("lorenz96-noisy", lipschitz=0.5)
    flow.double()
    start = states(flow)
    state = flow.unroll(start, 5)[:, -1].detach()
    for _ in range(5):
        state = flow.inverse(state, 1e-14)
    assert float((state - start).abs().max()) < 1e-9


def test_bounded_blocks_keep_a_state_within_its_band():
    _, flow = configured("kuramoto_sivashinsky-noisy", lipschitz=0.9)
    flow.set_band((torch.arange(33) < 7).float())
    start = flow.in_band(states(flow, dtype=torch.float32))
    end = flow.advance(start).detach()
    assert float(torch.fft.rfft(end)[:, 7:].abs().max()) < 1e-4 * float(torch.fft.rfft(end).abs().max())
    assert float((flow.inverse(end) - start).abs().max()) < 1e-5


def test_a_bounded_growth_does_not_see_a_shift_of_all_heights():
    _, flow = configured("kpz-noisy", lipschitz=0.9)
    flow.double()
    start = states(flow)
    assert torch.allclose(flow.advance(start + 7.0), flow.advance(start) + 7.0, atol=1e-9)


@pytest.mark.parametrize("lipschitz", [0.0, 0.9])
def test_fields_on_rings_are_the_same_everywhere_and_for_any_length(lipschitz):
    _, flow = configured("lorenz96-noisy", lipschitz=lipschitz)
    flow.double()
    state = states(flow)
    assert torch.allclose(flow.advance(state.roll(7, -1)), flow.advance(state).roll(7, -1), atol=1e-9)
    assert torch.allclose(flow.field(state.repeat(1, 3)), flow.field(state).repeat(1, 3), atol=1e-9)


def test_unbounded_blocks_have_no_inverse():
    _, flow = configured("lorenz63-clean")
    with pytest.raises(EmubenchError, match="only blocks of a bounded residual branch have an inverse"):
        flow.inverse(states(flow))


# --- tied and untied --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_untied_blocks_are_the_tied_ones_where_their_weights_agree(name):
    _, tied = configured(name, spread=0.2)
    _, untied = configured(name, spread=0.2, tied=False)
    assert len(untied.fields) == len(tied.fields) == tied.substeps
    assert len({id(field) for field in tied.fields}) == 1
    assert len({id(field) for field in untied.fields}) == untied.substeps
    untied.field.load_state_dict(tied.field.state_dict())
    state = states(tied, dtype=torch.float32)
    assert not torch.allclose(untied.advance(state), tied.advance(state))
    for field in untied.others:
        field.load_state_dict(tied.field.state_dict())
    assert torch.equal(untied.advance(state), tied.advance(state))


def test_every_field_of_untied_growth_learns_its_largest_slopes(data):
    task = tasks.get("kpz-noisy", "tiny")
    flow = module.build(task, dataclasses.replace(module.default_config(task), tied=False, substeps=3))
    flow.prepare(dataset.load(task, data))
    limits = [field.limit for field in flow.fields if isinstance(field, GrowthField)]
    assert len(limits) == 3
    assert all(torch.equal(limit, limits[0]) for limit in limits)
    assert float(limits[0].max()) > 0.1


# --- order ------------------------------------------------------------------------------------------------------------


class Rotation(nn.Module):
    """Three oscillators that know their solution."""

    matrix = torch.tensor([[0.0, -1.2, 0.4], [1.2, 0.0, -0.7], [-0.4, 0.7, 0.0]], dtype=torch.float64)

    def forward(self, state):
        return state @ self.matrix.T


def test_blocks_are_eulers_scheme_of_their_flow():
    """Of a known linear flow: halving the step halves the distance from the matrix exponential."""
    start, distances = torch.randn(8, 3, dtype=torch.float64, generator=torch_stream(1, "start")), []
    exact = start @ torch.linalg.matrix_exp(Rotation.matrix).T
    for substeps in (32, 64):
        _, flow = configured("lorenz63-clean", substeps=substeps)
        flow.field = Rotation()
        distances.append(float((flow.advance(start) - exact).abs().max()))
    assert math.log2(distances[0] / distances[1]) == pytest.approx(1, abs=0.05)
    assert module.numerical_order(flow, start) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy", "kpz-noisy"])
def test_many_small_blocks_are_of_first_order(name):
    _, flow = configured(name, spread=0.3, substeps=64)
    flow.double()
    assert module.numerical_order(flow, states(flow)) == pytest.approx(1, abs=0.2)


def test_few_large_blocks_are_no_scheme_of_a_flow():
    """Blocks that leap show no order: the figure tells the one from the other."""
    _, flow = configured("lorenz63-noisy", substeps=1)
    assert abs(module.numerical_order(flow.double(), states(flow)) - 1) > 0.3


def test_untied_blocks_have_no_order():
    _, flow = configured("lorenz63-clean", tied=False)
    with pytest.raises(EmubenchError, match="untied blocks are steps of no stationary flow"):
        module.numerical_order(flow, states(flow))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-partial", "lorenz96-noisy", "kpz-clean"])
@pytest.mark.parametrize("options", [{"lipschitz": 0.9}, {"tied": False}, {"tied": False, "lipschitz": 0.5}])
def test_every_option_trains_and_forecasts(data, name, options):
    task = tasks.get(name, "tiny")
    config = dataclasses.replace(module.default_config(task), **TINY, **options)
    torch.manual_seed(0)
    flow, observations = module.build(task, config), dataset.load(task, data)
    before = {k: v.clone() for k, v in flow.named_parameters()}
    module.train(flow, observations, config, 0, Log())
    assert all(not torch.equal(v, before[k]) for k, v in flow.named_parameters() if "out" in k)
    context = observations.contexts["test"][:3]
    forecast = checked_forecast(flow, context, 3, 2, torch.Generator().manual_seed(0))
    assert torch.isfinite(forecast).all()


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ({"lipschitz": 1.0}, "lipschitz: 1.0 where a number of at least 0 and under 1 belongs"),
        ({"lipschitz": -0.1}, "lipschitz: -0.1 where a number of at least 0 and under 1 belongs"),
        ({"lipschitz": math.nan}, "lipschitz: nan where a number of at least 0 and under 1 belongs"),
        ({"substeps": 0.5}, "substeps: 0.5 where a number of at least 1 belongs"),
        ({"width": 0}, "width: 0 where a positive number belongs"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, answer):
    with pytest.raises(EmubenchError) as error:
        dataclasses.replace(module.default_config(tasks.get("lorenz63-noisy")), **setting)
    assert str(error.value) == answer
