"""What the page shows, gathered from the entries' folders: every one checked, nothing of it executed."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from emubench.core.errors import EmubenchError
from emubench.files import store
from emubench.files.entry_files import RunKey
from emubench.leaderboard import ranking
from emubench.leaderboard.page import ranks
from emubench.leaderboard.page.ranks import most_common
from emubench.leaderboard.submission import checks, season, verified_rows
from emubench.leaderboard.submission.entries import ENTRY_FILE, FORECASTS, Contents, Entry
from emubench.leaderboard.submission.verified_rows import Verified
from emubench.runs import scored

DIVISIONS = ("standard", "open")
RANKS = (
    *(f"{name}_{end}" for name in ("rank", "stability_rank", "speedup_rank") for end in ("low", "high")),
    "pareto_front",
)
"""Columns that rows have only if a judge found them."""


@dataclass(frozen=True)
class Shown:
    """One entry: what it says of itself, its scores, and the verified rows it has."""

    contents: Contents
    runs: tuple[scored.ScoredRun, ...]
    verified: tuple[Verified, ...] = ()

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
        if self.entry.division != "standard":
            found.append(("exposed", "could have been made with the public truth"))
        return found + ([("checkpoint", self.entry.label)] if self.entry.label else [])

    @property
    def marks(self) -> list[tuple[str, str]]:
        """The badges that say more than the heading of its table does."""
        kinds = ("verified", "checkpoint", "exposed")
        return [(kind, kind if kind == "checkpoint" else text) for kind, text in self.badges if kind in kinds]

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
    faults: tuple[str, ...] = ()
    """What was left out for its faults, a line each."""
    notes: tuple[str, ...] = ()
    """What was left out as it is of another size, a line each."""

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
            frame = ranking.table(runs).drop(columns=list(RANKS))
            frames[division] = frame.drop(columns=frame.filter(like="common_").columns)
        return frames

    def get(self, name: str) -> Shown:
        """The entry called ``name``."""
        (found,) = (one for one in self.shown if one.entry.name == name)
        return found


def read(board: Path, size: str = "standard") -> Board:
    """Check and read every entry of ``board/entries``; what is bad is left out, and stands in the board's ``faults``.

    Entries of another size are left out, too, but for what a season of this size has verified of them. Raises
    :class:`EmubenchError` where there is no board.
    """
    if not board.is_dir():
        raise EmubenchError(f"{board}: no such folder; give that of a checkout's leaderboard with --board")
    folder = board / "entries"
    opened = season.read(board)
    seasons = {name: one for name, one in opened.items() if one.size == size}
    verified, faults = verified_rows.read(board)
    shown, notes = list[Shown](), list[str]()
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if store.is_litter(place):
            continue
        try:
            contents, rows = _entry(place, verified, opened)
        except EmubenchError as error:
            faults.append(str(error))
            continue
        same = contents.entry.size == size
        runs = tuple(_run(contents, run) for run in contents.entry.runs) if same else ()
        rows = tuple(v for v in rows if v.season in seasons)
        if same or rows:
            shown.append(Shown(contents, runs, rows))
        if not same:
            notes.append(f"{place.name}: its own scores are of size {contents.entry.size}, on the page of that size")
    strays = sorted({v.entry for v in verified} - {place.name for place in folder.glob("*")})
    faults += [f"{board}/verified: rows of {name}, which is no entry of this board" for name in strays]
    shown = _of_one_version(shown, faults)
    newest = sorted(seasons, key=lambda name: (seasons[name].opened, name), reverse=True)
    return Board(tuple(shown), {name: seasons[name] for name in newest}, tuple(faults), tuple(notes))


def _entry(place: Path, verified: list[Verified], opened: dict[str, season.Season]) -> tuple[Contents, list[Verified]]:
    """A checked entry with its verified rows."""
    if place.is_symlink() or not (place / ENTRY_FILE).exists():
        raise EmubenchError(f"{place}: not an entry (no {ENTRY_FILE})")
    contents = checks.require(place)
    entry = contents.entry
    rows = [v for v in verified if v.entry == entry.name]
    for other in (v for v in rows if (entry.division, entry.method) != ("standard", v.method)):
        found = f"division {entry.division} and method {entry.method}"
        raise EmubenchError(f"{place}: {found}, where season {other.season} verified a standard {other.method}")
    for row in rows:
        verified_rows.check_origin(row, contents, opened[row.season])
    return contents, rows


def _run(contents: Contents, run: RunKey) -> scored.ScoredRun:
    entry, scores, (_, seed) = contents.entry, contents.scores[run], run
    if entry.method == FORECASTS:
        card = scored.bare_card(scores, seed, FORECASTS, entry.knowledge, entry.hardware)
        return scored.ScoredRun(contents.folder, card, scores, None, entry.name)
    timing = contents.timing.get(run)
    if timing is None:
        return scored.ScoredRun(contents.folder, contents.cards[run], scores, None, entry.name)
    return scored.ScoredRun(
        contents.folder,
        contents.cards[run],
        scores,
        timing.lyapunov_times_per_second,
        entry.name,
        benched=timing.benched,
        device=timing.device or "cpu",
        test_seconds=timing.test_seconds,
        counted_share=timing.counted_share,
        scored_on=timing.scored_on,
        claimed_speedup=timing.speedup,
    )


def _of_one_version(shown: list[Shown], faults: list[str]) -> list[Shown]:
    """The entries that the version scored which scored most; the others are added to ``faults``."""
    versions = [" and ".join(sorted({run.scores.emubench_version for run in one.runs})) for one in shown]
    usual = most_common(version for version in versions if version)
    for one, version in zip(shown, versions, strict=True):
        if version not in ("", usual):
            faults.append(
                f"{one.contents.folder}: was scored by emubench {version}, most by {usual}; score it anew by that"
            )
    return [one for one, version in zip(shown, versions, strict=True) if version in ("", usual)]
