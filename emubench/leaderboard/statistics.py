"""Rows of tables of scores: their columns, ranks as intervals, the Pareto front; and the draws of the bootstrap."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import studentized_range

from emubench.core.random import stream
from emubench.evaluation import scoring
from emubench.evaluation.throughput.ladder import RANKED_SKILL

MISSING = -1.0
"""Skill of a task that an entry misses."""
Z_SHOWN, Z_DIFFERENT = 1.959964, 2.575829
"""Quantiles of the normal distribution: of the 95 % intervals shown, and the 99 % of what counts as different."""
N_RESAMPLES = 10_000
SPEEDUP = "speedup_at_equal_accuracy"
ENDS = ("", "_low", "_high")
"""What follows the name of a score in the columns of its value and of its interval's ends."""
Row = dict[str, Any]
"""A row of a table, by the names of its columns."""


def ends(row: Mapping[str, Any], name: str) -> tuple[Any, Any, Any]:
    """A score of a row with the ends of its interval; that which heads the task is "value", "low" and "high"."""
    names = ("value", "low", "high") if name == "value" else [name + end for end in ENDS]
    value, low, high = (row[key] for key in names)
    return value, low, high


def bounded(name: str, value: float | None, low: float | None, high: float | None) -> Row:
    """The columns of a score with its interval."""
    return dict(zip([name + end for end in ENDS], (value, low, high), strict=True))


def set_ranks(rows: Sequence[Row], name: str, intervals: Iterable[Any]) -> None:
    """Fill rank intervals into rows, as the columns ``name_low`` and ``name_high``."""
    for row, (low, high) in zip(rows, intervals, strict=True):
        row |= {f"{name}_low": low, f"{name}_high": high}


def _speedups(rows: Sequence[Row]) -> Row:
    """The geometric mean of the speed-ups that are known, with its ends', if one device measured them all."""
    known = [row for row in rows if row.get(SPEEDUP) is not None and np.isfinite(row[SPEEDUP])]
    if len({row["speedup_on"] for row in known}) != 1:
        return {}
    found = np.array([ends(row, SPEEDUP) for row in known], dtype=np.float64)
    means = np.exp(np.log(found.clip(1e-300)).mean(0)).tolist()
    return bounded(SPEEDUP, *means) | {"speedup_on": known[0]["speedup_on"], "speedup_tasks": len(known)}


def set_speedup_ranks(rows: Sequence[Row], n_tasks: int = 1) -> None:
    """Fill in the ranks by speed-up, of each device apart, of entries whose skill counts on all ``n_tasks``.

    Of two entries one is better where its interval lies above the other's.

    >>> rows = [{"skill_accuracy": 0.5, "speedup_on": "cpu", "speedup_tasks": 1} for _ in "ab"]
    >>> rows[0] |= bounded(SPEEDUP, 2.0, 1.9, 2.1)
    >>> rows[1] |= bounded(SPEEDUP, 1.0, 0.9, 1.1)
    >>> set_speedup_ranks(rows)
    >>> [(row["speedup_rank_low"], row["speedup_rank_high"]) for row in rows]
    [(1, 1), (2, 2)]
    """
    for row in rows:
        if row.get("task") is None and row.get(SPEEDUP) is not None:
            row["speedup_ranked"] = bool(row.get("skill_accuracy", np.nan) >= RANKED_SKILL)
    counted = [row for row in rows if row.get("speedup_ranked") and row.get("speedup_tasks") == n_tasks]
    for device in dict.fromkeys(row["speedup_on"] for row in counted):
        here = [row for row in counted if row["speedup_on"] == device]
        _, low, high = np.array([ends(row, SPEEDUP) for row in here], dtype=np.float64).T
        set_ranks(here, "speedup_rank", rank_intervals(low[None, :] > high[:, None]).tolist())


def together(rows: Sequence[Row], n_tasks: int, same: Sequence[str]) -> Row:
    """One row of an entry's rows on the ``n_tasks`` of a track: stability is averaged, the columns ``same`` kept.

    Throughput is the geometric mean, which orders entries the same in whatever unit a system's time is counted; it is
    not known where a task is missing.
    """
    missing = n_tasks - len(rows)
    speeds = np.array([row["lyapunov_times_per_second"] for row in rows], dtype=np.float64)
    return (
        {key: rows[0][key] for key in same}
        | {
            "task": None,
            "seeds": min(row["seeds"] for row in rows),
            "missing_tasks": missing,
            "lyapunov_times_per_second": np.nan if missing else np.exp(np.log(speeds.clip(1e-300)).mean()),
            "train_seconds": sum(row["train_seconds"] for row in rows),
        }
        | bounded("skill_stability", *mean_stability(rows, n_tasks))
        | _speedups(rows)
    )


def mean_stability(rows: Sequence[Row], n_tasks: int) -> tuple[float, float, float]:
    """Mean stability over ``n_tasks`` of independent systems, with its interval; a missing task counts −1.

    >>> row = {"skill_stability": 0.5, "skill_stability_low": 0.2, "skill_stability_high": 0.9}
    >>> np.round(mean_stability([row, row], 4), 9).tolist()
    [-0.25, -0.356066017, -0.108578644]
    """
    scores = np.array([ends(row, "skill_stability") for row in rows], dtype=np.float64)
    mean = float(scores[:, 0].sum() + MISSING * (n_tasks - len(scores))) / n_tasks
    below, above = np.sqrt(((scores[:, 1:] - scores[:, :1]) ** 2).sum(0)) / n_tasks
    return mean, float(mean - below), float(mean + above)


def rank_intervals(better: np.ndarray) -> np.ndarray:
    """Rank intervals ``"n 2"`` from a table whose entry (i, j) says whether j beats i.

    >>> rank_intervals(np.array([[False, True], [False, False]])).tolist()
    [[2, 2], [1, 1]]
    """
    return np.stack([1 + better.sum(1), len(better) - better.sum(0)], axis=1)


@cache
def case_weights(system: str, n_kinds: int, n_cases: int) -> np.ndarray:
    """Bootstrap weights ``"R B"`` of a system's cases: one draw for all entries, and another for each system."""
    seed = int(stream(0, "ranking", system).integers(2**62))
    return scoring.resample(torch.arange(n_cases) % n_kinds, N_RESAMPLES, seed).numpy()


def false_tables(n_entries: int) -> float:
    """How often a table of entries of equal skill shows a difference anywhere: ranks are not corrected for pairs.

    >>> [round(false_tables(n), 2) for n in (2, 5, 10)]
    [0.01, 0.07, 0.23]
    """
    return float(studentized_range.sf(Z_DIFFERENT * 2**0.5, n_entries, np.inf)) if n_entries > 1 else 0.0


def pareto_front(accuracy: np.ndarray, throughput: np.ndarray) -> np.ndarray:
    """Which entries no other one beats in one without losing in the other; an unknown value is never on the front.

    >>> pareto_front(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.5, 9.0])).tolist()
    [True, False, True]
    """
    a, t = accuracy[:, None], throughput[:, None]
    known = np.isfinite(accuracy) & np.isfinite(throughput)
    dominated = known & (accuracy >= a) & (throughput >= t) & ((accuracy > a) | (throughput > t))
    return known & ~dominated.any(1)
