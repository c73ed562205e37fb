"""Bars of the baselines: paired differences against closed forms, planted runs that meet or miss them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.maintain import bars, pairs
from emubench import baselines
from emubench.data import tasks
from emubench.runs import folders, jobs, stages
from emubench.runs.scored import read_runs
from tests.support.scored_runs import normal, write_run

SOUND = {
    "surviving_fraction": (1.0, 1.0, 1.0),
    "width_ratio": (1.01, 0.97, 1.05),
    "growth_ratio": (0.99, 0.95, 1.03),
}


def plant(out: Path, name: str, task: str, cases: Any, seed: int = 0, stability: float = 0.9, **rows: float) -> None:
    """A scored run of a baseline, or of its twin."""
    baseline, _, twin = name.partition(" ")
    planted = SOUND | {"skill_stability": (stability, stability, stability)}
    planted |= {metric: (value, value - 0.01, value + 0.01) for metric, value in rows.items()}
    run = write_run(out, baseline, task, cases, seed=seed, size="standard", rows=planted, name=f"{twin}{seed}")
    if twin:
        card = json.loads((run / "card.json").read_text())
        (run / "card.json").write_text(json.dumps(card | {"overrides": pairs.TWINS[baseline]}))


def read(folder: Path) -> pairs.Runs:
    return pairs.Runs(read_runs(folders.find_runs([folder])))


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_constant_gain_has_no_spread_however_much_cases_differ(tmp_path):
    values = normal(1, 64, mean=5.0, std=2.0)
    plant(tmp_path, "linear", "lorenz96-noisy", values)
    plant(tmp_path, "resnet_ode", "lorenz96-noisy", values + 0.25)
    runs = read(tmp_path)
    assert runs.gained("resnet_ode", "linear", "lorenz96-noisy") == pytest.approx((0.25, 0.25, 0.25))
    assert runs.gained("linear", "resnet_ode", "lorenz96-noisy") == pytest.approx((-0.25, -0.25, -0.25))
    alone = runs.accuracy("linear", "lorenz96-noisy")
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * 2.0 / 8, rel=0.05)


def test_of_kpz_a_lower_score_is_the_gain(tmp_path):
    values = normal(2, 64, mean=2.0)
    plant(tmp_path, "linear", "kpz-noisy", values)
    plant(tmp_path, "resnet_ode", "kpz-noisy", values - 0.5)
    assert read(tmp_path).gained("resnet_ode", "linear", "kpz-noisy").low == pytest.approx(0.5)


def test_the_interval_of_a_gain_is_that_of_the_mean_difference(tmp_path):
    """A case-wise gain of standard deviation s over n cases: ± 1.96 s/√n."""
    values = normal(3, 256, mean=5.0, std=3.0)
    plant(tmp_path, "linear", "lorenz63-noisy", values)
    plant(tmp_path, "resnet_ode", "lorenz63-noisy", values + normal(4, 256, mean=0.1, std=0.5))
    found = read(tmp_path).gained("resnet_ode", "linear", "lorenz63-noisy")
    assert found.value == pytest.approx(0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 16, rel=0.05)


def test_climates_are_compared_by_students_t_over_seeds(tmp_path):
    ours, theirs = (0.72, 0.75, 0.70), (0.64, 0.66, 0.65)
    for seed, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        plant(tmp_path, "ot_regularized", "lorenz63-noisy", normal(5, 16), seed, one)
        plant(tmp_path, "ot_regularized twin", "lorenz63-noisy", normal(5, 16), seed, two)
    found = read(tmp_path).calmer("ot_regularized", "ot_regularized twin", "lorenz63-noisy")
    wanted = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found == pytest.approx((np.mean(ours) - np.mean(theirs), wanted.low, wanted.high))


def test_the_errors_over_cases_widen_the_interval_of_climates(tmp_path):
    for seed in range(2):
        plant(tmp_path, "ot_regularized", "lorenz63-noisy", normal(5, 16), seed, skill_stability=0.7)
        plant(tmp_path, "ot_regularized twin", "lorenz63-noisy", normal(5, 16), seed, skill_stability=0.6)
    found = read(tmp_path).calmer("ot_regularized", "ot_regularized twin", "lorenz63-noisy")
    assert found == pytest.approx((0.1, 0.1 - 0.01 * 2**0.5, 0.1 + 0.01 * 2**0.5))


def test_climates_of_one_seed_are_not_compared(tmp_path):
    for name in ("ot_regularized", "ot_regularized twin"):
        plant(tmp_path, name, "lorenz63-noisy", normal(5, 16))
    with pytest.raises(pairs.Missing, match="two seeds in common"):
        read(tmp_path).calmer("ot_regularized", "ot_regularized twin", "lorenz63-noisy")


def test_runs_of_other_settings_are_neither_the_baseline_nor_its_twin(tmp_path):
    run = write_run(tmp_path, "ot_regularized", "lorenz63-noisy", normal(5, 16), size="standard")
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | {"overrides": {"steps": 7}}))
    assert not read(tmp_path).found


def test_crps_up_to_a_lead_is_the_mean_of_its_scores(data, tmp_path):
    """Forecasts of fewer samples, scored case by case, against the stored rows of each lead."""
    run = stages.train(jobs.Job("persistence", "kpz-noisy", "tiny"), data, tmp_path)
    rows = {row.lead_time: row.value for row in stages.score(run, data).rows if row.metric == "crps"}
    (read_,) = read_runs([run])
    cases = pairs.crps_cases(read_, data, 32)
    assert cases.shape == (tasks.get("kpz-noisy", "tiny").n_test,)
    assert cases.mean() == pytest.approx(np.mean([rows[lead] for lead in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)]))
    assert pairs.crps_gained([read_], [read_], data, 32) == (0.0, 0.0, 0.0)


# --- bars -------------------------------------------------------------------------------------------------------------

LEVELS = {"linear": 0.2, "polynomial": 4.5, "random_features": 11.0, "neural_ode": 8.0, "resnet_ode": 7.0}


def everything(out: Path, **changed: float) -> None:
    """Three seeds of all that bars name; ``changed`` are levels of accuracy."""
    levels = {name: 6.0 for name in bars.LEARNED} | LEVELS | changed
    for i, system in enumerate((*bars.CHAOTIC, "kpz")):
        cases = normal(10 + i, 16, std=0.1, mean=0.0)
        for name, level in levels.items():
            for track in ("clean", "noisy", "partial", "scarce"):
                for seed in range(3):
                    score = 3.0 - level / 10 if system == "kpz" else level
                    plant(out, name, f"{system}-{track}", score + cases, seed)
        for seed in range(3 if system != "kpz" else 0):
            plant(out, "weak_adversarial twin", f"{system}-noisy", 3.0 + cases, seed)
            plant(out, "ot_regularized twin", f"{system}-noisy", 5.0 + cases, seed, stability=0.8)


@pytest.fixture
def report(tmp_path, monkeypatch, frozen):
    """Write the page of the runs in a folder; what it says, and the exit status."""
    monkeypatch.setattr(bars, "PATH", tmp_path / "bars.md")
    monkeypatch.setattr(bars, "crps_gained", lambda runs, floor, data, n: pairs.Estimate(0.1, 0.05, 0.15))

    def written() -> tuple[str, int]:
        try:
            bars.main([tmp_path / "runs"], tmp_path)
        except SystemExit as end:
            return bars.PATH.read_text(), int(str(end.code))
        return bars.PATH.read_text(), 0

    return written


def line(page: str, start: str) -> str:
    (found,) = [row for row in page.splitlines() if row.startswith(f"| {start}")]
    return found


def test_runs_that_reach_everything_meet_every_bar(tmp_path, report):
    everything(tmp_path / "runs")
    page, status = report()
    assert status == 0
    assert page.count("| met |") == page.count("\n| ") - 1 > 30
    runs = 3 * (4 * 4 * 10 + 2 * 3)
    assert f"{runs} runs: 3 seeds of {runs // 3} pairs of baseline and task" in page


def test_a_level_too_low_or_one_bad_seed_misses_its_bar(tmp_path, report):
    runs = tmp_path / "runs"
    everything(runs, random_features=9.9, weak_adversarial=1.5, reservoir=0.2, polynomial=20.0)
    for name, task, rows in (
        ("neural_ode", "kpz-clean", {"surviving_fraction": 63 / 64}),
        ("resnet_ode", "kpz-noisy", {"width_ratio": 0.98}),
        ("ot_regularized", "lorenz63-noisy", {"surviving_fraction": 0.5}),
    ):
        shutil.move(run := runs / name / task / "2", tmp_path / f"{name}-{task}")
        cases = json.loads((tmp_path / f"{name}-{task}" / "scores.json").read_text())["cases"]
        plant(runs, name, task, next(iter(cases.values())), 2, **rows)
        assert run.exists()
    page, status = report()
    assert status == 1
    missed = [row for row in page.splitlines() if row.endswith("| **missed** |")]
    for start in (
        "lorenz63-clean: `random_features` ≥ 10",
        "lorenz96-noisy: `weak_adversarial`, skill ≥ 0.5",
        "kuramoto_sivashinsky-noisy: `weak_adversarial` above its one-step twin",
        "lorenz63-partial: every learned one above `linear`",
        "kuramoto_sivashinsky-scarce: one above `polynomial`",
        "kpz-clean: no lost run of the four families",
        "kpz-noisy: `resnet_ode`, saturated W²",
        "`ot_regularized` and its twin without transport: no more lost runs",
    ):
        assert line(page, start) in missed
    assert line(page, "kpz-noisy: `resnet_ode`, growth").endswith("| met |")


def test_what_was_not_run_is_neither_met_nor_missed(tmp_path, report):
    plant(tmp_path / "runs", "random_features", "lorenz63-clean", normal(1, 16, mean=12.0))
    page, status = report()
    assert line(page, "lorenz63-clean: `random_features`").endswith("| met |")
    assert "not there: neural_ode on lorenz63-clean, default settings | not measured |" in page
    assert status == 1


def test_a_score_that_failed_is_missed_not_an_error(tmp_path, report):
    plant(tmp_path / "runs", "resnet_ode", "kpz-noisy", normal(1, 16, mean=2.0))
    for path in (tmp_path / "runs" / "resnet_ode" / "kpz-noisy").glob("*/scores.json"):
        scores = json.loads(path.read_text())
        for row in scores["rows"]:
            row |= dict.fromkeys(("value", "low", "high")) if row["metric"] == "width_ratio" else {}
        path.write_text(json.dumps(scores))
    page, _ = report()
    assert line(page, "kpz-noisy: `resnet_ode`, saturated W²").endswith("**missed** |")


def test_tiny_runs_alone_are_refused_in_one_line(tmp_path, report):
    write_run(tmp_path / "runs", "linear", "lorenz63-noisy", normal(1, 16))
    with pytest.raises(SystemExit, match="no scored runs of standard size and default settings"):
        bars.main([tmp_path / "runs"], tmp_path)


def test_the_grids_make_what_the_bars_need():
    """Every baseline and task of the table, and the twins, by files that ``emubench run`` takes."""
    from emubench.runs.grid import plan

    folder = Path(next(iter(bars.expected.emubench.baselines.__path__))) / "grids"
    grids = {path.stem: plan.read(path) for path in folder.glob("*.toml")}
    whole = grids["table"]
    assert (whole.tasks, sorted(whole.baselines), whole.seeds) == (["all"], baselines.names(), [0, 1, 2])
    for name, baseline in (("no_transport", "ot_regularized"), ("one_step", "weak_adversarial")):
        assert grids[name].baselines == [baseline]
        assert grids[name].overrides == {baseline: pairs.TWINS[baseline]}
        assert grids[name].tasks == [f"{system}-noisy" for system in bars.CHAOTIC]
        job = jobs.Job(baseline, grids[name].tasks[0], overrides=grids[name].overrides[baseline])
        assert job.config() != jobs.Job(baseline, grids[name].tasks[0]).config()
