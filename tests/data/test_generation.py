"""Generation by blocks: the same bytes however it is cut or shared out, in constant memory, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import dataset, fingerprints, generation, layout, tasks, trajectories, verification
from emubench.data.layout import Layout
from emubench.data.tasks import Amount
from emubench.dynamics.simulate import SimulationError
from emubench.dynamics.system import Climate
from emubench.files import store
from tests.support.contents import contents
from tests.support.generated import CODE, TASK

# --- the same bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_the_same_files(whole_dataset, tmp_path, workers):
    generation.generate(TASK, tmp_path, workers=workers)
    assert contents(tmp_path) == contents(whole_dataset)


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kpz", "kuramoto_sivashinsky"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_where_time_is_cut_makes_no_difference(monkeypatch, name, split):
    system = systems.get(name)
    at_once = trajectories.simulate_block(system, 0, split, 1, 200)
    monkeypatch.setattr(trajectories, "STRETCH", 1)  # 64 samples at a time
    pieces = list(trajectories.stretches(system, 0, split, 1, 200))
    assert [p.shape[1] for p in pieces] == [64, 64, 64, 8]
    np.testing.assert_array_equal(trajectories.simulate_block(system, 0, split, 1, 200), at_once)


@pytest.mark.parametrize("name", ["kpz-partial", "lorenz96-noisy"])
def test_files_do_not_depend_on_where_time_is_cut(data, tmp_path, monkeypatch, name):
    monkeypatch.setattr(trajectories, "STRETCH", 1)
    monkeypatch.setattr(generation, "STRETCH", 1)
    for path in generation.generate(tasks.get(name, "tiny"), tmp_path):
        assert path.read_bytes() == (data / "tiny" / path.name).read_bytes()


@pytest.mark.parametrize("track", tasks.TRACKS)
def test_a_trajectory_is_observed_the_same_way_piece_by_piece(track):
    task = tasks.get(f"lorenz96-{track}", "tiny")
    truth = stream(1).standard_normal((50, 40))
    observe = task.observation.along(task.system, stream(0, track))
    pieces = [observe(truth[a:b]) for a, b in ((0, 1), (1, 20), (20, 50))]
    np.testing.assert_array_equal(np.concatenate(pieces), task.observation(task.system, truth, stream(0, track)))


@pytest.mark.parametrize("array", ["train/truth", "climate/truth"])
def test_rows_lie_whole_in_the_file(whole_dataset, array):
    """So a window of a trajectory is one read, and a case of the climate split another."""
    with h5py.File(whole_dataset / TASK.size / "lorenz63.truth.h5") as file:
        stored = file[array]
        assert stored.chunks is None
        with open(file.filename, "rb") as raw:
            row = stored[1]
            raw.seek(stored.id.get_offset() + row.nbytes)
            assert raw.read(row.nbytes) == row.tobytes()


def test_other_amounts_replace_the_train_split_alone():
    assert TASK.train == (40, 120)
    assert TASK.validation == tasks.get("lorenz63-partial", "tiny").validation
    assert tasks.get("lorenz63-scarce", "tiny-40x120").train == (40, 120)
    assert tasks.size_with("standard", length=2048) == "standard-32x2048"
    assert tasks.size_with("tiny-9x9", trajectories=7) == "tiny-7x9"
    assert tasks.size_with("tiny") == "tiny"


def test_the_command_line_takes_other_amounts(emubench, whole_dataset, tmp_path):
    command = ("generate", "lorenz63-partial", "--size", "tiny", "--trajectories", 40, "--length", 120)
    assert emubench(*command, "--out", tmp_path).status == 0
    assert contents(tmp_path) == contents(whole_dataset)
    assert emubench("train", "persistence", "lorenz63-partial", "--size", TASK.size, "--data", tmp_path).status == 0


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lorenz63-noisy", "kpz-partial"])
def test_another_device_makes_the_same_data_up_to_rounding(data, tmp_path, name):
    """The path of ``--device cuda``, on the processor: "cpu:0" is a device of torch like any other."""
    task = tasks.get(name, "tiny")
    generation.generate(task, tmp_path, device="cpu:0")
    for path in (layout.truth_path(task, tmp_path), layout.task_path(task, tmp_path)):
        assert fingerprints.judge(path) in ("faithful rebuild", "identical bytes")
    with h5py.File(layout.truth_path(task, tmp_path)) as made, h5py.File(layout.truth_path(task, data)) as kept:
        for array in ("train/truth", "test/truth"):
            np.testing.assert_allclose(made[array][:, :16], kept[array][:, :16], rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cuda:77", "tpu", ""])
def test_a_device_that_cannot_be_used_is_one_line(tmp_path, device):
    with pytest.raises(
        EmubenchError, match=f"--device {device}: cannot be used here.*; this machine has cpu"
    ) as caught:
        generation.generate(TASK, tmp_path, device=device)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_share_one_file_in_peace(whole_dataset, tmp_path):
    command = [sys.executable, "-c", CODE, "generate", "lorenz63-partial", "--size", TASK.size, "--out", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate()[1] for p in both]
    assert all(line == "" or ": waiting for process " in line for line in said), said
    assert "" in said
    assert [p.returncode for p in both] == [0, 0]
    assert contents(tmp_path) == contents(whole_dataset)


# --- memory and disk --------------------------------------------------------------------------------------------------


def peak(function) -> int:
    """Peak resident bytes of a child process that calls ``function``, above those it starts with."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        os.write(write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return 1024 * int(pipe.read())


