"""What an emulator is: the protocols, the door through which forecasts come in, saving and loading."""

import contextlib
import copy
import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from emubench.core.errors import EmubenchError, unreadable
from emubench.core.hardware import synchronise
from emubench.core.random import torch_stream


@runtime_checkable
class Emulator(Protocol):
    """Anything that forecasts. It sees the context (NaN = not observed), never the truth; physical units throughout.

    The context has the shape ``(case, time, *space)``, the forecast ``(member, case, time, *space)``, of float32 or
    float64, on the device of the context. The generator is one of the host on every device: draw with it, then move.
    There is nothing to inherit; :func:`emubench.testing.check_emulator` says whether the contract is kept.

    >>> import emubench
    >>> class Last:
    ...     def forecast(self, context, n_steps, n_members, generator):
    ...         return torch.nan_to_num(context[:, -1:]).expand(-1, n_steps, -1)[None].clone()
    >>> isinstance(Last(), emubench.Emulator)
    True
    >>> emubench.testing.check_emulator(Last(), emubench.tasks.get("lorenz63-noisy", "tiny"))
    """

    def forecast(
        self, context: Float[Tensor, "B C *S"], n_steps: int, n_members: int, generator: torch.Generator
    ) -> Float[Tensor, "M B T *S"]:
        """The ``n_steps`` samples after the last context sample; a deterministic emulator returns ``M = 1``."""
        ...


@runtime_checkable
class Stepper(Protocol):
    """An emulator with a state, advanced one sample interval at a time; its forecast is :func:`step_forecast`.

    What needs a state asks for it: the rollout timed alone, compiled steps, Lyapunov spectra and other diagnostics.

    >>> import emubench
    >>> class Decay:
    ...     def start(self, context, n_members, generator):
    ...         return torch.nan_to_num(context[:, -1])[None]
    ...     def step(self, state, generator):
    ...         return 0.9 * state
    ...     def read(self, state):
    ...         return state
    ...     def forecast(self, *asked):
    ...         return emubench.step_forecast(self, *asked)
    >>> isinstance(Decay(), emubench.Stepper)
    True
    >>> emubench.testing.check_emulator(Decay(), emubench.tasks.get("lorenz63-noisy", "tiny"))
    """

    def start(self, context: Float[Tensor, "B C *S"], n_members: int, generator: torch.Generator) -> Tensor:
        """The state ``"M B ..."`` at the last context sample."""
        ...

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """The state one sample interval later."""
        ...

    def read(self, state: Tensor) -> Float[Tensor, "M B *S"]:
        """The scored components of a state."""
        ...


def step_forecast(
    stepper: Stepper, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator
) -> Float[Tensor, "M B T *S"]:
    """Derive ``forecast`` from a :class:`Stepper`: the scored components of each of ``n_steps`` sample intervals.

    >>> import emubench
    >>> class Clock:
    ...     def start(self, context, n_members, generator):
    ...         return context[None, :, -1]
    ...     def step(self, state, generator):
    ...         return state + 1
    ...     def read(self, state):
    ...         return state
    >>> emubench.step_forecast(Clock(), torch.zeros(1, 64, 1), 3, 1, torch.Generator()).flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    return roll_out(stepper, stepper.start(context, n_members, generator), n_steps, generator)


def roll_out(stepper: Stepper, state: Tensor, n_steps: int, generator: torch.Generator) -> Float[Tensor, "M B T *S"]:
    """The scored components of the ``n_steps`` samples after ``state``."""
    first = stepper.read(state)
    out = torch.empty((*first.shape[:2], n_steps, *first.shape[2:]), dtype=first.dtype, device=first.device)
    for t in range(n_steps):
        state = stepper.step(state, generator)
        out[:, :, t] = stepper.read(state)
    return out


@torch.no_grad()
def checked_forecast(
    emulator: Emulator, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator
) -> Float[Tensor, "M B T *S"]:
    """The forecast door: call ``emulator`` and check what comes back, once.

    A wrong shape or dtype raises :class:`EmubenchError` naming both; NaN and infinity pass, to be scored as failures.
    The context is handed over as a copy, so that no emulator can change what it is judged on.

    >>> import emubench
    >>> class Short:
    ...     def forecast(self, context, n_steps, n_members, generator):
    ...         return context[None, :, :2]
    >>> emubench.checked_forecast(Short(), torch.zeros(4, 64, 3), 100, 1, torch.Generator())
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: forecast: shape (1, 4, 2, 3) where (1, 4, 100, 3) belongs
    """
    forecast = emulator.forecast(context.clone(), n_steps, n_members, generator)
    return check_forecast(forecast, context, n_steps, n_members)


class Asked:
    """How an emulator is asked: as the object that it is, with random streams that follow from one seed."""

    shuffled = False
    """Whether the order of an ensemble's calls is drawn anew each time."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.seconds = 0.0
        """Time of all calls so far; what making emulators ready takes does not count."""
        self.reason = ""
        """Why it answers no more, if so."""

    @contextlib.contextmanager
    def ready(self) -> Iterator[Emulator]:
        """The emulator of one call."""
        yield self.emulator

    def parts(self, n_members: int, generator: torch.Generator) -> list[tuple[int, torch.Generator]]:
        """Sizes and random streams of the calls that make an ensemble, in the order of its members: two halves."""
        other = torch_stream(generator.initial_seed(), "second half")
        half = n_members // 2
        return [(n_members - half, generator), (half, other)][: 2 if half else 1]

    def refuse(self, reason: str) -> None:
        """Deal with an answer that does not belong: raise :class:`EmubenchError`."""
        raise EmubenchError(reason)


