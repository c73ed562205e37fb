"""A file that can't be read is answered with the true cause: what the system says is never called damage."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from torch import nn

from emubench.core.errors import EmubenchError, Unreadable
from emubench.data import generation, layout, partial, tasks
from emubench.emulator import load_weights
from emubench.files import hdf5

TASK = tasks.get("lorenz63-clean", "tiny")


@pytest.fixture
def array(tmp_path) -> Path:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    return path


def test_the_true_cause_of_a_locked_file(array):
    with array.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Unreadable, match="temporarily unavailable.*: another process is writing it"):
            hdf5.open_plain(array)
    hdf5.open_plain(array).close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOLCK, r"\(No locks available\).*HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.ENOSYS, "HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.EACCES, r"\(Permission denied\)$"),
        (errno.EIO, r"\(Input/output error\)$"),
        (errno.ESTALE, r"\(Stale file handle\)$"),
    ],
)
def test_the_true_cause_is_that_of_the_error_number(array, monkeypatch, number, words):
    """As h5py raises it, which takes the number out of what HDF5 says."""

    def fails(*_):
        raise OSError(number, f"Unable to synchronously open file (unable to lock file, errno = {number})")

    monkeypatch.setattr(h5py, "File", fails)
    with pytest.raises(Unreadable, match=f"^{re.escape(str(array))}: cannot be read .*{words}"):
        hdf5.open_plain(array)


def test_the_true_cause_of_damage_is_damage(array):
    array.write_bytes(array.read_bytes()[:1000])
    with pytest.raises(EmubenchError, match="not a whole HDF5 file") as error:
        hdf5.open_plain(array)
    assert not isinstance(error.value, Unreadable)


def interrupt(*_: int) -> None:
    raise KeyboardInterrupt


def test_the_true_cause_leaves_finished_blocks_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "WORTH_KEEPING", 0.0)
    with pytest.raises(KeyboardInterrupt):
        generation.generate(TASK, tmp_path, progress=interrupt)
    before = {path: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    assert sorted(path.suffix for path in before) == [".journal", ".partial"]
    (grown,) = (path for path in before if path.suffix == ".partial")
    with grown.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Unreadable, match="another process is writing it"):
            generation.generate(TASK, tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == before
    done: list[int] = []
    generation.generate(TASK, tmp_path, progress=lambda n, _: done.append(n))
    assert done[0] == 2  # the first block was there


def test_the_true_cause_of_storage_without_locks_names_the_file(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(partial.fcntl, "flock", fails)
    with pytest.raises(Unreadable, match=r"lorenz63\.truth\.h5\.journal: .*No locks.*HDF5_USE_FILE_LOCKING=FALSE"):
        generation.generate(TASK, tmp_path)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    assert len(generation.generate(TASK, tmp_path)) == 2


def test_the_true_cause_of_truth_that_is_locked(tmp_path):
    generation.generate(TASK, tmp_path)
    truth = tmp_path / "tiny" / "lorenz63.truth.h5"
    block = next(generation.blocks(layout.Layout(TASK, "observations"), 0, tmp_path / "o", truth))
    block.path.touch()
    with truth.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Unreadable, match="truth.h5: .*another process is writing it"):
            generation.run_block(block)


def test_the_true_cause_of_weights_that_cannot_be_opened(tmp_path):
    with pytest.raises(Unreadable, match="No such file"):
        load_weights(nn.Linear(1, 1), tmp_path / "model.safetensors")
    with pytest.raises(Unreadable, match="Is a directory"):
        load_weights(nn.Linear(1, 1), tmp_path)


def test_the_true_cause_of_a_forecast_that_is_missing_or_no_run(refused, own_data, tmp_path):
    asked = ("--task", "lorenz63-noisy", "--size", "tiny", "--data", own_data)
    assert "no.npz: cannot be read (No such file or directory)" in refused("score", "--forecast", "no.npz", *asked)
    np.savez(tmp_path / "f.npz", test=np.zeros(1))
    line = refused("compare", tmp_path / "f.npz")
    assert f"a file, where a folder of runs belongs; scores of a forecast: emubench score --forecast {tmp_path}" in line
