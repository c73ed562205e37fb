"""The main job end to end: the demo, and the same from a wheel installed alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emubench.cli import compare, demo
from emubench.runs import folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_demo_ranks_four_systems_and_its_table_can_be_rebuilt_from_disk(tmp_path, capsys):
    demo.run(tmp_path, workers=2, json=True)
    first = json.loads(capsys.readouterr().out)
    assert {row["baseline"] for row in first} == set(demo.BASELINES)
    assert len({row["task"] for row in first if row["task"]}) == 4  # the other rows are the track's
    assert list((tmp_path / "plots").glob("*-error.png"))
    compare.compare(folders.find_runs([tmp_path / "runs"]), None, True)
    assert json.loads(capsys.readouterr().out) == first
    # again: everything is there, nothing is made anew
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".h5", ".safetensors")}
    demo.run(tmp_path, workers=2, json=True)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


@pytest.mark.slow
def test_a_wheel_installed_alone_works_in_an_empty_folder(tmp_path):
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "-q", "--target", str(site), str(wheel)], check=True, cwd=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def emubench(*arguments: str) -> str:
        code = "import emubench.cli.main as c, emubench.baselines as b; print(c.__file__, *b.__path__); c.main()"
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        first, _, rest = done.stdout.partition("\n")
        assert all(str(site) in path for path in first.split()), first
        return rest

    assert "resnet_ode" in emubench("list", "baselines", "--json")
    emubench("generate", "lorenz63-noisy", "--size", "tiny")
    assert ": whole" not in emubench("verify", "data/tiny/lorenz63-noisy.h5")  # the fingerprints came along
    emubench("train", "resnet_ode", "lorenz63-noisy", "--size", "tiny", "--set", "steps=20")
    emubench("train", "persistence", "lorenz63-noisy", "--size", "tiny")
    emubench("score", "runs")
    rows = json.loads(emubench("compare", "runs", "--json", "--plot", "plots"))
    assert {row["baseline"] for row in rows} == {"persistence", "resnet_ode"}
