"""``emubench leaderboard build``: render the board as a static site. Equal entries give equal bytes.

The pages need nothing but themselves: style and script stand in them, allowed by their hashes, and nothing else may be
loaded. Whatever a submission says is escaped by the templates, after control and direction characters are replaced.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emubench import __version__, ranking, report, schema, store
from emubench import entries as compared
from emubench import task as tasks
from emubench.leaderboard import charts
from emubench.leaderboard.board import Board, Shown, read, systems_of, timing_of
from emubench.submission.check import MAX_BYTES, Figures, Timing
from emubench.task import RANKED_TRACKS, TRACKS

BEGIN, END = "<!-- tables: written by `emubench leaderboard build` -->", "<!-- end of tables -->"
MEANING = {"crps": "CRPS, lower is better", "valid_prediction_time": "valid prediction time, higher is better"}
CURVES = ("rms_error", "crps", "surviving_fraction", "anomaly_correlation")


def clean(text: str) -> str:
    """``text`` without characters that steer a terminal or the direction of writing.

    >>> clean("a" + chr(0x202E) + "b" + chr(27) + "c")
    'a\\ufffdb\\ufffdc'
    """
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c for c in text)


def environment() -> Environment:
    """The templates, escaping everything that is not markup of ours."""
    made = Environment(
        loader=PackageLoader("emubench.leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["clean"] = clean
    return made


def build(board: Path, out: Path, size: str = "standard") -> list[Path]:
    """Render the site of ``board`` into ``out``, which appears whole or not at all; refresh the board's README.md."""
    content = read(board, size)
    pages = render(content)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        for name, text in pages.items():
            store.write_text(partial / name, text)
        if out.exists():
            for name in pages:  # a folder of other things is not ours to remove
                store.write_text(out / name, pages[name])
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    readme = board / "README.md"
    if readme.exists():
        text = with_tables(readme.read_text(encoding="utf-8"), content)
        if text != readme.read_text(encoding="utf-8"):
            store.write_text(readme, text)
    return [out / name for name in pages]


def render(board: Board) -> dict[str, str]:
    """All files of the site, by their path in it."""
    templates = environment()
    source = templates.loader
    assert source is not None
    style, script = (Markup(source.get_source(templates, name)[0]) for name in ("style.css", "script.js"))
    shared = {"style": style, "script": script, "policy": _policy(style, script), "version": __version__, "root": ""}
    tracks = [track_context(board, track) for track in TRACKS]
    pages = {
        "index.html": templates.get_template("index.html").render(
            **shared, board=board, tracks=tracks, filters=_filters(board), n_entries=len(board.shown)
        ),
        "methods.html": templates.get_template("methods.html").render(**shared, board=board),
    }
    for one in board.shown:
        context = entry_context(one)
        page = templates.get_template("entry.html").render(**(shared | {"root": "../"}), one=one, **context)
        pages[f"entries/{one.entry.name}.html"] = page
    return pages | downloads(board)


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def downloads(board: Board) -> dict[str, str]:
    """The tables as CSV and JSON, and what the entries say of themselves."""
    files = {}
    for division, frame in (("standard", board.ranked), ("open", board.unranked)):
        files[f"data/{division}.json"] = report.as_json(frame) + "\n"
        files[f"data/{division}.csv"] = frame.to_csv(index=False, lineterminator="\n")
    said = [one.entry.model_dump(exclude={"files"}) for one in board.shown]
    verified = [v.model_dump() for one in board.shown for v in one.verified]
    for name, content in (("entries", said), ("verified", verified)):
        files[f"data/{name}.json"] = json.dumps(content, indent=1, sort_keys=True) + "\n"
    return files


def _filters(board: Board) -> dict[str, list[str]]:
    entries = [one.entry for one in board.shown]
    systems = sorted({name.rsplit("-", 1)[0] for name in tasks.names()})
    return {
        "track": list(TRACKS),
        "system": ["all systems together", *systems],
        "division": sorted({entry.division for entry in entries}),
        "knowledge": sorted({entry.knowledge for entry in entries}),
        "device": sorted({clean(entry.hardware) for entry in entries}),
    }


# --- a track ----------------------------------------------------------------------------------------------------------


def track_context(board: Board, track: str) -> dict[str, Any]:
    """What the page shows of a track: one table of all systems together, one per system, and the Pareto plot."""
    tables = []
    for system in ("all systems together", *systems_of(track)):
        select: Callable[[pd.DataFrame], pd.DataFrame]
        if system == "all systems together":
            select = lambda frame: ranking.rows_of_whole_track(frame, track)  # noqa: E731
        else:
            select = lambda frame, name=f"{system}-{track}": ranking.rows_of_task(frame, name)  # noqa: E731
        records = [r for frame in (board.ranked, board.unranked) for r in ranking.records(select(frame))]
        if records:
            tables.append(_table(board, system, records))
    return {
        "name": track,
        "ranked": track in RANKED_TRACKS,
        "tables": tables,
        "pareto": _pareto(board, track),
        "verified": _verified(board, track),
    }


