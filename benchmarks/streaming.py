"""What binds ``emubench generate``: computing, hashing or writing? ``python benchmarks/streaming.py lorenz96-noisy``

Times one process on the same blocks: simulation alone, hashing alone, writing alone (once into the page cache, once
down to the disk), then the whole command, with its peak memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from emubench.data import generation, tasks
from emubench.data.layout import Layout
from emubench.data.trajectories import LANES, simulate_block


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def write(folder: Path, block: np.ndarray, n: int, sync: bool) -> None:
    """Write ``n`` blocks to a file."""
    path = folder / "raw"
    with path.open("wb", buffering=0) as file:
        for _ in range(n):
            file.write(block.tobytes())
        if sync:
            os.fsync(file.fileno())
    path.unlink()


def main() -> None:
    """Print one line per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--trajectories", type=int, default=512)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="where to write; default: the folder of temporary files")
    given = parser.parse_args()
    task = tasks.get(given.task, tasks.size_with("tiny", given.trajectories, given.length))
    n_blocks = -(-given.trajectories // LANES)
    block = simulate_block(task.system, 0, "train", 0, given.length)  # compiles, too
    megabytes = n_blocks * block.nbytes / 1e6
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        computing = seconds(lambda: [simulate_block(task.system, 0, "train", b, given.length) for b in range(n_blocks)])
        hashing = seconds(lambda: [hashlib.sha256(row.tobytes()) for _ in range(n_blocks) for row in block])
        cached = seconds(lambda: write(folder, block, n_blocks, sync=False))
        synced = seconds(lambda: write(folder, block, n_blocks, sync=True))
        print(f"{task.name}: truth of the train split, {megabytes:.0f} MB, one process")
        for what, taken in (
            ("computing", computing),
            ("hashing", hashing),
            ("writing (page cache)", cached),
            ("writing (to the disk)", synced),
        ):
            print(f"  {what:22s} {taken:7.2f} s  {megabytes / taken:8.0f} MB/s")
        total = sum(generation.file_bytes(Layout(task, kind)) for kind in ("truth", "observations")) / 1e6
        for workers in given.workers:
            data = folder / str(workers)
            taken = seconds(lambda data=data, workers=workers: generation.generate(task, data, workers=workers))
            print(f"  whole, {workers} worker(s)     {taken:7.2f} s  {total / taken:8.0f} MB/s, both files, all splits")
    for who, name in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "the largest worker")):
        print(f"  peak memory of {name}: {resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
