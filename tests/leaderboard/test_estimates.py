"""Intervals over cases and few seeds hold what they promise: by simulation, at all ratios of seed to case variance."""

from __future__ import annotations

import numpy as np
import pytest

from emubench.leaderboard import estimates, statistics
from emubench.leaderboard.estimates import DIFFERENT, SHOWN, Estimate, half_width, of_seeds

N_CASES = 64
SHARES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
"""Of the trainings, in the variance of an entry's mean score."""


def normal_estimate(sampled: np.ndarray) -> Estimate:
    return Estimate(float(sampled.mean()), sampled, np.zeros(2))


@pytest.mark.parametrize(("shift", "differs"), [(2.2, False), (3.0, True)])
def test_a_difference_counts_from_the_99_percent_interval_on(shift, differs):
    noise = np.random.default_rng(6).standard_normal(4000)
    noise = (noise - noise.mean()) / noise.std()
    better = estimates.significantly_better([normal_estimate(np.zeros(4000)), normal_estimate(noise + shift)])
    assert better.tolist() == [[False, differs], [False, False]]


def test_equal_scores_summed_in_another_order_do_not_differ():
    one = np.full(1000, 0.3)
    assert not estimates.significantly_better([normal_estimate(one), normal_estimate(one + 1e-15)]).any()


def test_entries_that_are_equal_are_told_apart_once_in_a_hundred():
    weights = statistics.case_weights("lorenz96", 1, N_CASES)
    differences = weights @ np.random.default_rng(0).standard_normal((N_CASES, 1000))
    zero = normal_estimate(np.zeros(len(weights)))
    told = [estimates.significantly_better([zero, normal_estimate(one)]).any() for one in differences.T]
    assert 0.002 < np.mean(told) < 0.03


def test_what_more_seeds_average_out_is_not_counted_twice():
    """Scores that depend on seed and case together alone: the mean of S seeds and B cases has variance 1/(S B)."""
    cases = np.random.default_rng(1).standard_normal((5, 4000))
    assert estimates.share_of_single_cases(cases, 1) == pytest.approx(1, abs=0.05)
    sampled = np.random.default_rng(2).standard_normal(10_000) * np.sqrt(cases.mean(0).var() / 4000)
    found = of_seeds(cases.mean(1), cases.mean() + sampled, estimates.share_of_single_cases(cases, 1))
    low, high = found.interval()
    of_seeds_alone = 2 * 2.776445 * cases.mean(1).std(ddof=1) / np.sqrt(5)
    assert high - low == pytest.approx(of_seeds_alone, rel=0.1)


def test_kinds_of_start_that_trainings_do_unequally_well_are_no_variance_of_cases():
    hard = np.tile([1.0, -1.0], 8)
    assert estimates.share_of_single_cases(np.stack([hard, -hard]), 2) == 0.0


def fast_rates(n_seeds: int, share: float, n: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """How often a 95 % interval covers; how often equal entries differ; and where the other one has no seeds' spread.

    Normal errors: of the seeds' means with variance ``share``, of the cases with the rest, which is estimated of 256.
    """
    cases = 1 - share
    seeds = rng.standard_normal((2, n, n_seeds)) * np.sqrt(share * n_seeds)
    spread = seeds.var(2, ddof=1) / n_seeds
    squares, of_cases = spread**2 / (n_seeds - 1), cases * rng.chisquare(255, n) / 255
    error = np.sqrt(cases) * rng.standard_normal(n)
    covered = np.abs(seeds[0].mean(1) + error) <= half_width(of_cases, spread[0], squares[0], SHOWN)
    told = np.abs(seeds[0].mean(1) - seeds[1].mean(1) + error) > half_width(
        of_cases, spread.sum(0), squares.sum(0), DIFFERENT
    )
    alone = np.abs(seeds[0].mean(1) + error) > half_width(of_cases, spread[0], squares[0], DIFFERENT)
    return float(covered.mean()), float(told.mean()), float(alone.mean())


@pytest.mark.parametrize("n_seeds", [3, 4, 5])
def test_intervals_hold_their_coverage_at_every_ratio_of_seeds_to_cases(n_seeds):
    rng = np.random.default_rng(n_seeds)
    for share in SHARES:
        covered, told, alone = fast_rates(n_seeds, share, 20_000, rng)
        assert 0.93 <= covered <= 0.975, share
        assert max(told, alone) <= 0.015, share


# --- the whole way, from cases that are no normal numbers -------------------------------------------------------------


def drawn(rng: np.random.Generator, n_seeds: int, share: float, single: float, hard: np.ndarray) -> np.ndarray:
    """Scores ``"S B"`` of mean 0, skewed as times are: trainings have ``share`` of the variance of the mean.

    Of the rest, cases have all but ``single``, which is of single cases of single trainings.
    """
    own = rng.gamma(2.0, size=(n_seeds, len(hard))) / np.sqrt(2) - np.sqrt(2)
    of_seeds = np.sqrt(share * n_seeds / len(hard)) * rng.standard_normal((n_seeds, 1))
    return of_seeds + np.sqrt(1 - share) * (np.sqrt(1 - single) * hard + np.sqrt(single * n_seeds) * own)


def made(cases: np.ndarray) -> Estimate:
    weights = statistics.case_weights("lorenz96", 1, cases.shape[1])
    return of_seeds(cases.mean(1), weights @ cases.mean(0), estimates.share_of_single_cases(cases, 1))


def rates(n_seeds: int, share: float, single: float, n: int, n_cases: int, seed: int) -> tuple[float, float]:
    """How often a 95 % interval covers, and how often two equal entries on the same cases differ."""
    rng, covered, told = np.random.default_rng(seed), 0, 0
    for _ in range(n):
        hard = rng.gamma(2.0, size=n_cases) / np.sqrt(2) - np.sqrt(2)
        one, two = (made(drawn(rng, n_seeds, share, single, hard)) for _ in range(2))
        low, high = one.interval()
        covered += low <= 0 <= high
        told += bool(estimates.significantly_better([one, two]).any())
    return covered / n, told / n


def test_skewed_cases_and_three_seeds_are_covered_too():
    covered, told = rates(3, 0.3, 0.3, 300, N_CASES, 0)
    assert 0.92 <= covered <= 1.0
    assert told <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("single", [0.0, 0.5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.9])
def test_skewed_cases_of_every_ratio_hold_coverage_and_differences(share, single):
    covered, told = rates(3, share, single, 1000, 256, int(100 * share))
    print(f"3 seeds, share {share}, single {single}: covered {covered:.3f}, told apart {told:.4f}")
    assert 0.93 <= covered <= 0.985
    assert told <= 0.02
