"""Fresh files verify, and the hashes that they hold are those of their rows."""

from __future__ import annotations

import hashlib

import h5py
import pytest

from emubench.data import layout, tasks, verification

# --- what is in the files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.names())
def test_every_fresh_file_verifies(data, name):
    task = tasks.get(name, "tiny")
    assert len(verification.verify(layout.task_path(task, data))) == 10
    assert len(verification.verify(layout.truth_path(task, data))) == 12


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["lorenz63-noisy.h5", "lorenz96.truth.h5", "kpz-scarce.h5"])
def test_stored_hashes_are_those_of_the_rows(data, file):
    n = 0
    with h5py.File(data / "tiny" / file) as source:
        for group in source.values():
            for array in (v for v in group.values() if "sha256" in v.attrs):
                values = array[()]
                rows = [values[i].astype(values.dtype.newbyteorder("<")).tobytes() for i in range(len(values))]
                by_hand = hashlib.sha256(b"".join(hashlib.sha256(row).digest() for row in rows)).hexdigest()
                assert array.attrs["sha256"] == by_hand
                n += 1
    assert n in (10, 12)
