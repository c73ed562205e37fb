"""Ranking: one table of all entries on all tasks and tracks, rebuilt from the runs on disk alone.

An entry's score on a task is the mean over seeds of the mean over cases; on a track the mean over systems of the mean
over seeds of its skill clipped to [−1, 1], where a missing task counts −1. Intervals are 95 % of a hierarchical
bootstrap (seeds; within each, cases, the same draw for all entries). Two entries differ if the 99 % interval of their
paired difference excludes 0, and a rank is an interval: 1 + number significantly better … n − number significantly
worse. Scales (floor and oracle) are frozen, so that a new entry moves no old score.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emubench import systems
from emubench.data import reference, tasks
from emubench.data.reference import Scale
from emubench.data.tasks import CUSTOM, RANKED_TRACKS, TRACKS, Task
from emubench.leaderboard import ranking
from emubench.leaderboard.statistics import (
    MISSING,
    N_RESAMPLES,
    Z_SHOWN,
    case_weights,
    geometric_mean,
    interval,
    mean_over_tasks,
    pareto_front,
    rank_intervals,
    seed_weights,
    significantly_better,
    unpaired_ranks,
)
from emubench.metrics._headline import headline
from emubench.runs.scored import Run, Scored, runs_of

FLOORS = ("persistence", "linear")


def _columns(kind: str, *names: str, bounded: bool = False) -> dict[str, str]:
    ends = ("", "_low", "_high") if bounded else ("",)
    return {f"{name}{end}": kind for name in names for end in ends}


COLUMNS = (
    _columns("str", "track", "task", "entry", "baseline", "knowledge")
    | _columns("Int64", "seeds", "n_cases", "missing_tasks", "rank_low", "rank_high")
    | _columns("str", "metric", "unit")
    | _columns("float64", "value", "low", "high", "floor", "oracle")
    | _columns("str", "scale")
    | _columns("float64", "skill_accuracy", "skill_stability", bounded=True)
    | _columns("Int64", "stability_rank_low", "stability_rank_high")
    | _columns("float64", "surviving_fraction", "dead_fraction", "lyapunov_times_per_second", bounded=True)
    | _columns("float64", "speedup_at_equal_accuracy", bounded=True)
    | _columns("boolean", "speedup_ranked", "pareto_front")
    | _columns("float64", "train_seconds")
    | _columns("Int64", "n_parameters")
)
"""Columns of :func:`table` and their pandas types. Null is what is not known, and ``task`` in rows of whole tracks."""


@dataclass(frozen=True)
class Cell:
    """One entry on one task: all its seeds, and their mean scores under every resample."""

    entry: str
    task: Task
    runs: tuple[Run, ...]
    by_seed: np.ndarray
    """Mean over cases, per seed ``"S"``."""
    sampled: np.ndarray
    """The same of resampled cases ``"R S"``."""
    seeds: np.ndarray
    """Weights of the resampled seeds ``"R S"``."""

    def pooled(self, values: np.ndarray) -> np.ndarray:
        """Mean of ``values`` ``"R S"`` over the resampled seeds."""
        return (self.seeds * values).sum(1)

    @property
    def value(self) -> float:
        """Mean over seeds and cases."""
        return float(self.by_seed.mean())


# --- the statistics ---------------------------------------------------------------------------------------------------


def make_cell(runs: Sequence[Run]) -> Cell:
    """Pool the seeds of one entry on one task."""
    task, entry = runs[0].task, runs[0].entry
    cases = np.stack([run.cases for run in runs])
    weights = case_weights(task.system.name, len(task.system.starts), cases.shape[1])
    return Cell(entry, task, tuple(runs), cases.mean(1), weights @ cases.T, seed_weights(entry, task.name, len(runs)))


def pooled_row(runs: Sequence[Run], metric: str, worst: float) -> tuple[float, float, float]:
    """Mean over seeds of a stored score; its interval is that over cases, widened by the spread of the seeds.

    All seeds meet the same cases, so the interval over cases does not shrink with more seeds. NaN if it was not scored.
    """
    rows = [run.row(metric, worst) for run in runs]
    if any(row is None for row in rows):
        return np.nan, np.nan, np.nan
    value, low, high = np.array(rows, dtype=np.float64).T
    spread = Z_SHOWN * value.std(ddof=1) / np.sqrt(len(value)) if len(value) > 1 else 0.0
    mean = value.mean()
    return mean, mean - np.hypot((value - low).mean(), spread), mean + np.hypot((high - value).mean(), spread)


def known_scale(task: Task, cells: Sequence[Cell]) -> Scale:
    """The frozen floor and oracle of a task; else those of the runs at hand of persistence, linear and oracle."""
    if (frozen := reference.scale(task.name)).usable:
        return frozen
    found = {cell.entry: cell.value for cell in cells}
    floor = oracle = None
    if all(name in found for name in FLOORS):  # one of the two alone would be moved by the other
        best = max if headline(task).better > 0 else min
        floor = best(found[name] for name in FLOORS)
    if floor is None or headline(task).better * (found.get("oracle", floor) - floor) > 0:
        oracle = found.get("oracle")
    return Scale(floor, oracle, "" if floor is None and oracle is None else "runs")


# --- the table --------------------------------------------------------------------------------------------------------


def compare(scored: Scored) -> pd.DataFrame:
    """Rank what was scored: one row per task and entry, and one per track and entry (``task`` null), the best first.

    ``scored`` is a dictionary from names to results of :func:`emubench.evaluate` (or to lists of them: several seeds,
    several tasks), or the folder of scored runs, or a list of such folders. A rank is an interval, ``rank_low`` to
    ``rank_high``: entries share one unless the 99 % interval of their paired difference excludes 0. ``value``, ``low``
    and ``high`` are the score that heads the task and its 95 % interval, in ``unit``; all columns are those of
    :data:`COLUMNS`. What is not known is null: so is the making of an emulator that was evaluated in memory.

    Raises :class:`EmubenchError` where there is nothing to compare, or where sizes, versions or truths differ.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> emulators = {name: emubench.train(name, task) for name in ("persistence", "oracle")}
    >>> results = {name: emubench.evaluate(made, task) for name, made in emulators.items()}
    >>> ranks = emubench.compare(results).set_index(["task", "entry"])
    >>> ranks.loc["lorenz63-noisy", ["rank_low", "rank_high"]].to_dict("index")
    {'oracle': {'rank_low': 1, 'rank_high': 1}, 'persistence': {'rank_low': 2, 'rank_high': 2}}
    """
    runs = runs_of(scored)
    frame = table(runs)
    evaluated = frame["entry"].isin([run.entry for run in runs if run.result is not None])
    frame.loc[evaluated, ["baseline", "knowledge", "train_seconds", "n_parameters"]] = None
    return frame


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per task and entry, and one per track and entry (``task`` null), the best first: see :data:`COLUMNS`."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.task.name, run.entry), []).append(run)
    cells = [make_cell(group) for group in grouped.values()]
    rows: list[dict[str, Any]] = []
    for track in (*TRACKS, CUSTOM):
        by_task: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.task.track == track:
                by_task.setdefault(cell.task.name, []).append(cell)
        if not by_task:
            continue
        scales = {name: known_scale(found[0].task, found) for name, found in by_task.items()}
        by_entry: dict[str, list[dict[str, Any]]] = {}
        task_rows = []
        for name, found in by_task.items():
            task_rows += _task_rows(track, found, scales[name])
        for row in task_rows:
            by_entry.setdefault(row["entry"], []).append(row)
        rows += ([] if track == CUSTOM else _track_rows(track, by_task, scales, by_entry)) + task_rows
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({c: kind for c, kind in COLUMNS.items() if kind != "str"})


def _task_rows(track: str, cells: list[Cell], scale: Scale) -> list[dict[str, Any]]:
    """Rows of one task, the best first."""
    task = cells[0].task
    sampled = np.stack([headline(task).better * cell.pooled(cell.sampled) for cell in cells])
    accuracy = np.array([headline(task).better * cell.value for cell in cells])
    rows = [_task_row(track, cell, scale) for cell in cells]
    front = pareto_front(accuracy, np.array([row["lyapunov_times_per_second"] for row in rows]))
    ranks = rank_intervals(significantly_better(sampled))
    stability = unpaired_ranks(rows, "skill_stability")
    for i, row in enumerate(rows):
        row["pareto_front"] = bool(front[i])
        if track in (*RANKED_TRACKS, CUSTOM):
            row["rank_low"], row["rank_high"] = ranks[i]
            row["stability_rank_low"], row["stability_rank_high"] = stability[i]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: (-accuracy[i], rows[i]["entry"]))]


def _task_row(track: str, cell: Cell, scale: Scale) -> dict[str, Any]:
    task, card = cell.task, cell.runs[0].card
    low, high = interval(cell.pooled(cell.sampled))
    row: dict[str, Any] = {
        "track": track,
        "task": task.name,
        "entry": cell.entry,
        "baseline": card.baseline,
        "knowledge": card.knowledge,
        "seeds": len(cell.runs),
        "n_cases": len(cell.runs[0].cases),
        "metric": headline(task).metric,
        "unit": headline(task).unit,
        "value": cell.value,
        "low": low,
        "high": high,
        "floor": scale.floor,
        "oracle": scale.oracle,
        "scale": scale.source or None,
        "train_seconds": float(np.mean([run.card.train_seconds for run in cell.runs])),
        "n_parameters": max(run.card.n_parameters for run in cell.runs),
    }
    if scale.usable:
        sampled = interval(cell.pooled(scale.skill(cell.sampled)))
        _put(row, "skill_accuracy", (float(scale.skill(cell.by_seed).mean()), *sampled))
    for metric, worst in (("skill_stability", 0.0), ("surviving_fraction", 0.0), ("dead_fraction", 1.0)):
        value, *bounds = pooled_row(cell.runs, metric, worst)
        _put(row, metric, (value, *np.clip(bounds, 0.0, 1.0)))
    speeds = [run.throughput for run in cell.runs if run.throughput is not None]
    if len(speeds) == len(cell.runs):
        ends = (min(speeds), max(speeds)) if len(speeds) > 1 else (np.nan, np.nan)
        _put(row, "lyapunov_times_per_second", (float(np.mean(speeds)), *ends))
    else:
        row["lyapunov_times_per_second"] = np.nan
    return row | _speedup(cell.runs)


def _speedup(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean over seeds of the speed-up at equal accuracy, where ``emubench bench`` has measured it of all."""
    found = [run.speedup for run in runs]
    if not all(one is not None and one.value is not None for one in found):
        return {}
    row: dict[str, Any] = {"speedup_ranked": all(one.ranked for one in found if one is not None)}
    ends = np.array([(one.value, one.low, one.high) for one in found if one is not None], dtype=np.float64)
    _put(row, "speedup_at_equal_accuracy", tuple(ends.mean(0)))
    return row


