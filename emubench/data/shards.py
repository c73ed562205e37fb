"""A dataset made on many machines: each block of trajectories is a file of its own, all merged into the one at the end.

``.<file>.<hash>.shards/<split>-<first row>`` holds the rows of one block as they are stored, then their SHA-256. A
merged file has the bytes that one process would have written; then the shards are removed. There is no virtual
dataset over shards, for one that is missing would read as "not observed".
"""

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from io import FileIO
from pathlib import Path

from emubench.core.errors import EmubenchError
from emubench.data import generation, layout
from emubench.data.generation import Block, RowWriter
from emubench.data.layout import Layout
from emubench.data.partial import SLICE
from emubench.data.tasks import Task
from emubench.files import store


@dataclass(frozen=True)
class Target:
    """The file that shards are for: the truth or the observations of a task."""

    task: Task
    kind: str
    """``"truth"`` or ``"observations"``."""
    seed: int
    data: Path

    @cached_property
    def layout(self) -> Layout:
        """The layout of the merged file."""
        return Layout(self.task, self.kind)

    @property
    def path(self) -> Path:
        """Where the merged file lies."""
        return (layout.truth_path if self.kind == "truth" else layout.task_path)(self.task, self.data)

    @property
    def folder(self) -> Path:
        """Where its shards lie, until they are merged; those of other parameters or seeds lie elsewhere."""
        header = store.attributes_hash(self.layout.header(self.seed))
        return self.path.with_name(f".{self.path.name}.{header[:8]}.shards")

    @property
    def truth(self) -> Path | None:
        """The file that observations are made of."""
        return None if self.kind == "truth" else layout.truth_path(self.task, self.data)

    def blocks(self) -> list[Block]:
        """The blocks of the file, in order."""
        return list(generation.blocks(self.layout, self.seed, self.path, self.truth))

    def shard(self, array: str, first: int) -> Path:
        """Where the block of ``array`` that begins at row ``first`` lies."""
        return self.folder / f"{array.split('/')[0]}-{first}"


def write(target: Target, array: str, first: int) -> None:
    """Make one block and write it as a shard; raises :class:`EmubenchError` where it can't be written."""
    (block,) = (b for b in target.blocks() if (b.array, b.first) == (array, first))
    path = target.shard(array, first)
    try:
        with store.atomic(path) as temporary:
            temporary.touch()
            begins = -first * block.row_bytes  # the shard's first row is its first byte
            digests = generation.run_block(replace(block, path=temporary, offset=begins))
            with temporary.open("ab") as file:
                file.write(digests)
        if target.path.exists():  # another client has merged all shards meanwhile
            shutil.rmtree(target.folder, ignore_errors=True)
    except OSError as error:
        if not target.path.exists():  # else the same, and it has removed this one, too
            raise EmubenchError(f"{path}: cannot be written ({error.strerror or error})") from None


def merge(target: Target) -> None:
    """Put all shards into the one file, checking each row's hash, and remove them.

    A missing or damaged shard raises :class:`EmubenchError`; a damaged one is removed, to be made again.
    """
    path, made = target.path, target.layout
    if not path.exists():
        store.check_space(path.parent, generation.file_bytes(made))
        generation.write_file(made, target.seed, path, target.truth, make=lambda block: _copy(target, block))
    store.sweep(store.partial_name(path))
    shutil.rmtree(target.folder, ignore_errors=True)


def _copy(target: Target, block: Block) -> bytes:
    """Copy a shard into its place in the file; return the hashes of its rows."""
    shard = target.shard(block.array, block.first)
    if not shard.exists():
        raise EmubenchError(f"{shard}: this shard is missing; the same command makes it again")
    with shard.open("rb") as source, FileIO(block.path, "r+") as file:
        writer = RowWriter(file, block)
        for row in range(block.n_rows):
            for at in range(0, block.row_bytes, SLICE):
                writer.append_bytes(row, source.read(min(SLICE, block.row_bytes - at)))
        digests = source.read()
    if digests != writer.digests():
        shard.unlink(missing_ok=True)
        raise EmubenchError(f"{shard}: this shard is damaged and was removed; the same command makes it again")
    return digests
