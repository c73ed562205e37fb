"""A full disk or an interrupt, whenever it comes: nothing half-written is left, and the same command then succeeds."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.workers import worker_pool
from emubench.data import generation, verification
from emubench.files import netcdf, store
from emubench.runs import stages
from tests.support.contents import contents

GENERATE = ("generate", "lorenz63-noisy", "--size", "tiny", "--out")
TRAIN = ("train", "persistence", "lorenz63-noisy", "--size", "tiny", "--data")
NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(function, error: BaseException, after: int):
    """``function``, which raises ``error`` once it has been called ``after`` times."""
    calls = iter(range(after))

    def wrapper(*arguments, **options):
        if next(calls, None) is None:
            raise error
        return function(*arguments, **options)

    return wrapper


def everything(folder) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() or "partial" in p.name)


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (generation, "run_block", 3),
        (generation, "run_block", 6),
        (netcdf.Column, "append", 0),
        (netcdf.Column, "append", 13),
        (netcdf, "attributes_hash", 2),
        (os, "replace", 1),
        (os, "replace", 3),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), NO_SPACE], ids=["interrupt", "full disk"])
def test_generate_leaves_nothing_half_written(emubench, data, monkeypatch, tmp_path, owner, name, after, error):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name), error, after))
        finished = emubench(*GENERATE, tmp_path)
    if error is NO_SPACE:
        assert finished.status == 1
        assert "No space left on device" in finished.err
        assert finished.err.count("\n") == 1
    else:
        assert finished.status == 130
        assert finished.err == "emubench: interrupted; run the same command again to go on\n"
    left = everything(tmp_path)
    assert left in ([], ["lorenz63.truth.h5"])
    for path in contents(tmp_path):
        assert verification.verify(tmp_path / path)
    assert emubench(*GENERATE, tmp_path).status == 0
    assert contents(tmp_path).items() <= contents(data).items()
    assert len(contents(tmp_path)) == 2


def test_too_little_space_is_said_before_anything_is_written(refused, emubench, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        line = refused(*GENERATE, tmp_path)
    needed, free = re.search(r"([0-9,]+) bytes are needed and ([0-9,]+) are free", line).groups()
    assert int(needed.replace(",", "")) > int(free.replace(",", "")) == 1000
    assert everything(tmp_path) == []
    assert emubench(*GENERATE, tmp_path).status == 0


def test_a_disk_that_fills_up_under_hdf5_is_one_line(tmp_path):
    """HDF5 itself crashes on a file that it can't flush, so this needs a real limit and a process of its own."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    code = "import sys; from emubench.cli.main import main; sys.argv[0] = 'emubench'; main()"
    finished = subprocess.run(
        [sys.executable, "-c", code, *GENERATE, tmp_path], preexec_fn=limit, capture_output=True, text=True
    )
    assert finished.returncode == 1, finished
    assert finished.stderr.endswith("cannot be written (File too large); nothing was left behind\n")
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert everything(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NO_SPACE], ids=["interrupt", "full disk"])
@pytest.mark.parametrize("where", ["train", "save_weights", "_publish"])
def test_train_leaves_nothing_half_written(emubench, own_data, monkeypatch, tmp_path, where, error):
    owner = baselines.get("persistence") if where == "train" else stages
    command = (*TRAIN, own_data, "--out", tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, failing(getattr(owner, where), error, 0))
        finished = emubench(*command)
    assert finished.status == (1 if error is NO_SPACE else 130)
    assert finished.err.count("\n") == 1
    if error is NO_SPACE:
        assert "cannot be written (No space left on device); nothing was left behind" in finished.err
    assert everything(tmp_path / "runs") == []
    assert emubench(*command).status == 0
    assert everything(tmp_path / "runs") == ["card.json", "log.jsonl", "model.safetensors"]


def test_weights_that_do_not_fit_on_the_disk_are_one_line(refused, own_data, monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.write_bytes", failing(None, NO_SPACE, 0))
    line = refused(*TRAIN, own_data, "--out", tmp_path / "runs")
    assert "No space left on device" in line
    assert everything(tmp_path / "runs") == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NO_SPACE], ids=["interrupt", "full disk"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_score_can_be_repeated_after_a_failure(emubench, own_data, monkeypatch, tmp_path, error, after):
    runs = tmp_path / "runs"
    assert emubench(*TRAIN, own_data, "--out", runs).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_text", failing(store.write_text, error, after))
        finished = emubench("score", runs, "--data", own_data)
    assert finished.status == (1 if error is NO_SPACE else 130)
    assert finished.err.count("\n") == 1
    assert "scores.json" not in everything(runs)
    assert emubench("score", runs, "--data", own_data).status == 0
    assert "scores.json" in everything(runs)


def test_training_that_diverges_says_at_which_step_and_leaves_nothing(refused, own_data, tmp_path):
    command = ("train", "resnet_ode", *TRAIN[2:], own_data, "--out", tmp_path / "runs")
    line = refused(*command, "--set", "learning_rate=1e30", "--set", "steps=50", "--set", "batch=8")
    assert "training diverged at step " in line
    assert "(learning rate 1e+" in line or "(learning rate 2e+" in line
    assert "--set learning_rate" in line
    assert everything(tmp_path / "runs") == []


@pytest.mark.parametrize("folder", ["a file", "a file/below"])
def test_a_folder_that_cannot_be_made_is_one_line(refused, own_data, tmp_path, folder):
    (tmp_path / "a file").write_text("not a folder")
    assert "a file" in refused(*GENERATE, tmp_path / folder)
    assert "a file" in refused(*TRAIN, own_data, "--out", tmp_path / folder)
    assert "a file" in refused(
        "contexts", "lorenz63-noisy", "--size", "tiny", "--data", own_data, "--file", tmp_path / folder / "c.h5"
    )


def sleep_and_tidy(path) -> None:
    try:
        path.touch()
        time.sleep(60)
    finally:
        time.sleep(1.2)  # longer than the pool waits before it asks again
        path.unlink()


def test_an_interrupted_pool_stops_its_workers_and_lets_them_tidy_up(tmp_path):
    paths = [tmp_path / str(i) for i in range(6)]

    def interrupted() -> None:
        with worker_pool(2) as pool:
            for path in paths:
                pool.submit(sleep_and_tidy, path)
            while not all(path.exists() for path in paths[:2]):
                time.sleep(0.01)
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begun < 20
    assert not any(path.exists() for path in paths)


def raise_refusal() -> None:
    raise EmubenchError("no")


def test_a_pool_hands_on_what_a_worker_raises():
    with pytest.raises(EmubenchError, match="no"), worker_pool(1) as pool:
        pool.submit(raise_refusal).result()


@pytest.mark.slow
def test_ctrl_c_during_generation_by_two_workers_ends_all_at_once(tmp_path):
    code = "import sys; from emubench.cli.main import main; sys.argv[0] = 'emubench'; main()"
    command = ("generate", "kpz-noisy", "--size", "standard", "--workers", "2", "--out", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    try:
        while not list(tmp_path.rglob("*.partial")):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert err == "emubench: interrupted; run the same command again to go on\n"
    assert everything(tmp_path) == []
