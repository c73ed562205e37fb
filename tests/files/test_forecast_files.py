"""Forecasts made elsewhere: only plain floating-point arrays of the right shape get in; the rest gets one line."""

from __future__ import annotations

import io
import re
import zipfile

import h5py
import numpy as np
import pytest

from emubench.data import tasks
from tests.support.contents import contents
from tests.support.hostile import Explosive

TASK = "lorenz63-partial"
SHAPES = {"test": (1, 16, 442, 1), "climate": (1, 8, 4416, 1)}


def arrays(**changed: np.ndarray | None) -> dict[str, np.ndarray]:
    """A forecast of zeros, with some splits replaced or (None) left out."""
    both = {split: np.zeros(shape) for split, shape in SHAPES.items()} | changed
    return {split: values for split, values in both.items() if values is not None}


def write(path, forecast: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **forecast)
        return
    with h5py.File(path, "w") as file:
        for split, values in forecast.items():
            file[f"{split}/forecast"] = values


@pytest.fixture
def refused_forecast(refused, data, tmp_path):
    """Offer a file to ``score --forecast``, to be refused in one line that names it; return that line."""

    def offer(path, task: str = TASK) -> str:
        before = contents(tmp_path)
        line = refused("score", "--forecast", path, "--task", task, "--size", "tiny", "--data", data)
        assert str(path) in line
        assert contents(tmp_path) == before
        return line

    return offer


def test_the_shapes_here_are_the_task_s():
    task = tasks.get(TASK, "tiny")
    assert {s: (1, task.cases(s), task.steps(s), *task.shape) for s in ("test", "climate")} == SHAPES


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test": np.zeros((16, 442, 1))}, r"shape \(16, 442, 1\) where \(1, 16, 442, 1\) belongs"),
        ({"test": np.zeros((1, 16, 442, 3))}, r"shape \(1, 16, 442, 3\) where \(1, 16, 442, 1\) belongs"),
        ({"test": np.zeros((1, 15, 442, 1))}, r"shape \(1, 15, 442, 1\) where \(1, 16, 442, 1\) belongs"),
        ({"climate": np.zeros((5, 8, 4416, 1))}, r"shape \(5, 8, 4416, 1\) where \(1, 8, 4416, 1\) belongs"),
        ({"climate": np.zeros((0, 8, 4416, 1))}, r"shape \(0, 8, 4416, 1\) where \(1, 8, 4416, 1\) belongs"),
        ({"climate": np.zeros(())}, r"shape \(\) where \(1, 8, 4416, 1\) belongs"),
        ({"climate": None}, r"the forecast of split climate is missing \(shape \(1, 8, 4416, 1\)\)"),
        ({"test": None, "climate": None}, "the forecast of split test is missing"),
        ({"test": np.zeros(SHAPES["test"], int)}, "type int64 where float32 or float64 belongs"),
        ({"test": np.zeros(SHAPES["test"], np.float16)}, "type float16 where float32 or float64 belongs"),
        ({"test": np.zeros(SHAPES["test"], np.longdouble)}, "type float128 where float32 or float64 belongs"),
        ({"test": np.zeros(SHAPES["test"], complex)}, "type complex128"),
        ({"test": np.zeros(SHAPES["test"], bool)}, "type bool"),
        ({"test": np.zeros(SHAPES["test"], "S3")}, r"type \|S3"),
    ],
)
def test_a_forecast_of_the_wrong_shape_or_type_is_refused(refused_forecast, tmp_path, suffix, changed, message):
    path = tmp_path / f"f{suffix}"
    write(path, arrays(**changed))
    line = refused_forecast(path)
    assert re.search(message, line), line


def test_both_shapes_are_named_of_an_ensemble(refused_forecast, tmp_path):
    write(tmp_path / "f.h5", {"test": np.zeros((8, 16, 128, 256), "f4")})
    line = refused_forecast(tmp_path / "f.h5", "kpz-noisy")
    assert "shape (8, 16, 128, 256) where (16, 16, 128, 256) belongs" in line


# --- HDF5 that is more than plain arrays ------------------------------------------------------------------------------


def soft_link(file) -> None:
    file["test/forecast"] = h5py.SoftLink("/climate/forecast")


def external_link(file) -> None:
    file["test/forecast"] = h5py.ExternalLink("/etc/passwd", "/forecast")


def virtual_array(file) -> None:
    layout = h5py.VirtualLayout(SHAPES["test"], "f8")
    layout[...] = h5py.VirtualSource("other.h5", "forecast", shape=SHAPES["test"])
    file.create_virtual_dataset("test/forecast", layout)


