"""Segments by the kernel against autograd through the same steps in double precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from emubench import baselines
from emubench.data import tasks
from emubench.dynamics.schemes import three_eighths
from emubench.learning.models.networks import ProductMlp, RingField
from emubench.learning.models.ode_gradients import COLUMNS, segments, supports

neural_ode = baselines.get("neural_ode")


def made(ring: bool, width: int = 16) -> ProductMlp:
    torch.manual_seed(0)
    network = ProductMlp(5, 1, width) if ring else ProductMlp(3, 3, width)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def by_autograd(network: nn.Module, state: torch.Tensor, n_samples: int, n_steps: int, ring: bool) -> torch.Tensor:
    field = network
    if ring:
        field = RingField(2, 1)
        field.network = network
    samples = []
    for _ in range(n_samples):
        for _ in range(n_steps):
            state = three_eighths(field, 1 / n_steps)(state, None)
        samples.append(state)
    return torch.stack(samples, dim=1)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((found - exact).norm() / exact.norm()).detach())


@pytest.mark.parametrize(
    ("ring", "shape"), [(False, (1, 3)), (False, (COLUMNS + 5, 3)), (True, (3, 9)), (True, (33, 40))]
)
@pytest.mark.parametrize("counts", [(1, 1), (3, 2)])
def test_samples_and_gradients_are_those_of_autograd_in_double_precision(ring, shape, counts):
    network, state = made(ring), torch.randn(shape, requires_grad=True)
    asked = torch.randn(shape[0], counts[0], shape[1])
    found = segments(network, state, *counts, ring)
    gradients = torch.autograd.grad((found * asked).sum(), [state, *network.parameters()])
    network, exact_state = network.double(), state.detach().double().requires_grad_()
    exact = by_autograd(network, exact_state, *counts, ring)
    wanted = torch.autograd.grad((exact * asked).sum(), [exact_state, *network.parameters()])
    assert relative(found, exact) < 1e-6
    assert max(relative(g, w) for g, w in zip(gradients, wanted, strict=True)) < 1e-5


def test_far_out_the_sigmoid_is_right_and_what_is_not_finite_stays_so():
    network = made(False)
    with torch.no_grad():
        network.hidden.bias.copy_(torch.linspace(-40, 40, 16))
    state = torch.randn(4, 3)
    state[2, 1] = torch.nan
    found, exact = segments(network, state, 1, 1, False), by_autograd(network.double(), state.double(), 1, 1, False)
    assert relative(found[[0, 1, 3]], exact[[0, 1, 3]]) < 1e-6
    assert torch.isnan(torch.stack([found[2].double(), exact[2]])).all()


def test_two_segments_at_a_time_keep_their_own_stages():
    network, states = made(False), torch.randn(2, 7, 3)
    apart = [torch.autograd.grad(segments(network, s, 2, 1, False).sum(), network.hidden.weight)[0] for s in states]
    both = [segments(network, s, 2, 1, False) for s in states]
    segments(network, states[0] + 1, 2, 1, False)  # another, whose memory must not be theirs
    with torch.no_grad():
        segments(network, states[1] + 1, 2, 1, False)
    found, _ = torch.autograd.grad(both[0].sum() + both[1].sum(), [network.hidden.weight, network.out.bias])
    assert torch.allclose(found, sum(apart), rtol=1e-5)


def test_supports_float32_on_a_cpu_and_widths_of_whole_rows():
    state = torch.zeros(1, 3)
    assert supports(made(False), state)
    assert not supports(made(False), state.double())
    assert not supports(made(False, width=12), state)
    assert not supports(nn.Linear(3, 3), state)


@pytest.mark.parametrize("coarse", [1, 2])
def test_exponential_steps_and_their_gradients_are_those_of_autograd_in_double_precision(coarse):
    task = tasks.get("kuramoto_sivashinsky-noisy", "tiny")
    config = dataclasses.replace(neural_ode.default_config(task), width=16, coarse=coarse, substeps=2)
    torch.manual_seed(0)
    flow = neural_ode.build(task, config)
    for parameter in flow.field.parameters():
        nn.init.normal_(parameter, std=0.05)
    flow.set_band((torch.arange(len(flow.band)) < 12).float())
    state, asked = torch.randn(7, flow.n), torch.randn(7, 3, flow.n)

    def found() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        start = state.clone().requires_grad_()
        samples = flow.unroll(start, 3)
        return samples, torch.autograd.grad((samples * asked).sum(), [start, *flow.field.parameters()])

    samples, gradients = found()
    assert type(samples.grad_fn).__name__ != "StackBackward0"  # the kernel's
    flow.double()
    state, asked = state.double(), asked.double()
    exact, wanted = found()
    assert type(exact.grad_fn).__name__ == "StackBackward0"  # step by step, in double precision
    assert relative(samples, exact) < 1e-6
    assert max(relative(g, w) for g, w in zip(gradients, wanted, strict=True)) < 1e-5
