"""Settings for all tests; the fixtures that several files use are plug-ins, in ``tests/support/``."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from emubench.learning.objectives import innovation

pytest_plugins = [
    "tests.support.submissions",  # before boards, which imports it
    "tests.support.boards",
    "tests.support.commands",
    "tests.support.datasets",
    "tests.support.diagnosed",
    "tests.support.generated",
    "tests.support.grids",
]

torch.set_num_threads(1)  # the tensors here are small: more threads only wait for each other

settings.register_profile("emubench", deadline=None, derandomize=True)  # a test passes on every run or on none
settings.load_profile("emubench")


@pytest.fixture(autouse=True)
def few_runs(request, monkeypatch) -> None:
    """A calibration of innovations takes most of a tiny training: of its runs and rounds as few as a contract needs."""
    if request.path.name != "test_innovation.py" and request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(innovation, "RUNS", 8)
        monkeypatch.setattr(innovation, "RELAXATION", (1.0,))