class Copies(Asked):
    """Each call goes to a copy that has answered nothing yet, so that no call is told by an object of another.

    Raises :class:`EmubenchError` for an emulator that ``copy.deepcopy`` can't copy.
    """

    shuffled = True

    @contextlib.contextmanager
    def ready(self) -> Iterator[Emulator]:
        try:
            fresh = copy.deepcopy(self.emulator)
        except Exception as error:  # whatever it is made of
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EmubenchError(f"{type(self.emulator).__name__}: copy.deepcopy can't copy it ({why})") from error
        yield fresh


def checked_ensemble(
    emulator: Emulator | Asked, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator
) -> Float[Tensor, "M B T *S"]:
    """Members in two calls with a generator each: whatever members of one call share, the halves are independent.

    An emulator that answers with a single member is deterministic: its forecast is that of the first stream. One that
    answers no more gets NaN.
    """
    asked = emulator if isinstance(emulator, Asked) else Asked(emulator)
    parts, made, single, before = asked.parts(n_members, generator), {}, False, asked.seconds
    order = list(range(len(parts)))
    if asked.shuffled:
        random.SystemRandom().shuffle(order)
    for i in order:
        if (single and i) or asked.reason:
            continue
        if single:  # what was asked for nothing takes no time
            asked.seconds = before
        size, stream = parts[i]
        with asked.ready() as one:
            synchronise(context.device)
            begun = time.perf_counter()
            made[i] = checked_forecast(one, context, n_steps, size, stream)
            synchronise(context.device)
            asked.seconds += time.perf_counter() - begun
        if len(made) > 1 and (len(made[i]) < size) != single:
            asked.refuse(f"forecast: {len(made[i])} of {size} members in one call, and otherwise in another")
        single = len(made[i]) < size
    if asked.reason:
        return torch.full((1, len(context), n_steps, *context.shape[2:]), torch.nan, dtype=torch.float64)
    return made[0] if single else torch.cat([made[i] for i in range(len(parts))])


def check_forecast(forecast: Any, context: Tensor, n_steps: int, n_members: int) -> Float[Tensor, "M B T *S"]:
    """The values of ``forecast`` if it has the shape and dtype that were asked for, without any gradient."""
    if not isinstance(forecast, Tensor):
        raise EmubenchError(f"forecast: a torch.Tensor belongs here, not {type(forecast).__name__}")
    wanted = (context.shape[0], n_steps, *context.shape[2:])
    members = forecast.shape[0] if forecast.ndim else 0
    if tuple(forecast.shape[1:]) != wanted or members not in {1, n_members}:
        raise EmubenchError(f"forecast: shape {tuple(forecast.shape)} where {(n_members, *wanted)} belongs")
    if forecast.dtype not in (torch.float32, torch.float64):
        raise EmubenchError(f"forecast: dtype {forecast.dtype} where float32 or float64 belongs")
    return forecast.detach()


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold equal numbers, NaN in the same places."""
    return torch.equal(*(v.nan_to_num(1e30) if v.is_floating_point() else v for v in (one, other)))


def n_parameters(emulator: nn.Module) -> int:
    """Number of fitted values: parameters and buffers, tied ones once, a complex number two.

    >>> n_parameters(nn.Linear(2, 1, dtype=torch.complex64))
    6
    """
    fitted = [t for t in emulator.state_dict().values() if t.is_floating_point() or t.is_complex()]
    places = {(t.untyped_storage().data_ptr(), t.storage_offset(), t.numel()): t for t in fitted}
    return sum(t.numel() * (2 if t.is_complex() else 1) for t in places.values())


def save_weights(emulator: nn.Module, path: Path) -> str:
    """Write the state dict as safetensors, tied tensors under each of their names; return the file's SHA-256."""
    content = save({k: v.detach().cpu().contiguous().clone() for k, v in emulator.state_dict().items()})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_weights(emulator: nn.Module, path: Path, digest: str = "") -> None:
    """Load weights into a freshly built emulator; a missing, foreign or misshapen tensor is named.

    Raises :class:`EmubenchError` where the file's SHA-256 is not ``digest``, unless that is empty.
    """
    try:
        content = path.read_bytes()
        tensors = load(content)
    except OSError as error:
        raise unreadable(path, error) from None
    except SafetensorError as error:
        raise EmubenchError(f"{path}: not a whole safetensors file ({error})") from None
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise EmubenchError(f"{path}: bytes differ from the hash in the card: the file was damaged or edited")
    own = emulator.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            raise EmubenchError(f"{path}: tensor {name} is {'missing' if name in own else 'not of this architecture'}")
        if own[name].shape != tensors[name].shape:
            raise EmubenchError(
                f"{path}: tensor {name}: shape {tuple(tensors[name].shape)} where {tuple(own[name].shape)} belongs"
            )
    emulator.load_state_dict(tensors)
