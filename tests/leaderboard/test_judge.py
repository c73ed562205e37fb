"""The judge: the same scores as at home, false claims named; an emulator that fails costs its own cases alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from emubench.core.hardware import devices
from emubench.data import dataset, reference, tasks
from emubench.evaluation import scoring
from emubench.files import entry_files, run_files, schema
from emubench.files.entry_files import CARDS, SCORES, TIMING
from emubench.leaderboard.page import board as page_board
from emubench.leaderboard.submission import entries, judge, making
from emubench.runs import folders, jobs, stages
from emubench.runs.sandbox.judged import Limits
from tests.support.contents import contents
from tests.support.submissions import STATED, TASK, edit_entry, sign_again

LIMITS = Limits(start_seconds=60.0, call_seconds=60.0)


# --- the same scores as at home ---------------------------------------------------------------------------------------


def test_an_entry_is_scored_as_its_run_was(emubench, sound_entry, data):
    before = contents(sound_entry)
    finished = emubench("submit", "run", sound_entry, "--data", data, "--bench-seconds", 0, "--json")
    assert finished.status == 0, finished.err
    (found,) = json.loads(finished.out)
    claimed = entry_files.read(sound_entry, SCORES)[TASK, 0].rows
    whole = [row.model_dump() for row in claimed if row.lead_time is None]
    assert found["scores"] == whole  # to the last bit, on one machine
    assert found["timing"]["lyapunov_times_per_second"] > 0
    assert contents(sound_entry) == before


@pytest.mark.slow
def test_an_entry_is_scored_on_a_device_of_another_name_alike(emubench, sound_entry, data):
    options = ("--data", data, "--bench-seconds", 0, "--json", "--device", "cpu:0")
    finished = emubench("submit", "run", sound_entry, *options)
    assert finished.status == 0, finished.err
    (found,) = json.loads(finished.out)
    assert found["timing"]["scored_on"] == "cpu:0"


@pytest.mark.parametrize(
    "command", [("submit", "run", "entry"), ("submit", "verify", "entry", "--season", "x"), ("season", "verify", "x")]
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_judged(refused, command):
    found = refused(*command, "--device", "cuda:77")
    assert found.startswith("emubench: --device cuda:77: cannot be used here (")
    assert found.endswith(f"this machine has {', '.join(devices())}")


@pytest.mark.slow
def test_an_entry_keeps_what_was_benched_and_the_page_shows_it(emubench, sound_entry, data, tmp_path):
    before = contents(sound_entry)
    scored = entry_files.read(sound_entry, TIMING)
    done = emubench("submit", "run", sound_entry, "--data", data, "--bench-seconds", 0.02, "--json")
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)
    assert row["bench"]["scenarios"]["offline_end_to_end"]["lyapunov_times_per_second"]["median"] > 0
    assert row["bench"]["speedups"]["offline_end_to_end"]["ranked"] is False  # linear has next to no skill
    after = contents(sound_entry)
    assert {name for name in after if after[name] != before[name]} == {"entry.toml", TIMING}
    (kept,) = entry_files.read(sound_entry, TIMING).values()
    assert kept.benched
    assert kept.solvers
    assert kept.test_seconds == next(iter(scored.values())).test_seconds
    assert emubench("submit", "check", sound_entry).status == 0
    board = page_board.read(sound_entry.parents[1], "tiny")
    assert not board.faults
    (run,) = board.get(sound_entry.name).runs
    assert run.benched
    assert run.speedup == kept.speedup


@pytest.mark.slow
def test_an_edited_score_is_named(emubench, sound_entry, data):
    def better(content):
        cases = content["cases"]["valid_prediction_time"]
        cases[:] = [2 * value for value in cases]
        at = {name: content["rows"]["metric"].index(name) for name in ("valid_prediction_time", "skill_accuracy")}
        for column in ("value", "low", "high"):
            values = content["rows"][column]
            values[at["valid_prediction_time"]] *= 2
            values[at["skill_accuracy"]] = reference.scale(TASK).skill(values[at["valid_prediction_time"]])

    edit_entry(sound_entry, SCORES, better)
    sign_again(sound_entry)
    assert emubench("submit", "check", sound_entry).status == 0  # consistent, and hashed anew
    finished = emubench("submit", "run", sound_entry, "--data", data)
    assert finished.status == 1
    line, skill = finished.err.splitlines()
    assert f"scores.json.xz: {TASK}.0: valid_prediction_time: " in line
    assert "is claimed" in line
    assert "skill_accuracy: " in skill
    assert finished.out.startswith("FAULT")


def test_an_entry_that_fails_the_check_is_not_run(refused, sound_entry, data, monkeypatch):
    (sound_entry / "model.pt").write_bytes(b"x")
    monkeypatch.setattr(judge, "judge_entry", lambda *_: pytest.fail("was run"))
    assert "unexpected" in refused("submit", "run", sound_entry, "--data", data)


def test_an_entry_without_weights_is_not_run(refused, submitted_runs, data, tmp_path):
    folder = making.from_runs("light", folders.find_runs([submitted_runs / "linear"]), tmp_path, STATED)
    line = refused("submit", "run", folder, "--data", data)
    assert "light: has no weights to be run: a maintainer retrains it (emubench submit verify)" in line


def test_knowledge_is_the_method_s(refused, sound_entry, data):
    edit_entry(sound_entry, CARDS, lambda c: c.update(knowledge="none"))
    text = (sound_entry / "entry.toml").read_text().replace('knowledge = "structure"', 'knowledge = "none"')
    (sound_entry / "entry.toml").write_text(text)
    sign_again(sound_entry)
    line = refused("submit", "run", sound_entry, "--data", data)
    assert "knowledge: 'none', where linear says 'structure'" in line


def test_a_card_s_config_is_the_defaults_with_the_overrides(refused, sound_entry, data):
    edit_entry(sound_entry, CARDS, lambda c: c["config"].update(ridges=[1.0]))
    sign_again(sound_entry)
    line = refused("submit", "run", sound_entry, "--data", data)
    stated = "config: ridges: [1.0], where linear's defaults and entry.toml's overrides give ["
    assert f"cards.json: {TASK}.0: {stated}" in line


def test_a_forecast_entry_is_scored_in_the_open_division(emubench, data, tmp_path):
    task = tasks.get(TASK, "tiny")
    contexts = dataset.load(task, data).contexts
    arrays = {s: contexts[s][:, -1:].expand(-1, task.steps(s), -1)[None].numpy() for s in ("test", "climate")}
    np.savez(tmp_path / "f.npz", **{s: a.astype("f4") for s, a in arrays.items()})
    arguments = ("--forecast", f"{TASK}={tmp_path / 'f.npz'}", "--size", "tiny", "--data", data, "--out", tmp_path)
    finished = emubench("submit", "new", "frozen", *arguments)
    assert finished.status == 1
    assert "say with --knowledge" in finished.err
    assert emubench("submit", "new", "frozen", *arguments, "--knowledge", "none").status == 0
    path = tmp_path / "frozen" / "entry.toml"
    path.write_text(path.read_text().replace("FILL IN", "by hand"))
    finished = emubench("submit", "run", tmp_path / "frozen", "--data", data)
    assert finished.status == 0, finished.err
    assert entries.read(tmp_path / "frozen").division == "open"


def claims(run, metric: str, of_ensembles: frozenset[str]):
    """A function that judges one changed claim against what the run has."""
    found = schema.read_json(run_files.ScoreFile, run / "scores.json")
    (row,) = [r for r in found.rows if r.metric == metric and r.lead_time is None]
    result = scoring.Result(tasks.get(TASK, "tiny"), found, {}, of_ensembles=of_ensembles)

    def claim(**changed):
        rows = [r.model_copy(update=changed) if r is row else r for r in found.rows]
        return judge.false_claims("s", found.model_copy(update={"rows": rows}), result)

    return row.value, row.high - row.low, claim


def test_false_claims_are_told_from_round_off(submitted_runs):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    value, width, claim = claims(run, "valid_prediction_time", frozenset())
    assert claim() == []
    assert claim(value=value + 0.05 * width) == []
    assert len(claim(value=value + 0.2 * width)) == 1
    assert len(claim(value=None)) == 1
    assert "no such score is known" in claim(metric="my_score")[0]


def test_every_row_and_every_case_that_is_claimed_is_compared(submitted_runs):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    found = schema.read_json(run_files.ScoreFile, run / "scores.json")
    result = scoring.Result(tasks.get(TASK, "tiny"), found, {})

    def claim(metric="", **changed):
        rows = [r.model_copy(update=changed) if r.metric == metric else r for r in found.rows]
        return judge.false_claims("s", found.model_copy(update={"rows": rows}), result)

    (curve,) = claim("rms_error", value=0.0)
    assert "rms_error at lead time 0.04529: 0 [" in curve
    (narrow,) = claim("skill_stability", low=0.5, high=0.5)
    assert "[0.5, 0.5] is claimed" in narrow
    left_out = [row for row in found.rows if (row.metric, row.lead_time) != ("surviving_fraction", None)]
    (missing,) = judge.false_claims("s", found.model_copy(update={"rows": left_out}), result)
    assert "surviving_fraction: is not claimed, and was found" in missing
    (cases,) = found.cases.values()
    flat = {"valid_prediction_time": [sum(cases) / len(cases)] * len(cases)}
    (levelled,) = judge.false_claims("s", found.model_copy(update={"cases": flat}), result)
    assert "cases.valid_prediction_time: other values than were found" in levelled
    drawn = scoring.Result(result.task, found, {}, of_ensembles=frozenset(flat))
    assert judge.false_claims("s", found.model_copy(update={"cases": flat}), drawn) == [levelled]
    (other,) = judge.false_claims("s", found.model_copy(update={"truth_sha256": "0" * 64}), result)
    assert "truth_sha256: '000" in other
    assert "it was scored on other data" in other
    moved = {"valid_prediction_time": [value * (1 + 1e-4) for value in cases]}
    assert judge.false_claims("s", found.model_copy(update={"cases": moved}), result) == []


@pytest.mark.parametrize(("metric", "share"), [("valid_prediction_time", 0.822), ("w1_distance", 4.233)])
def test_false_claims_are_told_from_the_members_that_the_judge_draws(submitted_runs, metric, share):
    """The shares are 0.6 and 2, and 1.370 or 2.117 times as much for 16 or 8 cases: Student's t at four σ."""
    (run,) = folders.find_runs([submitted_runs / "linear"])
    value, width, claim = claims(run, metric, frozenset({metric}))
    assert claim(value=value + 0.95 * share * width) == []
    assert len(claim(value=value + 1.05 * share * width)) == 1


