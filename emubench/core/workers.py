"""A pool of worker processes that ends at once, and cleanly, when its user is interrupted."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any

from emubench.core.errors import EmubenchError


def _obey_the_parent(devices: SimpleQueue[str] | None) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the parent, and take its SIGTERM as an exception.

    Take one of the ``devices``, if there are any, and see no other.
    """
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


_TIDYING = 5.0  # seconds in which a worker that was told to leave isn't told again, lest it leave its tidying too
_told: float | None = None  # when this worker was told to leave


def _leave(*_: object) -> None:
    """Exit; where that can't pass (inside a finaliser or a callback of C), without a word, until the next signal.

    The parent and the pool's own watch over broken workers both send signals: the second of them is no news.
    """
    global _told
    if _told is not None and time.monotonic() - _told < _TIDYING:
        return
    _told = time.monotonic()
    sys.unraisablehook = lambda _: None
    sys.exit(1)


def _work(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The function's result; a worker that was told to leave ends here, tidied up, before it takes more work."""
    try:
        return function(*arguments, **options)
    finally:
        if _told is not None:
            os._exit(1)


class _Pool(ProcessPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(_work, fn, *args, **kwargs)


def check_started() -> None:
    """Raise :class:`EmubenchError` in a process that is still importing the script which started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        guard = 'put what the script does below `if __name__ == "__main__":`'
        raise EmubenchError(f"a worker process, on its start, runs the script that it is to work for: {guard}")


@contextmanager
def worker_pool(n: int, devices: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """``n`` processes; left by an exception, pending work is dropped and running work stopped, so that it cleans up.

    With ``devices``, ``n`` of them, each process has one, as its ``CUDA_VISIBLE_DEVICES``.
    """
    check_started()
    others = set(multiprocessing.active_children())
    left = multiprocessing.SimpleQueue() if devices else None
    for device in devices:
        left.put(device)  # type: ignore[union-attr]
    pool = _Pool(n, initializer=_obey_the_parent, initargs=(left,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            while process.is_alive():
                process.terminate()
                process.join(1)
        raise
    finally:
        pool.shutdown()
