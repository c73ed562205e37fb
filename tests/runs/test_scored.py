"""Entries of a comparison: how runs are named and pooled, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from emubench.core.errors import EmubenchError
from emubench.runs import folders, scored
from tests.support.scored_runs import config, table, write_run


def names(out: Path) -> set[str]:
    return {run.entry for run in scored.read_runs(folders.find_runs([out]))}


def test_an_entry_is_a_baseline_where_it_has_one_configuration_per_task(tmp_path):
    for task, delays in (("lorenz96-noisy", 3), ("lorenz63-noisy", 5)):
        write_run(tmp_path, "linear", task, [1.0], config=config(task, delays=delays))
    assert names(tmp_path) == {"linear"}


def test_overridden_settings_make_another_entry_and_leave_the_default_alone(tmp_path):
    for task, delays in (("lorenz96-noisy", 3), ("lorenz63-noisy", 5)):
        write_run(tmp_path, "linear", task, [1.0], config=config(task), name="default")
        write_run(tmp_path, "linear", task, [1.0], config=config(task, delays=delays), name="override")
        write_run(tmp_path, "linear", task, [1.0], config=config(task, smooth=0.5), name="smooth")
    assert names(tmp_path) == {"linear", "linear (delays=*)", "linear (smooth=0.5)"}


def test_two_values_on_one_task_are_two_entries(tmp_path):
    for delays in (3, 5):
        for seed in (0, 1):
            task = "lorenz96-noisy"
            setting = config(task, delays=delays)
            write_run(tmp_path, "linear", task, [1.0], config=setting, seed=seed, name=f"{delays}-{seed}")
    assert names(tmp_path) == {"linear (delays=3)", "linear (delays=5)"}


def test_a_baseline_that_is_not_here_is_told_apart_by_what_differs(tmp_path):
    for width in (8, 16):
        setting = {"depth": 2, "width": width}
        write_run(tmp_path, "elsewhere", "lorenz96-noisy", [1.0], config=setting, name=str(width))
    assert names(tmp_path) == {"elsewhere (width=8)", "elsewhere (width=16)"}


def test_a_long_label_is_cut_and_stays_its_own(tmp_path):
    for text in ("x" * 100, "x" * 99 + "\x1b[31m"):
        write_run(tmp_path, "elsewhere", "lorenz96-noisy", [1.0], config={"name": text}, name=str(len(text)))
    assert len(names(tmp_path)) == 2
    assert all(len(name) <= scored.MAX_LABEL and name.isprintable() for name in names(tmp_path))


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(*folders: Path) -> str:
    with pytest.raises(EmubenchError) as error:
        table(*folders)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ({}, {"truth": "b" * 64}, "different truths of lorenz96-noisy"),
        ({}, {"cases": [1.0, 2.0]}, "different numbers of cases"),
        ({}, {"size": "standard"}, "size tiny and"),
        ({}, {"version": "0.2.0"}, "emubench 0.1.0 and 0.2.0"),
        ({}, {"baseline": "net"}, "both are net on lorenz96-noisy with seed 0"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_both_names(tmp_path, one, two, words):
    first = {"baseline": "net", "task": "lorenz96-noisy", "cases": [1.0] * 4}
    a = write_run(tmp_path / "a", **(first | one))
    b = write_run(tmp_path / "b", **(first | {"baseline": "other"} | two))
    message = refused(a, b)
    assert words in message
    assert str(a) in message
    assert str(b) in message


def test_a_run_without_scores_names_the_command(tmp_path):
    run = write_run(tmp_path, "net", "lorenz96-noisy", [1.0])
    (run / "scores.json").unlink()
    assert refused(run).endswith(f"make them with: emubench score {run}")


def test_scores_of_another_task_are_refused(tmp_path):
    run = write_run(tmp_path, "net", "lorenz96-noisy", [1.0])
    other = write_run(tmp_path, "net", "lorenz63-noisy", [1.0])
    (run / "scores.json").write_text((other / "scores.json").read_text())
    assert "scores of lorenz63-noisy (tiny) in a run of lorenz96-noisy (tiny)" in refused(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cases": {}}, "cases.valid_prediction_time: missing"),
        ({"cases": {"valid_prediction_time": [None]}}, "cases.valid_prediction_time.0"),
        ({"cases": {"valid_prediction_time": "many"}}, "cases.valid_prediction_time"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_edited_scores_are_refused_with_the_key(tmp_path, change, words):
    run = write_run(tmp_path, "net", "lorenz96-noisy", [1.0])
    content = json.loads((run / "scores.json").read_text()) | change
    (run / "scores.json").write_text(json.dumps(content))
    message = refused(run)
    assert "scores.json" in message
    assert words in message


@pytest.mark.parametrize("speed", [-1.0, math.nan, "fast"])
def test_a_bad_timing_is_refused(tmp_path, speed):
    run = write_run(tmp_path, "net", "lorenz96-noisy", [1.0], speed=speed)
    assert "lyapunov_times_per_second" in refused(run)
