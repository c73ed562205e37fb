"""The oracle's fit of a trajectory to the end of its context: exact for linear models, better than the filter alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from benchmarks.maintain import perfect_model
from emubench import baselines
from emubench.data import dataset, tasks
from emubench.dynamics.solvers import Setting
from emubench.evaluation.throughput import ladder
from emubench.learning.filters.ensemble import Filter, assimilate

oracle = baselines.get("oracle")


@pytest.mark.parametrize("members", [3, 12])
def test_the_fit_of_a_linear_model_is_the_kalman_filter_s_mean(members):
    """With gaps, and with fewer members than directions, whose space the filter does not leave either."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    turn = torch.linalg.qr(normal(4, 4)).Q
    prior, context, noise = normal(members, 3, 4), normal(3, 10, 2), torch.tensor([0.4, 0.7], dtype=torch.float64)
    context[0, ::2], context[1, :, 0] = torch.nan, torch.nan
    model = oracle.Model(lambda states: states @ (1.1 * turn), lambda states: states[..., :2], noise)
    fit = oracle.fitted(model, prior, context)
    exact = assimilate(model.advance, model.advance(prior), context, noise, model.observe).mean(0)
    torch.testing.assert_close(fit[0], exact, rtol=1e-5, atol=1e-6)


def test_a_window_as_long_as_the_context_leaves_the_filter_its_first_sample(data):
    task = tasks.get("lorenz63-noisy", "tiny")
    contexts = dataset.load(task, data).contexts["test"][:4, -30:]
    emulator = oracle.build(task, oracle.Config())
    assert emulator.window > contexts.shape[1]
    forecast = emulator.forecast(contexts, 5, 1, torch.Generator().manual_seed(0))
    assert forecast.shape == (1, 4, 5, 3)
    assert forecast.isfinite().all()
    only = emulator.forecast(contexts[:, -1:], 5, 1, torch.Generator().manual_seed(0))  # nothing is left to fit
    assert only.isfinite().all()


@pytest.mark.parametrize(
    ("name", "plain"), [("lorenz63-partial", Filter(40)), ("lorenz96-partial", Filter(200, 1.02, 12.0))]
)
def test_solvers_are_started_by_the_filter_of_emulators_whatever_the_oracle_adds(name, plain):
    """Published speed-ups compare equal starts."""
    task = tasks.get(name, "tiny")
    solver: Any = ladder.forecaster(task, Setting("rk4", 2, start="filter"))[0]
    assert isinstance(solver, oracle.Oracle)
    assert (solver.window, solver.filter) == (0, plain)
    own: Any = oracle.build(task, oracle.Config())
    assert own.window > 0
    assert own.filter == dataclasses.replace(plain, rotate=task.system.name == "lorenz63")


def test_an_ensemble_that_does_not_span_the_states_is_fitted_to_nothing_unless_asked():
    task = tasks.get("lorenz96-partial", "tiny")
    own: list[Any] = [oracle.build(task, oracle.Config(members=members)) for members in (40, 41)]
    assert [one.window for one in own] == [0, oracle.WINDOWS["lorenz96"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks"), [("lorenz63-noisy", 16), ("lorenz63-partial", 16), ("lorenz96-partial", 6)]
)
def test_the_fit_is_better_than_the_filter_of_version_2(name, blocks):
    """Case by case, on contexts that were neither tuned on nor measured on."""
    task, gains = tasks.get(name), []
    for block in range(blocks):
        new, old = (
            perfect_model.headline_cases(oracle.build(task, config), task, 7, block)
            for config in (oracle.Config(), oracle.Config(rotate=0, window=0))
        )
        gains.append(new - old)
    gain = torch.cat(gains)
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5