def external_storage(file) -> None:
    file.create_dataset("test/forecast", SHAPES["test"], "f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def objects(file) -> None:
    file.create_dataset("test/forecast", data=np.array(["a", "b"], object), dtype=h5py.string_dtype())


def references(file) -> None:
    file.create_dataset("test/forecast", (3,), dtype=h5py.ref_dtype)


def records(file) -> None:
    file.create_dataset("test/forecast", (3,), dtype=[("x", "f8"), ("y", "f8")])


def foreign_filter(file) -> None:
    file.create_dataset("test/forecast", data=np.zeros(SHAPES["test"]), compression="lzf")


def named_type(file) -> None:
    file["test/forecast"] = np.dtype("f8")


def a_group(file) -> None:
    file.create_group("test/forecast")


def an_array_for_a_group(file) -> None:
    file["test"] = np.zeros(SHAPES["test"])


def a_bomb(file) -> None:
    file.create_dataset("test/more", (2**40,), "f8", chunks=(2**20,), compression="gzip")


def a_cycle(file) -> None:
    file["test/loop"] = file["/climate"]
    file["climate/loop"] = file["/test"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft_link, "/test/forecast: links are refused; store the array itself"),
        (external_link, "/test/forecast: links are refused; store the array itself"),
        (virtual_array, "/test/forecast: virtual and external arrays are refused"),
        (external_storage, "/test/forecast: virtual and external arrays are refused"),
        (objects, "/test/forecast: type object is refused; numbers only"),
        (references, "/test/forecast: type object is refused; numbers only"),
        (records, "/test/forecast: type .* is refused; numbers only"),
        (foreign_filter, "/test/forecast: filter .*lzf.* is refused; use gzip or none"),
        (named_type, "/test/forecast: only groups and arrays are allowed"),
        (a_group, "the forecast of split test is missing"),
        (an_array_for_a_group, "the forecast of split test is missing"),
        (a_bomb, r"/test/more: shape \(1099511627776,\) exceeds 64 GiB"),
        (a_cycle, "groups are nested too deeply"),
    ],
)
def test_hdf5_that_reaches_beyond_itself_is_refused(refused_forecast, tmp_path, spoil, message):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["climate/forecast"] = np.zeros(SHAPES["climate"])
        spoil(file)
    line = refused_forecast(path)
    assert re.search(message, line), line


@pytest.mark.parametrize("name", ["f.h5", "f.nc", "f.txt", "f.npz"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_of_something_else_is_refused(refused_forecast, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert re.search("not a whole (HDF5|npz) file", refused_forecast(tmp_path / name))


def test_a_forecast_that_is_not_there_is_refused(refused_forecast, tmp_path):
    assert "no such file" in refused_forecast(tmp_path / "f.h5").lower()
    assert "no such file" in refused_forecast(tmp_path / "f.npz").lower()


# --- npz --------------------------------------------------------------------------------------------------------------


def test_a_pickle_is_refused_unopened(refused_forecast, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "f.npz"
    np.savez(path, test=np.full(SHAPES["test"], Explosive(mark)), climate=np.zeros(SHAPES["climate"]))
    assert "type object" in refused_forecast(path)
    assert not mark.exists()
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros(SHAPES["test"]))
    header = buffer.getvalue().replace(b"'descr': '<f8'", b"'descr': '|O' ")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test.npy", header)
    assert "type object" in refused_forecast(path)


def test_a_damaged_npz_is_refused_wherever_it_is_cut_or_flipped(refused_forecast, tmp_path):
    path, rng = tmp_path / "f.npz", np.random.default_rng(0)
    np.savez_compressed(path, **{s: rng.normal(size=shape).astype("f4") for s, shape in SHAPES.items()})
    whole = path.read_bytes()
    for n in rng.integers(len(whole), size=12):
        path.write_bytes(whole[:n])
        refused_forecast(path)
    for n in rng.integers(200, len(whole) - 200, size=12):  # within the compressed arrays
        path.write_bytes(whole[:n] + bytes([whole[n] ^ 0xFF]) + whole[n + 1 :])
        refused_forecast(path)


def test_an_npz_that_promises_more_than_it_holds_is_refused(refused_forecast, tmp_path):
    path, buffer = tmp_path / "f.npz", io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros(SHAPES["test"]))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test.npy", buffer.getvalue()[:-800])
    assert "not a whole npz file" in refused_forecast(path)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4"])
def test_either_byte_order_and_precision_is_read(emubench, data, tmp_path, suffix, dtype):
    write(tmp_path / f"f{suffix}", {s: v.astype(dtype) for s, v in arrays().items()})
    finished = emubench(
        "score", "--forecast", tmp_path / f"f{suffix}", "--task", TASK, "--size", "tiny", "--data", data
    )
    assert finished.status == 0
    assert "valid_prediction_time" in finished.out