@pytest.mark.slow
def test_of_two_seeds_generated_into_one_folder_at_once_one_is_refused(tmp_path, monkeypatch):
    task, data = tasks.get("lorenz63-noisy", "tiny"), tmp_path / "data"
    both, space = threading.Barrier(2), store.check_space

    def meeting(*arguments) -> None:  # after each has seen that nothing is there
        space(*arguments)
        both.wait(30)

    monkeypatch.setattr(store, "check_space", meeting)
    with ThreadPoolExecutor(2) as pool:
        errors = [made.exception() for made in [pool.submit(generation.generate, task, data, seed) for seed in (0, 1)]]
    (refused,) = [error for error in errors if error is not None]
    assert isinstance(refused, EmubenchError)
    winner = errors.index(None)
    assert f"lorenz63.truth.h5: attribute seed: {winner} where {1 - winner} is asked for" in str(refused)
    dataset.open_truth(task, data).close()
    assert dataset.seed_of(task, data) == str(winner)


def test_observations_and_a_truth_of_another_seed_do_not_verify(tmp_path):
    task = tasks.get("lorenz63-noisy", "tiny")
    for seed in (0, 1):
        generation.generate(task, tmp_path / str(seed), seed)
    truth, path = layout.truth_path(task, tmp_path / "1"), layout.task_path(task, tmp_path / "1")
    verification.verify(path)
    shutil.copy(layout.truth_path(task, tmp_path / "0"), truth)
    verification.verify(truth)
    with pytest.raises(EmubenchError, match="lorenz63.truth.h5: attribute seed: 0 where 1 is asked for"):
        verification.verify(path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path, monkeypatch):
    """A file many times as large as what is held; what is held is set low, so that the file can be small."""
    monkeypatch.setattr(trajectories, "STRETCH", 2**12)
    monkeypatch.setattr(generation, "STRETCH", 2**12)
    task = tasks.get("lorenz96-noisy", "tiny-64x16384")
    size = generation.file_bytes(Layout(task, "truth"))
    assert size > 3 * 10**8
    assert peak(lambda: generation.generate(task, tmp_path)) < size / 4
    assert len(verification.verify(layout.task_path(task, tmp_path))) == 10


def test_the_announced_size_is_the_real_one(whole_dataset):
    for kind, path in (
        ("truth", layout.truth_path(TASK, whole_dataset)),
        ("observations", layout.task_path(TASK, whole_dataset)),
    ):
        assert 0 <= path.stat().st_size - generation.file_bytes(Layout(TASK, kind)) < 70_000


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("--trajectories", 0), "train: 0 trajectories, where 1 to 100000000 belong"),
        (("--length", -3), "train: length -3 of trajectories, where 2 to"),
        (("--trajectories", 10**9), "train: 1000000000 trajectories, where 1 to"),
        (("--trajectories", 10**8, "--length", 10**6), "bytes are needed and"),
        (("--size", "tiny-0x5"), "size tiny-0x5: 0 trajectories"),
        (("--size", "tiny-5"), "unknown size 'tiny-5': did you mean tiny?"),
    ],
)
def test_impossible_amounts_are_one_line_and_write_nothing(refused, tmp_path, arguments, answer):
    assert answer in refused("generate", "lorenz96-noisy", "--out", tmp_path, *arguments)
    assert list(tmp_path.iterdir()) == []


# --- parameters that cannot be simulated ------------------------------------------------------------------------------


CLIMATE = Climate((0.0,), (1.0,), time_unit=1.0)