@pytest.mark.parametrize(("metric", "factor"), [("valid_prediction_time", 2.740), ("w1_distance", 16.93)])
def test_intervals_far_narrower_than_the_judge_s_are_false_claims(submitted_runs, metric, factor):
    """Without width, a score would be claimed to be sure where the judge's members leave it open."""
    (run,) = folders.find_runs([submitted_runs / "linear"])
    value, width, claim = claims(run, metric, frozenset({metric}))
    assert claim(low=value - 0.55 * width / factor, high=value + 0.55 * width / factor) == []
    assert len(claim(low=value - 0.45 * width / factor, high=value + 0.45 * width / factor)) == 1
    assert len(claim(low=value, high=value)) == 1
    assert len(claim(low=value - 0.55 * width * factor, high=value + 0.55 * width * factor)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["climatology", "oracle"])
def test_other_draws_of_an_ensemble_are_no_false_claims_and_edited_ones_are(data, tmp_path, baseline):
    run = stages.train(jobs.Job(baseline, "kpz-noisy", "tiny"), data, tmp_path)
    emulator, task = folders.load(run).emulator, tasks.get("kpz-noisy", "tiny")
    first, *others = (scoring.evaluate(emulator, task, data, seed=seed) for seed in range(4))
    named = [fault.split()[1].rstrip(":") for other in others for fault in judge.false_claims("s", first.scores, other)]
    assert not first.of_ensembles & set(named)  # the judge asks single members with the public seed

    def faults(change) -> set[str]:
        rows = [r.model_copy(update=change(r)) if r.metric in first.of_ensembles else r for r in first.scores.rows]
        lines = judge.false_claims("s", first.scores.model_copy(update={"rows": rows}), others[0])
        return {line.split()[1].rstrip(":") for line in lines}

    assert faults(lambda r: {"low": r.value, "high": r.value}) >= first.of_ensembles  # sure of what is not
    zeros = faults(lambda r: {"value": 0.0, "low": 0.0, "high": 0.0} if r.lead_time else {})
    assert zeros >= {"crps", "energy_score", "spread_skill_ratio", "reliability_index", "growth_ratio"}
    better = faults(lambda r: {end: getattr(r, end) - 1.5 * (r.high - r.low) for end in ("value", "low", "high")})
    assert better >= {"crps", "skill_accuracy"}


