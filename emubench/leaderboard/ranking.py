"""Ranking: one table of all entries on all tasks and tracks, rebuilt from the runs on disk alone.

An entry's score on a task is the mean over seeds of the mean over cases; on a track the mean over systems of the mean
over seeds of its skill clipped to [−1, 1], where a missing task counts −1. Intervals are 95 %, over cases and seeds
(:mod:`emubench.leaderboard.estimates`). Two entries differ if the 99 % interval of their paired difference excludes 0,
and a rank is an interval: 1 + number significantly better … n − number significantly worse. Scales (floor and oracle)
are frozen, so that a new entry moves no old score.
"""

import json as jsonlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emubench import systems
from emubench.data import reference, tasks
from emubench.data.reference import Scale
from emubench.data.tasks import CUSTOM, RANKED_TRACKS, TRACKS, Task
from emubench.leaderboard import estimates, statistics
from emubench.leaderboard.estimates import Estimate
from emubench.leaderboard.statistics import ENDS, MISSING, Row, bounded
from emubench.metrics._headline import headline
from emubench.runs.scored import Scored, ScoredRun, of_one_kind, runs_of

FLOORS = ("persistence", "linear")
KEPT = ("track", "entry", "baseline", "knowledge", "speed_of", "speed_on")
"""Columns of a track's row that are those of its tasks."""
OTHER_SIZE = " at size standard"
"""What is said of a scale where the runs are of another size, with other amounts of data."""


def _columns(kind: str, *names: str, ends: tuple[str, ...] = ("",)) -> dict[str, str]:
    return {f"{name}{end}": kind for name in names for end in ends}


COLUMNS = (
    _columns("str", "track", "task", "entry", "baseline", "knowledge")
    | _columns("Int64", "seeds", "n_cases", "missing_tasks", "rank_low", "rank_high")
    | _columns("str", "metric", "unit")
    | _columns("float64", "value", "low", "high", "floor", "oracle")
    | _columns("str", "scale")
    | _columns("float64", "skill_accuracy", "skill_stability", "common_accuracy", "common_stability", ends=ENDS)
    | _columns("Int64", "stability_rank_low", "stability_rank_high")
    | _columns("float64", "surviving_fraction", "dead_fraction", "lyapunov_times_per_second", ends=ENDS)
    | _columns("str", "speed_of", "speed_on")
    | _columns("float64", "speedup_at_equal_accuracy", ends=ENDS)
    | _columns("str", "speedup_on")
    | _columns("Int64", "speedup_tasks", "speedup_rank_low", "speedup_rank_high")
    | _columns("boolean", "speedup_ranked", "pareto_front")
    | _columns("float64", "train_seconds")
    | _columns("Int64", "n_parameters")
)
"""Columns of :func:`table` and their pandas types. Null is what is not known, and ``task`` in rows of whole tracks.

There ``common_accuracy`` and ``common_stability`` are means over the tasks that all entries of the track have."""


