"""Bad input gets one line that says what is wrong, where, and what would be right; files stay untouched."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray

from emubench.data import tasks, verification
from emubench.files import store
from tests.support.contents import contents
from tests.support.generated import CODE

NOISY = ("--size", "tiny", "--data")


def edit(path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file, name: str, values, **options) -> None:
    del file[name]
    file.create_dataset(name, data=values, **options)


# --- names and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("list taskz", "unknown listing 'taskz': did you mean tasks?"),
        ("list tasks --size tinny", "unknown size 'tinny': did you mean tiny?"),
        ("generate lorenz93-noisy", "unknown task 'lorenz93-noisy': did you mean lorenz96-noisy or lorenz63-noisy"),
        ("generate kpz", "unknown task 'kpz': did you mean kpz-noisy or kpz-clean"),
        ("generate kpz-noisy --size small", "unknown size 'small': known: standard, tiny"),
        ("contexts kpz-loud", "unknown task 'kpz-loud': did you mean kpz-"),
        ("train linaer lorenz63-noisy", "unknown baseline 'linaer': did you mean linear?"),
        ("train persistense lorenz63-noisy", "did you mean persistence?"),
        ("train linear lorenz36-noisy", "unknown task 'lorenz36-noisy': did you mean lorenz"),
        ("train persistence lorenz36-noisy", "unknown task 'lorenz36-noisy': did you mean lorenz"),
        ("train linear lorenz63-noisy --set delay=3", "unknown setting of linear 'delay': did you mean delays?"),
        ("train resnet_ode lorenz63-noisy --set stepz=3", "unknown setting of resnet_ode 'stepz': did you mean steps"),
        ("train persistence lorenz63-noisy --set steps=3", "unknown setting of persistence 'steps'"),
        ("train linear lorenz63-noisy --set delays", "--set delays: key=value belongs here"),
        ("train linear lorenz63-noisy --set delays=many", "--set delays: 'many' where a value like 4 belongs"),
        ("train linear lorenz63-noisy --set delays=4.0", "--set delays: 4.0 where a value like 4 belongs"),
        ("train linear lorenz63-noisy --set delays=true", "--set delays: True where a value like 4 belongs"),
        ("train linear lorenz63-noisy --set smooth=null", "--set smooth: None where a value like 0.25 belongs"),
        ("score --forecast f.h5 --task lorenz36-noisy", "unknown task 'lorenz36-noisy'"),
        ("score --forecast f.h5", "--forecast needs --task TASK"),
        ("score", "give either RUN folders, or --forecast FILE"),
        ("score no/such/folder", "no/such/folder: no runs here; make one with: emubench train"),
        ("compare no/such/folder", "no/such/folder: no runs here"),
        ("verify no/such/file.h5", "no/such/file.h5: no such file"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(refused, tmp_path, monkeypatch, command, answer):
    monkeypatch.chdir(tmp_path)
    assert answer in refused(*command.split())
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_cannot_be_built_is_refused_and_leaves_nothing(refused, own_data, tmp_path):
    where = (*NOISY, own_data, "--out", tmp_path)
    line = refused("train", "resnet_ode", "lorenz63-noisy", *where, "--set", f"width={10**18}")
    assert "resnet_ode can't be built with these settings" in line
    assert not list(tmp_path.rglob("*.partial"))


def test_a_list_is_taken_where_the_setting_is_one(emubench, own_data, tmp_path):
    arguments = ("train", "linear", "lorenz63-noisy", *NOISY, own_data, "--out", tmp_path / "runs")
    assert emubench(*arguments, "--set", "ridges=[0.1, 0.2]").status == 0
    (card,) = (tmp_path / "runs").rglob("card.json")
    assert json.loads(card.read_text())["config"]["ridges"] == [0.1, 0.2]


@pytest.mark.parametrize(
    "command", ["contexts {t} --file {o}/c.h5", "train linear {t} --out {o}", "score --forecast f.h5 --task {t}"]
)
def test_a_missing_dataset_is_answered_with_the_command_that_makes_it(
    emubench, refused, data, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    task = tasks.get("lorenz63-scarce", "tiny")
    shapes = {s: (1, task.cases(s), task.steps(s), *task.shape) for s in ("test", "climate")}
    with h5py.File("f.h5", "w") as file:
        for split, shape in shapes.items():
            file[f"{split}/forecast"] = np.zeros(shape)
    arguments = command.format(t="lorenz63-scarce", o=tmp_path).split() + ["--size", "tiny", "--data", "my data"]
    line = refused(*arguments)
    assert "my data/tiny/lorenz63-scarce.h5: no such dataset" in line
    suggested = shlex.split(line.partition("make it with: ")[2])
    assert emubench(*suggested[1:]).status == 0
    assert emubench(*arguments).status == 0


# --- HDF5 files -------------------------------------------------------------------------------------------------------


def flip(name: str, index: tuple[int, ...]):
    def change(file) -> None:
        value = file[name][index]
        file[name][index] = np.nextafter(value, value + 1)

    return lambda path: edit(path, change)


def attribute(name: str, value, of: str = "/"):
    def change(file) -> None:
        file[of].attrs[name] = value

    return lambda path: edit(path, change)


def remove(name: str):
    return lambda path: edit(path, lambda file: file.__delitem__(name))


def cut(share: float):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGES = {
    "a value of train": (flip("train/observation", (3, 200, 1)), "array train/observation: bytes differ"),
    "a value of climate": (flip("climate/context", (7, 63, 2)), "array climate/context: bytes differ"),
    "a time": (flip("test/time", (0,)), "array test/time: bytes differ"),
    "the noise": (attribute("noise_std", np.ones(3), "train/observation"), "train/observation.*attribute.*noise_std"),
    "a new note": (attribute("note", "mine", "test/context"), "array test/context: an attribute was edited.*note"),
    "a hash": (attribute("sha256", "0" * 64, "test/context"), "array test/context"),
    "the seed": (attribute("seed", "1"), "attribute header_sha256.*seed"),
    "an interval": (attribute("sample_interval", 0.1), "attribute sample_interval: 0.1 where 0.05 belongs"),
    "the parameters": (attribute("parameters", "{}"), "attribute parameters: '{}' where '{"),
    "the task": (attribute("task", "lorenz63-clean"), "attribute header_sha256|array|attribute task"),
    "no such task": (attribute("task", "lorenz63-nosy"), "attribute task.*unknown task 'lorenz63-nosy'"),
    "the system": (attribute("system", "kpz"), "attribute system: 'kpz' where 'lorenz63' belongs"),
    "the size": (attribute("size", "standard"), r"shape \(.*\) where \(.*\) belongs"),
    "a size unknown": (attribute("size", "huge"), "attribute size: 'huge' where one of standard, tiny belongs"),
    "a kind unknown": (attribute("kind", "lies"), "kind: .*'lies'"),
    "a type": (attribute("time_unit", "long"), "time_unit: .*'long'"),
    "a key": (attribute("colour", "red"), "colour: Extra inputs are not permitted"),
    "another schema": (attribute("schema_version", 2), "schema_version 2, but this emubench reads 1"),
    "an array gone": (remove("test/context"), "array test/context: shape nothing where .* belongs"),
    "an axis gone": (remove("test/time"), "test/time|damaged"),
    "a group gone": (remove("validation"), "array validation/observation: shape nothing"),
    "cut at 99 %": (cut(0.99), "not a whole HDF5 file"),
    "cut at 50 %": (cut(0.5), "not a whole HDF5 file"),
    "cut at 1 %": (cut(0.01), "not a whole HDF5 file"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole HDF5 file"),
    "text": (lambda path: path.write_text("time, x, y, z\n0, 1, 2, 3\n"), "not a whole HDF5 file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_what_is_wrong_and_touches_nothing(refused, own_data, damage):
    path = own_data / "tiny" / "lorenz63-noisy.h5"
    do, message = DAMAGES[damage]
    do(path)
    before = contents(own_data)
    line = refused("verify", path)
    assert str(path) in line
    assert re.search(message, line), line
    assert contents(own_data) == before


@pytest.mark.parametrize("name", ["lorenz63-noisy.h5", "lorenz63.truth.h5"])
def test_a_byte_that_flips_on_the_disk_is_answered_with_its_array(refused, own_data, name):
    """In every array of the file: its first byte, one in the middle or its last."""
    path = own_data / "tiny" / name
    whole, places = path.read_bytes(), []
    with h5py.File(path) as file:
        for i, array in enumerate(verification.verify(path)):
            size = file[array].id.get_storage_size()
            places.append((array, file[array].id.get_offset() + (0, size // 2, size - 1)[i % 3]))
    assert len(places) >= 10
    for array, position in places:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        assert f"array {array}: bytes differ from their own hash" in refused("verify", path)
    path.write_bytes(whole)
    assert verification.verify(path)


def test_verify_notices_a_file_cut_anywhere(refused, own_data):
    path = own_data / "tiny" / "lorenz63-noisy.h5"
    whole = path.read_bytes()
    for n in range(0, len(whole), 4999):
        path.write_bytes(whole[:n])
        assert "not a whole HDF5 file" in refused("verify", path)


@pytest.mark.parametrize("damage", ["an array gone", "cut at 50 %", "text", "an interval", "the size", "the system"])
def test_a_damaged_file_is_not_trained_on(refused, own_data, tmp_path, damage):
    DAMAGES[damage][0](own_data / "tiny" / "lorenz63-noisy.h5")
    before = contents(tmp_path)
    assert "lorenz63-noisy.h5: " in refused("train", "linear", "lorenz63-noisy", *NOISY, own_data, "--out", tmp_path)
    assert contents(tmp_path) == before


def test_a_netcdf_file_of_something_else_is_refused(refused, own_data):
    path = own_data / "tiny" / "lorenz63-noisy.h5"
    weather = xarray.Dataset({"t2m": (("time", "lat"), np.zeros((3, 4)))}, attrs={"title": "ERA5"})
    weather.to_netcdf(path, engine="h5netcdf")
    before = contents(own_data)
    for command in (("verify", path), ("train", "linear", "lorenz63-noisy", *NOISY, own_data)):
        assert "attribute schema_version is missing: not an emubench dataset" in refused(*command)
    assert contents(own_data) == before


def test_truth_is_refused_where_observations_belong(refused, own_data, tmp_path):
    folder = own_data / "tiny"
    shutil.copy(folder / "lorenz63.truth.h5", folder / "lorenz63-noisy.h5")
    message = "lorenz63-noisy.h5: holds truth where observations belong"
    assert message in refused("train", "linear", "lorenz63-noisy", *NOISY, own_data, "--out", tmp_path / "runs")
    assert message in refused("contexts", "lorenz63-noisy", *NOISY, own_data, "--file", tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_observations_of_another_task_are_refused(refused, own_data, tmp_path):
    folder = own_data / "tiny"
    shutil.copy(folder / "lorenz63-clean.h5", folder / "lorenz63-noisy.h5")
    line = refused("train", "linear", "lorenz63-noisy", *NOISY, own_data, "--out", tmp_path / "runs")
    assert "attribute task: 'lorenz63-clean' where 'lorenz63-noisy' belongs" in line


def unfinite(array) -> None:
    """Put a NaN where it is scored, under a hash that fits."""
    array[3, 70] = np.nan
    array.attrs["sha256"] = store.file_hash(array)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.pop("test"), "array test/truth: shape nothing"),
        (lambda f: f["climate"].pop("start"), "array climate/start is missing"),
        (lambda f: unfinite(f["test/truth"]), "not finite"),
        (lambda f: f.attrs.modify("kind", "observations"), "holds observations where truth belong"),
    ],
    ids=["no test", "no start", "not finite", "another kind"],
)
def test_damaged_truth_is_not_scored_against(emubench, refused, own_data, tmp_path, spoil, message):
    runs = tmp_path / "runs"
    assert emubench("train", "persistence", "lorenz63-noisy", *NOISY, own_data, "--out", runs).status == 0
    edit(own_data / "tiny" / "lorenz63.truth.h5", spoil)
    before = contents(tmp_path)
    assert message in refused("score", runs, "--data", own_data)
    assert contents(tmp_path) == before


# --- run folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(emubench, own_data, tmp_path):
    """The folder of a trained run of ``linear``."""
    finished = emubench("train", "linear", "lorenz63-noisy", *NOISY, own_data, "--out", tmp_path / "runs")
    assert finished.status == 0
    (card,) = (tmp_path / "runs").rglob("card.json")
    return card.parent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"n_parameters": "many"}, "n_parameters: .*'many'"),
        ({"n_parameters": 7}, "n_parameters: 7 where 42 belongs"),
        ({"seed": -1}, "seed: .*-1"),
        ({"seed": 1.5}, "seed: .*1.5"),
        ({"baseline": "linaer"}, "unknown baseline 'linaer': did you mean linear"),
        ({"baseline": "../../etc/passwd"}, "baseline: "),
        ({"baseline": "persistence"}, "persistence"),
        ({"task": "lorenz63-nosy"}, "unknown task"),
        ({"task": "lorenz96-noisy"}, r"tensor mean: shape \(3,\) where|not of this architecture|is missing"),
        ({"knowledge": "everything"}, "knowledge: "),
        ({"config": {"delay": 4}}, "config: setting delays of linear is missing"),
        ({"config.delay": 4}, "unknown setting of linear 'delay': did you mean delays"),
        ({"config.delays": 5}, r"tensor weight: shape \(12, 3\) where \(15, 3\) belongs"),
        ({"config.delays": "five"}, "config.delays: 'five' where a value like 4 belongs"),
        ({"config.delays": -4}, "delays: -4 where a number of at least 1 belongs"),
        ({"config.ridges": 1.0}, "config.ridges: 1.0 where a value like"),
        ({"threads": 0}, "threads: "),
        (None, "not valid JSON"),
    ],
)
def test_an_edited_card_is_refused(refused, run, own_data, change, message):
    card = json.loads((run / "card.json").read_text())
    assert card["n_parameters"] == 42
    for key, value in (change or {}).items():
        inner, _, name = key.rpartition(".")
        (card[inner] if inner else card)[name] = value
    (run / "card.json").write_text(json.dumps(card) if change else json.dumps(card)[:-20])
    before = contents(run)
    line = refused("score", run, "--data", own_data)
    assert re.search(message, line), line
    assert "card.json" in line or "model.safetensors" in line
    assert contents(run) == before


@pytest.mark.parametrize("command", ["score", "compare"])
def test_a_folder_without_a_run_is_answered_with_how_to_make_one(refused, tmp_path, command):
    (tmp_path / "empty").mkdir()
    assert "empty: no runs here; make one with: emubench train" in refused(command, tmp_path / "empty")


@pytest.mark.parametrize("cut_at", [0, 5, 100, -1])
def test_damaged_weights_are_refused(refused, run, own_data, cut_at):
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut_at])
    assert "model.safetensors: not a whole safetensors file" in refused("score", run, "--data", own_data)
    weights.unlink()
    assert "model.safetensors: " in refused("score", run, "--data", own_data)


def test_weights_of_another_architecture_are_refused_by_name(emubench, refused, run, own_data, tmp_path):
    out = tmp_path / "others"
    assert emubench("train", "persistence", "lorenz63-noisy", *NOISY, own_data, "--out", out).status == 0
    (theirs,) = out.rglob("model.safetensors")
    shutil.copy(theirs, run / "model.safetensors")
    assert "model.safetensors: bytes differ from the hash in the card" in refused("score", run, "--data", own_data)
    card = json.loads((run / "card.json").read_text())
    del card["weights_sha256"]  # as in cards of old
    (run / "card.json").write_text(json.dumps(card))
    assert "model.safetensors: tensor std is missing" in refused("score", run, "--data", own_data)


def test_a_run_trained_on_other_data_is_not_taken_for_this_one(emubench, refused, run, own_data, tmp_path):
    other = tmp_path / "other"
    assert emubench("generate", "lorenz63-noisy", *NOISY, other, "--seed", 1).status == 0
    again = ("train", "linear", "lorenz63-noisy", "--size", "tiny", "--out", tmp_path / "runs", "--data")
    assert "was trained on other data than" in refused(*again, other)
    assert emubench(*again, own_data).status == 0


def test_a_closed_standard_output_is_one_line():
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$1" list tasks >&-', "sh", CODE],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == "emubench: standard output is closed; send it to /dev/null if it is not wanted\n"
    assert done.returncode == 1
