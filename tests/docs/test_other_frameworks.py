"""The worked example of ``docs/other_frameworks.md``, run as it stands, without torch and emubench."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "other_frameworks.md"
WITHOUT = "import sys\nsys.modules['torch'] = sys.modules['emubench'] = None  # an import of either fails\n"


def blocks(language: str) -> list[str]:
    """The blocks of code of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    """The arguments of the page's emubench commands."""
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert all(line[0] == "emubench" for line in lines)
    return [line[1:] for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


def test_the_page_runs_as_it_stands(emubench, monkeypatch, data, folder):
    (folder / "data").symlink_to(data)  # made already; the page's command says so
    monkeypatch.chdir(folder)
    generate, contexts, score = commands()
    assert emubench(*generate).out == "everything is there already\n"
    assert emubench(*contexts).status == 0
    program = WITHOUT + "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results = {}
    for name in ("forecast.npz", "forecast.h5", "forecast.nc"):
        finished = emubench(*(name if a == "forecast.npz" else a for a in score), "--json")
        assert finished.status == 0, finished.err
        results[name] = json.loads(finished.out)
        assert {row.pop("run") for row in results[name]} == {name}
    assert results["forecast.npz"] == results["forecast.h5"] == results["forecast.nc"]
    found = {row["metric"]: row["value"] for row in results["forecast.npz"] if row["lead_time"] is None}
    assert 0.6 < found["valid_prediction_time"] < 3  # it has learned something
    assert found["surviving_fraction"] == 1


def test_a_program_that_imports_torch_would_be_found_out(folder):
    for module in ("torch", "emubench"):
        done = subprocess.run([sys.executable, "-c", WITHOUT + f"import {module}"], capture_output=True, check=False)
        assert done.returncode != 0
