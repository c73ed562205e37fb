"""A small entry to be submitted, and what spoils one."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest

from emubench.data import reference
from emubench.files.entry_files import SCORES
from emubench.leaderboard.submission import checks, entries, making, season, verifying
from emubench.runs import folders, jobs, stages

TASK = "lorenz63-noisy"
STATED = {"authors": ["A. Name"], "contact": "a@example.org", "licence": "MIT"}


@pytest.fixture(scope="session")
def submitted_runs(data, tmp_path_factory) -> Path:
    """Scored runs of ``linear`` and ``persistence`` on one tiny task."""
    out = tmp_path_factory.mktemp("submitted") / "runs"
    for baseline in ("linear", "persistence"):
        stages.score(stages.train(jobs.Job(baseline, TASK, "tiny"), data, out), data)
    return out


@pytest.fixture
def sound_entry(submitted_runs, tmp_path) -> Path:
    """The folder of a sound entry of ``linear``, to be spoilt at will."""
    return making.from_runs(
        "mine", folders.find_runs([submitted_runs / "linear"]), tmp_path / "entries", STATED, weights=True
    )


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


def edit_entry(folder: Path, kind: str, change: Any) -> None:
    """Apply ``change`` to what a file of an entry holds of the one run, whatever comes of it."""
    path = folder / kind
    packed = path.suffix == ".xz"
    content = json.loads(lzma.decompress(path.read_bytes()) if packed else path.read_bytes())
    change(content[TASK]["0"])
    text = json.dumps(content).encode()
    path.write_bytes(lzma.compress(text) if packed else text)


def verified_row(task: str = TASK, **changed: Any) -> verifying.VerifiedRow:
    """What a judge may have found on one task: three seeds, skill 0.5, stability 0.6, unless ``changed``.

    The score is that of the skill.
    """
    kpz, scale = task.startswith("kpz"), reference.scale(task)
    row: dict[str, Any] = {"task": task, "metric": "crps" if kpz else "valid_prediction_time", "n_cases": 16}
    row |= {"unit": "height" if kpz else "Lyapunov time", "seeds": [0, 1, 2]}
    row |= {"skill": 0.5, "skill_low": 0.4, "skill_high": 0.6, "claimed": 0.5, "reason": "", "made_from": "0" * 64}
    row |= {"skill_stability": 0.6, "skill_stability_low": 0.5, "skill_stability_high": 0.7}
    row |= {"surviving_fraction": 1.0, "lyapunov_times_per_second": 1e4, "train_seconds": 1.0}
    row |= changed
    assert scale.floor is not None
    assert scale.oracle is not None
    skills = (0.5, 0.4, 0.6) if row["skill"] is None else (row["skill"], row["skill_low"], row["skill_high"])
    value, *ends = (scale.floor + skill * (scale.oracle - scale.floor) for skill in skills)
    low, high = sorted(ends)
    wider = {"low_99": low - 0.2 * (value - low), "high_99": high + 0.2 * (high - value)}
    return verifying.VerifiedRow(**({"value": value, "low": low, "high": high} | wider | row))


def verified(entry: str, rows: list[verifying.VerifiedRow], name: str = "2026a", **changed: Any) -> verifying.Verified:
    """What a judge found of an entry that is called like its method, in the season ``name``."""
    known = {"schema_version": 1, "emubench_version": "0.1.0", "season": name, "commitment": "0" * 64}
    known |= {"entry": entry, "method": entry, "judge": "here"}
    return verifying.Verified(**(known | {"rows": rows} | changed))


def open_season(size: str = "tiny", names: tuple[str, ...] = (TASK,), opened: str = "2026-11-22") -> season.Season:
    """A season whose secret nobody knows."""
    digests = {"commitment": "0" * 64, "draws_sha256": "0" * 64}
    return season.Season(size=size, tasks=list(names), emubench_version="0.1.0", opened=opened, **digests)


def publish(board: Path, seasons: dict[str, season.Season], *found: verifying.Verified) -> None:
    """Write seasons and verified rows into a board, as the commands do: made from its entries, where there are such."""
    season._write(board, seasons)
    for one in found:
        folder, place = board / "verified" / one.season, board / "entries" / one.entry
        folder.mkdir(parents=True, exist_ok=True)
        if place.exists():
            one = one.model_copy(update={"rows": [_of_entry(checks.require(place), seasons, one, r) for r in one.rows]})
        (folder / f"{one.entry}.json").write_text(one.model_dump_json())


def _of_entry(contents: entries.Contents, seasons: dict, found: verifying.Verified, row: verifying.VerifiedRow) -> Any:
    opened = seasons.get(found.season)
    if opened is None or row.task not in contents.entry.tasks:
        return row
    made = {"made_from": verifying.made_from(contents, opened, row.task)}
    return row.model_copy(update=made | {"claimed": verifying.claimed(contents, row.task, opened.size)})


def forecast_entry(folder: Path, source: Path, forecast: Path) -> Path:
    """An open entry of a forecast file, with the scores of ``source``: consistent, if not true."""
    place = folder / TASK / "seed-0"
    place.mkdir(parents=True)
    shutil.copy(forecast, place / f"forecast{forecast.suffix}")
    shutil.copy(source / SCORES, folder)
    content = entries.read(source).model_dump() | {"name": folder.name, "division": "open", "method": "forecasts"}
    content["files"] = {SCORES: "0" * 64}
    (folder / "entry.toml").write_text(entries.to_toml(entries.Entry(**content)))
    sign_again(folder)
    return folder
