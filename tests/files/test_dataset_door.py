"""Guards on every path: a dataset file passes the same door as a forecast file, whatever opens it."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest

from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks, verification
from emubench.data.loader import Windows, open_dataset
from emubench.evaluation import scoring

TASK = tasks.get("lorenz63-noisy", "tiny")


def replaced(path, name: str, **options) -> tuple[int, ...]:
    """Store an array anew, under its hash but with nothing in it; return its shape."""
    with h5py.File(path, "r+") as file:
        old = file[name]
        shape, dtype, digest = old.shape, old.dtype, old.attrs["sha256"]
        del file[name]
        file.create_dataset(name, shape, dtype, **options).attrs["sha256"] = digest
    return shape


def a_chunk_that_inflates_to_much_more(path, name: str) -> str:
    squeeze = zlib.compressobj(9)
    bomb = b"".join([*(squeeze.compress(bytes(2**24)) for _ in range(4)), squeeze.flush()])
    shape = replaced(path, name, chunks=h5py.File(path)[name].shape, compression="gzip")
    with h5py.File(path, "r+") as file:
        file[name].id.write_direct_chunk((0,) * len(shape), bomb)
    return "the chunk at"


def chunks_far_larger_than_the_array(path, name: str) -> str:
    shape = h5py.File(path)[name].shape
    replaced(path, name, chunks=(*shape[:-1], 10**6), maxshape=(None,) * len(shape))
    return "chunks of"


def more_numbers_than_the_file_could_hold(path, name: str) -> str:
    with h5py.File(path, "r+") as file:
        file.create_dataset("train/more", (2**28,), "f8")
    return "arrays of .* bytes in a file of so few"


READERS = {
    "verify": ("lorenz63-noisy.h5", "train/observation", lambda data, path: verification.verify(path)),
    "train": ("lorenz63-noisy.h5", "train/observation", lambda data, path: dataset.load(TASK, data)),
    "windows": ("lorenz63-noisy.h5", "train/observation", lambda data, path: Windows(TASK, 8, 8, data)),
    "view": ("lorenz63-noisy.h5", "test/context", lambda data, path: open_dataset(TASK, "test", data)),
    "score": ("lorenz63.truth.h5", "test/truth", lambda data, path: scoring.load_truth(TASK, data)),
}


@pytest.mark.parametrize(
    "spoil",
    [a_chunk_that_inflates_to_much_more, chunks_far_larger_than_the_array, more_numbers_than_the_file_could_hold],
)
@pytest.mark.parametrize("reader", READERS)
def test_a_dataset_file_takes_no_more_memory_than_it_says(own_data, reader, spoil):
    name, array, read = READERS[reader]
    path = own_data / "tiny" / name
    message = spoil(path, array)
    assert path.stat().st_size < 2**21
    with pytest.raises(EmubenchError, match=message) as error:
        read(own_data, path)
    assert str(error.value).startswith(f"{path}: /")


def test_a_dataset_that_was_compressed_since_is_read_all_the_same(own_data):
    path = own_data / "tiny" / "lorenz63-noisy.h5"
    wanted = dataset.load(TASK, own_data).train
    with h5py.File(path, "r+") as file:
        values, digest = file["train/observation"][()], file["train/observation"].attrs["sha256"]
        del file["train/observation"]
        file.create_dataset("train/observation", data=values, compression="gzip").attrs["sha256"] = digest
    assert np.array_equal(dataset.load(TASK, own_data).train, wanted, equal_nan=True)
