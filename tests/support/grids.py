"""A small grid of runs, what it makes, and plans of steps made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emubench.runs.grid import executors, plans, runner, steps
from emubench.runs.grid.steps import Outcome, Step
from tests.support.contents import contents

GRID = """
tasks = ["lorenz63-noisy", "lorenz96-noisy"]
baselines = ["persistence", "climatology"]
seeds = [0, 1]
size = "tiny"
"""


@pytest.fixture
def grid_file(tmp_path) -> Path:
    """The file of the grid, in the test's own folder."""
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="session")
def whole_grid(tmp_path_factory) -> Path:
    """What the grid makes in one process: ``data`` and ``runs``; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "grid.toml").write_text(GRID)
    plan = plans.expand(folder / "grid.toml", folder / "data")
    with executors.in_process() as place:
        run = runner.execute(plan, place, folder / "data", folder / "runs", 1, debug=True)
    assert set(run.state.values()) == {"done"}
    return folder


def results(runs: Path) -> dict[str, str]:
    """Hashes of everything deterministic in the folders of runs."""
    unlike = ("card.json", "timing.json", "log.jsonl")  # which hold seconds
    found = contents(runs).items()
    return {name: digest for name, digest in found if not name.endswith(unlike) and "/." not in f"/{name}"}


@pytest.fixture
def grid_copy(whole_grid, tmp_path) -> Path:
    """The finished grid, to be damaged at will."""
    shutil.copytree(whole_grid, tmp_path / "copy")
    return tmp_path / "copy"


def options(folder: Path) -> tuple[object, ...]:
    """Arguments of ``emubench run`` and ``status`` for the grid in a folder."""
    return folder / "grid.toml", "--data", folder / "data", "--out", folder / "runs"


def chain(n: int, file: Path) -> plans.Plan:
    """``n`` pairs of a step and one that needs it."""
    pairs = [[Step(kind, f"{kind} x {i}", "{}") for kind in ("train", "score")] for i in range(n)]  # type: ignore
    needs: dict[Step, tuple[Step, ...]] = {}
    for train, score in pairs:
        needs |= {train: (), score: (train,)}
    return plans.Plan(plans.read(file), tuple(needs), needs, ())


@pytest.fixture
def labelled_steps(monkeypatch):
    """Steps made by hand describe no files: each is done once there is one of its label."""
    monkeypatch.setattr(steps, "is_done", lambda step, data, out: (out / step.label).exists())


def note(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """The work of a step made by hand: it is counted, and leaves a file of its label."""
    with (data / "calls").open("a") as calls:
        calls.write(f"{step.label}\n")
    if step.kind == "score":
        assert (out / step.label.replace("score", "train")).exists()
    (out / step.label).touch()
    return Outcome(0.01, "")
