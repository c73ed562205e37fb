"""The tables of a track, for the page and as text: verified rows with their ranks, and apart from them what is claimed.

Every cell that holds nothing says why.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from emubench.core.errors import clean
from emubench.data import tasks
from emubench.data.tasks import RANKED_TRACKS, TRACKS
from emubench.leaderboard import formats, ranking
from emubench.leaderboard.page import charts
from emubench.leaderboard.page.board import Board, Shown
from emubench.leaderboard.page.ranks import most_common
from emubench.leaderboard.statistics import Row, ends
from emubench.leaderboard.submission.entries import SEEDS_OF_A_METHOD

ALL = "all systems together"
MEANING = {"crps": "CRPS, lower is better", "valid_prediction_time": "valid prediction time, higher is better"}
NOBODY = (
    "Nobody is ranked yet. Only rows that a maintainer has verified carry a rank: the method is retrained with "
    f"{SEEDS_OF_A_METHOD} seeds on a season's sealed data (emubench submit verify)."
)
SEALED, CLAIMED = "Verified on the sealed data of season", "Self-reported on the public contexts, not ranked"
PUBLIC = (
    "Public seeds are for development: anyone can simulate their truth, so self-reported rows show what was claimed, "
    "and no more. Rows of the open division, which nobody retrains, are marked: they could be made with that truth."
)
ORDER = (*RANKED_TRACKS, *(track for track in TRACKS if track not in RANKED_TRACKS))
"""Tracks as they are shown."""
_SHARED = ("speed-up", "speed", "training", "knowledge")
_OF_SPEED = ("speed-up rank", *_SHARED)
_VERIFIED = ("rank", "accuracy", "stability rank", "stability", *_OF_SPEED, "front", "seeds", "notes")
_OF_TASK = ("accuracy", "stability", *_SHARED, "parameters", "seeds")
_OF_TRACK = ("accuracy", "stability", *_SHARED, "missing tasks", "parameters", "seeds")
"""Titles of the columns of verified rows, and of self-reported ones on a task and on a track."""


class Cell(NamedTuple):
    """A cell of a table: its text, what its column is sorted by (none: stands last), a bar, why there is no value."""

    text: str
    order: Any = None
    interval: Markup = Markup("")
    why: str = ""


def track_context(board: Board, track: str) -> dict[str, Any]:
    """What the page shows of a track: per season the verified rows, and per division what is self-reported."""
    groups = (
        [{"name": name, "tables": tables} for name, frame in frames.items() if (tables := _tables(board, frame, track))]
        for frames in (board.verified, board.self_reported)
    )
    return {
        "name": track,
        "ranked": track in RANKED_TRACKS,
        **dict(zip(("seasons", "divisions"), groups, strict=True)),
        "pareto": _pareto(board, track),
        "systems": [ALL, *(name.removesuffix(f"-{track}") for name in ranking.names_of_track(track))],
    }


def matrix(board: Board) -> dict[str, Any]:
    """Entries × tasks: the skill that the latest judge found, or else what is claimed; as text and in 7 tones."""
    season, frame = next(iter(board.verified.items()), ("", board.self_reported["standard"]))
    known = {(r["entry"], r["task"]): r["skill_accuracy"] for r in ranking.records(frame) if r["task"]}
    names = [name for track in ORDER for name in tasks.in_order({task for _, task in known if task.endswith(track)})]
    means = {entry: np.mean([known.get((entry, name)) or -1.0 for name in names]) for entry, _ in known}
    lines = []
    for entry in sorted(means, key=lambda entry: (-means[entry], entry)):
        skills = [known.get((entry, name)) for name in names]
        lines.append((entry, [_tone(skill) for skill in skills]))
    source = f"verified in season {season}" if season else "self-reported, for development"
    return {"tasks": names, "lines": lines, "source": source}


def _tone(skill: float | None) -> tuple[str, str]:
    """A cell of the matrix: its class and its text.

    >>> _tone(0.5), _tone(None), _tone(-3.0)
    (('tone4', '0.50'), ('none', '–'), ('tone0', '-3.00'))
    """
    if skill is None:
        return "none", formats.UNKNOWN
    return f"tone{min(max(int(1 + 6 * skill), 0), 6)}", formats.fixed(skill)


def _tables(board: Board, frame: pd.DataFrame, track: str) -> list[dict[str, Any]]:
    """A table of all systems together, and one per system; marks are of claims, as a judge's row speaks for itself."""
    tables = []
    for task in (None, *ranking.names_of_track(track)):
        rows = ranking.rows_of_task(frame, task) if task else ranking.rows_of_whole_track(frame, track)
        records = ranking.records(rows)
        if not records:
            continue
        system = task.removesuffix(f"-{track}") if task else ALL
        if task is None:
            caption = f"{ALL}: mean skill; speed in Lyapunov times per second"
            caption += "".join(f": {kind}" for kind in ([] if "judge" in records[0] else formats.speeds(rows)))
        else:
            floor, oracle = (score_text(records[0][key]) for key in ("floor", "oracle"))
            caption = f"{system}: {MEANING[records[0]['metric']]} (floor {floor}, oracle {oracle})"
        verified = "judge" in records[0]
        titles = _VERIFIED if verified else _OF_TASK if task else _OF_TRACK
        span = _span(records)
        lines = []
        for r in records:
            one = board.get(r["entry"])
            cells = [_score(r, *span) if title == "accuracy" else CELLS[title](one, r) for title in titles]
            device, badges = (r["judge"], []) if verified else (one.entry.hardware, one.marks)
            lines.append({"one": one, "device": device, "marks": badges, "cells": cells})
        tables.append({"system": system, "caption": caption, "columns": titles, "lines": lines})
    return tables


