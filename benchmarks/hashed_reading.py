"""What checking hashes as data are read costs: training and scoring ``linear`` with the check and without, in turn.

    python benchmarks/hashed_reading.py lorenz63-noisy kpz-noisy --size standard --repeats 3

``linear`` is the quickest of the methods that learn, so that reading weighs most. Printed are the median seconds of the
processor both ways, and the share of the checked one that hashing takes: its own seconds, which a busy machine moves
less than the difference.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from emubench.data import generation, tasks
from emubench.files import hdf5, store
from emubench.runs import stages
from emubench.runs.jobs import Job


class Stopwatch:
    """Seconds spent in a function."""

    def __init__(self, timed: Callable) -> None:
        self.timed, self.seconds = timed, 0.0

    def __call__(self, *arguments):
        begun = time.process_time()
        try:
            return self.timed(*arguments)
        finally:
            self.seconds += time.process_time() - begun


def unchecked(path, file, name, shape=None):
    """What :func:`emubench.files.hdf5.read_hashed` did before: the stored hash is believed."""
    return hdf5.read_array(path, file, name, shape), str(file[name].attrs[store.DIGEST])


def measure(job: Job, data: Path, checked: bool) -> dict[str, tuple[float, float]]:
    """Seconds of training and of scoring, each with those of them that hashing arrays took."""
    found, update = {}, store.ArrayHash.update
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        steps = {
            "train": lambda: stages.train(job, data, out),
            "score": lambda: stages.score(job.folder(out), data),
        }
        for name, step in steps.items():
            watch = Stopwatch(update)
            reader = hdf5.read_hashed if checked else unchecked
            with (
                mock.patch.object(store.ArrayHash, "update", lambda digest, rows, watch=watch: watch(digest, rows)),
                mock.patch.object(hdf5, "read_hashed", reader),
            ):
                begun = time.process_time()
                step()
                found[name] = time.process_time() - begun, watch.seconds
    return found


def main() -> None:
    """Measure the tasks that were asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["lorenz63-noisy", "kpz-noisy"])
    parser.add_argument("--size", default="standard")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="Where datasets lie or are made; default: a temporary folder.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | step | unchecked / s | checked / s | hashing / % |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        data = asked.data or Path(temporary)
        for name in asked.tasks:
            generation.generate(tasks.get(name, asked.size), data)
            job = Job("linear", name, asked.size)
            measure(job, data, checked=True)  # warms caches and compiled kernels
            pairs = [(measure(job, data, False), measure(job, data, True)) for _ in range(asked.repeats)]
            for step in ("train", "score"):
                plain, checked = (statistics.median(pair[i][step][0] for pair in pairs) for i in (0, 1))
                share = statistics.median(pair[1][step][1] / pair[1][step][0] for pair in pairs)
                print(f"| `{name}` | {step} | {plain:.3f} | {checked:.3f} | {100 * share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
