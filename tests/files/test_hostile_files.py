"""Files that cost, crash or mislead their reader: each gets one clear line, within a little memory and time."""

from __future__ import annotations

import json
import lzma
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from itertools import pairwise

import h5py
import numpy as np
import pytest

from emubench.core.errors import EmubenchError
from emubench.files import hdf5, schema, store
from emubench.files.entry_files import CARDS, FIGURES, SCORES, TIMING
from emubench.leaderboard.page import building
from emubench.leaderboard.page.board import read
from emubench.leaderboard.submission import checks, entries
from emubench.runs import jobs
from emubench.runs.sandbox import trainee
from tests.support.submissions import TASK, edit_entry, sign_again

SHAPES = {split: (1, *shape[1:]) for split, shape in entries.asked().shapes["tiny"][TASK].items()}
WHOLE = SHAPES["test"]
N_BYTES = 4 * int(np.prod(WHOLE))


@pytest.fixture
def cheap():
    """What is done in this test takes seconds and some MiB at the most."""
    tracemalloc.start()
    begun = time.process_time()
    yield
    (_, peak), seconds = tracemalloc.get_traced_memory(), time.process_time() - begun
    tracemalloc.stop()
    assert peak < 2**26
    assert seconds < 20


# --- xz ---------------------------------------------------------------------------------------------------------------

XZ = lzma.compress(b'{"secret": "x"}')


def reaching_far_back() -> bytes:
    """A stream whose reader would have to hold 1 GiB."""
    return lzma.compress(b"{}", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole xz file"),
        (b"{}", "not a whole xz file"),
        (XZ[:-1], "not a whole xz file (cut"),
        (XZ + b"x", "not a whole xz file (cut, or followed by something else)"),
        (XZ[:20] + b"x" + XZ[21:], "not a whole xz file"),
        (lzma.compress(b"{}", lzma.FORMAT_ALONE), "not a whole xz file"),
        (lzma.compress(b"[" * 2**26), "holds more than 1048576 bytes"),
        (lzma.compress(b"[" * 2**19), "not valid JSON"),
        (lzma.compress(b'"\xff"'), "not valid JSON"),
        (b"\0" * 2**17, "larger than 65536 bytes"),
        (XZ, "secret: Extra inputs"),
        (reaching_far_back(), "not a whole xz file (Memory usage limit exceeded)"),
    ],
    ids=["empty", "no xz", "cut", "more", "damaged", "other", "bomb", "nested", "no text", "large", "key", "memory"],
)
def test_packed_files_are_bounded_and_checked(cheap, tmp_path, content, message):
    path = tmp_path / "x.json.xz"
    path.write_bytes(content)
    with pytest.raises(EmubenchError) as error:
        schema.read_json(schema.Model, path, 2**16, 2**20)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_what_was_packed_is_read_again(tmp_path):
    path, content = tmp_path / "x.json.xz", {"quantiles": [0.1, 1e-300, 1e300], "é": None}
    store.write_packed(path, content)
    assert json.loads(lzma.decompress(path.read_bytes())) == content
    before = path.read_bytes()
    store.write_packed(path, content)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="Out of range"):
        store.write_packed(path, [float("nan")])


# --- TOML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["a", "'.'", '"."', '"\\""', "a \t", "\u00e9"])
@pytest.mark.parametrize("form", ["{} = 1", "[{}]", "[[{}]]", "a = {{ {} = 1 }}"])
def test_a_key_of_very_many_parts_is_refused_unread(cheap, tmp_path, part, form):
    path = tmp_path / "x.toml"
    path.write_text(form.format(".".join([part] * 20_000)), encoding="utf-8")
    with pytest.raises(EmubenchError, match="not valid TOML .a key of more than 16 parts"):
        schema.read_toml(path, "entry")