# --- columns ----------------------------------------------------------------------------------------------------------


def _span(records: list[Row]) -> tuple[str, float, float]:
    """The column of accuracy, and the ends of its axis."""
    if records[0]["task"] is None:
        return "skill_accuracy", -1.0, 1.0
    known = [value for r in records for value in ends(r, "value") if value is not None]
    return "value", min([0.0, *known]), max([1e-9, *known])


def _score(record: Row, key: str, start: float = -1.0, end: float = 1.0) -> Cell:
    """A score with its interval, as text and on an axis from ``start`` to ``end``."""
    value, low, high = ends(record, key)
    if value is None:
        return Cell("", why="not scored")
    return Cell(score_text(value, low, high), value, charts.interval(value, low, high, start, end))


def rank(record: Row, name: str) -> Cell:
    """A rank interval, or why there is none."""
    if record[f"{name}_low"] is not None:
        return Cell(formats.rank(record, name), record[f"{name}_low"])
    if record["track"] not in RANKED_TRACKS:
        return Cell("", why="not a ranked track")
    return Cell("", why="a checkpoint" if record["seeds"] < SEEDS_OF_A_METHOD else "no skill is known")


def _speed(record: Row) -> Cell:
    if (value := record["lyapunov_times_per_second"]) is not None:
        return Cell(formats.si(value), value)
    if "judge" in record:
        return Cell("", why="a task is missing")
    return Cell("", why="not timed" if record["task"] else "not timed on all")


def _front(record: Row) -> Cell:
    if (front := record["pareto_front"]) is None:
        return Cell("", why="not ranked")
    return Cell("on it" if front else "behind it", int(not front))


def speedup(one: Shown, record: Row) -> Cell:
    """Speed-up at equal accuracy; in brackets where too little skill is left for it to count."""
    value, low, high = ends(record, "speedup_at_equal_accuracy")
    if value is None:
        if "judge" in record or record["task"] is None:
            return Cell("", why="no solver as accurate, or not timed")
        found = [run.speedup for run in one.runs_of(record["task"])]
        return Cell("", why="no solver as accurate" if any(found) else "no bench in the entry")
    shown = f"{_ratio(value)}×"
    shown = shown if record["speedup_ranked"] else f"({shown})"
    if record["task"] is None:
        return Cell(f"{shown} on {record['speedup_tasks']} task(s)", value)
    return Cell(shown if low is None else f"{shown} [{_ratio(low)}, {_ratio(high)}]", value)


def _ratio(value: float) -> str:
    """A speed-up: two decimals, and more of small ones.

    >>> _ratio(2.5), _ratio(0.00123)
    ('2.50', '0.0012')
    """
    return formats.significant(value) if value >= 0.1 else f"{value:.2g}"


def notes(one: Shown, record: Row) -> str:
    """What a reader of a verified row has to know: a claim that it does not bear out, why cases failed."""
    found = [f"{record['missing_tasks']} task(s) missing"] if record["missing_tasks"] else []
    for row in (row for v in one.verified if v.season == record["season"] for row in v.rows):
        if row.task == record["task"]:
            outside = f"claimed {row.claimed:.4g}, outside the judge's 99 % interval" if row.claim_is_outside else ""
            found += [note for note in (outside, row.reason) if note]
    return "; ".join(found)


def _missing(one: Shown, track: str) -> str:
    """The systems that an entry has no run of."""
    names = [name.removesuffix(f"-{track}") for name in ranking.names_of_track(track) if not one.runs_of(name)]
    return ", ".join(names) or "0"