@pytest.mark.parametrize(
    ("system", "parameters", "cause"),
    [
        ("lorenz96", {"forcing": 1e6}, "the solution blew up: solver_step 0.00125 is too long"),
        ("lorenz96", {"solver_step": 0.05, "forcing": 40.0}, "the solution blew up"),
        ("kpz", {"lam": 300.0}, "kpz"),
        ("kuramoto_sivashinsky", {"length": 9.0}, "laminar: the energy was steady"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_solution_that_cannot_be_trusted_is_no_file(tmp_path, system, parameters, cause, workers):
    made = tasks.make(systems.get(system, **parameters, climate=CLIMATE), "noisy", "tiny")
    wild = dataclasses.replace(
        made, name="wild", custom=True, train=Amount(2, 400), test_steps=tasks.steps_of(made.system, 200.0)
    )
    with pytest.raises(SimulationError) as error:
        generation.generate(wild, tmp_path / "data", workers=workers)
    line = str(error.value)
    assert cause in line
    assert f"{system}: " in line
    assert " trajectory " in line
    assert " at time " in line
    assert contents(tmp_path / "data") == {}


def test_the_fault_is_named_as_the_user_counts():
    unstable = systems.get("lorenz96", solver_step=0.05, forcing=40.0, climate=systems.get("lorenz96").climate)
    with pytest.raises(SimulationError, match=r"^lorenz96: train trajectory (3[2-9]|4[0-7]) at time ") as error:
        list(trajectories.stretches(unstable, 0, "train", 2, 100))
    assert error.value.split == "train"


# --- all sixteen, elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_all_recipes_regenerate_and_verify_from_another_process(tmp_path, workers):
    recipes = sorted(map(str, fingerprints.folder().glob("*.toml")))
    assert len(recipes) == 16
    run = [sys.executable, "-c", CODE]
    options = ["--size", "tiny", "--out", str(tmp_path), "--workers", str(workers)]
    subprocess.run([*run, "generate", *recipes, *options], check=True, stdout=subprocess.DEVNULL)
    files = sorted(map(str, (tmp_path / "tiny").iterdir()))
    assert len(files) == 20
    done = subprocess.run([*run, "verify", "--json", *files], check=True, capture_output=True, text=True)
    verdicts = json.loads(done.stdout)
    assert set(verdicts) == set(files)
    assert set(verdicts.values()) <= {"identical bytes", "faithful rebuild"}


def test_hashes_are_those_of_the_bytes_on_disk(whole_dataset):
    with h5py.File(layout.task_path(TASK, whole_dataset)) as file:
        rows = file["train/observation"][()]
        by_hand = hashlib.sha256(b"".join(hashlib.sha256(row.tobytes()).digest() for row in rows)).hexdigest()
        assert file["train/observation"].attrs["sha256"] == by_hand


def test_a_file_has_the_same_bytes_whoever_still_holds_what_made_it(tmp_path):
    """A profiler in another thread keeps frames alive, and with them handles of HDF5."""
    task, kept = tasks.get("lorenz63-noisy", "tiny-2x8"), []
    generation.write_structure(Layout(task, "truth"), 0, tmp_path / "plain.h5")
    sys.setprofile(lambda frame, *_: kept.append(frame))
    try:
        generation.write_structure(Layout(task, "truth"), 0, tmp_path / "held.h5")
    finally:
        sys.setprofile(None)
    assert len(kept) > 100
    assert (tmp_path / "held.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()


# --- what is there already --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-partial", "kpz-noisy"])
def test_two_workers_write_the_same_bytes_as_one(data, tmp_path, name):
    generation.generate(tasks.get(name, "tiny"), tmp_path, workers=2)
    written = contents(tmp_path)
    assert len(written) == 2
    for path, digest in written.items():
        assert hashlib.sha256((data / path).read_bytes()).hexdigest() == digest


def test_generating_again_changes_nothing(own_data):
    task, before = tasks.get("lorenz63-noisy", "tiny"), contents(own_data)
    assert generation.generate(task, own_data) == []
    assert contents(own_data) == before


def test_another_track_reuses_the_truth(own_data):
    before = contents(own_data)
    written = generation.generate(tasks.get("lorenz63-scarce", "tiny"), own_data)
    assert [p.name for p in written] == ["lorenz63-scarce.h5"]
    assert before.items() < contents(own_data).items()


@pytest.mark.parametrize("lacking", [None, "lorenz63.truth.h5", "lorenz63-noisy.h5"])
def test_another_seed_in_the_same_folder_is_refused_and_writes_nothing(own_data, lacking):
    if lacking:
        (own_data / "tiny" / lacking).unlink()
    before = contents(own_data)
    with pytest.raises(EmubenchError, match=r"attribute seed: 0 where 1 is asked for"):
        generation.generate(tasks.get("lorenz63-noisy", "tiny"), own_data, seed=1)
    assert contents(own_data) == before