def _table(board: Board, system: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    whole = system == "all systems together"
    key = "skill_accuracy" if whole else "value"
    known = [v for r in records for v in _interval(r, key) if v is not None]
    span = (-1.0, 1.0) if whole else (min([0.0, *known]), max([1e-9, *known]))
    metric = "mean skill" if whole else MEANING[records[0]["metric"]]
    rows = []
    for record in records:
        one = board.get(record["entry"])
        accuracy, stability = _interval(record, key), _interval(record, "skill_stability")
        rows.append(
            {
                "one": one,
                "rank": report._rank({k: _na(record[k]) for k in ("rank_low", "rank_high")}),
                "order": record["rank_low"] if record["rank_low"] is not None else 10**6,
                "value": record[key],
                "accuracy": _text(*accuracy),
                "bar": charts.bar(*accuracy, *span),
                "stability": record["skill_stability"],
                "stability_text": _text(*stability),
                "stability_bar": charts.bar(*stability, -1.0, 1.0),
                "speed": record["lyapunov_times_per_second"],
                "speed_text": report._si(_na(record["lyapunov_times_per_second"])),
                "gain": record["speedup_at_equal_accuracy"],
                "gain_text": _gain(record),
                "parameters": record["n_parameters"],
                "seeds": record["seeds"],
                "missing": record["missing_tasks"] or 0,
            }
        )
    notes = "" if whole else f"floor {_text(records[0]['floor'])}, oracle {_text(records[0]['oracle'])}"
    return {"system": system, "metric": metric, "rows": rows, "notes": notes}


def _gain(record: dict[str, Any]) -> str:
    """Speed-up at equal accuracy; in brackets where too little skill is left for it to be ranked."""
    if record["speedup_at_equal_accuracy"] is None:
        return report.UNKNOWN
    shown = f"{report._significant(record['speedup_at_equal_accuracy'])}×"
    return shown if record["speedup_ranked"] else f"({shown})"


def _interval(record: dict[str, Any], key: str) -> tuple[float | None, float | None, float | None]:
    ends = ("low", "high") if key == "value" else (f"{key}_low", f"{key}_high")
    return record[key], record[ends[0]], record[ends[1]]


def _na(value: Any) -> Any:
    return pd.NA if value is None else value


def _text(value: float | None, low: float | None = None, high: float | None = None) -> str:
    if value is None:
        return report.UNKNOWN
    shown, *bounds = (report._significant(v).replace("-0.00", "0.00") for v in (value, low, high) if v is not None)
    return f"{shown} [{', '.join(bounds)}]" if len(bounds) == 2 else shown


def _pareto(board: Board, track: str) -> dict[str, Any]:
    """Skill over speed, of the hardware that most entries used: times of different machines are never compared."""
    rows = ranking.records(ranking.rows_of_whole_track(board.ranked, track))
    by_hardware: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["lyapunov_times_per_second"] is not None and row["skill_accuracy"] is not None:
            by_hardware.setdefault(clean(board.get(row["entry"]).entry.hardware), []).append(row)
    if not by_hardware:
        return {"chart": Markup(""), "hardware": ""}
    hardware, chosen = max(sorted(by_hardware.items()), key=lambda item: len(item[1]))
    skill, speed = (np.array([r[k] for r in chosen]) for k in ("skill_accuracy", "lyapunov_times_per_second"))
    front = ranking.pareto_front(skill, speed)
    points = [(r["entry"], s, a, bool(f)) for r, s, a, f in zip(chosen, speed, skill, front, strict=True)]
    title = f"{track} track: mean skill over Lyapunov times per second; filled: on the Pareto front"
    return {"chart": charts.scatter(title, "Lyapunov times per second", "skill", points), "hardware": hardware}


def _verified(board: Board, track: str) -> list[dict[str, Any]]:
    """Verified rows of a track, per season and task, the best first."""
    rows = [
        {"season": v.season, "one": one, "row": row, "text": _text(row.value, row.low, row.high)}
        for one in board.shown
        for v in one.verified
        for row in v.rows
        if row.task.rsplit("-", 1)[-1] == track
    ]
    return sorted(rows, key=lambda r: (r["season"], r["row"].task, -(r["row"].skill or 0.0), r["one"].entry.name))


# --- an entry ---------------------------------------------------------------------------------------------------------


def entry_context(one: Shown) -> dict[str, Any]:
    """What an entry's page shows."""
    return {"tasks": [_task_context(one, name) for name in tasks.in_order({run.task.name for run in one.runs})]}


def _task_context(one: Shown, name: str) -> dict[str, Any]:
    runs = one.runs_of(name)
    rows = [(row, _text(row.value, row.low, row.high)) for row in runs[0].scores.rows if row.lead_time is None]
    unit = runs[0].task.system.lead_time_unit
    drawn = []
    for metric in CURVES:
        series = []
        for run in runs:
            found = [row for row in run.scores.rows if row.metric == metric and row.lead_time is not None]
            values = [float("nan") if row.value is None else row.value for row in found]
            series.append((f"seed {run.card.seed}", [row.lead_time for row in found], values))
        drawn.append(charts.curves(f"{name}: {metric} over lead time", f"lead time ({unit})", metric, series))
    figures = next((f for run in runs if (f := _figures(run)) is not None), None)
    pictures, fields = _pictures(runs[0], figures) if figures else ([], {})
    timing = timing_of(runs[0].path)
    if timing and timing.solvers:
        drawn.append(_ladder(runs[0], timing))
    return {
        "name": name,
        "headline": compared.headline(runs[0].task),
        "seeds": [run.card.seed for run in runs],
        "rows": rows,
        "charts": [c for c in (*drawn, *pictures) if c],
        "images": fields,
        "parameters": runs[0].card.n_parameters,
        "config": json.dumps(runs[0].card.config, sort_keys=True),
    }


def _ladder(run: compared.Run, timing: Timing) -> Markup:
    """Accuracy over throughput of this entry and of the solvers that were timed in the same run."""
    sign = compared.gain(run.task)
    points = [("", s.lyapunov_times_per_second, sign * s.accuracy, False) for s in timing.solvers]
    points.append((run.entry, timing.lyapunov_times_per_second, sign * float(run.cases.mean()), True))
    name = compared.headline(run.task)
    title = f"{run.task.name}: {name} over throughput; filled: this entry, hollow: solver settings, same machine"
    label = name if sign > 0 else f"−{name}"
    return charts.scatter(title, f"{run.task.system.lead_time_unit}s per second", label, points)


def _figures(run: compared.Run) -> Figures | None:
    path = run.path / "figures.json"
    return schema.read_json(Figures, path, MAX_BYTES["figures.json"]) if path.exists() else None


def _pictures(run: compared.Run, figures: Figures) -> tuple[list[Markup], dict[str, str]]:
    """A forecast beside its truth (a space–time image on a ring, a curve else), and the spatial spectra."""
    name, unit = run.task.name, run.task.system.lead_time_unit
    pictures, fields = [], {}
    if run.task.system.ring:
        values = [v for row in figures.truth for v in row]
        middle = sum(values) / max(len(values), 1)
        scale = 2 * (sum((v - middle) ** 2 for v in values) / max(len(values), 1)) ** 0.5
        fields = {kind: charts.image(getattr(figures, kind), scale, middle) for kind in ("truth", "forecast")}
    else:
        series = [
            (kind, figures.lead_time, [row[0] for row in getattr(figures, kind) if row])
            for kind in ("truth", "forecast")
        ]
        pictures.append(charts.curves(f"{name}: first component of the first case", f"lead time ({unit})", "x", series))
    if figures.spatial_power and figures.truth_spatial_power:
        series = [
            (kind, range(1, 1 + len(power)), power)
            for kind, power in (("truth", figures.truth_spatial_power), ("forecast", figures.spatial_power))
        ]
        pictures.append(charts.curves(f"{name}: spatial spectrum", "wavenumber", "power", series, log=True))
    return pictures, fields


# --- the tables as text -----------------------------------------------------------------------------------------------


def text_tables(board: Board) -> str:
    """The whole-track tables in Markdown."""
    parts = []
    for track in TRACKS:
        records = ranking.records(ranking.rows_of_whole_track(board.ranked, track))
        if not records:
            continue
        kind = "ranked" if track in RANKED_TRACKS else "shown only, not ranked"
        lines = [f"### {track} ({kind})", "", "| rank | entry | accuracy | stability | missing | seeds | knowledge |"]
        lines.append("|" + "---|" * 7)
        for record in records:
            rank = report._rank({k: _na(record[k]) for k in ("rank_low", "rank_high")})
            scores = [_text(*_interval(record, k)) for k in ("skill_accuracy", "skill_stability")]
            rest = [record[k] for k in ("missing_tasks", "seeds", "knowledge")]
            cells = (rank, f"`{record['entry']}`", *scores, *rest)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) if parts else "There are no entries yet."


def with_tables(readme: str, board: Board) -> str:
    """``readme`` with today's tables between its two marks."""
    before, begun, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text_tables(board)}\n\n{END}{after}" if begun and ended else readme
