"""The contract of an emulator, and of a Stepper: what the scorer, the timing and the diagnostics rely on."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.emulator import Copies, Emulator, Stepper, check_forecast, same_values, step_forecast
from emubench.learning.models.operators import torch_alone
from emubench.testing.elsewhere import ELSEWHERE, Apart, Elsewhere, check_trips
from emubench.testing.examples import contexts, require

N_STEPS, N_MEMBERS = 5, 3
SHORT = 24
"""Samples of a context that an emulator is given, too, to see whether it waits for the host at each."""
TOLERANCE = 1e-4
"""What other batches, other horizons and steps taken one by one may change by rounding, in σ."""
REACH = 100.0
"""Within so many σ of the mean a forecast stays for a few samples, however little its context shows."""


def check_emulator(emulator: Emulator, task: Task, seed: int = 0, *, elsewhere: bool = True) -> None:
    """Raise AssertionError where ``emulator`` breaks the contract of an :class:`~emubench.emulator.Emulator`.

    It is asked for short forecasts of sixteen contexts of ``task``, simulated with ``seed``. Checked are:

    - the shape ``(M, B, T, *S)``, the type (float32 or float64), and that a sound context gets a finite forecast;
    - a context that shows one component in its last two samples alone, which gets a finite forecast, too;
    - that ``copy.deepcopy`` can copy it, as every scored call goes to a copy;
    - that the context is left as it is, and that equal generators give equal forecasts, whatever was asked before and
      whatever torch's own generator has drawn;
    - that the forecast of a case depends on no other case of its batch;
    - of a deterministic emulator, that a longer forecast begins with the shorter one; of an ensemble, that its members
      differ, and that they differ between generators;
    - unless ``elsewhere`` is false, what :func:`check_emulator_elsewhere` does;
    - of a :class:`~emubench.emulator.Stepper`, that its steps make its forecast, that ``step`` and ``read`` leave the
      state as it is, and that it remembers nothing but the state.

    >>> from emubench import baselines, tasks
    >>> task = tasks.get("lorenz63-noisy", "tiny")
    >>> persistence = baselines.get("persistence")
    >>> check_emulator(persistence.build(task, persistence.Config()), task)
    """
    asked = _Asked(emulator, task)
    asked.require(isinstance(emulator, Emulator), "has no forecast(context, n_steps, n_members, generator)")
    given = contexts(task, seed)
    try:
        with Copies(emulator).ready():
            pass
    except EmubenchError as error:
        raise AssertionError(f"{asked.who}: {error}") from error
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        asked.require(asked(given[:2]).isfinite().all(), "the forecast of a sound context is not finite")
        asked(given[:2], n_steps=1, n_members=1)
        asked(given[:1])
        _check_repeats(asked, given)
        _check_members(asked, given[:2])
        _check_cases(asked, given)
        _check_bare_context(asked, given[:2].clone())
        if elsewhere:
            check_emulator_elsewhere(emulator, task, seed)
        if isinstance(emulator, Stepper):
            try:
                _check_steps(emulator, asked, given[:2])
            except (EmubenchError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
                message = f"start, step or read raises {type(error).__name__}: {error}"
                raise AssertionError(f"{asked.who}: {message}") from error


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _Asked:
    """An emulator, called with the shortest of arguments; an exception is a broken contract."""

    def __init__(self, emulator: Emulator, task: Task) -> None:
        self.emulator, self.task, self.who = emulator, task, f"{type(emulator).__name__} on {task.name}"
        self.mean, self.std = (
            torch.from_numpy(task.observation.select(v)) for v in (task.system.mean, task.system.std)
        )

    def __call__(
        self, context: Tensor, n_steps: int = N_STEPS, n_members: int = N_MEMBERS, seed: int = 0
    ) -> Float[Tensor, "M B T *S"]:
        given = context.clone()
        try:
            found = self.emulator.forecast(given, n_steps, n_members, _generator(seed))
            check_forecast(found, context, n_steps, n_members)
        except EmubenchError as error:
            raise AssertionError(f"{self.who}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{self.who}: forecast() raises {type(error).__name__}: {error}") from error
        self.require(same_values(context, given), "forecast() changes its context")
        return found

    def require(self, condition: object, message: str) -> None:
        require(self.who, condition, message)

    def differ(self, a: Tensor, b: Tensor) -> bool:
        """Whether two forecasts differ by more than rounding, in σ; NaN does."""
        return not float(((a.double() - b.double()) / self.std).abs().max()) <= TOLERANCE


def _check_repeats(asked: _Asked, given: Tensor) -> None:
    torch.manual_seed(1)
    first = asked(given[:2])
    asked(given[2:5], 2 * N_STEPS, 1, seed=9)
    torch.manual_seed(2)
    again = asked(given[:2])
    asked.require(torch.equal(first, again), "equal generators give different forecasts of one context")


def _check_cases(asked: _Asked, given: Tensor) -> None:
    """Batches of one size where numbers are drawn, which are drawn for the whole of one; else also a case alone."""
    found, others = asked(given[:2]), asked(given[[0, 9]])
    message = "the forecast of a case depends on the others of its batch"
    asked.require(not asked.differ(others[:, 0], found[:, 0]), message)
    if torch.equal(found, asked(given[:2], seed=1)):
        asked.require(not asked.differ(asked(given[:1])[:, 0], found[:, 0]), message)


def _check_members(asked: _Asked, context: Tensor) -> None:
    found = asked(context)
    if len(found) == 1:
        longer = asked(context, 2 * N_STEPS)[:, :, :N_STEPS]
        asked.require(not asked.differ(longer, found), "a longer forecast does not begin with the shorter one")
        return
    asked.require((found.std(0) > 0).all(), "members of an ensemble are alike")
    asked.require(not torch.equal(found, asked(context, seed=1)), "the generator makes no difference")


def _check_bare_context(asked: _Asked, context: Tensor) -> None:
    """One component alone, in the last two samples."""
    shown = int((~context[0, -1].flatten().isnan()).nonzero()[0])
    bare = context.flatten(2)
    hidden = torch.arange(bare.shape[-1]) != shown
    bare[0, :, hidden] = float("nan")
    bare[0, :-2] = float("nan")
    found = asked(bare.reshape(context.shape))
    message = "the forecast of a context that shows one component in two samples"
    asked.require(found.isfinite().all(), f"{message} is not finite")
    off = float(((found - asked.mean) / asked.std).abs().max())
    asked.require(off < REACH, f"{message} is {off:.3g} σ from the mean")


@torch.no_grad()
def check_emulator_elsewhere(emulator: Emulator, task: Task, seed: int = 0) -> None:
    """Raise AssertionError unless a torch module forecasts the same on another device, and keeps no host waiting.

    The host may wait for no step, and for no sample of a context, if contexts may be shorter than those of the task.
    See :mod:`emubench.testing.elsewhere`; of what is no module nothing is known.
    """
    if not isinstance(emulator, nn.Module):
        return
    asked, whole = _Asked(emulator, task), contexts(task, seed)[:2]
    context = whole[:, -SHORT - 8 :]
    with torch_alone():  # a filter may amplify what kernels round otherwise; their own tests compare them with torch
        try:
            here = asked(context)
        except AssertionError:  # it takes contexts of one length alone
            context, here = whole, asked(whole)
    with Elsewhere() as there:
        moved = _Asked(copy.deepcopy(emulator).to(ELSEWHERE), task)  # type: ignore[arg-type]
        given = context.to(ELSEWHERE)
        found = moved(given)
        asked.require(isinstance(found, Apart), "on another device the forecast is one of the host")
        asked.require(not asked.differ(found.cpu(), here), "on another device the forecast is another")
        less, more = (there.trips_of(lambda n=n: moved(given, n)) for n in (N_STEPS, 2 * N_STEPS))
        check_trips(f"{asked.who}: a step", less, more, N_STEPS)
        if context is not whole:
            fewer = there.trips_of(lambda: moved(given[:, 8:]))
            check_trips(f"{asked.who}: a sample of the context", fewer, less, 8)


def _check_steps(stepper: Any, asked: _Asked, context: Tensor) -> None:
    state = stepper.start(context.clone(), N_MEMBERS, _generator())
    before = state.clone()
    forecast, first = asked(context), stepper.read(state)
    wanted = (len(forecast), len(context), *asked.task.shape)
    asked.require(tuple(first.shape) == wanted, f"read() gives shape {tuple(first.shape)} where {wanted} belongs")
    stepped = step_forecast(stepper, context.clone(), N_STEPS, N_MEMBERS, _generator())
    asked.require(not asked.differ(stepped, forecast), "start, step and read do not make its forecast")
    asked.require(torch.equal(stepper.read(state), stepper.read(state)), "read() differs when repeated")
    after = stepper.step(state, _generator())
    kept = after.clone()
    asked.require(torch.equal(state, before), "step() or read() changes the state that it is given")
    stepper.step(stepper.start(context.flip(0), N_MEMBERS, _generator()), _generator())
    asked.require(torch.equal(after, kept), "step() changes a state that it has returned")
    again = stepper.step(state, _generator())
    asked.require(torch.equal(again, kept), "step() remembers more than the state")