@dataclass(frozen=True)
class Cell:
    """One entry on one task: the mean scores of all its seeds, under every resample of the cases."""

    entry: str
    task: Task
    by_seed: np.ndarray
    """Mean over cases, per seed ``"S"``."""
    sampled: np.ndarray
    """Mean over the resampled cases, per resample and seed ``"R S"``."""
    share: float
    """See :func:`emubench.leaderboard.estimates.share_of_single_cases`."""
    stability: Estimate | None
    """The stability skill; ``None`` if it is not known."""
    runs: tuple[ScoredRun, ...] = ()

    def estimate(self, of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Estimate:
        """The mean over seeds of what ``of`` makes of the mean over cases, such as its skill."""
        return estimates.of_seeds(of(self.by_seed), of(self.sampled).mean(1), self.share)

    def accuracy(self, scale: Scale) -> Estimate:
        """Skill as it counts for a track: clipped to [−1, 1], seed by seed."""
        return self.estimate(lambda values: scale.skill(values).clip(-1, 1))

    def oriented(self) -> Estimate:
        """The score, turned so that more is better."""
        return self.estimate(lambda values: headline(self.task).better * values)

    @property
    def value(self) -> float:
        """Mean over seeds and cases."""
        return float(self.by_seed.mean())

    def interval(self, level: float = estimates.SHOWN) -> list[float]:
        """Interval of the mean, within the range of the score."""
        return np.clip(self.estimate().interval(level), *headline(self.task).bounds).tolist()


# --- the statistics ---------------------------------------------------------------------------------------------------


def make_cell(
    entry: str, task: Task, cases: np.ndarray, stability: Estimate | None, runs: Sequence[ScoredRun] = ()
) -> Cell:
    """Pool the headline scores ``cases`` ``"S B"`` of the seeds of one entry on one task."""
    n_kinds = len(task.system.starts)
    weights = statistics.case_weights(task.system.name, n_kinds, cases.shape[1])
    share = estimates.share_of_single_cases(cases, n_kinds)
    return Cell(entry, task, cases.mean(1), weights @ cases.T, share, stability, tuple(runs))


def of_runs(runs: Sequence[ScoredRun]) -> Cell:
    """Pool the seeds of one entry on one task."""
    stability = stored(runs, "skill_stability", 0.0)
    return make_cell(runs[0].entry, runs[0].task, np.stack([run.cases for run in runs]), stability, runs)


def stored(runs: Sequence[ScoredRun], metric: str, worst: float) -> Estimate | None:
    """Mean over seeds of a score whose cases are not stored, ``None`` if it is not known of all: see :func:`pooled`."""
    rows = [run.row(metric, worst) for run in runs]
    return None if None in rows else pooled(rows, runs[0].entry, runs[0].task.name, metric)


def pooled(rows: Sequence[tuple[float, float, float] | None], *labels: str) -> Estimate:
    """Mean over seeds of a score known by its value and the interval over its cases, by whose mean width it is wide.

    All seeds meet the same cases, so that width does not shrink with more seeds.
    """
    value, low, high = np.array(rows, dtype=np.float64).T
    return estimates.unpaired(value, low.mean(), high.mean(), *labels)


def columns_of(name: str, found: Estimate | None, least: float, most: float) -> Row:
    """The columns of a score with its 95 % interval, whose ends lie in its range; null if it is not known."""
    if found is None:
        return bounded(name, np.nan, np.nan, np.nan)
    return bounded(name, found.value, *np.clip(found.interval(), least, most).tolist())


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


def table(runs: Sequence[ScoredRun]) -> pd.DataFrame:
    """One row per task and entry, and one per track and entry (``task`` null), the best first: see :data:`COLUMNS`.

    The speed on a task, and on a track, is one quantity, ``speed_of``: of the best batch ("bench") where all that is
    timed there was benched, and on one device (``speed_on``), else of the forecasts that scoring asked for ("scoring").
    Where these were made on several devices there is none.
    """
    of_task: dict[str, list[ScoredRun]] = defaultdict(list)
    for run in runs:
        of_task[run.task.name].append(run)
    grouped: dict[tuple[str, str], list[ScoredRun]] = defaultdict(list)
    for name, found in of_task.items():
        for run in of_one_kind(found):
            grouped[name, run.entry].append(run)
    by_task: dict[str, list[Cell]] = defaultdict(list)
    for (name, _), group in grouped.items():
        by_task[name].append(of_runs(group))
    rows: list[Row] = []
    for track in (*TRACKS, CUSTOM):
        cells = {name: found for name, found in by_task.items() if found[0].task.track == track}
        scales = {name: known_scale(found[0].task, found) for name, found in cells.items()}
        task_rows = [row for name, found in cells.items() for row in _task_rows(track, found, scales[name])]
        rows += ([] if track == CUSTOM else _track_rows(track, cells, scales, task_rows)) + task_rows
    return frame_of(rows, COLUMNS)


def frame_of(rows: list[Row], columns: dict[str, str]) -> pd.DataFrame:
    """The table of rows, with pandas types by the names of its columns."""
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({name: kind for name, kind in columns.items() if kind != "str"})


def _placed(
    rows: list[Row],
    found: Sequence[Estimate],
    stability: Sequence[Estimate | None],
    known: bool = True,
    n_tasks: int = 1,
) -> list[Row]:
    """The rows of one task or track with ranks and Pareto front, the best first; no skill may be ``known``."""
    if not rows:
        return []
    accuracy = np.array([one.value for one in found])
    speed = np.array([row["lyapunov_times_per_second"] for row in rows])
    for row, on_front in zip(rows, statistics.pareto_front(accuracy, speed), strict=True):
        row["pareto_front"] = bool(on_front) if known else None
    if rows[0]["track"] in (*RANKED_TRACKS, CUSTOM):
        set_ranks(rows, "stability_rank", stability)
        statistics.set_speedup_ranks(rows, n_tasks)
        if known:
            set_ranks(rows, "rank", found)
    order = sorted(range(len(rows)), key=lambda i: (-accuracy[i], rows[i]["entry"]))
    return [rows[i] for i in order]


def set_ranks(rows: Sequence[Row], name: str, found: Sequence[Estimate | None]) -> None:
    """Fill the columns ``name_low`` and ``name_high`` with ranks as intervals; nobody has one where one isn't known."""
    known = [one for one in found if one is not None]
    if len(known) == len(rows):
        ranks = statistics.rank_intervals(estimates.significantly_better(known)).tolist()
        for row, (low, high) in zip(rows, ranks, strict=True):
            row |= {f"{name}_low": low, f"{name}_high": high}


def _task_rows(track: str, cells: list[Cell], scale: Scale) -> list[Row]:
    """Rows of one task, the best first."""
    rows = [_task_row(track, cell, scale) for cell in cells]
    return _placed(rows, [cell.oriented() for cell in cells], [cell.stability for cell in cells])


def _task_row(track: str, cell: Cell, scale: Scale) -> Row:
    task, card = cell.task, cell.runs[0].card
    low, high = cell.interval()
    other_size = scale.source == "frozen" and not task.size.startswith("standard")
    row: Row = {
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
        "scale": (scale.source + OTHER_SIZE * other_size) or None,
        "train_seconds": float(np.mean([run.card.train_seconds for run in cell.runs])),
        "n_parameters": max(run.card.n_parameters for run in cell.runs),
    }
    if scale.usable:
        row |= columns_of("skill_accuracy", cell.estimate(scale.skill), -np.inf, np.inf)
    row |= columns_of("skill_stability", cell.stability, 0.0, 1.0)
    for metric, worst in (("surviving_fraction", 0.0), ("dead_fraction", 1.0)):
        row |= columns_of(metric, stored(cell.runs, metric, worst), 0.0, 1.0)
    return row | _speed(cell.runs) | _speedup(cell.runs)


def _speed(runs: Sequence[ScoredRun]) -> Row:
    """Mean throughput over seeds, from the slowest to the fastest; what it is of, and where it was measured."""
    speeds = np.array([run.throughput for run in runs], dtype=np.float64)  # NaN where one was not timed
    ends = (speeds.min(), speeds.max()) if len(speeds) > 1 else (np.nan, np.nan)
    benched, device = runs[0].kind
    known = {"speed_of": "bench" if benched else "scoring", "speed_on": device} if np.isfinite(speeds).all() else {}
    return bounded("lyapunov_times_per_second", speeds.mean(), *ends) | {"speed_of": None, "speed_on": None} | known


def _speedup(runs: Sequence[ScoredRun]) -> Row:
    """Mean of the speed-up at equal accuracy over the seeds of which one device has measured it."""
    places = {run.speedup_on for run in runs if run.speedup is not None}
    gained = [run.speedup for run in runs if run.speedup is not None]
    if len(places) != 1 or any(one.value is None for one in gained):
        return {}
    ends = np.array([(one.value, one.low, one.high) for one in gained], dtype=np.float64)
    known = {"speedup_ranked": all(one.ranked for one in gained), "speedup_on": places.pop(), "speedup_tasks": 1}
    return bounded("speedup_at_equal_accuracy", *ends.mean(0)) | known


def names_of_track(track: str) -> list[str]:
    """All tasks that a track's score is taken over, run or not."""
    return [f"{system}-{track}" for system in systems.names()]


def _track_rows(
    track: str, by_task: dict[str, list[Cell]], scales: dict[str, Scale], task_rows: list[Row]
) -> list[Row]:
    """Rows of a whole track, the best first; a task without a scale counts for nobody."""
    names = names_of_track(track)
    scaled = [name for name in names if name not in by_task or scales[name].usable]
    cells: dict[str, dict[str, Cell]] = defaultdict(dict)
    for name, found in by_task.items():
        for cell in found:
            cells[cell.entry][name] = cell
    any_scale = any(scale.usable for scale in scales.values())
    entries = list(dict.fromkeys(row["entry"] for row in task_rows))
    common = [name for name in scaled if all(name in cells[entry] for entry in entries)]
    timed = [run for found in by_task.values() for cell in found for run in cell.runs]
    fair = dict(zip(map(id, timed), of_one_kind(timed), strict=True))
    accuracies, steadiness, rows = list[Estimate](), list[Estimate | None](), list[Row]()
    for entry in entries:
        mine = [row for row in task_rows if row["entry"] == entry]
        mine = [row | _speed([fair[id(run)] for run in cells[entry][row["task"]].runs]) for row in mine]
        skills = {name: cells[entry][name].accuracy(scales[name]) for name in scaled if name in cells[entry]}
        accuracies.append(estimates.mean(list(skills.values()), max(1, len(scaled)), MISSING))
        steadiness.append(mean_stability(list(cells[entry].values()), len(names)))
        row = statistics.together(mine, len(names), KEPT)
        if not np.isfinite(row["lyapunov_times_per_second"]):
            row["speed_of"] = row["speed_on"] = None
        row["n_parameters"] = max(one["n_parameters"] for one in mine)
        if any_scale:
            row |= columns_of("skill_accuracy", accuracies[-1], -1.0, 1.0)
        if common:
            shared = estimates.mean([skills[name] for name in common], len(common), MISSING)
            stable = statistics.mean_stability([one for one in mine if one["task"] in common], len(common))
            row |= columns_of("common_accuracy", shared, -1.0, 1.0) | bounded("common_stability", *stable)
        rows.append(row)
    return _placed(rows, accuracies, steadiness, any_scale, len(names))


def mean_stability(cells: Sequence[Cell], n_tasks: int) -> Estimate | None:
    """The mean stability over a track's tasks, of which a missing one counts −1; ``None`` if one is not known."""
    known = [cell.stability for cell in cells if cell.stability is not None]
    return estimates.mean(known, n_tasks, MISSING) if len(known) == len(cells) else None


# --- looking at it ----------------------------------------------------------------------------------------------------


def records(frame: pd.DataFrame) -> list[Row]:
    """The table as plain rows for JSON: what is not known is ``None``."""
    return frame.astype(object).where(frame.notna(), None).to_dict(orient="records")


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
    return tasks.in_order(set(frame.loc[frame["track"] == track, "task"].dropna()))


def as_json(frame: pd.DataFrame) -> str:
    """The rows of the table as a JSON list."""
    return jsonlib.dumps(records(frame), indent=1, allow_nan=False)