CELLS: dict[str, Callable[[Shown, Row], Cell]] = {
    "rank": lambda one, r: rank(r, "rank"),
    "stability rank": lambda one, r: rank(r, "stability_rank"),
    "stability": lambda one, r: _score(r, "skill_stability"),
    "speed-up rank": lambda one, r: (
        Cell(formats.rank(r, "speedup_rank"), r["speedup_rank_low"])
        if r["speedup_rank_low"] is not None
        else Cell("", why="skill under 0.25, or a task without")
    ),
    "training": lambda one, r: Cell(formats.si(r["train_seconds"], " s"), r["train_seconds"]),
    "speed": lambda one, r: _speed(r),
    "speed-up": lambda one, r: speedup(one, r),
    "front": lambda one, r: _front(r),
    "missing tasks": lambda one, r: Cell(_missing(one, r["track"]), r["missing_tasks"]),
    "parameters": lambda one, r: (
        Cell(f"{r['n_parameters']:,}", r["n_parameters"]) if one.is_model else Cell("", why="forecasts alone")
    ),
    "seeds": lambda one, r: Cell(str(r["seeds"]), r["seeds"]),
    "knowledge": lambda one, r: Cell(r["knowledge"], r["knowledge"]),
    "notes": lambda one, r: Cell(note := notes(one, r), note, why="" if note else "none"),
}
"""Columns by their titles; that of accuracy depends on the other rows."""


def score_text(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A score with its interval, where that is known.

    >>> score_text(0.256, 0.1, 12.34), score_text(0.5), score_text(None)
    ('0.26 [0.10, 12.3]', '0.50', 'unknown')
    """
    if value is None:
        return "unknown"
    shown, *bounds = (formats.significant(v).replace("-0.00", "0.00") for v in (value, low, high) if v is not None)
    return f"{shown} [{', '.join(bounds)}]" if len(bounds) == 2 else shown


# --- the plot ---------------------------------------------------------------------------------------------------------


def _pareto(board: Board, track: str) -> dict[str, Any]:
    """Skill over speed on one machine: what the latest judge found, or else claims, of which none is on a front."""
    season, frame = next(iter(board.verified.items()), ("", board.self_reported["standard"]))
    source = f"verified in season {season}" if season else "self-reported"
    records = ranking.records(ranking.rows_of_whole_track(frame, track))
    machine = {r["entry"]: r.get("judge") or board.get(r["entry"]).entry.hardware for r in records}
    known = [r for r in records if None not in (r["lyapunov_times_per_second"], r["skill_accuracy"])]
    chosen = most_common(machine[r["entry"]] for r in known)
    marks = [
        charts.Mark(
            r["entry"],
            ends(r, "lyapunov_times_per_second"),
            ends(r, "skill_accuracy"),
            bool(r.get("pareto_front")),
        )
        for r in known
        if machine[r["entry"]] == chosen
    ]
    title = f"{track} track: mean skill over Lyapunov times per second, {source}"
    chart = charts.plane(title, "Lyapunov times per second", "mean skill", marks)
    return {"chart": chart, "machine": clean(chosen), "source": source, "front": any(m.on_front for m in marks)}


# --- the tables as text -----------------------------------------------------------------------------------------------


def text_tables(board: Board) -> str:
    """The whole-track tables of the standard division in Markdown."""
    if not board.shown:
        return "There are no entries yet."
    parts = [NOBODY.replace("emubench submit verify", "`emubench submit verify`")] if board.ranks_nobody else []
    for track in ORDER:
        parts.append(f"### {track}" + ("" if track in RANKED_TRACKS else " (shown only, never ranked)"))
        for name, frame in board.verified.items():
            parts += _text_table(board, frame, track, f"{SEALED} {name}")
        parts += _text_table(board, board.self_reported["standard"], track, CLAIMED)
    return "\n\n".join(parts)


def first_tables(board: Board) -> str:
    """The ranked tables of the newest season in Markdown; while nobody is ranked, a line and what is self-reported."""
    if not board.shown:
        return "There are no entries yet."
    if board.ranks_nobody:
        said = NOBODY.replace("emubench submit verify", "`emubench submit verify`")
        title = f"The {ORDER[0]} track, {CLAIMED.lower()}"
        return "\n\n".join([said, *_text_table(board, board.self_reported["standard"], ORDER[0], title)])
    name, frame = next(iter(board.verified.items()))
    parts = [
        part
        for track in RANKED_TRACKS
        for part in _text_table(board, frame, track, f"The {track} track, season {name}")
    ]
    return "\n\n".join(parts)


def _text_table(board: Board, frame: pd.DataFrame, track: str, title: str) -> list[str]:
    records = ranking.records(ranking.rows_of_whole_track(frame, track))
    if not records:
        return []
    ranks = ["rank", "stability rank", "speed-up rank"] if "rank_low" in frame else []
    titles = [*ranks, "entry", "accuracy", "stability", "speed-up", "missing", "seeds", "knowledge"]
    columns = [title.replace("_", " ") for title in titles]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for r in records:
        scores = [_score(r, key) for key in ("skill_accuracy", "skill_stability")]
        one = board.get(r["entry"])
        scores.append(speedup(one, r))
        cells = [*(CELLS[name](one, r) for name in ranks), Cell(f"`{r['entry']}`"), *scores]
        rest = (r["missing_tasks"], r["seeds"], r["knowledge"])
        lines.append("| " + " | ".join([*(c.text or c.why for c in cells), *map(str, rest)]) + " |")
    return [f"{title}:", "\n".join(lines)]
