"""What learned flows share: descent, start, filter, band; on flows small enough to be worked by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import tasks
from emubench.data.dataset import Observations
from emubench.dynamics.schemes import etdrk4_coefficients, etdrk4_step
from emubench.dynamics.simulate import simulate
from emubench.emulator import checked_forecast
from emubench.learning.models.flow import LARGEST, FlowConfig, LearnedFlow, rollout_loss
from emubench.learning.rings import neighbourhoods, signal_band
from emubench.learning.training.descent import Descent, Log
from emubench.learning.training.polish import polish

NOISY, SETTINGS = tasks.get("lorenz63-noisy", "tiny"), FlowConfig(width=8, steps=10, window=4, checks=5)


class Turning(LearnedFlow):
    """Rotates the first two components by 0.3 per sample and halves nothing: known, measure-preserving dynamics."""

    def advance(self, state):
        c, s = torch.cos(torch.tensor(0.3)), torch.sin(torch.tensor(0.3))
        x, y = state[..., 0], state[..., 1]
        return torch.stack([c * x - s * y, s * x + c * y, *state.unbind(-1)[2:]], dim=-1)


class Exploding(LearnedFlow):
    def advance(self, state):
        return 50 * state


def turning(config: FlowConfig, flow=Turning) -> LearnedFlow:
    torch.manual_seed(0)
    return flow(NOISY, config)


def turned(n_cases: int, n_samples: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """True states and noisy observations ``"B T 3"`` of :class:`Turning`."""
    draws = torch.from_numpy(stream(1, "test_flows").standard_normal((n_cases, n_samples + 1, 3)))
    flow, states = turning(SETTINGS), [draws[:, 0]]
    for _ in range(n_samples - 1):
        states.append(flow.advance(states[-1]))
    truth = torch.stack(states, dim=1)
    return truth, truth + noise * draws[:, 1:]


def test_an_assimilated_start_is_better_than_the_last_noisy_sample():
    """The encoder starts as the last sample; forty noisy looks at a known flow shrink its error several times."""
    truth, observed = turned(64, 56, 0.1)
    errors = {}
    for assimilated in (False, True):
        flow = turning(dataclasses.replace(SETTINGS, assimilated=assimilated, inflation=1.0))
        flow.noise = torch.full((3,), 0.1, dtype=torch.float64)
        start = flow.start(observed, 1, torch.Generator().manual_seed(0)).detach()
        assert start.shape == (1, 64, 3)
        errors[assimilated] = float((start[0] - truth[:, -1]).square().mean().sqrt())
    assert errors[False] == pytest.approx(0.1, rel=0.15)
    assert errors[True] < 0.03


def test_a_context_too_short_for_the_filter_is_encoded():
    flow = turning(dataclasses.replace(SETTINGS, assimilated=True))
    context = turned(5, 16, 0.1)[1]
    start = flow.start(context, 1, torch.Generator().manual_seed(0))
    assert torch.equal(start[0], flow.encode(context[:, -4:].float()))


def test_a_diverging_model_leaves_the_filter_finite():
    flow = turning(dataclasses.replace(SETTINGS, assimilated=True), Exploding)
    start = flow.start(turned(5, 64, 0.1)[1], 1, torch.Generator().manual_seed(0)).detach()
    assert torch.isfinite(start).all()
    assert float(start.abs().max()) < 3 * LARGEST


@pytest.mark.parametrize("assimilated", [False, True])
def test_a_forecast_is_deterministic_and_in_physical_units(assimilated):
    flow = turning(dataclasses.replace(SETTINGS, assimilated=assimilated))
    flow.mean += 5.0
    flow.std *= 2.0
    context = 5 + 2 * turned(4, 64, 0.1)[1]
    runs = [checked_forecast(flow, context, 8, 3, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert runs[0].shape == (1, 4, 8, 3)
    assert torch.equal(*runs)
    inside = (runs[0] - 5) / 2
    start = (flow.read(flow.start(context, 1, torch.Generator().manual_seed(3))) - 5) / 2
    assert torch.allclose(inside[:, :, 0], flow.advance(start), atol=1e-5)


def test_training_noise_is_added_in_training_only():
    flow = turning(SETTINGS)
    batch = turned(6, 6, 0.0)[1].float()
    exact = rollout_loss(flow, batch, 2)
    assert float(exact.detach()) < 1e-10
    losses = [float(rollout_loss(flow, batch, 2, 0.2).detach()) for _ in range(2)]
    assert losses[0] != losses[1]
    assert sum(losses) / 2 == pytest.approx(0.04, rel=0.6)
    assert torch.equal(rollout_loss(flow.eval(), batch, 2, 0.2), exact)


def decaying(noise: float, n_fields: int = 3200):
    """Fields whose spectrum falls by e² per mode from the first on, and what is known of their noise."""
    rng = stream(2, "phase")
    modes = torch.zeros(n_fields, 17, dtype=torch.complex128)
    phases = torch.from_numpy(np.exp(1j * rng.uniform(0, 6.28, (n_fields, 16))))
    modes[:, 1:] = torch.exp(-torch.arange(1.0, 17.0)) * phases
    fields = torch.fft.irfft(modes, n=32, norm="forward") * 2
    fields = fields + noise * torch.from_numpy(rng.standard_normal(fields.shape))
    data = type("Data", (), {"noise_std": torch.full((32,), noise), "std": torch.ones(32)})
    return fields.view(32, -1, 32), data


@pytest.mark.parametrize("gaps", [False, True])
def test_the_band_is_what_stands_out_of_the_noise_and_what_decays_beyond(gaps):
    assert signal_band(*decaying(0.0)).nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]  # e^−14 is 8e-7
    fields, data = decaying(0.1)
    if gaps:
        hidden = torch.from_numpy(stream(3, "gaps").random((32, 32)) < 0.5)
        fields = torch.where(hidden[:, None], torch.nan, fields)
    seen, whole = (signal_band(fields, data, hidden).nonzero().flatten().tolist() for hidden in (False, True))
    assert seen == list(range(1, seen[-1] + 1))
    assert seen[-1] in ((3, 4) if gaps else (5, 6))
    assert whole == list(range(1, whole[-1] + 1))
    assert whole[-1] in (6, 7, 8)


@pytest.mark.slow
def test_cut_off_modes_cost_accuracy_although_nothing_else_is_wrong():
    """Kuramoto–Sivashinsky with its first 8 and 11 modes alone, against itself."""
    task = tasks.get("kuramoto_sivashinsky-clean", "tiny")
    system, k = task.system, 2 * np.pi / 22.0 * np.arange(33)
    states = np.stack([system.draw(stream(3, "a", i), system.starts[0]) for i in range(64)])
    states = simulate(system, states, system.spin_up_samples)[:, -1]
    truth = simulate(system, states, 200)
    scheme, found = etdrk4_coefficients(k**2 - k**4, 0.125), []
    for n_modes in (8, 11):
        band = np.arange(33) <= n_modes
        v, errors = band * np.fft.rfft(states), []
        for t in range(200):
            for _ in range(8):
                v = etdrk4_step(scheme, lambda v, b=band: -0.5j * k * b * np.fft.rfft(np.fft.irfft(v, n=64) ** 2), v)
            errors.append(np.sqrt(((np.fft.irfft(v, n=64) - truth[:, t]) ** 2).mean(-1) / (truth**2).mean()))
        over = np.stack(errors, axis=1) > 0.5
        found.append(np.where(over.any(1), over.argmax(1), 200).mean() * task.lead_time_step)
    assert found == pytest.approx([3.7, 7.5], abs=0.3)


def test_a_state_is_kept_within_the_band():
    flow = LearnedFlow(tasks.get("lorenz96-noisy", "tiny"), SETTINGS)
    band = torch.ones(21)
    band[[2, 7]] = 0
    flow.set_band(band)
    once = flow.in_band(torch.randn(3, 40))
    assert float(torch.fft.rfft(once)[:, [2, 7]].abs().max()) < 1e-5
    assert torch.allclose(flow.in_band(once), once, atol=1e-6)
    again = LearnedFlow(tasks.get("lorenz96-noisy", "tiny"), SETTINGS)
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again.in_band(once + 1), flow.in_band(once + 1))


class Quadratic(nn.Module):
    """One parameter p and the loss (p − 3)²."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1))

    def loss(self):
        return (self.p - 3).square().sum()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_descent_averages_weights_and_keeps_the_best(average, tmp_path):
    """What it validates is the exponential average, worked out here by hand; the least of the looks is what stays."""
    module, seen, path = Quadratic(), [], tmp_path / "log.jsonl"
    budget = FlowConfig(steps=40, checks=8, learning_rate=0.5, average=average)
    expected, history = 0.0, []

    def validation():
        seen.append(float(module.p))
        assert not module.training
        return (module.p - 3).abs().sum()

    log = Log(path)
    for step in (descent := Descent(module, budget, log, validation)):
        descent(module.loss())
        decay = min(average, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(module.p.detach())
        history.append(expected)
    log.close()
    assert seen == pytest.approx(history[4::5], abs=1e-5)
    assert float(module.p.detach()) == pytest.approx(min(seen, key=lambda p: abs(p - 3)))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(5, 41, 5))
    assert [row["validation"] for row in rows] == pytest.approx([abs(p - 3) for p in seen])


