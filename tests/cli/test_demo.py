"""The main job end to end, from a wheel that is installed alone: in an empty folder, far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from emubench.cli import demo
from tests.support.recipes import blocks

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


class Installed:
    """A fresh environment that holds the wheel of emubench; all other packages are those of the tests."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=False)
        self.python = folder / "venv" / "bin" / "python"
        self.site = Path(self.run(folder, self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
        (self.site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder / "wheels", ROOT]
        self.run(folder, *wheel)
        (built,) = (folder / "wheels").glob("*.whl")
        self.run(folder, *pip, "--python", self.python, "install", "--no-deps", "-q", built)

    def run(self, work: Path, *command: object) -> str:
        """What a command prints; nothing of this checkout is on its path."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run([*map(str, command)], cwd=work, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def emubench(self, work: Path, *arguments: object) -> str:
        """What the console script prints."""
        return self.run(work, self.python.with_name("emubench"), *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


def test_what_is_imported_comes_from_the_wheel(installed, tmp_path):
    code = "import emubench, emubench.cli.main as c; print(emubench.__file__, c.__file__, *emubench.baselines.__path__)"
    for path in installed.run(tmp_path, installed.python, "-c", code).split():
        assert Path(path).is_relative_to(installed.site)
    assert "resnet_ode" in installed.emubench(tmp_path, "list", "baselines", "--json")


def test_the_fingerprints_and_recipes_came_along(installed, tmp_path):
    installed.emubench(tmp_path, "generate", "lorenz63-noisy", "--size", "tiny")
    assert ": whole" not in installed.emubench(tmp_path, "verify", "data/tiny/lorenz63-noisy.h5")


def test_demo_ranks_four_systems_and_its_table_can_be_rebuilt_from_disk(installed, tmp_path):
    first = json.loads(installed.emubench(tmp_path, "demo", "--json"))
    assert {row["baseline"] for row in first} == set(demo.BASELINES)
    assert len({row["task"] for row in first if row["task"]}) == 4  # the other rows are the track's
    assert list((tmp_path / "demo" / "plots").glob("*-error.png"))
    assert json.loads(installed.emubench(tmp_path, "compare", "demo/runs", "--json")) == first
    # again: everything is there, nothing is made anew
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".h5", ".safetensors")}
    installed.emubench(tmp_path, "demo", "--json")
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_the_lines_of_the_readme_run(installed, tmp_path):
    (program,) = blocks("In Python", "python", "README.md")
    (tmp_path / "lines.py").write_text(program)
    assert "resnet_ode" in installed.run(tmp_path, installed.python, "lines.py")
    assert (tmp_path / "error.png").stat().st_size > 10_000


def test_the_contracts_came_along(installed, tmp_path):
    code = "from emubench import baselines, testing; testing.check_baseline(baselines.get('linear'))"
    installed.run(tmp_path, installed.python, "-c", code)
