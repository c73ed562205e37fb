"""Ranks, which only verified rows have: what a judge found of retrained entries on one season's sealed data.

Only aggregates per task are published of sealed data, so differences count as unpaired: two entries differ if the 99 %
interval of the difference of their means excludes 0. That is cautious, as the same cases move all entries alike. Fewer
than three seeds are a checkpoint, which is shown without a rank and moves nobody else's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from emubench.data import reference, tasks
from emubench.data.tasks import RANKED_TRACKS, TRACKS
from emubench.leaderboard import ranking, statistics
from emubench.leaderboard.statistics import Row
from emubench.leaderboard.submission.entries import SEEDS_OF_A_METHOD
from emubench.leaderboard.submission.season import Season
from emubench.leaderboard.submission.verifying import Verified, VerifiedRow

LEFT_OUT = ("common", "dead_fraction", "speed", "n_parameters")
"""Columns of :func:`emubench.leaderboard.ranking.table`, by how they begin, that a judge does not publish."""
COLUMNS = {"season": "str", "judge": "str"} | {
    name: kind for name, kind in ranking.COLUMNS.items() if not name.startswith(LEFT_OUT)
}
"""Columns of :func:`table` and their pandas types."""
SAME = ("judge", "track", "entry", "baseline", "knowledge")
SCORES = ("skill_accuracy", "skill_stability")


def table(season: str, opened: Season, found: Sequence[Verified], knowledge: Mapping[str, str]) -> pd.DataFrame:
    """One row per task and entry of a season, and one per track and entry (``task`` null), the best first.

    ``knowledge`` says what each entry knows. A track's score is the mean over the season's tasks of that track, of
    skill clipped to [−1, 1]; a task that an entry misses counts −1.
    """
    rows: list[Row] = []
    for track in TRACKS:
        names = [name for name in tasks.in_order(set(opened.tasks)) if name.endswith(f"-{track}")]
        by_entry = [
            [_task_row(track, v, row, knowledge[v.entry]) for row in v.rows if row.task in names] for v in found
        ]
        whole = [statistics.together(mine, len(names), SAME, SCORES) for mine in by_entry if mine]
        single = [row for mine in by_entry for row in mine]
        for group in (whole, *([row for row in single if row["task"] == name] for name in names)):
            if track in RANKED_TRACKS:
                _place([row for row in group if row["seeds"] >= SEEDS_OF_A_METHOD])
            rows += sorted(group, key=lambda row: (-_known(row["skill_accuracy"]), row["entry"]))
    return ranking.frame_of([{"season": season} | row for row in rows], COLUMNS)


def _known(value: float | None) -> float:
    return -np.inf if value is None or np.isnan(value) else value


def _task_row(track: str, verified: Verified, row: VerifiedRow, knowledge: str) -> Row:
    frozen = reference.get(row.task)
    made: Row = {
        "judge": verified.judge,
        "track": track,
        "entry": verified.entry,
        "baseline": verified.method,
        "knowledge": knowledge,
        "seeds": len(row.seeds),
        "floor": frozen.get("floor"),
        "oracle": frozen.get("oracle"),
        "scale": "frozen",
    } | statistics.bounded("skill_accuracy", row.skill, row.skill_low, row.skill_high)
    return row.model_dump(include=set(COLUMNS) - {"seeds"}) | made


def _place(rows: list[Row]) -> None:
    """Fill in the ranks by accuracy and by stability, and the Pareto front of accuracy and speed.

    The front is that of the machine which judged the most rows: times are never compared across machines.
    """
    for score, name in zip(SCORES, ("rank", "stability_rank"), strict=True):
        statistics.set_ranks(rows, name, statistics.unpaired_ranks(rows, score))
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
