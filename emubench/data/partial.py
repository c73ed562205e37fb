"""A dataset file that grows under a hidden name, with a journal of its finished blocks, so that it can be resumed."""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import h5py

from emubench.core.errors import LOCKING, NO_LOCKS, EmubenchError, Unreadable, clean, unreadable
from emubench.core.workers import check_started
from emubench.files import hdf5, store

WORTH_KEEPING = 10.0
"""Seconds of work under which an interrupt leaves nothing behind: it is sooner done anew."""
SLICE = 2**24
"""Bytes that are hashed at a time."""


class Partial:
    """``.<name>.partial`` beside ``path``; a context that holds a lock, so that two processes never write one file.

    A fault removes what was made, an interrupt keeps it for the next run if it took long enough, and :meth:`finish`
    gives it its name.
    """

    def __init__(self, path: Path, header: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        self.path, self.file, self.journal = path, store.partial_name(path), store.journal_name(path)
        self.done: set[tuple[str, int]] = set()
        """The finished blocks, by array and first row."""
        self._shapes, self._rows = shapes, {name: bytearray(32 * shape[0]) for name, shape in shapes.items()}
        layout = {name: list(shape) for name, shape in shapes.items()}
        self._title = json.dumps({"header": store.attributes_hash(header), "shapes": layout}, sort_keys=True)
        self._lock: TextIO
        self._begun, self._earlier = time.monotonic(), 0.0

    def __enter__(self) -> "Partial":
        check_started()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._lock = self.journal.open("a+", encoding="utf-8", errors="replace")
            self._take_lock()
            with suppress(FileNotFoundError):
                if os.fstat(self._lock.fileno()).st_ino == self.journal.stat().st_ino:
                    return self
            self._lock.close()  # whoever held it has finished and removed it

    def _take_lock(self) -> None:
        """Wait for the lock, and say whom for; storage without locks is refused unless the environment asks for none.

        A second writer would spoil the file.
        """
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{self.path}: waiting for {_holder(self._lock)}, which writes it", file=sys.stderr, flush=True)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS or os.environ.get(LOCKING, "").upper() not in ("FALSE", "0"):
                self._lock.close()
                raise unreadable(self.journal, error) from None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        keep = error is not None and not isinstance(error, EmubenchError | OSError) and bool(self.done)
        worth = keep and self._earlier + time.monotonic() - self._begun >= WORTH_KEEPING
        if not worth and not isinstance(error, Unreadable):  # which says nothing of the blocks that are done
            self.file.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)
        self._lock.close()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise EmubenchError(f"{self.path}: cannot be written ({reason}); nothing was left behind") from None

    def open(self, structure: Callable[[Path], None]) -> dict[str, int]:
        """Offsets of the arrays in the partial file: that of an interrupted run, or a new one by ``structure``."""
        self._lock.seek(0)
        lines = self._lock.read().splitlines()
        if lines and lines[0] == self._title and self.file.exists():
            try:
                return self._resume(lines[1:])
            except Unreadable:
                raise
            except OSError as error:
                raise unreadable(self.file, error) from None
            except (EmubenchError, ValueError, KeyError, TypeError):  # damaged: begin anew
                self.done.clear()
        self._lock.truncate(0)
        structure(self.file)  # before the title, which vouches for it: what lies there may be broken
        self._lock.write(self._title + "\n")
        self._lock.flush()
        return self._offsets()

    def _offsets(self) -> dict[str, int]:
        with hdf5.open_plain(self.file) as file:
            arrays: dict[str, Any] = {name: file[name] for name in self._shapes}
            assert all(arrays[name].shape == shape for name, shape in self._shapes.items())
            self._row_bytes = {name: array.nbytes // len(array) for name, array in arrays.items()}
            return {name: array.id.get_offset() for name, array in arrays.items()}

    def _resume(self, lines: list[str]) -> dict[str, int]:
        """Take over the blocks whose rows have the hashes that the journal says."""
        offsets = self._offsets()
        with self.file.open("rb") as source:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line, cut off
                    continue
                name, first, digests = entry["array"], entry["first"], bytes.fromhex(entry["digests"])
                self._earlier, size = max(self._earlier, entry["seconds"]), self._row_bytes[name]
                source.seek(offsets[name] + first * size)
                if all(_hash(source, size) == digests[i : i + 32] for i in range(0, len(digests), 32)):
                    self._remember(name, first, digests)
        return offsets

    def _remember(self, array: str, first: int, digests: bytes) -> None:
        self.done.add((array, first))
        self._rows[array][32 * first : 32 * first + len(digests)] = digests

    def record(self, array: str, first: int, digests: bytes) -> None:
        """Note a finished block."""
        self._remember(array, first, digests)
        seconds = round(self._earlier + time.monotonic() - self._begun, 3)
        entry = {"array": array, "first": first, "seconds": seconds, "digests": digests.hex()}
        self._lock.write(json.dumps(entry) + "\n")
        self._lock.flush()

    def finish(self) -> None:
        """Store the hashes of the arrays and give the file its name."""
        self._lock.seek(0)
        self._lock.truncate(0)  # from here on an interrupt may leave a broken structure: such a file is not resumed
        with store.Sink(self.file, "r+") as sink, h5py.File(sink, "r+") as file:
            for name, rows in self._rows.items():
                file[name].attrs[store.DIGEST] = hashlib.sha256(rows).hexdigest()
        os.replace(self.file, self.path)


def _holder(file: TextIO) -> str:
    """Who holds the lock of an open file, where the system tells it."""
    inode = f":{os.fstat(file.fileno()).st_ino}"
    with suppress(OSError, ValueError):
        for words in map(str.split, Path("/proc/locks").read_text().splitlines()):
            if words[1] == "FLOCK" and words[5].endswith(inode) and int(words[4]) > 0:
                command = Path("/proc", words[4], "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {words[4]} ({clean(command.strip())[:100]})"
    return "a process that this machine doesn't know"


def _hash(source: Any, n_bytes: int) -> bytes:
    digest = hashlib.sha256()
    while n_bytes > 0 and (piece := source.read(min(SLICE, n_bytes))):
        digest.update(piece)
        n_bytes -= len(piece)
    return digest.digest()
