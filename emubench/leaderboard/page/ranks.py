"""Ranks, which only verified rows have: what a judge found of retrained entries on one season's sealed data.

Entries are compared on the same cases, as :mod:`emubench.leaderboard.ranking` does: a row has the headline score of
every case and seed. Fewer than three seeds are a checkpoint, which is shown without a rank and moves nobody else's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from emubench.data import reference, tasks
from emubench.data.tasks import RANKED_TRACKS, TRACKS
from emubench.evaluation.throughput.ladder import RANKED_SKILL
from emubench.leaderboard import estimates, ranking, statistics
from emubench.leaderboard.estimates import Estimate
from emubench.leaderboard.ranking import columns_of
from emubench.leaderboard.statistics import MISSING, Row
from emubench.leaderboard.submission import verified_rows
from emubench.leaderboard.submission.entries import SEEDS_OF_A_METHOD
from emubench.leaderboard.submission.season import Season
from emubench.leaderboard.submission.verified_rows import Verified, VerifiedRow

LEFT_OUT = ("common", "dead_fraction", "speed_", "n_parameters")
"""Columns of :func:`emubench.leaderboard.ranking.table`, by how they begin, that a judge does not publish."""
COLUMNS = {"season": "str", "judge": "str"} | {
    name: kind for name, kind in ranking.COLUMNS.items() if not name.startswith(LEFT_OUT)
}
"""Columns of :func:`table` and their pandas types."""
SAME = ("judge", "track", "entry", "baseline", "knowledge")


class Placed(NamedTuple):
    """A row of the table, with what it is ranked by."""

    row: Row
    accuracy: Estimate | None
    """``None`` where the task has no frozen scale."""
    stability: Estimate | None


def table(season: str, opened: Season, found: Sequence[Verified], knowledge: Mapping[str, str]) -> pd.DataFrame:
    """One row per task and entry of a season, and one per track and entry (``task`` null), the best first.

    ``knowledge`` says what each entry knows. A track's score is the mean over the season's tasks of that track, of
    skill clipped to [−1, 1]; a task that an entry misses counts −1.
    """
    rows: list[Row] = []
    for track in TRACKS:
        names = [name for name in tasks.in_order(set(opened.tasks)) if name.endswith(f"-{track}")]
        known = {v.entry: [(v, row) for row in v.rows if row.task in names] for v in found}
        whole, single = list[Placed](), list[Placed]()
        for entry, of_entry in known.items():
            cells = [verified_rows.cell(entry, tasks.get(row.task, opened.size), row.by_seed) for _, row in of_entry]
            pairs = zip(of_entry, cells, strict=True)
            mine = [_of_task(track, v, row, cell, knowledge[entry]) for (v, row), cell in pairs]
            single += mine
            if mine:
                whole.append(_of_track(mine, cells, len(names)))
        for group in (whole, *([one for one in single if one.row["task"] == name] for name in names)):
            if track in RANKED_TRACKS:
                n_tasks = len(names) if group is whole else 1
                _place([one for one in group if one.row["seeds"] >= SEEDS_OF_A_METHOD], n_tasks)
            shown = [one.row for one in group]
            rows += sorted(shown, key=lambda row: (-_known(row["skill_accuracy"]), row["entry"]))
    return ranking.frame_of([{"season": season} | row for row in rows], COLUMNS)


def _known(value: float | None) -> float:
    return -np.inf if value is None or np.isnan(value) else value


def _of_task(track: str, verified: Verified, row: VerifiedRow, cell: ranking.Cell, knowledge: str) -> Placed:
    scale = reference.scale(row.task)
    made: Row = {
        "judge": verified.judge,
        "track": track,
        "entry": verified.entry,
        "baseline": verified.method,
        "knowledge": knowledge,
        "seeds": len(row.seeds),
        "floor": scale.floor,
        "oracle": scale.oracle,
        "scale": "frozen",
    } | statistics.bounded("skill_accuracy", row.skill, row.skill_low, row.skill_high)
    accuracy = cell.estimate(scale.skill) if scale.usable else None
    known = row.model_dump(include=set(COLUMNS) - {"seeds"})
    return Placed(known | made | _speedup(row), accuracy, cell.stability)


def _speedup(row: VerifiedRow) -> Row:
    """The speed-up that a judge measured, if one is known; it is ranked by the skill of all seeds."""
    if row.speed is None or (gained := row.speed.speedup) is None or gained.value is None:
        return {}
    known = {"speedup_on": row.speed.where, "speedup_tasks": 1}
    known["speedup_ranked"] = row.skill is not None and row.skill >= RANKED_SKILL
    return known | statistics.bounded(statistics.SPEEDUP, gained.value, gained.low, gained.high)


def _of_track(mine: Sequence[Placed], cells: Sequence[ranking.Cell], n_tasks: int) -> Placed:
    scales = [reference.scale(cell.task.name) for cell in cells]
    accuracy = None
    if all(scale.usable for scale in scales):
        skills = [cell.accuracy(scale) for cell, scale in zip(cells, scales, strict=True)]
        accuracy = estimates.mean(skills, n_tasks, MISSING)
    stability = ranking.mean_stability(cells, n_tasks)
    row = statistics.together([one.row for one in mine], n_tasks, SAME)
    return Placed(row | columns_of("skill_accuracy", accuracy, -1.0, 1.0), accuracy, stability)


def _place(group: Sequence[Placed], n_tasks: int) -> None:
    """Fill in the ranks by accuracy, stability and speed-up, and the Pareto front of accuracy and speed.

    The front is that of the machine which judged the most rows: times are never compared across machines.
    """
    rows = [one.row for one in group]
    ranking.set_ranks(rows, "rank", [one.accuracy for one in group])
    ranking.set_ranks(rows, "stability_rank", [one.stability for one in group])
    statistics.set_speedup_ranks(rows, n_tasks)
    if machine := most_common(row["judge"] for row in rows):
        timed = [row for row in rows if row["judge"] == machine]
        keys = ("skill_accuracy", "lyapunov_times_per_second")
        skill, speed = (np.array([row[key] for row in timed], dtype=np.float64) for key in keys)
        for row, on_front in zip(timed, statistics.pareto_front(skill, speed), strict=True):
            row["pareto_front"] = bool(on_front)


def most_common(names: Any) -> str:
    """The commonest of some names, the first by alphabet where several are; "" of none.

    >>> most_common(["b", "a", "a", "b", "c"])
    'a'
    """
    counted = Counter(names)
    return min(counted, key=lambda name: (-counted[name], name), default="")
