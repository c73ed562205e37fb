"""The tables of a track, for the page and as text: verified rows with their ranks, and apart from them what is claimed.

Every cell that holds nothing says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from emubench.core.errors import clean
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
    "Nobody is ranked yet: only rows that a maintainer has verified carry a rank, by retraining the method with "
    f"{SEEDS_OF_A_METHOD} seeds on a season's sealed data (emubench submit verify)."
)
SEALED, CLAIMED = "Verified on the sealed data of season", "Self-reported on the public contexts, not ranked"
ORDER = (*RANKED_TRACKS, *(track for track in TRACKS if track not in RANKED_TRACKS))
"""Tracks as they are shown."""


class Cell(NamedTuple):
    """A cell of a table: its text, what its column is sorted by (none: stands last), a bar, why there is no value."""

    text: str
    order: Any = None
    bar: Markup = Markup("")
    why: str = ""


Columns = Callable[[Board, list[Row]], dict[str, list[Cell]]]


class Line(NamedTuple):
    """A row of a table."""

    one: Shown
    device: str
    """What it was timed on."""
    marks: list[tuple[str, str]]
    """Badges: of what is self-reported alone, since a judge's row speaks for itself."""
    cells: list[Cell]


class Table(NamedTuple):
    """Entries on one task, or on a whole track."""

    system: str
    caption: str
    columns: list[str]
    lines: list[Line]


def track_context(board: Board, track: str) -> dict[str, Any]:
    """What the page shows of a track: per season the verified rows, and per division what is self-reported."""
    sources = ((board.verified, _verified), (board.self_reported, _claimed))
    seasons, divisions = (
        [{"name": name, "tables": _tables(board, frame, track, columns)} for name, frame in frames.items()]
        for frames, columns in sources
    )
    return {
        "name": track,
        "ranked": track in RANKED_TRACKS,
        "seasons": [one for one in seasons if one["tables"]],
        "divisions": [one for one in divisions if one["tables"]],
        "pareto": _pareto(board, track),
    }


def _tables(board: Board, frame: pd.DataFrame, track: str, columns: Columns) -> list[Table]:
    """A table of all systems together, and one per system."""
    tables = []
    for task in (None, *ranking.names_of_track(track)):
        rows = ranking.rows_of_task(frame, task) if task else ranking.rows_of_whole_track(frame, track)
        records = ranking.records(rows)
        if not records:
            continue
        system = task.removesuffix(f"-{track}") if task else ALL
        if task is None:
            caption = f"{ALL}: mean skill; speed in Lyapunov times per second"
        else:
            floor, oracle = (score_text(records[0][key]) for key in ("floor", "oracle"))
            caption = f"{system}: {MEANING[records[0]['metric']]} (floor {floor}, oracle {oracle})"
        made = columns(board, records)
        entries = [board.get(r["entry"]) for r in records]
        devices = [r.get("judge") or one.entry.hardware for r, one in zip(records, entries, strict=True)]
        marks = [[] if "judge" in r else one.marks for r, one in zip(records, entries, strict=True)]
        lines = [*map(Line, entries, devices, marks, map(list, zip(*made.values(), strict=True)))]
        tables.append(Table(system, caption, list(made), lines))
    return tables


# --- columns ----------------------------------------------------------------------------------------------------------


def _verified(board: Board, records: list[Row]) -> dict[str, list[Cell]]:
    """Columns of what a judge found, by their titles."""
    return {
        "rank": [rank(r, "rank") for r in records],
        "accuracy": _accuracy(records),
        "stability rank": [rank(r, "stability_rank") for r in records],
        "stability": [_score(r, "skill_stability", -1.0, 1.0) for r in records],
        "speed": [_speed(r, "a task is missing") for r in records],
        "front": [_front(r) for r in records],
        "seeds": [_count(r["seeds"]) for r in records],
        "knowledge": [Cell(r["knowledge"], r["knowledge"]) for r in records],
        "notes": [Cell(note := notes(board.get(r["entry"]), r), note, why="" if note else "none") for r in records],
    }


def _claimed(board: Board, records: list[Row]) -> dict[str, list[Cell]]:
    """Columns of what entries say of themselves, by their titles."""
    columns = {
        "accuracy": _accuracy(records),
        "stability": [_score(r, "skill_stability", -1.0, 1.0) for r in records],
        "speed": [_speed(r, "not timed" if r["task"] else "not timed on all") for r in records],
    }
    if records[0]["task"] is None:
        columns["missing tasks"] = [_count(r["missing_tasks"]) for r in records]
    else:
        columns["speed-up"] = [gain(board.get(r["entry"]), r) for r in records]
    columns["parameters"] = [_parameters(board.get(r["entry"]), r) for r in records]
    columns["seeds"] = [_count(r["seeds"]) for r in records]
    columns["knowledge"] = [Cell(r["knowledge"], r["knowledge"]) for r in records]
    return columns


def _accuracy(records: list[Row]) -> list[Cell]:
    if records[0]["task"] is None:
        return [_score(r, "skill_accuracy", -1.0, 1.0) for r in records]
    known = [r[key] for r in records for key in ("value", "low", "high") if r[key] is not None]
    return [_score(r, "value", min([0.0, *known]), max([1e-9, *known])) for r in records]


