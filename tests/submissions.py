"""A small entry to be submitted, and what spoils one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emubench import jobs
from emubench.submission import entry as entries
from emubench.submission import new

TASK = "lorenz63-noisy"
STATED = {"authors": ["A. Name"], "contact": "a@example.org", "licence": "MIT"}


@pytest.fixture(scope="session")
def runs(data, tmp_path_factory) -> Path:
    """Scored runs of ``linear`` and ``persistence`` on one tiny task."""
    out = tmp_path_factory.mktemp("submitted") / "runs"
    for baseline in ("linear", "persistence"):
        jobs.score(jobs.train(jobs.Job(baseline, TASK, "tiny"), data, out), data)
    return out


@pytest.fixture
def entry(runs, tmp_path) -> Path:
    """The folder of a sound entry of ``linear``, to be spoilt at will."""
    return new.from_runs("mine", jobs.find_runs([runs / "linear"]), tmp_path / "entries", STATED)


def sign_again(folder: Path) -> None:
    """Write the hashes of what lies there now into ``entry.toml``: what an attacker would do."""
    head = (folder / "entry.toml").read_text().partition("[files]")[0]
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "entry.toml"]
    lines = [f'"{p.relative_to(folder)}" = "{entries.sha256(p)}"' for p in files]
    (folder / "entry.toml").write_text("\n".join([head + "[files]", *lines, ""]))


def edit_json(path: Path, change: Any) -> None:
    """Apply ``change`` to a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forecast_entry(folder: Path, source: Path, forecast: Path) -> Path:
    """An open entry of a forecast file, with the scores of ``source``: consistent, if not true."""
    place = folder / TASK / "seed-0"
    place.mkdir(parents=True)
    shutil.copy(forecast, place / f"forecast{forecast.suffix}")
    shutil.copy(source / TASK / "seed-0" / "scores.json", place)
    content = entries.read(source).model_dump() | {"name": folder.name, "division": "open", "method": "forecasts"}
    content["files"] = {f"{TASK}/seed-0/scores.json": "0" * 64}
    (folder / "entry.toml").write_text(entries.to_toml(entries.Entry(**content)))
    sign_again(folder)
    return folder
