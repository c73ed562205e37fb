"""What the page shows, gathered from the entries' folders: every one checked, nothing of it executed."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from emubench.core.errors import EmubenchError
from emubench.files.entry_files import RunKey
from emubench.leaderboard import ranking
from emubench.leaderboard.page import ranks
from emubench.leaderboard.submission import checks, season, verifying
from emubench.leaderboard.submission.entries import ENTRY_FILE, FORECASTS, Contents, Entry
from emubench.runs import scored

DIVISIONS = ("standard", "open")
RANKS = ("rank_low", "rank_high", "stability_rank_low", "stability_rank_high", "pareto_front")
"""Columns that rows have only if a judge found them."""


@dataclass(frozen=True)
class Shown:
    """One entry: what it says of itself, its scores, and the verified rows it has."""

    contents: Contents
    runs: tuple[scored.ScoredRun, ...]
    verified: tuple[verifying.Verified, ...] = ()

    @property
    def entry(self) -> Entry:
        """What it says of itself."""
        return self.contents.entry

    @cached_property
    def badges(self) -> list[tuple[str, str]]:
        """What a reader has to know of it, as pairs of kind and text."""
        found = [("division", self.entry.division)]
        found += [("verified", f"verified in season {v.season}") for v in self.verified]
        if not self.verified:
            found.append(("unverified", "self-reported"))
        return found + ([("checkpoint", self.entry.label)] if self.entry.label else [])

    @property
    def marks(self) -> list[tuple[str, str]]:
        """The badges that say more than the heading of its table does."""
        return [(kind, text) for kind, text in self.badges if kind in ("verified", "checkpoint")]

    @property
    def is_model(self) -> bool:
        """Whether it is a model, and not forecasts alone."""
        return self.entry.method != FORECASTS

    def runs_of(self, task: str) -> list[scored.ScoredRun]:
        """Its seeds on one task."""
        return [run for run in self.runs if run.task.name == task]


@dataclass(frozen=True)
class Board:
    """All entries of one size, sorted by name, and the seasons of that size, the newest first."""

    shown: tuple[Shown, ...]
    seasons: dict[str, season.Season] = field(default_factory=dict)

    @cached_property
    def verified(self) -> dict[str, pd.DataFrame]:
        """What judges found, per season, with ranks: see :func:`emubench.leaderboard.page.ranks.table`."""
        knowledge = {one.entry.name: one.entry.knowledge for one in self.shown}
        found = {name: [v for one in self.shown for v in one.verified if v.season == name] for name in self.seasons}
        return {name: ranks.table(name, self.seasons[name], rows, knowledge) for name, rows in found.items() if rows}

    @property
    def ranks_nobody(self) -> bool:
        """Whether no row carries a rank."""
        return not any(frame["rank_low"].notna().any() for frame in self.verified.values())

    @cached_property
    def self_reported(self) -> dict[str, pd.DataFrame]:
        """What the entries say of the public contexts: per division, a table of rankings without its ranks."""
        frames = {}
        for division in DIVISIONS:
            runs = [run for one in self.shown if one.entry.division == division for run in one.runs]
            frames[division] = ranking.table(runs).drop(columns=list(RANKS))
        return frames

    def get(self, name: str) -> Shown:
        """The entry called ``name``."""
        (found,) = (one for one in self.shown if one.entry.name == name)
        return found


def read(board: Path, size: str = "standard") -> Board:
    """Check and read every entry of ``board/entries``; the first bad one raises :class:`EmubenchError`.

    Entries of another size are left out.
    """
    folder, shown = board / "entries", []
    seasons = {name: one for name, one in season.read(board).items() if one.size == size}
    verified = verifying.read(board)
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if place.is_symlink() or not (place / ENTRY_FILE).exists():
            raise EmubenchError(f"{place}: not an entry (no {ENTRY_FILE})")
        contents = checks.require(place)
        entry = contents.entry
        rows = [v for v in verified if v.entry == entry.name]
        for other in (v for v in rows if (entry.division, entry.method) != ("standard", v.method)):
            found = f"division {entry.division} and method {entry.method}"
            raise EmubenchError(f"{place}: {found}, where season {other.season} verified a standard {other.method}")
        if entry.size == size:
            runs = tuple(_run(contents, run) for run in entry.runs)
            shown.append(Shown(contents, runs, tuple(v for v in rows if v.season in seasons)))
    if strays := sorted({v.entry for v in verified} - {place.name for place in folder.glob("*")}):
        raise EmubenchError(f"{board}/verified: rows of {strays[0]}, which is no entry of this board")
    _one_version(shown)
    newest = sorted(seasons, key=lambda name: (seasons[name].opened, name), reverse=True)
    return Board(tuple(shown), {name: seasons[name] for name in newest})


def _run(contents: Contents, run: RunKey) -> scored.ScoredRun:
    entry, scores, (_, seed) = contents.entry, contents.scores[run], run
    if entry.method == FORECASTS:
        card = scored.bare_card(scores, seed, FORECASTS, entry.knowledge, entry.hardware)
        return scored.ScoredRun(contents.folder, card, scores, None, entry.name)
    timing = contents.timing.get(run)
    speed, gained = (timing.lyapunov_times_per_second, timing.speedup) if timing else (None, None)
    return scored.ScoredRun(contents.folder, contents.cards[run], scores, speed, entry.name, claimed_speedup=gained)


def _one_version(shown: list[Shown]) -> None:
    found = [(one, run.scores.emubench_version) for one in shown for run in one.runs]
    for one, version in found:
        first, known = found[0]
        if version != known:
            fault = f"the entries were scored by emubench {known} ({first.entry.name}) and {version}; score all anew"
            raise EmubenchError(f"{one.contents.folder}: {fault}")
