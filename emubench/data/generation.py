"""Generating datasets of any size in constant memory: each process hashes and writes the blocks that it computes.

A file grows under a hidden ``.partial`` name: first its whole structure, with room for every array, then block by
block, while a journal beside it lists the finished ones. After an interrupt the same command goes on from there.
"""

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device, usable_cores
from emubench.core.random import check_seed, stream
from emubench.core.workers import worker_pool
from emubench.data import dataset, layout, recipes
from emubench.data.layout import Layout
from emubench.data.partial import Partial
from emubench.data.recipes import TaskLike
from emubench.data.tasks import Task
from emubench.data.trajectories import LANES, STRETCH, blank_samples, stretches
from emubench.files import hdf5, netcdf, store

SMALL = 8 * 10**7
"""Bytes under which a second process takes longer to start than it saves."""
DEVICE_BLOCKS = 64
"""Blocks that are simulated together on a GPU: 1024 trajectories."""
AXIS = 2**16
"""Samples of a time axis that are written at once."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Block:
    """A job: rows ``first …`` of one array, to be made and written into its place in the file."""

    task: Task
    seed: int
    split: str
    array: str
    first: int
    n_rows: int
    length: int
    path: Path
    offset: int = 0
    dtype: str = "f8"
    truth: Path | None = None
    """Where the truth is read that observations are made of."""
    device: str = "cpu"

    @property
    def rows(self) -> range:
        """Indices of its rows."""
        return range(self.first, self.first + self.n_rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        shape = self.task.system.shape if self.truth is None else self.task.shape
        return np.dtype(self.dtype).itemsize * self.length * math.prod(shape)


# --- one block --------------------------------------------------------------------------------------------------------


class RowWriter:
    """Writes the rows of a block piece by piece, at their offsets in its file, and hashes them as they grow."""

    def __init__(self, file: FileIO, block: Block) -> None:
        self._file, self._block = file, block
        self.filled, self._hashes = [0] * block.n_rows, [hashlib.sha256() for _ in block.rows]

    def append(self, row: int, values: np.ndarray) -> None:
        """Add samples to a row of the block; those beyond its end are dropped."""
        stored = np.dtype(self._block.dtype).newbyteorder("<")
        self.append_bytes(row, np.ascontiguousarray(values, dtype=stored).tobytes())

    def append_bytes(self, row: int, content: bytes) -> None:
        """Add samples as they are stored."""
        block = self._block
        content = content[: block.row_bytes - self.filled[row]]
        position, rest = block.offset + (block.first + row) * block.row_bytes + self.filled[row], memoryview(content)
        while rest:
            n = os.pwrite(self._file.fileno(), rest, position)
            rest, position = rest[n:], position + n
        self._hashes[row].update(content)
        self.filled[row] += len(content)

    def digests(self) -> bytes:
        """The hashes of all rows so far."""
        return b"".join(h.digest() for h in self._hashes)


def run_block(block: Block) -> bytes:
    """Make a block and write it; return the hashes of its rows."""
    with FileIO(block.path, "r+") as file:
        writer = RowWriter(file, block)
        if block.truth is None:
            _simulate(block, writer)
        else:
            _observe(block, block.truth, writer)
        assert set(writer.filled) == {block.row_bytes}
        return writer.digests()


def _simulate(block: Block, writer: RowWriter) -> None:
    system = block.task.system
    for row, blank in enumerate(blank_samples(system, block.split, block.rows)):
        if blank:
            writer.append(row, np.full((blank, *system.shape), np.nan))
    first, n_blocks = block.first // LANES, -(-block.n_rows // LANES)
    for samples in stretches(system, block.seed, block.split, first, block.length, n_blocks, block.device):
        for row in range(block.n_rows):
            writer.append(row, samples[row])


def _observe(block: Block, truth: Path, writer: RowWriter) -> None:
    task = block.task
    at_once = max(64, LANES * STRETCH // math.prod(task.system.shape))
    with hdf5.opened(truth) as file:  # a handle of its own: it is another process's
        source: Any = file[f"{block.split}/truth"]
        for row, i in enumerate(block.rows):
            observe = task.observation.along(task.system, stream(block.seed, task.name, block.split, i))
            for begun in range(0, block.length, at_once):
                with hdf5.refused(truth, "cannot be read"):
                    samples = source[i, begun : min(begun + at_once, block.length)]
                writer.append(row, observe(samples))


# --- one file ---------------------------------------------------------------------------------------------------------


def rows_at_once(kind: str, device: str) -> int:
    """Rows of a job: a block, or many of them where a GPU simulates."""
    return LANES * DEVICE_BLOCKS if kind == "truth" and device != "cpu" else LANES


def blocks(made: Layout, seed: int, path: Path, truth: Path | None = None, device: str = "cpu") -> Iterator[Block]:
    """The jobs of a file, in order."""
    at_once, task = rows_at_once(made.kind, device), made.task
    for array, shape in made.shapes.items():
        split, dtype = array.split("/")[0], made.dtype(array)
        for first in range(0, shape[0], at_once):
            n_rows = min(at_once, shape[0] - first)
            yield Block(task, seed, split, array, first, n_rows, shape[1], path, 0, dtype, truth, device)


def n_blocks(made: Layout, device: str = "cpu") -> int:
    """How many jobs a file is."""
    at_once = rows_at_once(made.kind, device)
    return sum(-(-shape[0] // at_once) for shape in made.shapes.values())


def file_bytes(made: Layout) -> int:
    """Size of a file, axes included, without its few kilobytes of structure."""
    total = 0
    for array, shape in made.shapes.items():
        total += math.prod(shape) * np.dtype(made.dtype(array)).itemsize
        total += 8 * shape[1] + (shape[0] if made.kind == "truth" else 0)
    if made.kind == "observations":
        total += sum(8 * made.task.steps(split) for split in ("test", "climate"))
    return total


def write_structure(made: Layout, seed: int, path: Path, values: Callable[[str], np.ndarray] | None = None) -> None:
    """Write a file with all its axes and attributes, and with the ``values`` of each split or room for them."""
    task, kind, system = made.task, made.kind, made.task.system
    with netcdf.writer(path, made.header(seed)) as file:
        for split in made.splits:
            array, group = made.array(split), file.create_group(split, track_order=True)
            shape, row = made.shapes[array], "trajectory" if split in layout.TRAINING else "case"
            column = netcdf.Column(group, "time", ("time",), shape[1:2], "f8", layout.time_units(split))
            last = 0 if split in layout.TRAINING else task.context - 1
            for begun in range(0, shape[1], AXIS):
                column.append((np.arange(begun, min(begun + AXIS, shape[1])) - last) * system.sample_interval)
            if kind == "truth":
                codes = {"flag_meanings": " ".join(system.starts)}
                starts = np.arange(shape[0]) % len(system.starts)
                netcdf.Column(group, "start", (row,), shape[:1], "i1", codes).append(starts)
            elif split not in layout.TRAINING:
                units = {"units": f"{layout.UNITS} after the last context sample: forecast these"}
                lead = np.array(task.leads(split)) * system.sample_interval
                netcdf.Column(group, "lead_time", ("lead_time",), lead.shape, "f8", units).append(lead)
            name, dims = array.split("/")[1], (row, "time", *system.dimension_names)
            column = netcdf.Column(group, name, dims, shape, made.dtype(array), layout.noise_attributes(made))
            if values is None:
                column.allocate()
            else:
                column.append(values(split))


def write_context_file(task: Task, data: Path, path: Path) -> None:
    """Write contexts and the lead times asked for, alone: what another framework needs to make a forecast."""
    loaded = dataset.load(task, data)
    made = Layout(task, "contexts")
    write_structure(made, int(loaded.seed), path, lambda split: loaded.context(split).numpy())


def write_file(
    made: Layout,
    seed: int,
    path: Path,
    truth: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    device: str = "cpu",
    make: Callable[[Block], bytes] | None = None,
) -> None:
    """Write the truth, or the observations of the file ``truth``, to ``path``; go on where a partial file ends.

    A truth that is not the one that its hashes say raises :class:`EmubenchError`, before anything is made of it.
    ``make`` writes a block and returns the hashes of its rows: :func:`run_block` if not given.
    """
    make = make or run_block
    with Partial(path, made.header(seed), made.shapes) as partial:
        if path.exists():  # another process was faster, perhaps with another seed
            dataset.open_file(path, made.kind, made.task, seed).close()
            return
        if truth is not None:
            with hdf5.open_plain(truth) as file:
                for name in Layout(made.task, "truth").shapes:
                    hdf5.check_hash(truth, file, name)
        offsets = partial.open(lambda p: write_structure(made, seed, p))
        left = [
            block
            for block in blocks(made, seed, partial.file, truth, device)
            if not partial.done.issuperset((block.array, row) for row in block.rows[::LANES])
        ]
        todo = (replace(block, offset=offsets[block.array]) for block in left)
        done = n_blocks(made, device) - len(left)
        if made.kind == "truth" and device != "cpu":
            workers = 1  # one process holds the device
        with closing(_results(make, todo, workers)) as results:
            for block, digests in results:
                for row in range(0, block.n_rows, LANES):
                    partial.record(block.array, block.first + row, digests[32 * row : 32 * (row + LANES)])
                done += 1
                if progress:
                    progress(done)
        partial.finish()


def _results(
    make: Callable[[Block], bytes], jobs: Iterator[Block], workers: int
) -> Generator[tuple[Block, bytes], None, None]:
    """Finished jobs in any order; few are handed out ahead, however many there are."""
    if workers <= 1:
        yield from ((job, make(job)) for job in jobs)
        return
    with worker_pool(workers) as pool:
        running: dict[Future[bytes], Block] = {}
        try:
            while True:
                for job in islice(jobs, 2 * workers - len(running)):
                    running[pool.submit(make, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            why = 'of too little memory, or in a script for want of `if __name__ == "__main__":`'
        raise EmubenchError(f"a worker process died, perhaps {why}; run it again to go on") from None


# --- a task -----------------------------------------------------------------------------------------------------------


def generate(
    task: TaskLike,
    data: Path | str = "data",
    seed: int = 0,
    workers: int | None = 1,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Make the task's observations and, unless they are there, its system's truth; return the files written.

    They lie below the folder ``data`` as ``<size>/<task>.h5`` and ``<size>/<system>.truth.h5``; files that are there
    are kept, and interrupted ones are gone on with. ``task`` is a task, or the name or recipe of one at standard size.
    ``workers`` processes compute and write at the same time; ``None``: one per usable core if it is worth it. On
    another ``device`` than "cpu" the truth is the same up to rounding: a faithful rebuild, not identical bytes.

    Raises :class:`EmubenchError` where the disk is too small, or a file that is there is of another task or seed.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> [path.name for path in emubench.generate(task)]
    ['lorenz63.truth.h5', 'lorenz63-noisy.h5']
    >>> emubench.generate(task)    # everything is there already
    []
    """
    check_device(device, torch.float64)
    check_seed(seed)
    data = Path(data)
    task = recipes.resolve(task, data=data)
    truth, path = layout.truth_path(task, data), layout.task_path(task, data)
    missing: dict[Path, Layout] = {}
    for file, kind in ((truth, "truth"), (path, "observations")):
        if file.exists():
            dataset.open_file(file, kind, task, seed).close()
        else:
            missing[file] = Layout(task, kind)
    needed = sum(map(file_bytes, missing.values()))
    begun = [file for file in map(store.partial_name, missing) if file.exists()]
    store.check_space(path.parent, int(1.02 * needed) - sum(512 * file.stat().st_blocks for file in begun))
    if workers is None:
        workers = usable_cores() if needed > SMALL else 1
    before, total = 0, sum(n_blocks(made, device) for made in missing.values())
    for file, made in missing.items():

        def advance(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        write_file(made, seed, file, None if file == truth else truth, workers, advance, device)
        before += n_blocks(made, device)
    return list(missing)
