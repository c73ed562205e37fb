"""What the baselines must reach: planted scores that meet or miss it, and what the published table says."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.maintain import expected, targets
from emubench import baselines
from emubench.data import tasks
from emubench.runs import jobs
from emubench.runs.grid import plans

ROOT = Path(__file__).resolve().parents[2]


def row(value: float, half: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def planted(**levels: float) -> targets.Expected:
    """Scores of all that the table names: a skill and an accuracy of the level, of kpz a CRPS of 100 less the level."""
    found: targets.Expected = {}
    for name in (*targets.LEARNED, "linear"):
        level = levels.get(name, {"linear": 1.0, "polynomial": 15.0}.get(name, 20.0))
        for task in tasks.names():
            kpz = task.startswith("kpz")
            scores: dict[str, Any] = {"crps": row(100 - level)} if kpz else {"valid_prediction_time": row(level)}
            scores |= {"skill_accuracy": row(level), "surviving_fraction": row(1.0)}
            found.setdefault(name, {})[task] = scores
    return found


def missed(scores: targets.Expected) -> set[tuple[str, str]]:
    return {(one.where, one.asked) for one in targets.targets(scores) if one.met is not True}


def test_scores_that_reach_everything_meet_every_line():
    assert missed(planted()) == set()
    assert targets.as_table(planted()).count("| met |") == len(targets.targets(planted()))


def test_a_level_too_low_misses_its_lines_and_no_others():
    found = missed(planted(random_features=9.9))
    assert found == {("lorenz63-clean", "`random_features`: Lyapunov times ≥ 10")}
    found = missed(planted(resnet_ode=0.9))
    assert ("kpz-noisy", "`resnet_ode` above `linear`") in found
    assert {where for where, asked in found if "every learned one" in asked} == {
        f"{system}-partial" for system in (*targets.CHAOTIC, "kpz")
    }
    assert len(missed(planted(polynomial=20.0))) == 4  # nobody is above it on the scarce tasks


def test_intervals_that_touch_are_not_above():
    scores = planted()
    scores["linear"]["kpz-noisy"]["crps"] = row(99.0, half=19.1)
    assert missed(scores) == {("kpz-noisy", "`resnet_ode` above `linear`")}
    scores["linear"]["kpz-noisy"]["crps"] = row(99.0, half=18.9)
    assert missed(scores) == set()


def test_one_lost_run_of_one_family_on_one_task_is_missed():
    scores = planted()
    scores["neural_ode"]["kpz-clean"] = scores["neural_ode"]["kpz-clean"] | {"surviving_fraction": row(63 / 64)}
    ((where, _),) = missed(scores)
    assert where == "all systems, clean"


@pytest.mark.parametrize("name", targets.LEARNED)
def test_a_score_that_is_no_number_is_the_worst(name):
    scores = planted()
    scores[name]["lorenz96-partial"] |= dict.fromkeys(("skill_accuracy", "valid_prediction_time"), row(math.nan))
    asked = "every learned one (shown: the least) above `linear`"
    assert missed(scores) == {("lorenz96-partial", asked)}


def test_a_learned_baseline_is_above_a_look_up_where_the_intervals_do_not_touch():
    scores = planted()
    scores["analogue"] = {"lorenz96-noisy": {"valid_prediction_time": row(1.0, half=0.1)}}
    for name in targets.LEARNED:
        scores[name]["lorenz96-noisy"] |= {"valid_prediction_time": row(1.3, half=0.1)}
    assert "| lorenz96-noisy | 1 [0.9, 1.1] | none |" in targets.look_ups(scores)
    scores["reservoir"]["lorenz96-noisy"]["valid_prediction_time"] = row(1.3, half=0.25)
    assert "| lorenz96-noisy | 1 [0.9, 1.1] | `reservoir` |" in targets.look_ups(scores)


def test_what_was_not_run_is_neither_met_nor_missed():
    scores = planted()
    del scores["random_features"]["lorenz63-clean"]
    line = next(one for one in targets.targets(scores) if one.asked.startswith("`random_features`"))
    assert (line.met, line.reached) == (None, "no score of lorenz63-clean")
    assert "| no score of lorenz63-clean | not measured |" in targets.as_table(scores)


def test_the_page_says_what_stands_in_the_way_of_what_is_missed():
    page = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
    for where, _ in missed(expected.load()):
        assert f"- **{where}**: " in page.partition("## What was asked of them")[2], where


def test_the_grids_make_the_rows_and_the_twins():
    """Every baseline and task of the table, and the twins, by files that ``emubench run`` takes."""
    grids = {path.stem: plans.read(path) for path in (ROOT / "baselines" / "grids").glob("*.toml")}
    whole = grids["table"]
    assert (whole.tasks, sorted(whole.baselines), whole.seeds) == (["all"], baselines.names(), [0, 1, 2])
    for name, baseline in (("no_transport", "ot_regularized"), ("one_step", "weak_adversarial")):
        text = (ROOT / "baselines" / "grids" / f"{name}.toml").read_text(encoding="utf-8")
        assert grids[name].baselines == [baseline]
        assert grids[name].overrides == tomllib.loads(text)["overrides"]
        assert grids[name].tasks == [f"{system}-noisy" for system in targets.CHAOTIC]
        job = jobs.Job(baseline, grids[name].tasks[0], overrides=grids[name].overrides[baseline])
        assert job.config() != jobs.Job(baseline, grids[name].tasks[0]).config()
