"""What ``submit check`` says of an entry: what it has, what it lacks to be ranked, what judging it would cost."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emubench.leaderboard.submission import checks, standing
from tests.support.submissions import TASK, edit_entry, sign_again


def lines(contents) -> dict[str, standing.Standing]:
    return {one.what: one for one in standing.standing(contents)}


def test_check_says_what_is_there_and_what_is_missing_to_be_ranked(emubench, sound_entry):
    finished = emubench("submit", "check", sound_entry, "--json")
    assert finished.status == 0
    found = {one["what"]: one for one in json.loads(finished.out)["standing"]}
    assert found["division"] == {"what": "division", "found": "standard", "missing": ""}
    assert found["size"]["missing"] == "seasons are of size standard"
    assert (found["track noisy"]["found"], found["track scarce"]["found"]) == ("1 of 4 tasks", "0 of 4 tasks")
    assert found["track noisy"]["missing"] == "kpz-noisy, kuramoto_sivashinsky-noisy, lorenz96-noisy: counts -1"
    assert found["seeds"]["missing"].startswith("fewer than 3")
    assert (found["weights"]["found"], found["timing"]["found"]) == ("there", "1 of 1 runs")
    assert found["verified"]["missing"]
    assert "track clean" not in found
    printed = emubench("submit", "check", sound_entry).out
    assert "track noisy" in printed
    assert "a judge's run" in printed


def test_a_judge_s_run_costs_three_trainings_and_scorings_of_every_ranked_task(sound_entry):
    contents = checks.require(sound_entry)
    card, timing = contents.cards[TASK, 0], contents.timing[TASK, 0]
    assert timing.test_seconds
    assert timing.climate_seconds
    scored = timing.test_seconds + timing.climate_seconds
    hours = standing.judge_hours(contents)
    assert hours == pytest.approx(3 * (card.train_seconds + scored) / 3600)
    assert f"{hours:.2g} hours" in lines(contents)["a judge's run"].found
    untimed = dataclasses.replace(contents, timing={})
    assert standing.judge_hours(untimed) is None
    assert lines(untimed)["a judge's run"][1:] == ("not known", "timing of every task")
    opened = dataclasses.replace(contents, entry=contents.entry.model_copy(update={"division": "open"}))
    assert lines(opened)["division"].missing == "only standard entries are retrained, and so ranked"
    assert standing.judge_hours(opened) is None


def test_a_season_that_verified_an_entry_is_named(sound_entry):
    path = sound_entry.parent.parent / "verified" / "2026a" / "mine.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert lines(checks.require(sound_entry))["verified"] == ("verified", "2026a", "")


def test_a_faulty_entry_that_can_be_read_still_has_its_table(emubench, sound_entry):
    edit_entry(sound_entry, "cards.json", lambda card: card.update(knowledge="equation"))
    sign_again(sound_entry)
    finished = emubench("submit", "check", sound_entry)
    assert finished.status == 1
    assert "track noisy" in finished.out
