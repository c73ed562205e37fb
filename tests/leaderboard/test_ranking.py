"""Ranking against closed forms: planted orders, correlated cases, missing tasks, failures, the Pareto front."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from emubench import metrics
from emubench.leaderboard import ranking, statistics
from tests.support.scored_runs import config, everything, normal, row, table, write_run

RANKS = ["rank_low", "rank_high", "stability_rank_low", "stability_rank_high", "pareto_front"]


# --- intervals, differences, ranks ------------------------------------------------------------------------------------


def test_the_value_and_its_interval_have_their_closed_form(tmp_path, unfrozen):
    write_run(tmp_path, "net", "lorenz96-noisy", normal(1, 256, mean=5.0, std=2.0))
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    assert got["value"] == pytest.approx(5.0, abs=1e-12)
    assert got["high"] - got["low"] == pytest.approx(2 * 1.96 * 2.0 / 16, rel=0.05)
    assert (got["seeds"], got["n_cases"], got["metric"], got["unit"]) == (
        1,
        256,
        "valid_prediction_time",
        "Lyapunov time",
    )


def test_the_interval_narrows_as_the_root_of_the_number_of_cases(tmp_path, unfrozen):
    values = normal(2, 128)
    write_run(tmp_path / "half", "net", "lorenz96-noisy", values)
    write_run(tmp_path / "full", "net", "lorenz96-noisy", np.tile(values, 2))
    half, full = (row(table(tmp_path / name), "net", "lorenz96-noisy") for name in ("half", "full"))
    assert (half["high"] - half["low"]) / (full["high"] - full["low"]) == pytest.approx(math.sqrt(2), rel=0.05)


def test_differences_are_paired_by_case(tmp_path, unfrozen):
    hard = normal(3, 64, std=3.0)
    write_run(tmp_path, "base", "lorenz96-noisy", hard)
    write_run(tmp_path, "paired", "lorenz96-noisy", hard + 0.1 + 0.05 * normal(4, 64, mean=0.0))
    write_run(tmp_path, "unpaired", "lorenz96-noisy", normal(5, 64, mean=5.1, std=3.0))
    got = {e: row(table(tmp_path), e, "lorenz96-noisy") for e in ("base", "paired", "unpaired")}
    assert got["base"]["high"] > got["paired"]["low"]  # the intervals overlap by far, and yet
    assert (got["paired"]["rank_low"], got["paired"]["rank_high"]) == (1, 2)
    assert (got["base"]["rank_low"], got["base"]["rank_high"]) == (2, 3)
    assert (got["unpaired"]["rank_low"], got["unpaired"]["rank_high"]) == (1, 3)


def test_a_planted_order_gives_its_rank_intervals(tmp_path, unfrozen):
    shared = normal(7, 64, mean=0.0)
    for name, mean in (("first", 9.0), ("third", 3.0), ("tie_b", 5.0), ("tie_a", 5.0), ("last", 1.0)):
        own = 0.5 * normal(sum(map(ord, name)), 64, mean=0.0)
        write_run(tmp_path, name, "lorenz63-noisy", mean + shared + own)
    frame = ranking.rows_of_task(table(tmp_path), "lorenz63-noisy")
    assert set(frame["entry"][1:3]) == {"tie_a", "tie_b"}
    assert frame["entry"].to_list()[::3] == ["first", "third"]
    assert list(zip(frame["rank_low"], frame["rank_high"], strict=True)) == [(1, 1), (2, 3), (2, 3), (4, 4), (5, 5)]


def test_rank_intervals_of_a_chain_with_an_undecided_middle():
    # 0 beats 2; nothing else is decided
    better = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    assert statistics.rank_intervals(better).tolist() == [[1, 2], [1, 3], [2, 3]]


def test_a_lower_crps_is_better(tmp_path, frozen):
    write_run(tmp_path, "sharp", "kpz-noisy", normal(8, 32, mean=1.5, std=0.1))
    write_run(tmp_path, "vague", "kpz-noisy", normal(9, 32, mean=2.5, std=0.1))
    frame = table(tmp_path)
    sharp, vague = (row(frame, e, "kpz-noisy") for e in ("sharp", "vague"))
    assert (sharp["rank_low"], sharp["rank_high"], vague["rank_low"]) == (1, 1, 2)
    assert sharp["skill_accuracy"] == pytest.approx(0.75)
    assert sharp["skill_accuracy_low"] < 0.75 < sharp["skill_accuracy_high"]
    assert ranking.rows_of_task(frame, "kpz-noisy")["entry"].to_list() == ["sharp", "vague"]


def test_seeds_are_pooled_and_their_spread_widens_the_interval(tmp_path, unfrozen):
    for seed, mean in enumerate((4.0, 5.0, 6.0)):
        write_run(tmp_path / "spread", "net", "lorenz96-noisy", np.full(16, mean), seed=seed, speed=100.0 * mean)
        write_run(tmp_path / "same", "net", "lorenz96-noisy", np.full(16, 5.0), seed=seed, speed=None)
    spread, same = (row(table(tmp_path / name), "net", "lorenz96-noisy") for name in ("spread", "same"))
    assert (spread["value"], spread["seeds"]) == (pytest.approx(5.0), 3)
    half = 4.302653 / math.sqrt(3)  # Student's t of three values: the spread of two or three is itself badly known
    assert (spread["low"], spread["high"]) == (pytest.approx(5 - half), pytest.approx(5 + half))
    assert same["low"] == same["high"] == pytest.approx(5.0)
    speed = "lyapunov_times_per_second"
    assert [spread[speed + end] for end in ("", "_low", "_high")] == [500.0, 400.0, 600.0]
    assert same[speed] is None


def test_resamples_of_systems_are_not_aligned():
    one, two = (statistics.case_weights(system, 1, 16) for system in ("lorenz63", "lorenz96"))
    assert one.shape == two.shape == (statistics.N_RESAMPLES, 16)
    assert np.allclose(one.sum(1), 1)
    assert abs(np.corrcoef(one[:, 0], two[:, 0])[0, 1]) < 0.05


def test_flat_and_stationary_starts_keep_their_shares():
    weights = statistics.case_weights("kpz", 2, 16)
    assert np.allclose(weights[:, ::2].sum(1), 0.5)


def test_the_interval_holds_the_variance_of_seeds_and_of_cases(tmp_path, unfrozen):
    levels = 5 + np.array([-0.3, -0.1, 0.1, 0.3])
    shared = normal(11, 64, mean=0.0, std=2.0)  # all seeds meet the same cases: more seeds do not average them out
    for seed, level in enumerate(levels):
        write_run(tmp_path, "net", "lorenz96-noisy", level + shared, seed=seed)
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    of_seeds, of_cases = levels.var(ddof=1) / 4, 2.0**2 / 64
    expected = 2 * (3.182446 * of_seeds + 1.96 * of_cases) / math.sqrt(of_seeds + of_cases)
    assert got["high"] - got["low"] == pytest.approx(expected, rel=0.05)


def test_one_draw_of_cases_serves_all_entries_and_tracks_of_a_system(tmp_path, unfrozen):
    values = normal(12, 64)
    for name, task in (("one", "lorenz96-noisy"), ("two", "lorenz96-noisy"), ("one", "lorenz96-partial")):
        write_run(tmp_path, name, task, values)
    frame = table(tmp_path)
    ends = [
        (got["low"], got["high"])
        for got in (
            row(frame, "one", "lorenz96-noisy"),
            row(frame, "two", "lorenz96-noisy"),
            row(frame, "one", "lorenz96-partial", "partial"),
        )
    ]
    assert ends[0] == ends[1] == ends[2]


# --- tracks -----------------------------------------------------------------------------------------------------------


def test_a_track_score_is_the_mean_of_clipped_skills(tmp_path, frozen):
    write_run(tmp_path, "net", "lorenz96-noisy", np.full(16, 2.0))  # skill 0.5
    write_run(tmp_path, "net", "lorenz63-noisy", np.full(16, 40.0))  # 10, clipped to 1
    write_run(tmp_path, "net", "kpz-noisy", np.full(16, 46.0))  # −21.5, clipped to −1
    write_run(tmp_path, "net", "kuramoto_sivashinsky-noisy", np.full(16, 1.0))  # 0.25
    got = row(table(tmp_path), "net", None)
    assert got["skill_accuracy"] == pytest.approx((0.5 + 1 - 1 + 0.25) / 4)
    assert got["missing_tasks"] == 0


def test_a_missing_task_counts_minus_one(tmp_path, frozen):
    write_run(tmp_path, "net", "lorenz96-noisy", np.full(16, 2.0))
    got = row(table(tmp_path), "net", None)
    assert got["skill_accuracy"] == pytest.approx((0.5 - 3) / 4)
    assert got["missing_tasks"] == 3
    assert got["lyapunov_times_per_second"] is None  # not comparable with entries that did all tasks


def test_partial_work_is_headed_by_the_tasks_in_common(tmp_path, frozen):
    everything(tmp_path, "whole", 3.0)
    stable = {"skill_stability": (0.4, 0.3, 0.5), "surviving_fraction": (1.0,) * 3, "dead_fraction": (0.0,) * 3}
    for name, value in (("lorenz96-noisy", 2.0), ("lorenz63-noisy", 3.0)):  # skills of ½ and ¾
        write_run(tmp_path, "half", name, np.full(16, value), rows=stable)
    frame = table(tmp_path)
    half, whole = row(frame, "half", None), row(frame, "whole", None)
    assert half["common_accuracy"] == pytest.approx((0.5 + 0.75) / 2)
    assert half["common_stability"] == pytest.approx(0.4)
    assert half["skill_accuracy"] == pytest.approx((0.5 + 0.75 - 2) / 4)
    assert whole["common_accuracy"] == pytest.approx(0.75)
    alone = row(table(tmp_path / "whole"), "whole", None)
    assert alone["common_accuracy"] == alone["skill_accuracy"]
    assert alone["common_stability_low"] == alone["skill_stability_low"]


def test_seeds_are_clipped_before_they_are_averaged(tmp_path, frozen):
    for seed, skill in enumerate((5.0, 0.0)):
        write_run(tmp_path, "net", "lorenz96-noisy", np.full(16, 4 * skill), seed=seed)
    got = row(table(tmp_path), "net", None)
    assert got["skill_accuracy"] == pytest.approx((0.5 - 3) / 4)


def test_a_new_entry_moves_no_old_score(tmp_path, frozen):
    everything(tmp_path / "old", "linear", 3.0, config=config("lorenz96-noisy"))
    everything(tmp_path / "old", "bad", 1.0, speed=10.0)
    everything(tmp_path / "new", "best", 3.5, speed=1e6)
    write_run(tmp_path / "new", "linear", "lorenz96-noisy", normal(3, 16), config=config("lorenz96-noisy", delays=3))
    before, after = table(tmp_path / "old"), table(tmp_path / "old", tmp_path / "new")
    assert set(after["entry"]) == {"linear", "bad", "best", "linear (delays=3)"}
    for old in ranking.records(before):
        new = row(after, old["entry"], old["task"])
        kept = [key for key in old if key not in RANKS and not key.startswith("common_")]  # which go by who is compared
        assert [old[key] for key in kept] == [new[key] for key in kept]
    assert (row(before, "bad", None)["rank_low"], row(after, "bad", None)["rank_low"]) == (2, 3)


def test_the_table_is_the_same_every_time(tmp_path, frozen):
    everything(tmp_path, "good", 3.0)
    everything(tmp_path, "bad", 1.0, speed=10.0)
    one, two = ranking.as_json(table(tmp_path)), ranking.as_json(table(tmp_path))
    assert one == two
    assert json.loads(one)[0]["entry"] == "good"


def test_the_clean_track_is_shown_without_ranks(tmp_path, frozen):
    write_run(tmp_path, "net", "lorenz96-clean", np.full(16, 2.0))
    frame = table(tmp_path)
    assert frame["rank_low"].isna().all()
    assert row(frame, "net", None, "clean")["skill_accuracy"] == pytest.approx(-0.625)


def test_without_frozen_values_floor_and_oracle_come_from_the_runs_at_hand(tmp_path, unfrozen):
    for name, level in (("linear", 0.5), ("oracle", 4.5), ("net", 2.5)):
        write_run(tmp_path, name, "lorenz96-noisy", np.full(16, level))
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    assert (got["floor"], got["oracle"], got["skill_accuracy"]) == (None, 4.5, None)  # persistence might be better
    write_run(tmp_path, "persistence", "lorenz96-noisy", np.full(16, 0.3))
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    assert (got["floor"], got["oracle"], got["scale"]) == (0.5, 4.5, "runs")
    assert got["skill_accuracy"] == pytest.approx(0.5)


def test_an_oracle_under_the_floor_is_no_scale(tmp_path, unfrozen):
    for name, level in (("linear", 0.5), ("persistence", 0.7), ("oracle", 0.6)):
        write_run(tmp_path, name, "lorenz96-noisy", np.full(16, level))
    got = row(table(tmp_path), "oracle", "lorenz96-noisy")
    assert (got["floor"], got["oracle"], got["skill_accuracy"]) == (0.7, None, None)


def test_stability_ranks_need_more_than_overlapping_intervals(tmp_path, frozen):
    for name, value, half in (("a", 0.9, 0.02), ("b", 0.5, 0.02), ("c", 0.88, 0.05)):
        rows = {"skill_stability": (value, value - half, value + half)}
        write_run(tmp_path, name, "lorenz96-noisy", np.full(16, 2.0), rows=rows)
    frame = table(tmp_path)
    ranks = {e: [row(frame, e, "lorenz96-noisy")[f"stability_rank_{k}"] for k in ("low", "high")] for e in "abc"}
    assert ranks == {"a": [1, 2], "b": [3, 3], "c": [1, 2]}
    assert row(frame, "a", None)["skill_stability"] == pytest.approx((0.9 - 3) / 4)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_case_counts_as_the_worst_and_is_never_skipped(tmp_path, frozen):
    half = [math.nan, math.inf] * 4 + [2.0] * 8
    write_run(tmp_path, "net", "lorenz96-noisy", half)
    write_run(tmp_path, "net", "kpz-noisy", half)
    frame = table(tmp_path)
    cap = metrics.LOST * float(np.sqrt((256**2 - 1) / (12 * 256)))
    assert row(frame, "net", "lorenz96-noisy")["value"] == pytest.approx(1.0)
    assert row(frame, "net", "kpz-noisy")["value"] == pytest.approx(1.0 + cap / 2)


def test_a_null_score_counts_as_the_worst(tmp_path, frozen):
    null = dict.fromkeys(("skill_stability", "surviving_fraction", "dead_fraction"), (None, None, None))
    write_run(tmp_path, "net", "lorenz96-noisy", np.full(16, 2.0), rows=null)
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    assert (got["skill_stability"], got["surviving_fraction"], got["dead_fraction"]) == (0.0, 0.0, 1.0)


def test_a_failed_seed_is_averaged_with_the_others(tmp_path, frozen):
    write_run(tmp_path, "net", "lorenz96-noisy", [4.0] * 16, rows={"skill_stability": (0.2, 0.2, 0.2)})
    nothing = {"skill_stability": (None, None, None)}
    write_run(tmp_path, "net", "lorenz96-noisy", [math.nan] * 16, rows=nothing, seed=1)
    got = row(table(tmp_path), "net", "lorenz96-noisy")
    assert (got["value"], got["skill_stability"]) == (pytest.approx(2.0), pytest.approx(0.1))
    assert got["low"] == pytest.approx(0.0)
    assert (got["skill_stability_low"], got["skill_stability_high"]) == (0.0, 1.0)  # of two values t is 12.7


# --- the Pareto front -------------------------------------------------------------------------------------------------


def test_the_pareto_front_of_a_planted_set():
    accuracy = np.array([5.0, 4.0, 4.0, 3.0, 1.0, 9.0, 5.0])
    throughput = np.array([1.0, 3.0, 2.0, 2.5, 9.0, np.nan, 1.0])
    assert statistics.pareto_front(accuracy, throughput).tolist() == [True, True, False, False, True, False, True]


def test_the_front_of_runs(tmp_path, frozen):
    for name, level, speed in (
        ("slow", 3.0, 1.0),
        ("fast", 1.0, 100.0),
        ("neither", 0.9, 50.0),
        ("untimed", 9.0, None),
    ):
        write_run(tmp_path, name, "lorenz96-noisy", np.full(16, level), speed=speed)
    frame = ranking.rows_of_task(table(tmp_path), "lorenz96-noisy")
    assert set(frame.loc[frame["pareto_front"], "entry"]) == {"slow", "fast"}