AGAIN = """
import sys
from pathlib import Path
import torch
from emubench.runs import stages
torch.set_num_threads(1)
print(stages.score(Path(sys.argv[1]), Path(sys.argv[2]), again=True).model_dump_json())
"""


def test_a_score_at_the_end_of_its_range_may_have_no_interval():
    """All cases can lie there on one machine, and all but a few on another; elsewhere no interval has no width."""
    task = tasks.get(TASK, "tiny")
    row = run_files.ScoreRow(
        task=TASK, metric="skill_stability", lead_time=None, value=1.0, low=1.0, high=1.0, n_cases=8, unit="1"
    )
    scores = run_files.ScoreFile(**scoring.header(task, ""), rows=[row], cases={})
    leeway = judge.Leeway.of(row.metric, None, 8, scoring.Result(task, scores, {}))
    wide = row.model_copy(update={"low": 0.96})
    assert leeway.allows(row, wide)
    assert leeway.allows(wide, row)
    inside = {"value": 0.98, "low": 0.98, "high": 0.98}
    assert not leeway.allows(row.model_copy(update=inside), wide.model_copy(update={"value": 0.98}))
    assert not leeway.allows(row, wide.model_copy(update={"value": 0.5, "low": 0.48, "high": 0.52}))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lorenz63-clean", "lorenz63-noisy"])
