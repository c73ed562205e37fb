"""The recipes of CONTRIBUTING.md: taken from the page, and followed line by line at tiny size.

As a program it follows the lines that it reads from standard input: ``python recipes.py < lines``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    ("generate",): ["--size", "tiny"],
    ("train",): ["--size", "tiny"],
    ("submit", "run"): ["--bench-seconds", "0"],
    ("season", "new"): ["--size", "tiny", "--task", "lorenz63-noisy"],
    ("leaderboard", "build"): ["--size", "tiny"],
}
"""What is added to commands, so that they end within a test's time."""


def blocks(heading: str, language: str, page: str = "CONTRIBUTING.md") -> list[str]:
    """The blocks of code in one language below a heading of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    below = text.partition(f"\n## {heading}\n")[2]
    return re.findall(rf"```{language}\n(.*?)```", below.partition("\n## ")[0], re.DOTALL)


def checkout(folder: Path) -> Path:
    """A copy of the package and its baselines to be added to, laid out as the repository is."""
    for name in ("emubench", "baselines"):
        shutil.copytree(ROOT / name, folder / name)  # compiled kernels, too
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def follow(lines: str, work: Path, package: Path = ROOT, **variables: str) -> str:
    """Follow the lines in the folder ``work`` with the package in ``package``; return what they print."""
    kept = {name: value for name, value in os.environ.items() if name != "EMUBENCH_SEASON_SECRET"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=lines,
        cwd=work,
        env=kept | {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the program ------------------------------------------------------------------------------------------------------


def _follow(line: str) -> None:
    """One line: a loop, a variable, a command of emubench (in this process, as torch takes long to import), another."""
    if loop := re.fullmatch(r"for (\w+) in (.*?); do (.*); done", line):
        for value in loop[2].split():
            _follow(loop[3].replace(f"${loop[1]}", value))
        return
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        os.environ[name] = os.path.expanduser(value)
    elif words[0] == "emubench":
        from emubench.cli.main import main

        print(f"$ {line}", flush=True)
        sys.argv = words + next(
            (more for start, more in SMALL.items() if tuple(words[1 : 1 + len(start)]) == start), []
        )
        try:
            main()
        except SystemExit as leaving:
            if leaving.code:
                raise
    else:
        subprocess.run(words, check=True)


if __name__ == "__main__":
    for given in sys.stdin.read().splitlines():
        _follow(given)