@pytest.mark.parametrize("character", ["a", '"', "'", ".", " ", "\t", 'a"', '"\\', "a ", "a.", "\n"])
def test_looking_for_such_keys_takes_no_longer_than_reading(character):
    text, begun = character * (2**20 // len(character)), time.process_time()
    schema._LONG_KEY.search(text)
    assert time.process_time() - begun < 5


def test_text_with_dots_is_no_such_key(tmp_path):
    said = "see https://a.b.c.example.org/d.e.f, 1.2.3.4.5.6.7.8 ........................ and so on"
    (tmp_path / "x.toml").write_text(f'a.b."c.d".e = {json.dumps(said)}\n', encoding="utf-8")
    assert schema.read_toml(tmp_path / "x.toml", "entry") == {"a": {"b": {"c.d": {"e": said}}}}


def test_what_a_file_says_cannot_write_to_the_terminal(refused, emubench, sound_entry):
    text = (sound_entry / "entry.toml").read_text()
    (sound_entry / "entry.toml").write_text('"\\u001b[31m\\n\\u202e" = 1\n' + text)
    line = refused("submit", "check", sound_entry)
    assert not {"\x1b", "\u202e"} & set(line)
    assert "Extra inputs are not permitted" in line
    (sound_entry / "entry.toml").write_text(f'"{"k" * 100_000}" = 1\n' + text)
    assert len(refused("submit", "check", sound_entry)) < 500


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "schema_version = 2",
            f"schema_version = 0x{'f' * 200_000}",
            "schema_version: ",
        ),
        (
            "    0,\n",
            f"    0x{'f' * 200_000},\n",
            "seeds.0: Input should be less than 2147483648 (found a number",
        ),
        ("[files]", f"[overrides.{TASK}]\ndelays = 0x{'f' * 200_000}\n[files]", f"overrides.{TASK}.delays"),
        ("[files]", f"[overrides.{TASK}]\ndelays = inf\n[files]", f"overrides.{TASK}.delays"),
        ("[files]", f"[overrides.{TASK}]\ndelays = 1979-05-27\n[files]", f"overrides.{TASK}.delays"),
    ],
)
def test_numbers_that_cannot_even_be_printed_are_refused(refused, sound_entry, key, value, message):
    text = (sound_entry / "entry.toml").read_text()
    (sound_entry / "entry.toml").write_text(text.replace(key, value, 1))
    assert message in refused("submit", "check", sound_entry)


# --- HDF5 -------------------------------------------------------------------------------------------------------------


def compressed(file, raw: bytes, **options) -> None:
    """A compressed array of one chunk, whose bytes are ``raw``."""
    array = file.create_dataset("test/forecast", WHOLE, "f4", chunks=WHOLE, compression="gzip", **options)
    array.id.write_direct_chunk((0, 0, 0, 0), raw)


def a_chunk_that_inflates_to_much_more(file) -> None:
    squeeze = zlib.compressobj(9)
    compressed(file, b"".join([*(squeeze.compress(bytes(2**24)) for _ in range(4)), squeeze.flush()]))


def a_bomb_within_a_bomb(file) -> None:
    inner = zlib.compress(bytes(2**24), 9)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(WHOLE)
    plist.set_deflate(9)
    plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    group = file.create_group("test")
    array = h5py.h5d.create(group.id, b"forecast", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(WHOLE), plist)
    array.write_direct_chunk((0, 0, 0, 0), zlib.compress(inner, 9))


def a_huge_chunk(file) -> None:
    file.create_dataset("test/forecast", WHOLE, "f4", maxshape=(None,) * 4, chunks=(1, 16, 442, 100_000))


def no_space(file) -> None:
    file.create_dataset("test/forecast", data=h5py.Empty("f4"))


def one_group_by_many_names(file) -> None:
    """By four in turn there are 10⁸ of them."""
    groups = [file.create_group(f"level {depth}") for depth in range(4)]
    for outer, inner in pairwise(groups):
        for i in range(100):
            outer[str(i)] = inner


def a_time(file) -> None:
    space = h5py.h5s.create_simple(WHOLE)
    h5py.h5d.create(file.create_group("test").id, b"forecast", h5py.h5t.UNIX_D32LE, space)


