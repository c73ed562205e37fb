"""Files that are complete under their name or not there at all, and the hashes of what they hold."""

import fcntl
import hashlib
import io
import json
import lzma
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emubench.core.errors import EmubenchError

DIGEST, OWN_DIGEST, HEADER_DIGEST = "sha256", "attributes_sha256", "header_sha256"
"""Names of the hashes of an array, of an array's attributes and of a file's."""


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process has, on whatever machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")


def is_litter(path: Path) -> bool:
    """Whether a file or folder goes by a :func:`temporary_name`: it is being made, or was left by a process killed."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def sweep(path: Path) -> None:
    """Remove what processes of this machine that were killed have left beside ``path`` (see :func:`temporary_name`)."""
    for left in path.parent.glob(f".{path.name}.{socket.gethostname()}-*.partial"):
        pid = left.name.removesuffix(".partial").rpartition("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError) as error:
        return isinstance(error, PermissionError)  # it is somebody else's
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone, so that what is looked up in it stays true until it is acted on; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it on success and removed on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def partial_name(path: Path) -> Path:
    """Where the file ``path`` grows, if it is one that an interrupt may leave to be resumed."""
    return path.with_name(f".{path.name}.partial")


def journal_name(path: Path) -> Path:
    """The list of the finished blocks of :func:`partial_name`."""
    return path.with_name(f".{path.name}.journal")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_packed(path: Path, content: Any) -> None:
    """Write JSON compressed with xz, atomically; equal content gives equal bytes by one version of xz.

    What repeats, such as the truth of a system's four tasks, stands farther apart than the 32 KiB that gzip looks back.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_bytes(lzma.compress(text.encode("utf-8"), preset=6 | lzma.PRESET_EXTREME))


def check_space(folder: Path, n_bytes: int) -> None:
    """Raise :class:`EmubenchError` unless ``n_bytes`` fit on the disk of ``folder``."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise EmubenchError(f"{folder}: {n_bytes:,} bytes are needed and {free:,} are free; choose another --data")


class ArrayHash:
    """SHA-256 of an array as the hash of the hashes of its rows (first axis), so that it can be streamed.

    Rows count as little-endian bytes in C order.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, rows: np.ndarray) -> None:
        """Add rows ``"R ..."`` in order."""
        little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        for row in little:
            self._digest.update(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest())

    def update_long(self, pieces: Iterable[np.ndarray]) -> None:
        """Add one row that comes piece by piece."""
        row = hashlib.sha256()
        for piece in pieces:
            row.update(np.ascontiguousarray(piece, dtype=piece.dtype.newbyteorder("<")).tobytes())
        self._digest.update(row.digest())

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._digest.hexdigest()


def attributes_hash(attributes: dict[str, Any]) -> str:
    """SHA-256 of the attributes of a file or of an array, so that an edited one is noticed."""
    plain = {k: np.ravel(v).tolist() for k, v in attributes.items() if k not in (HEADER_DIGEST, DIGEST, OWN_DIGEST)}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Sink(io.FileIO):
    """A file, new unless ``mode`` says otherwise, that raises its first failure, such as a full disk.

    What is written to it afterwards is dropped, for HDF5 crashes on a file that it can't flush: this one can always be
    closed, to be removed.
    """

    failure: OSError | None = None

    def __init__(self, path: Path, mode: str = "w+") -> None:
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.failure is None:
            try:
                rest = rest[super().write(rest) or 0 :]
            except OSError as error:
                self.failure = error
                raise
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            return super().truncate(size) if self.failure is None else size or 0
        except OSError as error:
            self.failure = error
            raise


def file_hash(dataset: h5py.Dataset) -> str:
    """The hash of a stored array, read a few rows at a time, or a stretch of one where rows are long."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    digest = ArrayHash()
    if row_bytes > 2**26 and dataset.ndim > 1:
        piece = max(1, 2**24 * dataset.shape[1] // row_bytes)
        for row in range(dataset.shape[0]):
            digest.update_long(dataset[row, t : t + piece] for t in range(0, dataset.shape[1], piece))
        return digest.hexdigest()
    block = max(1, 2**24 // row_bytes)
    for start in range(0, dataset.shape[0], block):
        digest.update(dataset[start : start + block])
    return digest.hexdigest()


def combine(digests: list[str]) -> str:
    """One hash of several."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()
