"""Fingerprints: another dataset under the same name is found out, a rounding error is not another dataset."""

from __future__ import annotations

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest

from emubench.core.errors import EmubenchError
from emubench.data import fingerprints, generation, layout, tasks, trajectories, verification
from emubench.files import store
from tests.support.contents import contents


def rehash(path, change) -> None:
    """Change arrays of a file and store the hashes of what it then holds, as a forger does."""
    with h5py.File(path, "r+") as file:
        change(file)
        for group in file.values():
            for array in (v for v in group.values() if "sha256" in v.attrs):
                rows = [hashlib.sha256(row.tobytes()).digest() for row in array[()]]
                array.attrs["sha256"] = hashlib.sha256(b"".join(rows)).hexdigest()
    assert verification.verify(path)


def scaled(split: str, first: int, factor: float):
    def change(file) -> None:
        array = file[f"{split}/observation" if split in ("train", "validation") else f"{split}/context"]
        array[:, first:] = array[:, first:] * factor

    return change


def unmasked(file) -> None:
    array = file["train/observation"]
    array[()] = np.nan_to_num(array[()])


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("lorenz96-partial", unmasked, "array train/observation: draws: other samples are unobserved"),
        ("lorenz96-partial", scaled("train", 0, 1.001), "array train/observation: sample 0: differs by"),
        ("lorenz96-noisy", scaled("validation", 20, 1.01), "array validation/observation: early agreement, sample "),
        ("lorenz63-clean", scaled("train", 180, 0.0), "array train/observation: statistics: std "),
        ("lorenz63-clean", scaled("test", 0, 1.0001), "array test/context: sample 0"),
    ],
)
def test_another_dataset_under_the_same_name_is_found_out(refused, data, tmp_path, name, change, check):
    path = tmp_path / f"{name}.h5"
    shutil.copy(data / "tiny" / path.name, path)
    rehash(path, change)
    line = refused("verify", path)
    assert f"{path}: not this dataset: " in line
    assert check in line


def test_a_rounding_error_makes_a_faithful_rebuild(emubench, tmp_path, monkeypatch):
    """As on a machine whose rounding differs: the draws are the same, and chaos does the rest."""
    simulate = trajectories.simulate
    monkeypatch.setattr(trajectories, "simulate", lambda s, u, *given, **k: simulate(s, u * (1 + 3e-16), *given, **k))
    for name in ("lorenz63-clean", "lorenz96-partial"):
        generation.generate(tasks.get(name, "tiny"), tmp_path)
    files = sorted((tmp_path / "tiny").iterdir())
    assert len(files) == 4
    assert set(json.loads(emubench("verify", "--json", *files).out).values()) == {"faithful rebuild"}


def test_a_machine_that_draws_other_numbers_is_said(data, tmp_path, monkeypatch):
    path = tmp_path / "lorenz63-clean.h5"
    shutil.copy(data / "tiny" / path.name, path)
    rehash(path, scaled("train", 0, 1 + 1e-15))
    monkeypatch.setattr(fingerprints, "stream", lambda *labels: np.random.Generator(np.random.PCG64(1)))
    with pytest.raises(EmubenchError, match="not this dataset: draws: this machine draws other random numbers"):
        fingerprints.judge(path)


def test_other_seeds_and_sizes_are_whole(tmp_path, emubench):
    task = tasks.get("lorenz63-noisy", "tiny")
    generation.generate(task, tmp_path, seed=3)
    assert fingerprints.judge(layout.task_path(task, tmp_path)) == fingerprints.WHOLE
    other = tasks.get("lorenz63-noisy", "tiny-3x70")
    generation.generate(other, tmp_path)
    out = emubench("verify", layout.task_path(other, tmp_path), layout.truth_path(other, tmp_path)).out
    assert out.count(": whole\n") == 2


def test_verifying_changes_nothing(own_data):
    before = contents(own_data)
    assert fingerprints.judge(own_data / "tiny" / "lorenz63.truth.h5") in (
        fingerprints.IDENTICAL,
        fingerprints.FAITHFUL,
    )
    assert contents(own_data) == before
    assert store.DIGEST == "sha256"
