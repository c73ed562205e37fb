"""A pool of worker processes that ends at once, and cleanly, when its user is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue


def _obey_the_parent(devices: SimpleQueue[str] | None) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the parent, and take its SIGTERM as an exception.

    Take one of the ``devices``, if there are any, and see no other.
    """
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _leave(*_: object) -> None:
    """Exit; where that can't pass (inside a finaliser or a callback of C), without a word, until the next signal."""
    sys.unraisablehook = lambda _: None
    sys.exit(1)


@contextmanager
def worker_pool(n: int, devices: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """``n`` processes; left by an exception, pending work is dropped and running work stopped, so that it cleans up.

    With ``devices``, ``n`` of them, each process has one, as its ``CUDA_VISIBLE_DEVICES``.
    """
    others = set(multiprocessing.active_children())
    left = multiprocessing.SimpleQueue() if devices else None
    for device in devices:
        left.put(device)  # type: ignore[union-attr]
    pool = ProcessPoolExecutor(n, initializer=_obey_the_parent, initargs=(left,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            while process.is_alive():  # each time it leaves what it is at, and may have fetched more
                process.terminate()
                process.join(1)
        raise
    finally:
        pool.shutdown()
