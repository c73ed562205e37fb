"""The tiny datasets that all tests share, and reference values of floor and oracle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from emubench.data import generation, reference, tasks


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder with the sixteen tasks at tiny size, seed 0: to be read only (see ``own_data``).

    Test processes that run side by side share it: whoever comes second to a file waits for it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent / "data" if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.mktemp("data")
    for name in tasks.names():
        generation.generate(tasks.get(name, "tiny"), folder)
    return folder


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
