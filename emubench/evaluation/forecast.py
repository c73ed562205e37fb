"""The scored forecast: contexts in chunks, each with random numbers of its own. All who score or time it call this."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import torch_stream
from emubench.data.tasks import Task
from emubench.emulator import Emulator, checked_ensemble
from emubench.metrics._headline import headline

CHUNK = 64
Progress = Callable[[int, int], None]


def chunks(n_cases: int) -> Iterator[slice]:
    """The cases that are forecast together.

    >>> list(chunks(100))
    [slice(0, 64, None), slice(64, 100, None)]
    """
    return (slice(first, min(first + CHUNK, n_cases)) for first in range(0, n_cases, CHUNK))


def forecast(
    emulator: Emulator, task: Task, split: str, context: Tensor, first: int, seed: int, n_steps: int | None = None
) -> Float[Tensor, "M B T *S"]:
    """Forecast of the chunk of cases that begins at ``first``, from its contexts, on the device where these are.

    Its random numbers follow from ``seed``, task, split and ``first`` alone. ``n_steps`` is by default the horizon.
    """
    generator = torch_stream(seed, "forecast", task.name, split, first, device=str(context.device))
    return checked_ensemble(emulator, context, n_steps or task.steps(split), task.n_members(split), generator)


def headline_cases(
    emulator: Emulator,
    task: Task,
    contexts: Float[Tensor, "B C *S"],
    truth: Float[Tensor, "B T *S"],
    start: Tensor,
    seed: int,
    progress: Progress | None = None,
) -> Float[Tensor, " B"]:
    """The headline score of every test case, forecast as it is scored and as far ahead as ``truth`` goes."""
    found = []
    for cases in chunks(len(truth)):
        made = forecast(emulator, task, "test", contexts[cases], cases.start, seed, truth.shape[1])
        found.append(headline(task).cases(made.cpu(), truth[cases], start[cases]))
        if progress is not None:
            progress(cases.stop, len(truth))
    return torch.cat(found)
