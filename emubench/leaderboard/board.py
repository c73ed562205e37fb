"""What the page shows, gathered from the entries' folders: every one checked, nothing of it executed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from emubench import entries as compared
from emubench import jobs, ranking, schema
from emubench import task as tasks
from emubench.errors import EmubenchError
from emubench.submission import check, season, verify
from emubench.submission.entry import ENTRY_FILE, FORECASTS, Entry


@dataclass(frozen=True)
class Shown:
    """One entry: what it says of itself, its scores, and the verified rows it has."""

    entry: Entry
    folder: Path
    runs: tuple[compared.Run, ...]
    verified: tuple[verify.Verified, ...] = ()

    @cached_property
    def badges(self) -> list[tuple[str, str]]:
        """(kind, text) of what a reader has to know of it."""
        found = [("division", "standard" if self.entry.division == "standard" else "open: self-reported, unranked")]
        found += [("verified", f"verified {v.season} ({len(v.rows)} tasks)") for v in self.verified]
        if self.entry.division == "standard" and not self.verified:
            found.append(("unverified", "not verified yet"))
        return found + ([("checkpoint", self.entry.label)] if self.entry.label else [])

    def runs_of(self, task: str) -> list[compared.Run]:
        """Its seeds on one task."""
        return [run for run in self.runs if run.task.name == task]


@dataclass(frozen=True)
class Board:
    """All entries of one size, sorted by name."""

    shown: tuple[Shown, ...]
    seasons: dict[str, season.Season] = field(default_factory=dict)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The table of the standard division: see :func:`emubench.ranking.table`."""
        return ranking.table([run for one in self.shown if one.entry.division == "standard" for run in one.runs])

    @cached_property
    def unranked(self) -> pd.DataFrame:
        """The table of the open division, without ranks."""
        frame = ranking.table([run for one in self.shown if one.entry.division == "open" for run in one.runs])
        for column in ("rank_low", "rank_high", "stability_rank_low", "stability_rank_high", "pareto_front"):
            frame[column] = pd.NA
        return frame

    def get(self, name: str) -> Shown:
        """The entry called ``name``."""
        (found,) = (one for one in self.shown if one.entry.name == name)
        return found


def read(board: Path, size: str = "standard") -> Board:
    """Check and read every entry of ``board/entries``; the first bad one raises :class:`EmubenchError`.

    Entries of another size are left out.
    """
    folder, shown = board / "entries", []
    rows: dict[str, list[verify.Verified]] = {}
    for found in verify.read(board):
        rows.setdefault(found.entry, []).append(found)
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if place.is_symlink() or not (place / ENTRY_FILE).exists():
            raise EmubenchError(f"{place}: not an entry (no {ENTRY_FILE})")
        entry = check.require(place)
        if entry.size == size:
            runs = tuple(_run(place, entry, task, seed) for task in entry.tasks() for seed in entry.seeds)
            shown.append(Shown(entry, place, runs, tuple(rows.get(entry.name, ()))))
    _one_version(shown)
    return Board(tuple(shown), season.read(board))


def _run(folder: Path, entry: Entry, task: str, seed: int) -> compared.Run:
    place = folder / task / f"seed-{seed}"
    scores = check.read_scores(place)
    if entry.method == FORECASTS:
        content: dict[str, Any] = {
            "schema_version": schema.SCHEMA_VERSION,
            "emubench_version": scores.emubench_version,
            "baseline": FORECASTS,
            "task": task,
            "size": entry.size,
            "seed": seed,
            "data_sha256": "",
            "knowledge": entry.knowledge,
            "config": {},
            "n_parameters": 0,
            "train_seconds": 0.0,
            "threads": 1,
            "device": entry.hardware,
        }
        return compared.Run(place, schema.Card(**content), scores, None, entry.name)
    timing = timing_of(place)
    speed, gained = (timing.lyapunov_times_per_second, timing.speedup) if timing else (None, None)
    return compared.Run(place, jobs.read_card(place), scores, speed, entry.name, claimed_speedup=gained)


def timing_of(place: Path) -> check.Timing | None:
    """What an entry says of the speed of one task and seed."""
    path = place / "timing.json"
    return schema.read_json(check.Timing, path, check.MAX_BYTES["timing.json"]) if path.exists() else None


def _one_version(shown: list[Shown]) -> None:
    first: tuple[str, str] | None = None
    for one in shown:
        for run in one.runs:
            first = first or (run.scores.emubench_version, one.entry.name)
            if run.scores.emubench_version != first[0]:
                versions = f"{first[0]} ({first[1]}) and {run.scores.emubench_version}"
                raise EmubenchError(f"{one.folder}: the entries were scored by emubench {versions}; score all anew")


def systems_of(track: str) -> list[str]:
    """The systems of a track, in order."""
    return [name.rsplit("-", 1)[0] for name in tasks.names() if name.rsplit("-", 1)[1] == track]
