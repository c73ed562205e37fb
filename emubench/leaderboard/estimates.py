"""Mean scores of entries, what other cases and other trainings would change them by, and who is better than whom.

All seeds of an entry meet the same cases, so an error has two parts, which add: that of the cases, by a bootstrap (one
draw for all entries, so that differences are paired), and that of the trainings, by the spread of the seeds' means.
A few seeds show their spread badly: its part counts Student's t for the normal quantile, by its share of the variance
(Cochran & Cox 1957). With one seed nothing is known of that part, and an interval holds the cases alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from emubench.core.random import stream
from emubench.leaderboard.statistics import N_RESAMPLES

SHOWN, DIFFERENT = 0.95, 0.99
"""Levels of the intervals that are shown, and of those by which two entries differ."""
ROUNDING = 1e-9
"""Equal scores summed in another order differ by less: that is no difference."""
NO_SEEDS = np.zeros(2)


@dataclass(frozen=True)
class Estimate:
    """A mean score, or a difference of two, with what its error is made of."""

    value: float
    sampled: np.ndarray
    """Its value under every resample of the cases ``"R"``."""
    seeds: np.ndarray
    """Variance of the mean by its seeds' spread, and the sum of squares over degrees of freedom of such variances."""
    twice: float = 0.0
    """Variance of single cases of single seeds, which is in both the resamples and the seeds' spread."""

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference, paired by case; trainings of two entries are independent."""
        seeds, twice = self.seeds + other.seeds, self.twice + other.twice
        return Estimate(self.value - other.value, self.sampled - other.sampled, seeds, twice)

    def interval(self, level: float = SHOWN) -> tuple[float, float]:
        """Both ends of the interval in which the mean over all cases and trainings lies with probability ``level``."""
        tail = (1 - level) / 2
        low, high = np.quantile(self.sampled, (tail, 1 - tail)).tolist()
        if not self.seeds[0]:
            return low, high
        z, variance = ndtri(1 - tail), float(self.sampled.var())
        alone = max(0.0, 1 - self.twice / variance) if variance else 0.0
        of_cases = alone * (np.array([self.value - low, high - self.value]) / z) ** 2
        below, above = half_width(of_cases, self.seeds[0], self.seeds[1], level).tolist()
        return self.value - below, self.value + above


def half_width(of_cases: Any, of_seeds: Any, squares: Any, level: float) -> Any:
    """Half the width of an interval at ``level``, from the variance of a mean by its cases and by its seeds.

    ``squares`` is the sum of squares of the latter's parts over their degrees of freedom, which are then
    ``of_seeds² / squares`` (Satterthwaite). The t quantile counts for the seeds' share of the variance alone.

    >>> [round(float(half_width(*given, 0.95)), 2) for given in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.5), (0.5, 0.5, 0.125))]
    [1.96, 4.3, 3.13]
    """
    upper, total = (1 + level) / 2, np.asarray(of_cases + of_seeds)
    known = np.asarray(squares) > 0
    t = stdtrit(np.where(known, of_seeds**2, 1.0) / np.where(known, squares, 1.0), upper)
    weighted = ndtri(upper) * of_cases + np.where(known, t * of_seeds, 0.0)
    return weighted / np.sqrt(np.where(total > 0, total, 1.0))


def of_seeds(by_seed: np.ndarray, sampled: np.ndarray, share: float = 0.0) -> Estimate:
    """The mean over seeds of scores ``"S"``, whose mean under every resample of the cases is ``sampled`` ``"R"``.

    ``share`` of the cases' variance is that of single cases of single seeds: see :func:`share_of_single_cases`.
    """
    n, seeds = len(by_seed), NO_SEEDS
    if n > 1 and (variance := by_seed.var(ddof=1) / n) > ROUNDING**2:
        seeds = np.array([variance, variance**2 / (n - 1)])
    return Estimate(float(by_seed.mean()), sampled, seeds, share * float(sampled.var()))


def share_of_single_cases(cases: np.ndarray, n_kinds: int) -> float:
    """Which share of the variance of the mean over seeds of ``cases`` ``"S B"`` is neither a case's nor a seed's own.

    It is averaged out by more seeds and by more cases alike; the kinds of start take turns among the cases.

    >>> hard = np.array([[1.0, 5.0, 2.0, 4.0], [2.0, 6.0, 3.0, 5.0]])
    >>> share_of_single_cases(hard, 1), share_of_single_cases(np.array([[1.0, -1.0], [0.0, 0.0]]), 1)
    (0.0, 1.0)
    """
    single, all_of_it, n = 0.0, 0.0, len(cases)
    for kind in range(n_kinds if n > 1 else 0):
        off = cases[:, kind::n_kinds] - cases[:, kind::n_kinds].mean(1, keepdims=True)
        mean = off.mean(0)
        single += float(((off - mean) ** 2).sum()) / (n - 1)
        all_of_it += float((mean**2).sum()) * n
    return min(1.0, single / all_of_it) if all_of_it > 0 else 0.0


def unpaired(by_seed: np.ndarray, low: float, high: float, *labels: str) -> Estimate:
    """The mean over seeds of scores of which the cases are not stored, from the ends of the interval over its cases.

    Its resamples are independent of all with other ``labels``, so differences are cautious: the same cases move all
    entries alike.
    """
    value, z = float(by_seed.mean()), ndtri((1 + SHOWN) / 2)
    drawn = ndtri((stream(0, "unpaired", *labels).permutation(N_RESAMPLES) + 0.5) / N_RESAMPLES)
    return of_seeds(by_seed, value + drawn * np.where(drawn < 0, value - low, high - value) / z)


def mean(found: Sequence[Estimate], n_tasks: int, missing: float) -> Estimate:
    """The mean over ``n_tasks`` of estimates on some of them, independent of each other; the others count ``missing``.

    >>> one = Estimate(0.5, np.array([0.4, 0.6]), np.array([0.02, 0.0002]))
    >>> mean([one, one], 4, -1.0)
    Estimate(value=-0.25, sampled=array([-0.3, -0.2]), seeds=array([2.5000e-03, 1.5625e-06]), twice=0.0)
    """
    lost = missing * (n_tasks - len(found))
    sampled = sum((one.sampled for one in found), np.full(N_RESAMPLES if not found else len(found[0].sampled), lost))
    seeds = sum((one.seeds / np.array([n_tasks**2, n_tasks**4]) for one in found), NO_SEEDS)
    twice = sum(one.twice for one in found) / n_tasks**2
    return Estimate((sum(one.value for one in found) + lost) / n_tasks, sampled / n_tasks, seeds, twice)


def significantly_better(found: Sequence[Estimate]) -> np.ndarray:
    """Entry (i, j): whether j beats i, of scores where more is better: the interval of their difference excludes 0."""
    better = np.zeros((len(found), len(found)), dtype=bool)
    for i, one in enumerate(found):
        for j, two in enumerate(found[:i]):
            low, high = (two - one).interval(DIFFERENT)
            better[i, j], better[j, i] = low > ROUNDING, -high > ROUNDING
    return better
