"""The process in which a stranger's settings are trained: ``python -m emubench.runs.sandbox.trainee FOLDER …``.

``FOLDER`` holds ``job.json`` and below ``data`` the observations of its task, no truth; the run is made below ``runs``.
Building, sizing and training happen here, within limits of memory, processor time and files; the judge keeps the clock.
"""

import json
import sys
import time
from pathlib import Path

import torch

from emubench.core.errors import EmubenchError
from emubench.runs import stages
from emubench.runs.jobs import Job
from emubench.runs.sandbox import child, pipe

JOB, DATA, RUNS = "job.json", "data", "runs"
"""What lies in the folder."""
MAX_FILE = 2**28
"""Bytes of a file that a training may write: a checkpoint holds weights and memory of an optimiser."""


def check_size(job: Job, max_weights: int) -> None:
    """Raise :class:`EmubenchError` unless the weights of what is to be trained take at most so many bytes.

    Nothing is allocated. An architecture that can't be built on the meta device is left to the training itself.
    """
    try:
        with torch.device("meta"):
            weights = job.build().state_dict().values()
    except EmubenchError as error:
        if error.__cause__ is None:  # the settings themselves are wrong
            raise
        return
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    if n_bytes > max_weights:
        raise EmubenchError(f"weights of {n_bytes} bytes on {job.task}, where at most {max_weights} belong")


def main() -> None:
    """Confine this process, say that it is ready, train, and say that it is done, or in a line why not."""
    folder, (max_weights, n_bytes, seconds, threads) = Path(sys.argv[1]), map(int, sys.argv[2:6])
    _, sink = child.confine(folder, n_bytes, seconds, threads, MAX_FILE, sys.argv[6])
    end = time.monotonic() + child.HOUR
    try:
        pipe.send(sink, pipe.READY, {}, None, end)
        job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
        check_size(job, max_weights)
        stages.train(job, folder / DATA, folder / RUNS)
        pipe.send(sink, pipe.READY, {}, None, time.monotonic() + child.HOUR)
    except Exception as error:  # whatever it is, the judge hears of it
        child.tell(sink, error)


if __name__ == "__main__":
    main()
