"""The scored forecast: contexts in chunks, each with random numbers of its own. All who score or time it call this."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from emubench import metrics
from emubench.core.errors import EmubenchError, unknown
from emubench.core.random import torch_stream
from emubench.data import dataset, recipes
from emubench.data.recipes import TaskLike
from emubench.data.tasks import Task
from emubench.emulator import Asked, Copies, Emulator, checked_ensemble

CHUNK = 64
Progress = Callable[[int, int], None]
"""Is told on the way how much of the work is done, and how much there is in all."""


def part_of(progress: Progress | None, k: int, n: int) -> Progress:
    """The progress of part ``k`` of ``n`` equal parts of the work that ``progress`` is told of."""
    whole = progress or (lambda done, total: None)
    return lambda done, total: whole(1000 * k + 1000 * done // total, 1000 * n)


STILL = 0.1
"""A forecast that changes by less than this share of its first changes from one sample to the next has stopped."""
FIRST = 4
"""So many changes are the first."""


JUMP = 2.0
"""Of what is scored in law, one that changes by more than so many times the change from the first sample to the second
was made up: those two are scored, and most of the others are not."""


def counted_share(forecast: Float[Tensor, "M B T *S"], task: Task) -> float:
    """The share of samples that speed counts: finite ones at which the forecasts still move, and always the first.

    The change from one sample to the next is taken in the mean square over all forecasts and components, in σ. Where
    only some leads are scored, a sample does not count either that leaps away from the one before.
    """
    std = torch.from_numpy(task.observation.select(task.system.std))
    scaled = (metrics.deviation(forecast.detach().cpu(), task) / std).flatten(3)
    finite = scaled.isfinite().all(-1)
    change = scaled.diff(dim=2).square().mean(-1).double()
    sound = finite[:, :, 1:] & finite[:, :, :-1] & change.isfinite()
    level = torch.where(sound, change, 0.0).sum((0, 1)) / sound.sum((0, 1)).clamp(min=1)
    moving = (level > 0) & (level >= STILL**2 * level[:FIRST].max(0).values) if len(level) else level > 0
    if task.system.scored_in_law and len(level):
        moving &= level <= JUMP**2 * level[0]
    counted = 1 + (sound & moving).double().sum(-1)
    return float(counted.mean()) / forecast.shape[2]


def chunks(n_cases: int) -> Iterator[slice]:
    """The cases that are forecast together.

    >>> list(chunks(100))
    [slice(0, 64, None), slice(64, 100, None)]
    """
    return (slice(first, min(first + CHUNK, n_cases)) for first in range(0, n_cases, CHUNK))


def forecast(
    emulator: Emulator, task: TaskLike, data: Path | str = "data", *, split: str = "test", seed: int = 0
) -> Float[Tensor, "M B T *S"]:
    """The forecast of every case of a split, as it is scored: ``(member, case, time, *space)`` in physical units.

    ``split`` is one of ``task.splits``: "test", or "climate" for the long runs. Times are a sample interval apart, the
    first is that after the context; :func:`emubench.load_truth` has the truth beside it. There is one member, but where
    the task is scored in law and the emulator gives an ensemble. ``task`` is a task, or the name or recipe of one at
    standard size, ``data`` the folder it was generated below.

    Raises :class:`EmubenchError` where the emulator answers in another shape or type than it was asked for.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> persistence = emubench.train("persistence", task)
    >>> tuple(emubench.forecast(persistence, task).shape)
    (1, 16, 442, 3)
    """
    task = recipes.resolve(task, data=data)
    if split not in task.splits:
        raise unknown("split", split, task.splits)
    contexts = dataset.load(task, data).context(split)
    made = [forecast_chunk(emulator, task, split, contexts[c], c.start, seed) for c in chunks(len(contexts))]
    return torch.cat(made, dim=1)[:, :, torch.tensor(task.leads(split)) - 1]


def forecast_chunk(
    emulator: Emulator | Asked,
    task: Task,
    split: str,
    context: Tensor,
    first: int,
    seed: int,
    n_steps: int | None = None,
) -> Float[Tensor, "M B T *S"]:
    """Forecast of the chunk of cases that begins at ``first``, from its contexts, on the device where these are.

    Its random numbers follow from ``seed``, task, split and ``first`` alone. ``n_steps`` is by default the horizon.
    Calls go to fresh copies of ``emulator``, so that no chunk depends on what was asked before.
    """
    asked = emulator if isinstance(emulator, Asked) else Copies(emulator)

    def made(part: Tensor) -> tuple[Tensor, bool]:
        """The forecast, and whether it took random numbers, which depend on the cases that are forecast together."""
        generator = torch_stream(seed, "forecast", task.name, split, first)
        before, n_members = generator.get_state(), task.n_members(split)
        found = checked_ensemble(asked, part, n_steps or task.steps(split), n_members, generator)
        return found, len(found) > 1 or not torch.equal(generator.get_state(), before)

    return fitting(made, context)


def fitting(made: Callable[[Tensor], tuple[Tensor, bool]], context: Tensor) -> Float[Tensor, "M B T *S"]:
    """The forecast of ``context`` that ``made`` gives; where memory runs out, put together from those of fewer cases.

    Raises :class:`EmubenchError` if that would be another forecast, as it took random numbers, or if no case fits.
    """
    size, where = len(context), f"the memory of {context.device}"
    while True:
        try:
            parts = [made(part) for part in context.split(size)]
            break
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise EmubenchError(f"a forecast of one case does not fit in {where}: try --device cpu") from error
            size //= 2
    if size < len(context):
        said = f"{len(context)} cases at a time do not fit in {where}, {size} do"
        if any(random for _, random in parts):
            raise EmubenchError(f"{said}, but would be given other random numbers: try --device cpu")
        print(said, file=sys.stderr)
    return torch.cat([forecast for forecast, _ in parts], dim=1) if len(parts) > 1 else parts[0][0]