def test_the_rounding_of_another_processor_is_no_false_claim(data, tmp_path, task):
    """Chaos lets it grow to other runs of the climate, whose scores differ by as much as those of other starts."""
    overrides = {"width": 60, "rounds": 1, "ridges": (1e-20 if task.endswith("clean") else 1e-6,)}
    run = stages.train(jobs.Job("random_features", task, "tiny", overrides=overrides), data, tmp_path)
    at_home = stages.score(run, data)
    older = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem"}
    command = [sys.executable, "-c", AGAIN, run, data]
    done = subprocess.run(command, env=os.environ | older, capture_output=True, text=True, check=True)
    there = run_files.ScoreFile.model_validate_json(done.stdout)
    result = scoring.Result(tasks.get(task, "tiny"), there, {})
    assert judge.false_claims("s", at_home, result) == []

    def faults(metric: str, **changed) -> int:
        rows = [r.model_copy(update=changed) if r.metric == metric else r for r in at_home.rows]
        return len(judge.false_claims("s", at_home.model_copy(update={"rows": rows}), result))

    assert faults("w1_distance", value=0.0, low=0.0, high=0.0) == faults("rms_error", value=0.0) == 1


# --- whole entries, some of them bad ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_entry_whose_emulator_fails_is_scored_as_failed_and_the_next_as_ever(
    emubench,
    sound_entry,
    submitted_runs,
    data,
    tmp_path,
):
    def other_shapes(card) -> None:  # than its weights have
        card["config"].update(delays=10**6)
        card["overrides"] = {"delays": 10**6}

    edit_entry(sound_entry, CARDS, other_shapes)
    stated = (sound_entry / "entry.toml").read_text()
    (sound_entry / "entry.toml").write_text(
        stated.replace("[files]", f"[overrides.{TASK}]\ndelays = 1000000\n\n[files]")
    )
    sign_again(sound_entry)
    finished = emubench("submit", "run", sound_entry, "--data", data, "--bench-seconds", 0, "--json")
    assert finished.status == 1
    assert finished.err.count("\n") == 1
    assert "its cases count as failed" in finished.err
    (found,) = json.loads(finished.out)
    score = {row["metric"]: row["value"] for row in found["scores"]}
    assert score["valid_prediction_time"] == 0.0
    assert score["surviving_fraction"] == 0.0
    found = folders.find_runs([submitted_runs / "persistence"])
    folder = making.from_runs("next", found, tmp_path / "entries", STATED, weights=True)
    assert emubench("submit", "run", folder, "--data", data, "--bench-seconds", 0).status == 0


@pytest.mark.slow
def test_a_remote_forecast_is_the_local_one(submitted_runs, data):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    opened = folders.load(run)
    emulator, task = opened.emulator, opened.task
    here = scoring.evaluate(emulator, task, data, seed=3)  # type: ignore[arg-type]
    there = judge.judge_run(run, task, data, 3, LIMITS)
    assert there.reason == ""
    assert there.result.scores == here.scores
    assert there.result.figures == here.figures


@pytest.mark.slow
def test_an_ensemble_is_drawn_anew_by_the_judge_and_the_rest_is_as_at_home(data, tmp_path):
    run = stages.train(jobs.Job("climatology", "kpz-noisy", "tiny"), data, tmp_path)
    at_home = stages.score(run, data)
    found = judge.judge_run(run, tasks.get("kpz-noisy", "tiny"), data, 0, LIMITS)
    assert found.reason == ""
    moved = {row.metric for row, old in zip(found.result.scores.rows, at_home.rows, strict=True) if row != old}
    assert {"crps", "energy_score", "skill_accuracy"} <= moved <= found.result.of_ensembles
    assert judge.false_claims("s", at_home, found.result) == []
