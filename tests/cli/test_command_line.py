"""What the command line takes and explains: files of one's own, settings in names, parameters, stages of the demo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emubench import baselines, systems
from emubench.cli import demo, options
from emubench.runs import jobs
from tests.support.scored_runs import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_own(monkeypatch):
    """Whatever is added to the folders of baselines is forgotten after the test."""
    monkeypatch.setenv(baselines.OWN, "")
    monkeypatch.setattr(baselines, "__path__", list(baselines.__path__))


def test_command_line_takes_a_baseline_in_a_file_of_ones_own(emubench, refused, own_data, tmp_path, no_own):
    mine = tmp_path / "a folder" / "my_model.py"
    mine.parent.mkdir()
    shutil.copy(ROOT / "baselines" / "persistence.py", mine)
    arguments = ("lorenz63-noisy", "--size", "tiny", "--data", own_data, "--out", tmp_path / "runs")
    finished = emubench("train", mine, *arguments)
    assert finished.status == 0, finished.err
    assert finished.out.endswith(f"; the file is found again with: export EMUBENCH_BASELINES='{mine.parent}'\n")
    (card,) = (tmp_path / "runs").rglob("card.json")
    assert json.loads(card.read_text())["baseline"] == "my_model"
    assert emubench("score", tmp_path / "runs", "--data", own_data).status == 0
    for name, answer in (
        ("none.py", "no such file"),
        ("My-Model.py", "a file name of lower-case letters"),
        ("linear.py", "there is a baseline linear already"),
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        if name != "none.py":
            shutil.copy(mine, tmp_path / "other" / name)
        assert answer in refused("train", tmp_path / "other" / name, *arguments)


def test_command_line_explains_settings_that_differ_from_task_to_task(emubench, tmp_path, frozen):
    for task, delays in (("lorenz63-noisy", 2), ("lorenz96-noisy", 8)):
        config = jobs.Job("linear", task, "tiny", overrides={"delays": delays}).config().__dict__
        run = write_run(tmp_path, "linear", task, np.ones(4), config=json.loads(json.dumps(config)))
        card = json.loads((run / "card.json").read_text()) | {"overrides": {"delays": delays}}
        (run / "card.json").write_text(json.dumps(card))
    printed = emubench("compare", tmp_path).out
    assert printed.count("linear (delays=*)") >= 2
    assert printed.count("(setting=*): it differs from the default, on each task to another value") == 2


def test_command_line_lists_the_parameters_of_systems(emubench):
    rows = json.loads(emubench("list", "systems", "--json").out)
    assert {row["system"]: row["parameters"] for row in rows} == {
        name: systems.get(name).parameters() for name in systems.names()
    }
    assert "rho = 28, beta = 2.66667" in " ".join(emubench("list", "systems").out.split())


def test_command_line_tells_stages_in_a_pipe(capsys, tmp_path, monkeypatch):
    with options.progress("generate", lines=True) as show:
        for done in range(1, 9):
            show(done, 8)
    assert capsys.readouterr().err.splitlines() == ["generate ...", *(f"generate: {n} of 8" for n in (2, 4, 6, 8))]
    monkeypatch.setattr(demo, "demo_jobs", lambda device: [jobs.Job("persistence", "lorenz63-noisy", "tiny")])
    monkeypatch.setattr(demo.report, "compare", lambda *_: [])
    demo.run(tmp_path, 1, json=False)
    stages = [line for line in capsys.readouterr().err.splitlines() if line.endswith("...")]
    assert stages == ["generate ...", "train and score ...", "rank and plot ..."]
