"""Settings for all tests, and the tiny datasets that they share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings

from emubench.cli import main
from emubench.data import generation, reference, tasks
from emubench.learning.objectives import innovation

pytest_plugins = ["tests.support.submissions"]

torch.set_num_threads(1)  # the tensors here are small: more threads only wait for each other

settings.register_profile("emubench", deadline=None, derandomize=True)  # a test passes on every run or on none
settings.load_profile("emubench")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder with the sixteen tasks at tiny size, seed 0: to be read only (see ``own_data``)."""
    folder = tmp_path_factory.mktemp("data")
    for name in tasks.names():
        generation.generate(tasks.get(name, "tiny"), folder)
    return folder


@pytest.fixture(autouse=True)
def few_runs(request, monkeypatch) -> None:
    """A calibration of innovations takes most of a tiny training: of its runs as few as will do for a contract."""
    if request.path.name != "test_innovation.py" and request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(innovation, "RUNS", 8)


@pytest.fixture
def own_data(data, tmp_path) -> Path:
    """A data folder of the test's own, to be damaged at will: lorenz63-noisy, lorenz63-clean and their truth."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    for name in ("lorenz63-noisy.h5", "lorenz63-clean.h5", "lorenz63.truth.h5"):
        shutil.copy(data / "tiny" / name, folder / name)
    return folder.parent


@pytest.fixture
def frozen(monkeypatch):
    """Floor and oracle of every task: skill is value/4, for kpz (3 − value)/2."""

    def get(task: str) -> dict[str, Any]:
        return {"floor": 3.0, "oracle": 1.0} if task.startswith("kpz") else {"floor": 0.0, "oracle": 4.0}

    monkeypatch.setattr(reference, "get", get)


@pytest.fixture
def unfrozen(monkeypatch):
    monkeypatch.setattr(reference, "get", lambda task: {})


class Finished(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def emubench(monkeypatch, capsys):
    """Call the console script in this process: ``emubench("list", "tasks").out``."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["emubench", *map(str, arguments)])
            status: object = 0
            try:
                main.main()
            except SystemExit as leaving:
                status = leaving.code or 0
        captured = capsys.readouterr()
        assert isinstance(status, int)
        return Finished(status, captured.out, captured.err)

    return run


@pytest.fixture
def refused(emubench):
    """Call a command that has to end with status 1 and one line on standard error; return that line."""

    def run(*arguments: object) -> str:
        finished = emubench(*arguments)
        assert finished.status == 1, finished
        assert finished.err.startswith("emubench: "), finished.err
        assert finished.err.endswith("\n"), finished.err
        assert finished.err.count("\n") == 1, finished.err
        return finished.err.strip()

    return run
