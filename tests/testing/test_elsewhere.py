"""A device that every machine has: what a GPU would refuse, or wait for, is named by file and line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from emubench import testing
from emubench.core.hardware import sent
from emubench.testing.elsewhere import ELSEWHERE, Apart, Elsewhere, check_trips

HERE = r"testing/test_elsewhere\.py:\d+: "


def on_the_device(call):
    with Elsewhere() as there:
        x = torch.arange(6.0).reshape(2, 3).to(ELSEWHERE, non_blocking=True)
        found = call(x)
        return (found.cpu() if isinstance(found, Apart) else found), there.trips


@pytest.mark.parametrize(
    ("careless", "named"),
    [
        (lambda x: x + torch.ones(3), "meets a tensor of the host"),
        (lambda x: torch.cat([x, torch.zeros(1, 3)]), "meets a tensor of the host"),
        (lambda x: torch.zeros(2, 3).add_(x), "meets a tensor of the host"),
        (lambda x: x.numpy(), "numpy of a tensor of the device"),
        (lambda x: torch.randn_like(x), "draws on the device"),
        (lambda x: torch.rand(3, device=x.device), "draws on the device"),
        (lambda x: nn.functional.dropout(x), "draws on the device"),
    ],
)
def test_what_a_gpu_refuses_is_named_by_file_and_line(careless, named):
    with pytest.raises(AssertionError, match=HERE + f".*{named}"):
        on_the_device(careless)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 1],
        lambda x: x[[0, 1]],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.nonzero(x),
        lambda x: torch.zeros(2, 3).copy_(x),
        lambda x: x + torch.ones(3).to(x.device),
    ],
)
def test_what_a_gpu_waits_for_is_counted_where_it_stands(waiting):
    before = on_the_device(lambda x: x)[1]  # its own end, a copy to the host
    trips = on_the_device(waiting)[1]
    ours = {place for place in trips if place.startswith("testing/test_elsewhere.py")}
    assert ours
    with pytest.raises(AssertionError, match=r"a step each time waits for the host: .*test_elsewhere\.py:\d+"):
        check_trips("a step", before, trips + trips, 2)


@pytest.mark.parametrize(
    "sound",
    [
        lambda x: x @ x.T + torch.eye(2, device=x.device),
        lambda x: 2 * x + torch.tensor(1.0),
        lambda x: x + sent(torch.ones(3), x.device),
        lambda x: torch.fft.irfft(torch.fft.rfft(x), n=3),
        lambda x: torch.fft.irfft(torch.fft.rfft(x).conj() * torch.fft.rfft(x.flip(0)), n=3),
        lambda x: (torch.fft.rfft(x).mH @ torch.fft.rfft(x)).conj().imag + 1,
        lambda x: torch.where(x > 1, x, 0.0).cumsum(0),
        lambda x: torch.linalg.eigh(x @ x.T).eigenvalues,
    ],
)
def test_the_rest_is_computed_as_on_a_cpu_without_a_wait(sound):
    x = torch.arange(6.0).reshape(2, 3)
    with Elsewhere() as there:
        moved = x.to(ELSEWHERE, non_blocking=True)
        found = sound(moved)
        assert isinstance(found, Apart)
        assert not there.trips
        assert torch.equal(found.cpu(), sound(x))


def test_a_training_there_takes_the_same_steps_as_here():
    def trained(device):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2).to(device)
        optimizer, x = torch.optim.Adam(layer.parameters(), lr=0.1), torch.ones(4, 3).to(device)
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
        return {name: value.cpu() for name, value in layer.state_dict().items()}

    here = trained("cpu")
    with Elsewhere():
        there = trained(ELSEWHERE)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)


# --- careless baselines -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """As of a training loop."""

    steps: int = 4


class Walk(nn.Module):
    """A sound emulator: a scaled last sample; what is careless is put in its way."""

    def __init__(self, where):
        super().__init__()
        self.where, self.weight = where, nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))

    def forecast(self, context, n_steps, n_members, generator):
        state, out = torch.nan_to_num(context[:, -1]), []
        if self.where == "sample":
            for sample in context.unbind(1):
                state = torch.nan_to_num(sample) if bool(torch.isfinite(sample).any()) else state
        for _ in range(n_steps):
            state = self.weight * state
            if self.where == "step" and state.abs().max().item() > 1e9:
                state = torch.zeros_like(state)
            if self.where == "device":
                state = state + torch.zeros(3, dtype=torch.float64)
            out.append(state)
        return torch.stack(out, dim=1)[None].detach()


class Careless:
    """A baseline in a class, where a file would be a module."""

    knowledge, Config = "none", Settings

    def __init__(self, where):
        self.where, self.__name__ = where, f"careless_{where}"

    def build(self, task, config):
        return Walk(self.where)

    def train(self, emulator, data, config, seed, log):
        optimizer = torch.optim.SGD(emulator.parameters(), lr=1e-6)
        for _ in range(config.steps):
            optimizer.zero_grad()
            loss = (emulator.weight * data.train[:, 0] - data.train[:, 1]).square().sum()
            if self.where == "training":
                float(loss.detach())
            loss.backward()
            optimizer.step()


def test_a_baseline_without_carelessness_keeps_the_contract():
    testing.check_baseline(Careless("nowhere"))


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("training", r"careless_training on lorenz63-noisy: a training step each time waits .*test_elsewhere\.py:\d+"),
        ("step", r"Walk on lorenz63-noisy: a step each time waits .*test_elsewhere\.py:\d+"),
        ("sample", r"Walk on lorenz63-noisy: a sample of the context each time waits .*test_elsewhere\.py:\d+"),
        ("device", r"Walk on lorenz63-noisy: .*test_elsewhere\.py:\d+: .*made without its device"),
    ],
)
def test_a_careless_baseline_fails_by_name(where, named):
    with pytest.raises(AssertionError, match=named):
        testing.check_baseline(Careless(where))