def a_name_that_is_no_text(file) -> None:
    file[b"\xff\x1b\n"] = h5py.SoftLink("/x")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (a_chunk_that_inflates_to_much_more, rf"/test/forecast: the chunk at .* does not hold {N_BYTES} bytes"),
        (lambda file: compressed(file, zlib.compress(b"abc")), f"does not hold {N_BYTES} bytes"),
        (lambda file: compressed(file, zlib.compress(bytes(N_BYTES))[:-2]), f"does not hold {N_BYTES} bytes"),
        (lambda file: compressed(file, b"no zlib stream"), f"does not hold {N_BYTES} bytes"),
        (a_bomb_within_a_bomb, "a filter stands twice"),
        (a_huge_chunk, f"chunks of 2828800000 bytes in an array of {N_BYTES}"),
        (no_space, "/test/forecast: holds no array"),
        (a_time, "damaged HDF5 file"),
        (one_group_by_many_names, "more than 1000 groups and arrays"),
        (a_name_that_is_no_text, "damaged HDF5 file"),
    ],
)
def test_hdf5_that_is_not_what_it_says_is_refused(cheap, tmp_path, spoil, message):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["climate/forecast"] = np.zeros(SHAPES["climate"], "f4")
        spoil(file)
    with pytest.raises(EmubenchError, match=message):
        hdf5.read_forecast(path, SHAPES)


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": True}, {"shuffle": True}, {"fletcher32": True}, {"shuffle": True, "fletcher32": True}, {"skip": 1}],
)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_sound_chunks_of_every_kind_are_read(tmp_path, options, compression):
    path, rng = tmp_path / "f.h5", np.random.default_rng(0)
    given = {split: rng.normal(size=shape).astype("f4") for split, shape in SHAPES.items()}
    skip = options.get("skip") and compression == "gzip"  # a chunk may be stored uncompressed all the same
    with h5py.File(path, "w") as file:
        for split, values in given.items():
            kind = {key: value for key, value in options.items() if key != "skip"}
            chunks = {"chunks": values.shape} if skip else {}
            array = file.create_dataset(f"{split}/forecast", data=values, compression=compression, **kind, **chunks)
            if skip:
                array.id.write_direct_chunk((0, 0, 0, 0), values.tobytes(), filter_mask=1)
    found = hdf5.read_forecast(path, SHAPES)
    assert all((found[split] == values).all() for split, values in given.items())


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_hdf5_damaged_anywhere_gives_one_line(tmp_path, libver):
    path, rng = tmp_path / "f.h5", np.random.default_rng(2)
    with h5py.File(path, "w", libver=libver) as file:
        for split, shape in SHAPES.items():
            file.create_dataset(f"{split}/forecast", data=rng.normal(size=shape).astype("f4"), compression="gzip")
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        at = int(rng.choice([rng.integers(4096), len(whole) - 1 - rng.integers(2048)]))  # where the structure is
        path.write_bytes(whole[:at] + bytes([int(rng.integers(256))]) + whole[at + 1 :])
        try:
            hdf5.read_forecast(path, SHAPES)
        except EmubenchError:
            refused += 1
    assert refused > 5


# --- npz --------------------------------------------------------------------------------------------------------------


def header(text: str, major: int) -> bytes:
    content = text.encode("latin1")
    return b"\x93NUMPY" + bytes([major, 0]) + struct.pack("<H" if major == 1 else "<I", len(content)) + content


GOOD = f"'fortran_order': False, 'shape': {WHOLE}}}"
HEADERS = [
    "(" * 5000,
    "-" * 9000 + "1",
    "'''",
    " \n\t  if x:\n y",
    "{[]: 1}",
    "{1: 2, 'a': 3}",
    "{'descr': '<f4', " + GOOD[:-2],
    "{'descr': 5, " + GOOD,
    "{'descr': ['<f4'], " + GOOD,
    "{'descr': {'a': 1}, " + GOOD,
    "{'descr': '<f999999999', " + GOOD,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 16, 442, 3.0)}",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': None}",
]


@pytest.mark.parametrize("major", [1, 2, 9])
@pytest.mark.parametrize("text", HEADERS)
def test_a_strange_header_of_an_npz_is_one_line(cheap, tmp_path, text, major):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("test.npy", header(text, major))
    with pytest.raises(EmubenchError, match="not a whole npz file"):
        hdf5.read_forecast(tmp_path / "f.npz", SHAPES)