def _put(row: dict[str, Any], name: str, values: tuple[float, ...]) -> None:
    row[name], row[f"{name}_low"], row[f"{name}_high"] = values


def _track_rows(
    track: str,
    by_task: dict[str, list[Cell]],
    scales: dict[str, Scale],
    by_entry: dict[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Rows of a whole track, the best first; a task without a scale counts for nobody."""
    scaled = [name for name in names_of_track(track) if name not in by_task or scales[name].usable]
    cells = {(cell.entry, name): cell for name, found in by_task.items() for cell in found}
    entries = list(by_entry)
    sampled, value = np.zeros((len(entries), N_RESAMPLES)), np.zeros(len(entries))
    for name in scaled:
        # Systems are independent of each other, so their resamples must not be aligned: each has its own draw.
        for i, entry in enumerate(entries):
            cell = cells.get((entry, name))
            if cell is None:
                skill, mean = np.full(N_RESAMPLES, MISSING), MISSING
            else:
                skill = cell.pooled(scales[name].skill(cell.sampled).clip(-1, 1))
                mean = float(scales[name].skill(cell.by_seed).clip(-1, 1).mean())
            sampled[i] += skill / len(scaled)
            value[i] += mean / len(scaled)
    any_scale = any(scale.usable for scale in scales.values())
    rows = [_track_row(track, entry, by_entry[entry]) for entry in entries]
    ranks = rank_intervals(significantly_better(sampled))
    stability = unpaired_ranks(rows, "skill_stability")
    front = pareto_front(
        value if any_scale else np.full(len(rows), np.nan), np.array([r["lyapunov_times_per_second"] for r in rows])
    )
    for i, row in enumerate(rows):
        row["pareto_front"] = bool(front[i]) if any_scale else None
        if any_scale:
            _put(row, "skill_accuracy", (float(value[i]), *interval(sampled[i])))
        if track in RANKED_TRACKS:
            row["stability_rank_low"], row["stability_rank_high"] = stability[i]
            if any_scale:
                row["rank_low"], row["rank_high"] = ranks[i]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: (-value[i], entries[i]))]


def names_of_track(track: str) -> list[str]:
    """All tasks that a track's score is taken over, run or not."""
    return [f"{system}-{track}" for system in systems.names()]


def _track_row(track: str, entry: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What an entry's tasks have in common, and their stability and throughput together."""
    n_tasks = len(names_of_track(track))
    missing = n_tasks - len(rows)
    stability = np.array([[row[f"skill_stability{e}"] for e in ("", "_low", "_high")] for row in rows])
    speeds = [row["lyapunov_times_per_second"] for row in rows]
    row = {
        "track": track,
        "task": None,
        "entry": entry,
        "baseline": rows[0]["baseline"],
        "knowledge": rows[0]["knowledge"],
        "seeds": min(row["seeds"] for row in rows),
        "missing_tasks": missing,
        "lyapunov_times_per_second": np.nan if missing else geometric_mean(speeds),
        "train_seconds": float(sum(row["train_seconds"] for row in rows)),
        "n_parameters": max(row["n_parameters"] for row in rows),
    }
    _put(row, "skill_stability", mean_over_tasks(stability, n_tasks))
    return row


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The table as plain rows for JSON: what is not known is ``None``."""
    return [
        {key: None if pd.isna(value) else _plain(value) for key, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def rows_of_whole_track(frame: pd.DataFrame, track: str) -> pd.DataFrame:
    """The rows of a whole track, the best entry first."""
    return frame.loc[(frame["track"] == track) & frame["task"].isna(), :]


def rows_of_track(frame: pd.DataFrame, track: str) -> pd.DataFrame:
    """The rows of a track's tasks."""
    return frame.loc[(frame["track"] == track) & frame["task"].notna(), :]


def rows_of_task(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    """The rows of one task, the best entry first."""
    return frame.loc[frame["task"] == task, :]


def names_of_tasks(frame: pd.DataFrame, track: str) -> list[str]:
    """The tasks of a track that are in the table, in their usual order."""
    found = set(frame.loc[frame["track"] == track, "task"].dropna())
    return tasks.in_order(found)


def as_json(frame: pd.DataFrame) -> str:
    """The rows of the table as a JSON list."""
    return jsonlib.dumps(ranking.records(frame), indent=1, allow_nan=False)
