"""The contract of an emulator, and of a Stepper: what the scorer, the timing and the diagnostics rely on."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.emulator import Emulator, Stepper, check_forecast, step_forecast
from emubench.testing.examples import contexts, require

N_STEPS, N_MEMBERS = 5, 3
TOLERANCE = 1e-4
"""In σ: what other batches, other horizons and steps taken one by one may change by rounding."""
REACH = 100.0
"""Within so many σ of the mean a forecast stays for a few samples, however little its context shows."""


def check_emulator(emulator: Emulator, task: Task, seed: int = 0) -> None:
    """Raise AssertionError where ``emulator`` breaks the contract of an :class:`~emubench.emulator.Emulator`.

    It is asked for short forecasts of sixteen contexts of ``task``, simulated with ``seed``. Checked are:

    - the shape ``(M, B, T, *S)``, the type (float32 or float64), and that a sound context gets a finite forecast;
    - a context that shows one component in its last two samples alone, which gets a finite forecast, too;
    - that the context is left as it is, and that equal generators give equal forecasts, whatever was asked before and
      whatever torch's own generator has drawn;
    - that the forecast of a case depends on no other case of its batch;
    - of a deterministic emulator, that a longer forecast begins with the shorter one; of an ensemble, that its members
      differ, and that they differ between generators;
    - of a :class:`~emubench.emulator.Stepper`, that its steps make its forecast, that ``step`` and ``read`` leave the
      state as it is, and that it remembers nothing but the state.

    >>> from emubench import baselines, tasks
    >>> task = tasks.get("lorenz63-noisy", "tiny")
    >>> persistence = baselines.get("persistence")
    >>> check_emulator(persistence.build(task, persistence.Config()), task)
    """
    who = f"{type(emulator).__name__} on {task.name}"
    require(who, isinstance(emulator, Emulator), "has no forecast(context, n_steps, n_members, generator)")
    given = contexts(task, seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        asked = _Asked(emulator, who)
        _check_answer(asked, given[:2])
        _check_repeats(asked, given)
        _check_members(asked, given[:2], task)
        _check_cases(asked, given, task)
        _check_bare_context(asked, given[:2].clone(), task)
        if isinstance(emulator, Stepper):
            try:
                _check_steps(emulator, asked, given[:2], task)
            except (EmubenchError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
                raise AssertionError(f"{who}: start, step or read raises {type(error).__name__}: {error}") from error


class _Asked:
    """An emulator, called with the shortest of arguments; an exception is a broken contract."""

    def __init__(self, emulator: Emulator, who: str) -> None:
        self.emulator, self.who = emulator, who

    def __call__(
        self, context: Tensor, n_steps: int = N_STEPS, n_members: int = N_MEMBERS, seed: int = 0
    ) -> Float[Tensor, "M B T *S"]:
        generator = torch.Generator().manual_seed(seed)
        try:
            return check_forecast(
                self.emulator.forecast(context, n_steps, n_members, generator), context, n_steps, n_members
            )
        except EmubenchError as error:
            raise AssertionError(f"{self.who}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{self.who}: forecast() raises {type(error).__name__}: {error}") from error

    def require(self, condition: bool, message: str) -> None:
        require(self.who, condition, message)


def _scale(task: Task) -> Tensor:
    return torch.from_numpy(task.observation.select(task.system.std))


def _differs(a: Tensor, b: Tensor, task: Task) -> bool:
    """Whether two forecasts differ by more than rounding, in σ; NaN does."""
    return not float(((a.double() - b.double()) / _scale(task)).abs().max()) <= TOLERANCE


def _check_answer(asked: _Asked, context: Tensor) -> None:
    before = context.clone()
    found = asked(context)
    asked.require(bool(torch.isfinite(found).all()), "the forecast of a sound context is not finite")
    same = torch.equal(torch.nan_to_num(context, nan=1e30), torch.nan_to_num(before, nan=1e30))
    asked.require(same, "forecast() changes its context")
    asked(context, n_steps=1, n_members=1)
    asked(context[:1])


def _check_repeats(asked: _Asked, given: Tensor) -> None:
    torch.manual_seed(1)
    first = asked(given[:2].clone())
    asked(given[2:5].clone(), 2 * N_STEPS, 1, seed=9)
    torch.manual_seed(2)
    again = asked(given[:2].clone())
    asked.require(torch.equal(first, again), "equal generators give different forecasts of one context")


def _check_cases(asked: _Asked, given: Tensor, task: Task) -> None:
    """Batches of one size where numbers are drawn, which are drawn for the whole of one; else also a case alone."""
    found, others = asked(given[:2].clone()), asked(given[[0, 9]].clone())
    message = "the forecast of a case depends on the others of its batch"
    asked.require(not _differs(others[:, 0], found[:, 0], task), message)
    if torch.equal(found, asked(given[:2].clone(), seed=1)):
        asked.require(not _differs(asked(given[:1].clone())[:, 0], found[:, 0], task), message)


def _check_members(asked: _Asked, context: Tensor, task: Task) -> None:
    found = asked(context.clone())
    if len(found) == 1:
        longer = asked(context.clone(), 2 * N_STEPS)[:, :, :N_STEPS]
        asked.require(not _differs(longer, found, task), "a longer forecast does not begin with the shorter one")
        return
    asked.require(bool((found.std(0) > 0).all()), "members of an ensemble are alike")
    asked.require(not torch.equal(found, asked(context.clone(), seed=1)), "the generator makes no difference")


def _check_bare_context(asked: _Asked, context: Tensor, task: Task) -> None:
    """One component alone, in the last two samples."""
    shown = int((~context[0, -1].flatten().isnan()).nonzero()[0])
    bare = context.flatten(2)
    hidden = torch.arange(bare.shape[-1]) != shown
    bare[0, :, hidden] = float("nan")
    bare[0, :-2] = float("nan")
    found = asked(bare.reshape(context.shape))
    message = "the forecast of a context that shows one component in two samples"
    asked.require(bool(torch.isfinite(found).all()), f"{message} is not finite")
    mean = torch.from_numpy(task.observation.select(task.system.mean))
    off = float(((found - mean) / _scale(task)).abs().max())
    asked.require(off < REACH, f"{message} is {off:.3g} σ from the mean")


def _check_steps(stepper: Any, asked: _Asked, context: Tensor, task: Task) -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    state = stepper.start(context.clone(), N_MEMBERS, generator())
    before = state.clone()
    first, wanted = stepper.read(state), (len(asked(context.clone())), len(context), *task.shape)
    asked.require(tuple(first.shape) == wanted, f"read() gives shape {tuple(first.shape)} where {wanted} belongs")
    stepped = step_forecast(stepper, context.clone(), N_STEPS, N_MEMBERS, generator())
    asked.require(not _differs(stepped, asked(context.clone()), task), "start, step and read do not make its forecast")
    asked.require(torch.equal(stepper.read(state), stepper.read(state)), "read() differs when repeated")
    after = stepper.step(state, generator())
    kept = after.clone()
    asked.require(torch.equal(state, before), "step() or read() changes the state that it is given")
    stepper.step(stepper.start(context.flip(0), N_MEMBERS, generator()), generator())
    asked.require(torch.equal(after, kept), "step() changes a state that it has returned")
    again = stepper.step(state, generator())
    asked.require(torch.equal(again, kept), "step() remembers more than the state")