def test_a_descent_clips_gradients():
    """Adam alone would hide it: its step does not know the size of a gradient. So look at the gradient itself."""
    module = Quadratic()
    for _ in (descent := Descent(module, FlowConfig(steps=1, clip=0.25), Log(), lambda: module.loss())):
        descent(module.loss())
    assert module.p.grad is not None
    assert float(module.p.grad) == pytest.approx(-0.25, rel=1e-4)


def test_a_loss_that_is_not_finite_ends_a_descent():
    module = Quadratic()
    descent = Descent(module, FlowConfig(steps=3), Log(), module.loss)
    assert next(steps := iter(descent)) == 1
    descent(module.loss())
    assert next(steps) == 2
    with pytest.raises(EmubenchError, match="training diverged at step 2 .*: lower --set learning_rate"):
        descent(module.loss() * float("nan"))


@pytest.mark.parametrize("name", ["steps", "batch", "width", "window", "unroll", "learning_rate", "clip", "checks"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_budgets_are_positive(name, value):
    with pytest.raises(EmubenchError, match=f"{name}: {value} where a positive number belongs"):
        FlowConfig(**{name: value})


class Valley(nn.Module):
    """Rosenbrock's banana valley in two parameters; its only minimum, 0, is at (1, 1)."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))

    def loss(self):
        x, y = self.p
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_polishing_finds_the_minimum_where_descent_crawls():
    module = Valley()
    for _ in (descent := Descent(module, FlowConfig(steps=200, learning_rate=0.01), Log(), module.loss)):
        descent(module.loss())
    assert float(module.loss().detach()) > 1e-2
    polish(module, module.loss, module.loss, 100, Log())
    assert float(module.loss().detach()) < 1e-15
    assert module.p.detach().tolist() == pytest.approx([1, 1], abs=1e-7)


class Cliff(nn.Module):
    """A slope towards p = 3, beyond which the loss is not finite; it has no minimum before."""

    def __init__(self, start=0.0):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def loss(self):
        return 10 - self.p - 1e-3 * torch.log(3 - self.p)


def test_polishing_turns_back_where_the_loss_is_not_finite():
    module = Cliff()
    polish(module, module.loss, module.loss, 50, Log())
    assert 2.9 < float(module.p.detach()) < 3
    with pytest.raises(EmubenchError, match="training diverged at iteration 50 of L-BFGS"):
        polish(Cliff(4.0), Cliff(4.0).loss, lambda: torch.zeros(1), 50, Log())


class Matrix(LearnedFlow):
    def __init__(self, task, config):
        super().__init__(task, config)
        self.matrix = nn.Parameter(torch.eye(3))

    def advance(self, state):
        return state @ self.matrix


def test_polishing_on_noisy_segments_finds_the_flow():
    """A linear flow is found from the noisy samples of another, and the encoder is left as it was."""
    _, observed = turned(96, 60, 0.1)
    zeros, ones = torch.zeros(3).double(), torch.ones(3).double()
    data = Observations(NOISY, "0", "", observed[:80], observed[80:], {}, zeros, ones, 0.1 * ones)
    flow = turning(SETTINGS, Matrix)
    before = {k: v.clone() for k, v in flow.encoder.state_dict().items()}
    baselines.get("neural_ode").polish_segments(flow, data, 3, 50, torch.Generator().manual_seed(0), Log())
    basis = torch.eye(3)
    assert float((flow.advance(basis) - turning(SETTINGS).advance(basis)).detach().abs().max()) < 0.02
    assert all(torch.equal(v, before[k]) for k, v in flow.encoder.state_dict().items())


def test_polishing_keeps_the_best_by_validation(tmp_path):
    """A validation that rises from the first iteration on: the weights stay as they were."""
    module, log = Valley(), Log(tmp_path / "log.jsonl")
    polish(module, module.loss, lambda: (module.p - torch.tensor([-1.2, 1.0])).square().sum(), 150, log)
    log.close()
    assert module.p.detach().tolist() == [-1.2, 1.0]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 100, 150]
    assert rows[-1]["validation"] > 4 > rows[-1]["loss"]


def test_a_neighbourhood_of_radius_zero_is_the_site_itself():
    fields = torch.arange(12.0).reshape(2, 6)
    assert torch.equal(neighbourhoods(fields, 0), fields[..., None])
