"""Weights and forecasts of a submission: hostile files are refused in one line, and nothing is executed."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from emubench.core.errors import EmubenchError
from emubench.files import safetensors_header
from emubench.leaderboard.submission import entries
from tests.support.hostile import Explosive
from tests.support.submissions import TASK, forecast_entry, sign_again

SEED = f"{TASK}/seed-0"


# --- safetensors ------------------------------------------------------------------------------------------------------


def tensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changed: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}


TWO = {"dtype": "F32", "shape": [2]}
BAD_TENSORS = {
    "2 GB header": (tensors({}, length=2**31), "header of 2147483648 bytes"),
    "endless header": (tensors({}, length=2**64 - 1), "header of 18446744073709551615 bytes"),
    "short": (b"abc", "not a whole safetensors file"),
    "cut": (tensors(one(), length=900), "not a whole safetensors file"),
    "not JSON": (tensors(b"{'w': 1}"), "not valid JSON"),
    "not UTF-8": (tensors(b'{"\xff": 1}'), "not valid JSON"),
    "nested": (tensors(b"[" * 100_000), "not valid JSON"),
    "a list": (tensors([1]), "a table of"),
    "twice": (tensors(b'{"w": {}, "w": {}}'), "a key stands twice"),
    "path": (tensors({"../../w": one()["w"]}, bytes(8)), "a name of letters"),
    "overlap": (
        tensors({"a": TWO | {"data_offsets": [0, 8]}, "b": TWO | {"data_offsets": [4, 12]}}, bytes(12)),
        "tensors a and b overlap",
    ),
    "gap": (tensors(one(data_offsets=[8, 16]), bytes(16)), "8 bytes before tensor w belong to none"),
    "beyond": (tensors(one(), bytes(4)), "bytes, where the tensors end at"),
    "more": (tensors(one(), bytes(12)), "bytes, where the tensors end at"),
    "backwards": (tensors(one(data_offsets=[8, 0]), bytes(8)), "data_offsets [8, 0] of -8 bytes"),
    "negative": (tensors(one(shape=[-2]), bytes(8)), "lists of integers from 0 on"),
    "bool shape": (tensors(one(shape=[True, True]), bytes(8)), "lists of integers from 0 on"),
    "huge shape": (tensors(one(shape=[10**12]), bytes(8)), "where shape [1000000000000] needs 4000000000000"),
    "dtype": (tensors(one(dtype="PICKLE"), bytes(8)), "dtype 'PICKLE', where one of"),
    "key": (tensors(one(code="x"), bytes(8)), "and nothing else"),
    "metadata": (tensors(one() | {"__metadata__": {"a": 1}}, bytes(8)), "__metadata__: a table of strings belongs"),
    "metadata list": (tensors(one() | {"__metadata__": ["a"]}, bytes(8)), "__metadata__: a table of strings belongs"),
    "empty and huge": (tensors(one(shape=[0, 2**47, 2**47], data_offsets=[0, 0])), "whose strides no tensor can have"),
    "empty and wide": (tensors(one(shape=[0, 2**47, 2], data_offsets=[0, 0])), "whose strides no tensor can have"),
    "NaN": (tensors(one(), struct.pack("<2f", 1, np.nan)), "tensor w: 1 of 2 values are not finite"),
    "infinite": (tensors(one(), struct.pack("<2f", -np.inf, np.inf)), "tensor w: 2 of 2 values are not finite"),
    "infinite half": (tensors(one(dtype="BF16", data_offsets=[0, 4]), b"\x80\x3f\x80\x7f"), "1 of 2 values"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_hostile_weights_are_refused(faults, sound_entry, case):
    content, message = BAD_TENSORS[case]
    (sound_entry / SEED / "model.safetensors").write_bytes(content)
    sign_again(sound_entry)
    (line,) = faults(sound_entry)
    assert "model.safetensors: " in line
    assert message in line


def test_a_file_of_several_names_is_refused(faults, sound_entry, tmp_path):
    os.link(sound_entry / "cards.json", tmp_path / "elsewhere.json")
    assert "cards.json: a file of several names (hard links)" in faults(sound_entry)[0]


@pytest.mark.parametrize("name", [".git", "lorenz63-noisy/seed-7"])
def test_an_empty_folder_is_refused(faults, sound_entry, name):
    (sound_entry / name).mkdir()
    assert any(f"mine/{name}: an empty folder" in line for line in faults(sound_entry))


def test_no_more_empty_folders_are_looked_at_than_files_may_be_there(faults, sound_entry):
    for i in range(3000):
        (sound_entry / f"{i}").mkdir()
    assert len(found := faults(sound_entry)) < 2100
    assert any("more than 2000 files" in line for line in found)


def test_weights_of_another_run_are_told_by_the_hash_in_the_card(faults, sound_entry):
    path = sound_entry / SEED / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    sign_again(sound_entry)
    (line,) = faults(sound_entry)
    assert "not this run's weights" in line


def test_the_header_is_read_as_the_library_wrote_it(tmp_path):
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.normal(size=(3, 4)).astype("f4"),
        "b": rng.normal(size=(2, 0, 5)),
        "c": np.arange(6, dtype="i8"),
        "d": np.array([True, False]),
        "e": np.array(2.0, dtype="f2"),
    }
    save_file(arrays, path, metadata={"format": "np"})
    found = safetensors_header.read_header(path)
    assert {name: t.shape for name, t in found.items()} == {name: a.shape for name, a in arrays.items()}
    for name, t in found.items():
        assert path.read_bytes()[t.begin : t.end] == arrays[name].tobytes()
    assert safetensors_header.n_floats(found) == 12 + 0 + 1
    safetensors_header.check_values(path, found)
    arrays["e"] = np.array(np.nan, dtype="f2")
    save_file(arrays, path)
    with pytest.raises(EmubenchError, match="tensor e: 1 of 1"):
        safetensors_header.check_values(path, safetensors_header.read_header(path))


def test_weights_damaged_anywhere_never_crash_the_reader(sound_entry):
    path, rng = sound_entry / SEED / "model.safetensors", np.random.default_rng(1)
    whole = path.read_bytes()
    n_header = int.from_bytes(whole[:8], "little")
    for _ in range(200):
        at, bit = int(rng.integers(8 + n_header)), 1 << int(rng.integers(8))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            found = safetensors_header.read_header(path)
        except EmubenchError:
            continue
        assert sum(t.end - t.begin for t in found.values()) == len(whole) - 8 - n_header


# --- forecasts --------------------------------------------------------------------------------------------------------

SHAPES = {split: (1, *shape[1:]) for split, shape in entries.asked().shapes["tiny"][TASK].items()}


def zeros(path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez_compressed(path, **{s: np.zeros(shape, "f4") for s, shape in SHAPES.items()})
    else:
        with h5py.File(path, "w") as file:
            for split, shape in SHAPES.items():
                file.create_dataset(f"{split}/forecast", data=np.zeros(shape, "f4"), compression="gzip")
    return path


def bomb(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("test/more", (2**40,), "f8", chunks=(2**20,), compression="gzip")


def link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["test/forecast"]
        file["test/forecast"] = h5py.ExternalLink("/etc/passwd", "/forecast")


def virtual(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["test/forecast"]
        layout = h5py.VirtualLayout(SHAPES["test"], "f4")
        layout[...] = h5py.VirtualSource("other.h5", "forecast", shape=SHAPES["test"])
        file.create_virtual_dataset("test/forecast", layout)


def external(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["test/forecast"]
        file.create_dataset("test/forecast", SHAPES["test"], "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def npz_bomb(path: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2,), "f4")) | {"shape": (1, 10**7, 10**6, 3)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("test.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(2**22))


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_a_sound_forecast_passes(emubench, sound_entry, tmp_path, suffix):
    folder = forecast_entry(tmp_path / "forecast-entry", sound_entry, zeros(tmp_path / f"f{suffix}"))
    assert emubench("submit", "check", folder).status == 0


@pytest.mark.parametrize(
    ("suffix", "spoil", "message"),
    [
        (".h5", bomb, "exceeds 64 GiB"),
        (".h5", link, "links are refused"),
        (".h5", virtual, "virtual and external arrays are refused"),
        (".h5", external, "virtual and external arrays are refused"),
        (".h5", lambda p: p.write_bytes(p.read_bytes()[:-500]), "not a whole HDF5 file"),
        (".npz", npz_bomb, r"shape (1, 10000000, 1000000, 3) where"),
        (".npz", lambda p: p.write_bytes(p.read_bytes()[:-500]), "not a whole npz file"),
    ],
)
def test_a_hostile_forecast_is_refused(faults, sound_entry, tmp_path, suffix, spoil, message):
    path = zeros(tmp_path / f"f{suffix}")
    spoil(path)
    lines = faults(forecast_entry(tmp_path / "entries" / "hostile", sound_entry, path))
    assert len(lines) == 1
    assert message in lines[0]


def test_a_pickle_in_a_forecast_is_never_opened(faults, sound_entry, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "f.npz"
    np.savez(path, test=np.full(SHAPES["test"], Explosive(mark)), climate=np.zeros(SHAPES["climate"]))
    lines = faults(forecast_entry(tmp_path / "entries" / "hostile", sound_entry, path))
    assert "type object" in lines[0]
    assert not mark.exists()
