"""The contract of an emulator: the smallest ones keep it, and one that breaks a clause is told which."""

from __future__ import annotations

import pytest
import torch

from emubench import testing
from emubench.data import tasks
from emubench.emulator import step_forecast

TASK = tasks.get("lorenz63-noisy", "tiny")
NAN = float("nan")


class Damped:
    """A deterministic Stepper that needs no training: the last values decay; variants below break the contract."""

    def start(self, context, n_members, generator):
        return torch.nan_to_num(context[:, -1])[None]

    def step(self, state, generator):
        return 0.9 * state

    def read(self, state):
        return state.clone()

    def forecast(self, context, n_steps, n_members, generator):
        return step_forecast(self, context, n_steps, n_members, generator)


class Noisy(Damped):
    """The same with noise: an ensemble."""

    def start(self, context, n_members, generator):
        return super().start(context, n_members, generator).repeat(n_members, 1, 1)

    def step(self, state, generator):
        return 0.9 * state + torch.randn(state.shape, generator=generator, dtype=state.dtype)


class Alone:
    """An emulator without a state, and a door for changes."""

    def change(self, forecast, context):
        return forecast

    def forecast(self, context, n_steps, n_members, generator):
        last = torch.nan_to_num(context[:, -1])
        return self.change(last[None, :, None].repeat(1, 1, n_steps, 1), context)


class Speechless:
    """Forecasts nothing."""


class Raising(Alone):
    def change(self, forecast, context):
        raise KeyError("lorenz64")


class MissingTime(Alone):
    def change(self, forecast, context):
        return forecast[:, :, :-1]


class Halves(Alone):
    def change(self, forecast, context):
        return forecast.half()


class Array(Alone):
    def change(self, forecast, context):
        return forecast.numpy()


class Failing(Alone):
    def change(self, forecast, context):
        forecast[:, :, -1] = NAN
        return forecast


class GapsPassedOn(Alone):
    def forecast(self, context, n_steps, n_members, generator):
        return context[:, -1][None, :, None].repeat(1, 1, n_steps, 1)


class Exploding(Alone):
    """Divides by the number of samples seen, and so blows up where there are few."""

    def forecast(self, context, n_steps, n_members, generator):
        gaps = context.isnan().flatten(1).double().mean(1)
        factor = torch.where(gaps > 0.5, 1e6, 1.0)[:, None]
        return (factor * (1 + torch.nan_to_num(context[:, -1])))[None, :, None].repeat(1, 1, n_steps, 1)


class Vandal(Alone):
    def change(self, forecast, context):
        context[:, 0] = 0
        return forecast


class OwnDice(Alone):
    """Draws from torch's own generator."""

    def change(self, forecast, context):
        return forecast + torch.randn(forecast.shape, dtype=forecast.dtype)


class Counting(Alone):
    """Remembers how often it was asked."""

    calls = 0

    def change(self, forecast, context):
        self.calls += 1
        return forecast + self.calls


class BatchMean(Alone):
    def change(self, forecast, context):
        return forecast - forecast.mean(1, keepdim=True)


class BatchSize(Alone):
    """Looks at nothing but how many cases there are."""

    def change(self, forecast, context):
        return forecast + len(context)


class Foreseeing(Alone):
    """The whole forecast depends on where it ends."""

    def change(self, forecast, context):
        return forecast + forecast.shape[2]


class Generating(Alone):
    """Holds what can't be copied."""

    def __init__(self):
        self.lines = (line for line in ())


class Clones(Noisy):
    def step(self, state, generator):
        return 0.9 * state


class FixedDice(Noisy):
    def step(self, state, generator):
        return super().step(state, torch.Generator().manual_seed(5))


class OtherSteps(Damped):
    """Its forecast is made in another way than its steps."""

    def forecast(self, context, n_steps, n_members, generator):
        return 1.01 * super().forecast(context, n_steps, n_members, generator)


class FlatRead(Damped):
    def read(self, state):
        return state[0]

    def forecast(self, context, n_steps, n_members, generator):
        return Damped().forecast(context, n_steps, n_members, generator)


class WrongStart(FlatRead):
    def start(self, context, n_members, generator):
        raise KeyError("state")


class CountingRead(Damped):
    reads = 0

    def start(self, context, n_members, generator):
        self.reads = 0
        return super().start(context, n_members, generator)

    def read(self, state):
        self.reads += 1
        return state + self.reads * 1e-6


class StepInPlace(Damped):
    def step(self, state, generator):
        return state.mul_(0.9)


class ReadInPlace(Damped):
    def read(self, state):
        return state.mul_(1.000001).clone()


class Momentum(Damped):
    """Keeps a velocity to itself."""

    velocity = 0.0

    def start(self, context, n_members, generator):
        self.velocity = 0.0
        return super().start(context, n_members, generator)

    def step(self, state, generator):
        self.velocity += 1e-6
        return 0.9 * state + self.velocity


class OneBuffer(Damped):
    """Returns the same tensor from every step."""

    buffer = torch.zeros(1, 2, 3, dtype=torch.float64)

    def step(self, state, generator):
        return self.buffer.copy_(0.9 * state) if state.shape == self.buffer.shape else 0.9 * state


BROKEN = [
    (Speechless, "has no forecast"),
    (Raising, r"forecast\(\) raises KeyError: 'lorenz64'"),
    (MissingTime, r"shape \(1, 2, 4, 3\) where \(3, 2, 5, 3\) belongs"),
    (Halves, "dtype torch.float16 where float32 or float64 belongs"),
    (Array, "a torch.Tensor belongs here, not ndarray"),
    (Failing, "the forecast of a sound context is not finite"),
    (GapsPassedOn, "a context that shows one component in two samples is not finite"),
    (Exploding, r"a context that shows one component in two samples is .* σ from the mean"),
    (Vandal, "changes its context"),
    (OwnDice, "equal generators give different forecasts"),
    (Counting, "equal generators give different forecasts"),
    (BatchMean, "depends on the others of its batch"),
    (BatchSize, "depends on the others of its batch"),
    (Generating, "copy.deepcopy can't copy it"),
    (Foreseeing, "a longer forecast does not begin with the shorter one"),
    (Clones, "members of an ensemble are alike"),
    (FixedDice, "the generator makes no difference"),
    (OtherSteps, "start, step and read do not make its forecast"),
    (FlatRead, r"read\(\) gives shape \(2, 3\) where \(1, 2, 3\) belongs"),
    (WrongStart, "start, step or read raises KeyError: 'state'"),
    (CountingRead, r"read\(\) differs when repeated"),
    (StepInPlace, "changes the state that it is given"),
    (ReadInPlace, r"differs when repeated"),
    (Momentum, r"step\(\) remembers more than the state"),
    (OneBuffer, r"step\(\) changes a state that it has returned"),
]


@pytest.mark.parametrize("cls", [Damped, Noisy, Alone])
def test_the_smallest_emulators_keep_the_contract(cls):
    for name in ("lorenz63-noisy", "lorenz63-partial"):
        testing.check_emulator(cls(), tasks.get(name, "tiny"))


@pytest.mark.parametrize(("cls", "message"), BROKEN, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_broken_clause_is_named(cls, message):
    with pytest.raises(AssertionError, match=f"{cls.__name__} on lorenz63-noisy: .*({message})"):
        testing.check_emulator(cls(), TASK)


def test_what_others_drew_from_torch_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    testing.check_emulator(Noisy(), TASK)
    assert torch.equal(torch.rand(2), expected)
