"""The recipe "submit a model" of CONTRIBUTING.md, followed literally at tiny size, from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_recipe_of_contributing_leads_to_a_row_on_the_page(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Submit a model")[2]
    found = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert found is not None
    recipe = found[1]
    recipe = recipe.replace("submit run", "submit run --bench-seconds 0")
    for command in ("generate lorenz63-noisy", "train linear lorenz63-noisy", "leaderboard build"):
        assert command in recipe
        recipe = recipe.replace(command, f"{command} --size tiny")
    (tmp_path / "bin").mkdir()
    script = f'#!/bin/sh\nexec {sys.executable} -c "from emubench.cli import main; main()" "$@"\n'
    (tmp_path / "bin" / "emubench").write_text(script)
    (tmp_path / "bin" / "emubench").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    paths = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", recipe], cwd=work, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") > 10
    assert 'href="entries/my-model.html"' in (work / "site" / "index.html").read_text()
    assert "a checkpoint" not in (work / "site" / "index.html").read_text()
