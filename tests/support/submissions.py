"""A small entry to be submitted, and what spoils one."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emubench.data import reference, tasks
from emubench.files.entry_files import SCORES
from emubench.files.timing import JudgedSpeed, Quantiles, Speedup
from emubench.leaderboard.submission import checks, entries, making, season, verified_rows
from emubench.leaderboard.submission.verified_rows import SeedScores, Verified, VerifiedRow
from emubench.runs import folders, jobs, stages
from tests.support.contents import contents

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


@pytest.fixture
def faults(emubench):
    """Check a folder that must be refused; return its lines, and see that nothing was touched."""

    def run(folder: Path) -> list[str]:
        before = contents(folder.parent)
        finished = emubench("submit", "check", folder)
        assert finished.status == 1, finished
        lines = finished.err.splitlines()
        assert lines, finished
        assert all(line.startswith("emubench: ") for line in lines), lines
        assert contents(folder.parent) == before
        return lines

    return run


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


def seed_scores(seed: int, cases: Any, **changed: Any) -> SeedScores:
    """What a judge may have found of one training: stability 0.6 [0.5, 0.7], unless ``changed``."""
    steady = {"skill_stability": 0.6, "skill_stability_low": 0.5, "skill_stability_high": 0.7}
    return SeedScores(seed=seed, cases=list(map(float, cases)), **(steady | {"surviving_fraction": 1.0} | changed))


def spread_cases(task: str, skill: float, half: float, n: int = 16, draw: int = 0) -> np.ndarray:
    """Scores of cases whose mean has this skill, of 16 with a 95 % interval of about ``half`` on either side."""
    scale = reference.scale(task)
    assert scale.floor is not None
    assert scale.oracle is not None
    levels = np.linspace(-1, 1, n) / np.linspace(-1, 1, n).std()
    off = np.random.default_rng(draw).permutation(levels) * half * np.sqrt(16) / 1.959964
    return scale.floor + (skill + off) * (scale.oracle - scale.floor)


def verified_row(
    task: str = TASK,
    skill: float = 0.5,
    half: float = 0.1,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    size: str = "tiny",
    draw: int = 0,
    stability: dict[str, Any] | None = None,
    by_seed: list[SeedScores] | None = None,
    **changed: Any,
) -> VerifiedRow:
    """What a judge may have found on one task: three equal seeds of this skill, unless ``changed``."""
    cases = spread_cases(task, skill, half, 16 if size == "tiny" else 256, draw)
    found = by_seed or [seed_scores(seed, cases, **(stability or {})) for seed in seeds]
    row: dict[str, Any] = {"claimed": 0.5, "reason": "", "made_from": "0" * 64, "by_seed": found}
    row |= {"lyapunov_times_per_second": 1e4, "train_seconds": 1.0}
    return VerifiedRow(**(verified_rows.scores("", tasks.get(task, size), found) | row | changed))


def judged_speed(speed: float, gain: float | None = 2.0, *, ranked: bool = True, **changed: Any) -> JudgedSpeed:
    """What a judge may have found of an emulator's speed: with a fifth up and down, unless ``changed``."""
    ends: dict[str, Any] = {"value": gain, "low": gain and 0.8 * gain, "high": gain and 1.2 * gain}
    gained = Speedup(**ends, scheme="rk4, 2 steps per sample", ranked=ranked, break_even=None)
    known: dict[str, Any] = {"device": "cpu", "processor": "a processor", "threads": 1, "batch": 64}
    rate = Quantiles(median=speed, low=0.8 * speed, high=1.2 * speed)
    return JudgedSpeed(**(known | {"lyapunov_times_per_second": rate, "speedup": gained} | changed))


def verified(entry: str, rows: list[VerifiedRow], name: str = "2026a", **changed: Any) -> Verified:
    """What a judge found of an entry that is called like its method, in the season ``name``."""
    known = {"schema_version": 2, "emubench_version": "0.1.0", "season": name, "commitment": "0" * 64}
    known |= {"entry": entry, "method": entry, "judge": "here"}
    return Verified(**(known | {"rows": rows} | changed))


def open_season(size: str = "tiny", names: tuple[str, ...] = (TASK,), opened: str = "2026-11-22") -> season.Season:
    """A season whose secret nobody knows."""
    digests = {"commitment": "0" * 64, "draws_sha256": "0" * 64}
    return season.Season(size=size, tasks=list(names), emubench_version="0.1.0", opened=opened, **digests)


def publish(board: Path, seasons: dict[str, season.Season], *found: Verified) -> None:
    """Write seasons and verified rows into a board, as the commands do: made from its entries, where there are such."""
    season._write(board, seasons)
    for one in found:
        folder, place = board / "verified" / one.season, board / "entries" / one.entry
        folder.mkdir(parents=True, exist_ok=True)
        if place.exists():
            one = one.model_copy(update={"rows": [_of_entry(checks.require(place), seasons, one, r) for r in one.rows]})
        (folder / f"{one.entry}.json").write_text(one.text())


def _of_entry(contents: entries.Contents, seasons: dict, found: Verified, row: VerifiedRow) -> Any:
    opened = seasons.get(found.season)
    if opened is None or row.task not in contents.entry.tasks:
        return row
    made = {"made_from": verified_rows.made_from(contents, opened, row.task, row.by_seed)}
    return row.model_copy(update=made | {"claimed": verified_rows.claimed(contents, row.task, opened.size)})


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
