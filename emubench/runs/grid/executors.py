"""Where steps are done: in this process, in processes of this machine, or by Dask, all behind one ``Executor``.

Each function is a context that yields a :class:`Place`. Dask is imported by those who ask for it (extra ``cluster``).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from emubench.core.workers import worker_pool

Resources = tuple[tuple[str, float], ...]
GPU = "GPU"
"""The resource of which every device has one."""


@dataclass(frozen=True)
class Place:
    """Executors by the resources that a step takes, and how they are to be fed."""

    executor: Callable[[Resources], Executor]
    ahead: int
    """How many steps to hand out before the first is done."""
    workers: Callable[[], int]
    """How many there are now; raises :class:`EmubenchError` once whoever hands out the work is gone."""


Context = AbstractContextManager[Place]
"""A place for as long as it is used."""


class InProcess(Executor):
    """Does at once what is submitted, in this process; what it raises comes out where it was submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn``."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Processes(Executor):
    """``n`` processes, with ``devices`` one for each.

    After one has died, which fails what was under way, the next submission starts all anew.
    """

    def __init__(self, n: int, devices: Sequence[str] = ()) -> None:
        self._n, self._devices, self._stack = n, devices, ExitStack()
        self._pool = self._stack.enter_context(worker_pool(n, devices))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand ``fn`` to a process that is free."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._stack.close()
            self._pool = self._stack.enter_context(worker_pool(self._n, self._devices))
            return self._pool.submit(fn, *args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


@contextmanager
def in_process() -> Iterator[Place]:
    """One step after another, with plain tracebacks."""
    yield Place(lambda _: InProcess(), 1, lambda: 1)


@contextmanager
def processes(n: int) -> Iterator[Place]:
    """``n`` processes of this machine, and one more per GPU for the steps that ask for one, where there are any."""
    found = devices()
    with ExitStack() as stack:
        plain = stack.enter_context(Processes(n))
        on_device = stack.enter_context(Processes(len(found), found)) if found else plain
        yield Place(lambda resources: on_device if GPU in dict(resources) else plain, n + len(found), lambda: n)


def devices() -> list[str]:
    """The GPUs of this machine: those that ``CUDA_VISIBLE_DEVICES`` names, or else all that torch finds."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
