"""The recipes of CONTRIBUTING.md, each followed literally in a folder of its own (a system's: ``test_registry.py``)."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from emubench import baselines
from emubench.data import dataset, recipes, tasks
from tests.support.recipes import ROOT, blocks, checkout, follow


def scores(runs: Path, baseline: str, task: str = "lorenz63-noisy") -> dict[str, dict]:
    (path,) = (runs / baseline / task).glob("*/scores.json")
    return {row["metric"]: row for row in json.loads(path.read_text())["rows"] if row["lead_time"] is None}


def test_no_block_is_left_unfollowed():
    """Whoever adds a block to the page adds its test here."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)$", text.partition("\n## ")[2], re.MULTILINE)  # under the headings
    assert [kind for kind in found if kind] == [
        "bash",
        "toml",
        "bash",
        "bash",
        "python",
        "toml",
        "bash",
        "python",
        "bash",
    ] + [
        "bash"  # a maintainer's, once per version of the benchmark: hours
    ]
    assert found.count("") == len(found) / 2


@pytest.mark.slow
def test_a_model_is_submitted(tmp_path):
    recipe = blocks("Submit a model", "bash")[0]
    printed = follow(recipe, tmp_path)
    assert printed.count("ok ") > 10
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="entries/my-model.html"' in index
    assert "a checkpoint" not in index
    assert "Nobody is ranked yet" in index


@pytest.mark.slow
def test_a_maintainer_verifies_a_model_which_gets_its_rank(tmp_path):
    first, second = blocks("Submit a model", "bash")
    kept = [line for line in first.splitlines() if "submit run" not in line and "leaderboard" not in line]
    (tmp_path / "home").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    follow("\n".join([*kept, second]), work, HOME=str(tmp_path / "home"))
    index = (work / "site" / "index.html").read_text()
    assert "Nobody is ranked yet" not in index
    assert "Verified on the sealed data of season 2026a" in index
    (task, whole) = sorted(
        json.loads((work / "site" / "data" / "verified.json").read_text()), key=lambda row: row["task"] is None
    )
    assert task["rank_low"] == task["rank_high"] == whole["rank_low"] == 1
    assert task["seeds"] == 3
    season = tomllib.loads((work / "leaderboard" / "seasons.toml").read_text())["seasons"]["2026a"]
    assert season["secret"] == (tmp_path / "home" / "season-2026a.txt").read_text().strip()


@pytest.mark.slow
def test_a_baseline_is_added(tmp_path):
    (recipe,) = blocks("Add a baseline: one file", "bash")
    checkout(tmp_path)
    printed = follow(recipe + "emubench train persistence lorenz63-noisy\nemubench score runs\n", tmp_path, tmp_path)
    assert re.search(r"^ *my_method ", printed, re.MULTILINE), printed
    found, known = (scores(tmp_path / "runs", name) for name in ("my_method", "persistence"))
    assert found == known
    assert found["valid_prediction_time"]["value"] > 0


def test_a_plug_in_is_named_as_the_page_says(tmp_path, monkeypatch):
    (text,) = blocks("Add a baseline: one file", "toml")
    ((group, points),) = tomllib.loads(text)["project"]["entry-points"].items()
    ((name, module),) = points.items()
    path = tmp_path / Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir()
    path.write_text((ROOT / "baselines" / "persistence.py").read_text())
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    assert name in baselines.names()
    assert baselines.get(name).knowledge == "none"


@pytest.mark.slow
def test_a_task_is_added(tmp_path):
    (description,), (recipe,) = (blocks("Add a task: a recipe", kind) for kind in ("toml", "bash"))
    (tmp_path / "my-task.toml").write_text(description)
    follow(recipe, tmp_path)
    made = tomllib.loads(description)
    task = recipes.resolve("my-task", "tiny", tmp_path / "data")
    train, wanted = dataset.load(task, tmp_path / "data").train, made["amounts"]["train"]
    assert train.shape[:2] == (wanted["trajectories"], wanted["length"])
    assert task.system.parameters()["forcing"] == 10.0
    assert 0 < scores(tmp_path / "runs", "linear", "my-task")["valid_prediction_time"]["value"] < 10


@pytest.mark.slow
def test_a_metric_is_added(tmp_path):
    (code,), (recipe,) = (blocks("Add a metric: one file", kind) for kind in ("python", "bash"))
    checkout(tmp_path)
    (tmp_path / "emubench" / "metrics" / "mean_absolute_error.py").write_text(code)
    follow(recipe, tmp_path, tmp_path)
    row = scores(tmp_path / "runs", "persistence")["mean_absolute_error"]
    task = tasks.get("lorenz63-noisy", "tiny")
    context = dataset.load(task, tmp_path / "data").context("test")
    with dataset.open_truth(task, tmp_path / "data") as file:
        truth = np.asarray(file["test/truth"])[:, task.context :]
    error = np.abs((context[:, -1:].numpy() - truth) / task.system.std)
    assert row["value"] == pytest.approx(float(error.mean()))  # by another way
    assert row["low"] < row["value"] < row["high"]
    assert row["n_cases"] == 16
