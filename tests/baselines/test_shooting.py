"""Starts estimated from both sides: how near the truth they are, and what a wrong model makes of them."""

from __future__ import annotations

import torch

from emubench import baselines
from emubench.core.random import stream
from emubench.data import tasks
from emubench.learning.filters.climate_filter import SPIN_UP
from emubench.learning.models.flow import FlowConfig, LearnedFlow

module = baselines.get("neural_ode")
by_wiener, by_flow = module.by_wiener, module.by_flow
NOISE = 0.1
TASK = tasks.get("lorenz63-noisy", "tiny")


class Known(LearnedFlow):
    """Lorenz-63 itself, at ``speed`` times its pace."""

    speed = 1.0

    def advance(self, state):
        u, h = state.double() * self.std + self.mean, self.speed * TASK.system.sample_interval / 4
        for _ in range(4):
            k1 = TASK.system.rhs(u)
            k2 = TASK.system.rhs(u + h / 2 * k1)
            k3 = TASK.system.rhs(u + h / 2 * k2)
            u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + TASK.system.rhs(u + h * k3))
        return ((u - self.mean) / self.std).to(state)


def observed() -> tuple[Known, torch.Tensor, torch.Tensor]:
    """The flow, true states "B T 3" on the attractor in σ, and noisy observations."""
    flow = Known(TASK, FlowConfig(width=8))
    flow.mean.copy_(torch.as_tensor(TASK.system.mean))
    flow.std.copy_(torch.as_tensor(TASK.system.std))
    draws = torch.from_numpy(stream(1, "test_shooting").standard_normal((24, 161, 3)))
    states = [flow.unroll(draws[:, 0], 200)[:, -1]]
    for _ in range(159):
        states.append(flow.advance(states[-1]))
    truth = torch.stack(states, dim=1)
    return flow, truth, truth + NOISE * draws[:, 1:]


def error(estimate, truth: torch.Tensor, values: torch.Tensor, skipped: int) -> float:
    states, _ = estimate(values)
    return float((states - truth[:, skipped : skipped + states.shape[1]]).square().mean().sqrt())


def test_a_smoother_with_the_right_model_knows_the_states_better_than_a_wiener_filter():
    flow, truth, values = observed()
    noise, generator = torch.full((3,), NOISE).double(), torch.Generator().manual_seed(0)
    linear = error(by_wiener(flow, noise), truth, values, 4)
    smoothed = error(by_flow(flow, noise, generator), truth, values, SPIN_UP)
    assert linear < 0.7 * NOISE
    assert smoothed < 0.5 * linear
    flow.speed = 1.1  # a model that is ten per cent wrong still beats the linear estimate
    assert error(by_flow(flow, noise, generator), truth, values, SPIN_UP) < linear


def test_estimates_stand_beside_the_observations_of_the_same_samples():
    flow, _, values = observed()
    noise, generator = torch.full((3,), NOISE).double(), torch.Generator().manual_seed(0)
    for estimate, first, length in ((by_wiener(flow, noise), 4, 152), (by_flow(flow, noise, generator), 32, 122)):
        states, beside = estimate(values)
        assert states.shape == (24, length, 3)
        assert torch.equal(beside, values[:, first : first + length])
    assert 160 - module.LAG - SPIN_UP == 122


def test_no_more_trajectories_are_estimated_than_hold_the_segments(monkeypatch):
    """Of 24 trajectories of 160 samples, 3 hold 60 segments of 7 end to end; too few trajectories are all taken."""
    flow, _, values = observed()
    part, estimated, generator = values * flow.std + flow.mean, [], torch.Generator().manual_seed(0)

    def estimate(trajectories):
        estimated.append(trajectories)
        return trajectories[:, 4:-4], trajectories[:, 4:-4]

    for wanted, few in ((60, 3), (10**4, 24)):
        monkeypatch.setattr(module, "POLISHED", wanted)
        pool = module.two_sided_segments(flow, part, estimate, 6, generator)
        assert pool.shape == (min(wanted, 24 * 146), 7, 6)
        taken = estimated[-1]
        assert len(taken) == few
        assert all(any(torch.allclose(t, v, atol=1e-5) for v in values) for t in taken)
    assert len({float(t[0, 0]) for t in estimated[-1]}) == 24