def _score(record: Row, key: str, start: float, end: float) -> Cell:
    """A score with its interval, as text and on an axis from ``start`` to ``end``."""
    value, low, high = ends(record, key)
    if value is None:
        return Cell("", why="not scored")
    return Cell(score_text(value, low, high), value, charts.bar(value, low, high, start, end))


def rank(record: Row, name: str) -> Cell:
    """A rank interval, or why there is none."""
    if record[f"{name}_low"] is not None:
        return Cell(formats.rank(record, name), record[f"{name}_low"])
    if record["track"] not in RANKED_TRACKS:
        return Cell("", why="not a ranked track")
    return Cell("", why="a checkpoint" if record["seeds"] < SEEDS_OF_A_METHOD else "no skill is known")


def _speed(record: Row, why: str) -> Cell:
    value = record["lyapunov_times_per_second"]
    return Cell("", why=why) if value is None else Cell(formats.si(value), value)


def _front(record: Row) -> Cell:
    if record["pareto_front"] is None:
        return Cell("", why="not ranked")
    return Cell("on it" if record["pareto_front"] else "behind it", int(not record["pareto_front"]))


def gain(one: Shown, record: Row) -> Cell:
    """Speed-up at equal accuracy; in brackets where too little skill is left for it to count."""
    value = record["speedup_at_equal_accuracy"]
    if value is None:
        found = [run.speedup for run in one.runs_of(record["task"])]
        return Cell("", why="not benched" if None in found else "no solver as accurate")
    shown = f"{formats.significant(value)}×"
    return Cell(shown if record["speedup_ranked"] else f"({shown})", value)


def _parameters(one: Shown, record: Row) -> Cell:
    n = record["n_parameters"]
    return Cell(f"{n:,}", n) if one.is_model else Cell("", why="forecasts alone")


def _count(n: int) -> Cell:
    return Cell(str(n), n)


def notes(one: Shown, record: Row) -> str:
    """What a reader of a verified row has to know: a claim that it does not bear out, why cases failed."""
    found = [f"{record['missing_tasks']} task(s) missing"] if record["missing_tasks"] else []
    for row in (row for v in one.verified if v.season == record["season"] for row in v.rows):
        if row.task == record["task"]:
            outside = f"claimed {row.claimed:.4g}, outside the judge's 99 % interval" if row.claim_is_outside else ""
            found += [note for note in (outside, row.reason) if note]
    return "; ".join(found)


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
    frame, source = board.self_reported["standard"], "self-reported"
    for name, found in list(board.verified.items())[:1]:
        frame, source = found, f"verified in season {name}"
    records = ranking.records(ranking.rows_of_whole_track(frame, track))
    machine = {r["entry"]: r.get("judge") or board.get(r["entry"]).entry.hardware for r in records}
    known = [r for r in records if None not in (r["lyapunov_times_per_second"], r["skill_accuracy"])]
    chosen = most_common(machine[r["entry"]] for r in known)
    points = [
        (r["entry"], r["lyapunov_times_per_second"], r["skill_accuracy"], bool(r.get("pareto_front")))
        for r in known
        if machine[r["entry"]] == chosen
    ]
    front = any(point[3] for point in points)
    title = f"{track} track: mean skill over Lyapunov times per second, {source}"
    chart = charts.scatter(title, "Lyapunov times per second", "mean skill", points)
    return {"chart": chart, "machine": clean(chosen), "source": source, "front": front}


# --- the tables as text -----------------------------------------------------------------------------------------------


def text_tables(board: Board) -> str:
    """The whole-track tables of the standard division in Markdown."""
    if not board.shown:
        return "There are no entries yet."
    parts = [NOBODY.replace("emubench submit verify", "`emubench submit verify`")] if board.ranks_nobody else []
    for track in ORDER:
        parts.append(f"### {track}" + ("" if track in RANKED_TRACKS else " (shown only, never ranked)"))
        for name, frame in board.verified.items():
            parts += _text_table(frame, track, f"{SEALED} {name}")
        parts += _text_table(board.self_reported["standard"], track, CLAIMED)
    return "\n\n".join(parts)


def _text_table(frame: pd.DataFrame, track: str, title: str) -> list[str]:
    records = ranking.records(ranking.rows_of_whole_track(frame, track))
    if not records:
        return []
    ranks = ["rank", "stability_rank"] if "rank_low" in frame else []
    titles = [*ranks, "entry", "accuracy", "stability", "missing", "seeds", "knowledge"]
    columns = [title.replace("_", " ") for title in titles]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for r in records:
        scores = [_score(r, key, -1.0, 1.0) for key in ("skill_accuracy", "skill_stability")]
        cells = [*(rank(r, name) for name in ranks), Cell(f"`{r['entry']}`"), *scores]
        rest = (r["missing_tasks"], r["seeds"], r["knowledge"])
        lines.append("| " + " | ".join([*(c.text or c.why for c in cells), *map(str, rest)]) + " |")
    return [f"{title}:", "\n".join(lines)]