def test_a_header_of_gigabytes_is_not_read(cheap, tmp_path):
    path = tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("test.npy", "w") as member:
        member.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 1))
        for _ in range(5):
            member.write(b" " * 2**24)
    with pytest.raises(EmubenchError, match="reading array header"):
        hdf5.read_forecast(path, SHAPES)


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_npz_is_compressed_as_numpy_does_it_or_not_at_all(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "f.npz", "w", kind) as archive:
        archive.writestr("test.npy", bytes(1000))
    with pytest.raises(EmubenchError, match="test: compressed in another way"):
        hdf5.read_forecast(tmp_path / "f.npz", SHAPES)


# --- an entry's JSON --------------------------------------------------------------------------------------------------


def every(values: list, value: object) -> None:
    values[:] = [value] * len(values)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (CARDS, lambda c: c.update(train_seconds=float("inf")), "train_seconds: Input should be a finite number"),
        (CARDS, lambda c: c.update(n_parameters=10**4000), "n_parameters: Input should be less than"),
        (CARDS, lambda c: c["config"].update(delays=json.loads("[" * 900 + "]" * 900)), "config.delays"),
        (CARDS, lambda c: c["config"].update({f"k{i}": 0 for i in range(500)}), "at most 200 items"),
        (SCORES, lambda c: c["rows"]["n_cases"].__setitem__(0, 10**4000), "n_cases: Input should be less than"),
        (SCORES, lambda c: c["rows"]["value"].__setitem__(0, 1e300), "where value, low and high in -1 … 1 belong"),
        (SCORES, lambda c: c["rows"]["low"].__setitem__(0, -1e7), "where value, low and high in -1 … 1 belong"),
        (SCORES, lambda c: every(c["cases"]["valid_prediction_time"], 1e300), "numbers in 0 … 20.0181 belong here"),
        (SCORES, lambda c: every(c["cases"]["valid_prediction_time"], -1.0), "numbers in 0 … 20.0181 belong here"),
        (TIMING, lambda c: c.update(lyapunov_times_per_second=1e300), "less than or equal to"),
        (FIGURES, lambda c: c["truth"][0].append(1.0), "truth: a row of 3 values for each of lead_time belongs here"),
        (FIGURES, lambda c: c["forecast"].pop(), "forecast: a row of 3 values for each of lead_time"),
        (
            FIGURES,
            lambda c: c.update(lead_time=[], truth=[], forecast=[]),
            "truth: a row of 3 values for each of lead_time",
        ),
    ],
)
def test_numbers_that_no_score_has_are_refused(refused, sound_entry, file, change, message):
    edit_entry(sound_entry, file, change)
    sign_again(sound_entry)
    assert message in refused("submit", "check", sound_entry)


def test_the_largest_numbers_that_pass_can_be_drawn(sound_entry):
    def enlarge(content: dict) -> None:
        for i, row in enumerate(content["truth"]):
            row[0] = 1e308 * (-1) ** i

    edit_entry(sound_entry, FIGURES, enlarge)
    edit_entry(sound_entry, TIMING, lambda c: c.update(lyapunov_times_per_second=1e15))
    sign_again(sound_entry)
    page = building.render(read(sound_entry.parents[1], "tiny"))["entries/mine.html"]
    assert "1000T" in page
    assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", page.lower()))


def test_settings_of_a_million_million_parameters_are_not_trained():
    job = jobs.Job("resnet_ode", TASK, "tiny", overrides={"width": 10**6})
    with pytest.raises(EmubenchError, match="weights of [0-9]{13,} bytes on lorenz63-noisy"):
        trainee.check_size(job, checks.MAX_WEIGHTS)
    trainee.check_size(jobs.Job("resnet_ode", TASK, "tiny"), checks.MAX_WEIGHTS)
    with pytest.raises(EmubenchError, match="unknown setting"):
        trainee.check_size(jobs.Job("resnet_ode", TASK, "tiny", overrides={"widht": 10**6}), checks.MAX_WEIGHTS)
