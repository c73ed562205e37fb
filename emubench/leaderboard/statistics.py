"""Means and ranks of scores that are known by their values and intervals alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MISSING = -1.0
"""Skill of a task that an entry misses."""
Z_SHOWN, Z_DIFFERENT = 1.959964, 2.575829
"""Quantiles of the normal distribution: of the 95 % intervals shown, and the 99 % of what counts as different."""


def rank_intervals(better: np.ndarray) -> np.ndarray:
    """Rank intervals ``"n 2"`` from a table whose entry (i, j) says whether j beats i.

    >>> rank_intervals(np.array([[False, True], [False, False]])).tolist()
    [[2, 2], [1, 1]]
    """
    return np.stack([1 + better.sum(1), len(better) - better.sum(0)], axis=1)


def unpaired_ranks(rows: Sequence[Mapping[str, Any]], score: str) -> list[tuple[int | None, int | None]]:
    """Rank intervals by a score of which the cases are not stored, from its 95 % intervals (``score_low``, ``_high``).

    Differences count as unpaired, which is cautious: the same cases move all entries alike. All are ``None`` where any
    score is not known.

    >>> unpaired_ranks([{"s": 0.1, "s_low": 0.0, "s_high": 0.2}, {"s": 0.9, "s_low": 0.8, "s_high": 1.0}], "s")
    [(2, 2), (1, 1)]
    """
    ends = [[row[f"{score}{end}"] for end in ("", "_low", "_high")] for row in rows]
    value, low, high = np.array(ends, dtype=np.float64).reshape(-1, 3).T
    if np.isnan(value).any():
        return [(None, None)] * len(rows)
    variance = ((high - low) / (2 * Z_SHOWN)) ** 2
    better = value - value[:, None] > Z_DIFFERENT * np.sqrt(variance + variance[:, None])
    return [(int(first), int(last)) for first, last in rank_intervals(better)]


def geometric_mean(speeds: Sequence[float]) -> float:
    """Throughput on several systems together: it orders entries the same in whatever unit a system's time is counted.

    >>> round(geometric_mean([1.0, 100.0]), 9)
    10.0
    """
    return float(np.exp(np.log(np.maximum(speeds, 1e-300)).mean()))


def mean_over_tasks(scores: np.ndarray, n_tasks: int) -> tuple[float, float, float]:
    """Mean of skills ``"k 3"`` (value, low, high) over ``n_tasks`` of independent systems; a missing task counts −1.

    >>> np.round(mean_over_tasks(np.array([[0.5, 0.2, 0.9], [0.1, -0.3, 0.4]]), 2), 9).tolist()
    [0.3, 0.05, 0.55]
    """
    missing = n_tasks - len(scores)
    mean = float(scores[:, 0].sum() + MISSING * missing) / n_tasks
    below, above = np.sqrt(((scores[:, 1:] - scores[:, :1]) ** 2).sum(0)) / n_tasks
    return mean, float(mean - below), float(mean + above)
