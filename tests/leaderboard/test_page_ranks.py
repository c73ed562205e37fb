"""Ranks: verified rows of the standard division carry them, with three seeds, within one season; nobody else does."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
from math import sqrt

import pytest

from emubench.core.errors import EmubenchError
from emubench.files.entry_files import CARDS
from emubench.leaderboard import ranking
from emubench.leaderboard.page import building, ranks
from emubench.leaderboard.page.board import read
from emubench.leaderboard.page.tracks import NOBODY
from emubench.leaderboard.submission import making
from emubench.leaderboard.submission.verified_rows import Verified
from emubench.runs import folders
from tests.support.boards import Page
from tests.support.submissions import (
    STATED,
    TASK,
    edit_entry,
    edit_json,
    judged_speed,
    open_season,
    publish,
    seed_scores,
    sign_again,
    spread_cases,
    verified,
    verified_row,
)

OTHER = "lorenz96-noisy"
KNOWS = {name: "none" for name in "abcd"}


def table(*found, names=(TASK,), **changed):
    frame = ranks.table("s", open_season(names=names, **changed), found, KNOWS)
    return {(r["entry"], r["task"]): r for r in ranking.records(frame)}


def scored(entry: str, skill: float, half: float = 0.05, **changed) -> Verified:
    return verified(entry, [verified_row(skill=skill, half=half, **({"draw": ord(entry[0])} | changed))])


def placed(row: dict) -> tuple:
    return row["rank_low"], row["rank_high"]


# --- the statistics ---------------------------------------------------------------------------------------------------


def test_a_rank_is_an_interval_of_those_who_differ():
    found = table(scored("a", 0.9), scored("b", 0.5), scored("c", 0.52), scored("d", 0.1))
    for task in (TASK, None):  # of one task, the track is that task
        assert [placed(found[name, task]) for name in "abcd"] == [(1, 1), (2, 3), (2, 3), (4, 4)]
        assert [entry for entry, shown in found if shown == task] == ["a", "c", "b", "d"]


def test_entries_are_compared_on_the_same_cases():
    """Intervals that overlap by far, of entries that find the same cases hard; and of such that do not."""
    apart = {"half": 0.15, "draw": 1}
    paired = table(scored("a", 0.6, **apart), scored("b", 0.5, **apart))
    other = table(scored("a", 0.6, **apart), scored("b", 0.5, half=0.15, draw=2))
    assert paired["a", TASK]["skill_accuracy_low"] < paired["b", TASK]["skill_accuracy_high"]
    for task in (TASK, None):
        assert [placed(paired[name, task]) for name in "ab"] == [(1, 1), (2, 2)]
        assert [placed(other[name, task]) for name in "ab"] == [(1, 2), (1, 2)]


def test_few_seeds_that_differ_widen_ranks_by_student_s_t():
    """The mean of three seeds at ±0.1 is known to 0.1 · 9.92/√3 = 0.57 (99 %), whatever the cases say."""

    def entry(name: str, skill: float, apart: float):
        cases = [spread_cases(TASK, skill + apart * i, 0.01, draw=1) for i in (-1, 0, 1)]
        return verified(name, [verified_row(by_seed=[seed_scores(i, one) for i, one in enumerate(cases)])])

    near, far = (table(entry("a", skill, 0.1), entry("b", 0.1, 0.0)) for skill in (0.6, 0.75))
    assert [placed(near[name, TASK]) for name in "ab"] == [(1, 2), (1, 2)]
    assert [placed(far[name, TASK]) for name in "ab"] == [(1, 1), (2, 2)]


def test_a_track_is_the_mean_over_the_season_s_tasks_and_a_missing_one_counts_minus_1():
    both = verified("a", [verified_row(skill=0.8, half=0.1), verified_row(OTHER, skill=0.5, half=0.1, draw=1)])
    one = verified("b", [verified_row(skill=7.0, half=0.1)])  # clipped to 1
    found = table(both, one, names=(TASK, OTHER))
    a, b = found["a", None], found["b", None]
    assert a["skill_accuracy"] == pytest.approx((0.8 + 0.5) / 2)
    assert a["skill_accuracy_low"] == pytest.approx(0.65 - sqrt(2) * 0.1 / 2, abs=0.005)
    assert a["skill_accuracy_high"] == pytest.approx(0.65 + sqrt(2) * 0.1 / 2, abs=0.005)
    assert (b["skill_accuracy"], b["missing_tasks"], b["lyapunov_times_per_second"]) == (0.0, 1, None)
    assert a["lyapunov_times_per_second"] == pytest.approx(1e4)
    assert placed(a) == (1, 1)
    assert (a["track"], a["knowledge"]) == ("noisy", "none")


def test_stability_has_ranks_of_its_own():
    steady = {"skill_stability": 0.9, "skill_stability_low": 0.88, "skill_stability_high": 0.92}
    found = table(scored("a", 0.9), scored("b", 0.1, stability=steady))
    assert (found["b", TASK]["stability_rank_low"], found["b", TASK]["rank_low"]) == (1, 2)
    assert (found["a", TASK]["stability_rank_low"], found["a", TASK]["rank_low"]) == (2, 1)


def test_where_less_is_better_the_skill_decides():
    name = "kpz-noisy"
    good, bad = verified_row(name, skill=0.9, half=0.05), verified_row(name, skill=0.1, half=0.05)
    assert good.value < bad.value
    found = table(verified("a", [bad]), verified("b", [good]), names=(name,))
    assert placed(found["b", name]) == (1, 1)


def test_times_of_different_machines_are_not_compared():
    def timed(entry, skill, speed, judge):
        row = verified_row(skill=skill, half=0.05, lyapunov_times_per_second=speed)
        return verified(entry, [row], judge=judge)

    found = table(
        timed("a", 0.9, 10.0, "x"), timed("b", 0.5, 100.0, "x"), timed("c", 0.4, 50.0, "x"), timed("d", 0.95, 1e9, "y")
    )
    assert [found[name, TASK]["pareto_front"] for name in "abcd"] == [True, True, False, None]


def fast(entry, skill, gain, where="a processor", names=(TASK,)) -> Verified:
    rows = []
    for name in names:
        speed = judged_speed(1e4, gain, ranked=skill >= 0.25, processor=where)
        rows.append(verified_row(name, skill=skill, half=0.05, speed=speed))
    return verified(entry, rows)


def test_speed_ups_rank_by_their_intervals_where_skill_is_left():
    found = table(fast("a", 0.9, 1.0), fast("b", 0.5, 1.2), fast("c", 0.4, 9.0), fast("d", 0.1, 99.0))
    for task in (TASK, None):
        assert [found[name, task]["speedup_rank_low"] for name in "abcd"] == [2, 2, 1, None]
        assert [found[name, task]["speedup_rank_high"] for name in "abcd"] == [3, 3, 1, None]
        assert [found[name, task]["speedup_ranked"] for name in "abcd"] == [True, True, True, False]
        assert found["d", task]["speedup_at_equal_accuracy"] == pytest.approx(99.0)


def test_speed_ups_of_two_devices_are_never_compared():
    found = table(fast("a", 0.9, 1.0), fast("b", 0.5, 9.0), fast("c", 0.5, 99.0, "another"))
    assert [found[name, TASK]["speedup_rank_low"] for name in "abc"] == [2, 1, 1]
    assert found["c", TASK]["speedup_on"] == "cpu: another, 1 thread(s)"


def test_a_track_s_speed_up_is_the_geometric_mean_and_ranks_where_no_task_lacks_one():
    names = (TASK, "lorenz96-noisy")
    whole = fast("a", 0.9, 1.0, names=names)
    first, second = fast("b", 0.9, 4.0, names=names).rows
    half = verified("b", [first, second.model_copy(update={"speed": None})])
    one, two = (row.model_copy(update={"speed": judged_speed(1e4, gain)}) for row, gain in ((first, 4), (second, 9)))
    found = table(whole, half, verified("c", [one, two]), names=names)
    assert [found[name, None]["speedup_at_equal_accuracy"] for name in "abc"] == pytest.approx([1.0, 4.0, 6.0])
    assert [found[name, None]["speedup_tasks"] for name in "abc"] == [2, 1, 2]
    assert [found[name, None]["speedup_rank_low"] for name in "abc"] == [2, None, 1]


# --- who carries a rank -----------------------------------------------------------------------------------------------


def test_a_checkpoint_has_no_rank_and_moves_nobody_s():
    alone = table(scored("a", 0.5), scored("b", 0.3))
    few = scored("c", 0.9, seeds=(0, 1))
    found = table(scored("a", 0.5), scored("b", 0.3), few)
    assert found["c", TASK]["rank_low"] is found["c", None]["rank_low"] is found["c", TASK]["pareto_front"] is None
    assert {key: row for key, row in found.items() if key[0] != "c"} == alone


def test_the_clean_track_is_never_ranked():
    name = "lorenz63-clean"
    found = table(verified("a", [verified_row(name)]), verified("b", [verified_row(name)]), names=(name,))
    assert all(row["rank_low"] is row["stability_rank_low"] is row["pareto_front"] is None for row in found.values())


def test_an_unknown_score_leaves_its_table_without_ranks():
    unknown = dict.fromkeys(("skill_stability", "skill_stability_low", "skill_stability_high"))
    found = table(scored("a", 0.9), scored("b", 0.1, stability=unknown))
    assert found["a", TASK]["stability_rank_low"] is found["b", TASK]["stability_rank_low"] is None
    assert found["b", None]["skill_stability"] is None
    assert placed(found["a", TASK]) == (1, 1)


@pytest.fixture
def board(submitted_runs, tmp_path):
    folder = tmp_path / "leaderboard"
    for baseline in ("linear", "persistence"):
        making.from_runs(
            baseline, folders.find_runs([submitted_runs / baseline]), folder / "entries", STATED, weights=True
        )
    return folder


def test_without_a_verified_row_nobody_is_ranked_and_the_page_says_why(board):
    content = read(board, "tiny")
    pages = building.render(content)
    assert NOBODY in Page(pages["index.html"]).text
    assert "emubench submit verify" in Page(pages["methods.html"]).text
    assert json.loads(pages["data/verified.json"]) == []
    for name in ("standard", "open"):
        (titles, *_) = csv.reader(io.StringIO(pages[f"data/self_reported_{name}.csv"]))
        assert "skill_accuracy_low" in titles
        assert not [title for title in titles if "rank_" in title or "front" in title]
    assert not [a for a in Page(pages["index.html"]).all("circle") if a.get("class") == "front"]
    text = building.with_tables(f"{building.BEGIN}\n{building.END}", content)
    assert "Nobody is ranked yet" in text
    assert "| rank |" not in text
    assert text.count("`linear`") == 1  # the tiny board has the noisy track alone


def test_verified_rows_alone_are_ranked_on_the_page(board):
    rows = [scored("linear", 0.5), scored("persistence", 0.1, half=0.02)]  # of which no case is below 0
    publish(board, {"2026a": open_season()}, *rows)
    content = read(board, "tiny")
    pages = building.render(content)
    table_ = {(r["entry"], r["task"]): r for r in json.loads(pages["data/verified.json"])}
    assert placed(table_["linear", TASK]) == placed(table_["linear", None]) == (1, 1)
    assert placed(table_["persistence", TASK]) == (2, 2)
    assert "Nobody is ranked" not in pages["index.html"]
    text = building.with_tables(f"{building.BEGIN}\n{building.END}", content)
    assert "Verified on the sealed data of season 2026a:" in text
    assert "2026a" in Page(pages["entries/linear.html"]).text
    claimed = json.loads(pages["data/self_reported_standard.json"])
    assert {r["entry"] for r in claimed} == {"linear", "persistence"}  # still there, apart
    assert not [key for r in claimed for key in r if "rank_" in key]


def test_seasons_are_ranked_apart_and_the_newest_stands_first(board):
    seasons = {"old": open_season(opened="2026-01-01"), "fresh": open_season(opened="2026-11-01")}
    first, second = (verified("linear", [verified_row()], name=name) for name in seasons)
    publish(board, seasons, first, second)
    content = read(board, "tiny")
    frames = content.verified
    assert list(frames) == ["fresh", "old"]
    assert [frame["rank_high"].tolist() for frame in frames.values()] == [[1, 1], [1, 1]]
    index = building.render(content)["index.html"]
    assert index.index("season fresh") < index.index("season old")


def test_a_season_of_another_size_ranks_nobody_here(board):
    row = verified_row(size="standard")
    publish(board, {"demo": open_season(size="standard")}, verified("linear", [row], name="demo"))
    content = read(board, "tiny")
    assert content.seasons == {}
    assert content.verified == {}
    assert content.ranks_nobody
    assert [one.verified for one in content.shown] == [(), ()]


def assert_left_out(board, message: str) -> None:
    """Nothing that is shown is verified, and the one fault is named."""
    content = read(board, "tiny")
    (fault,) = content.faults
    assert re.search(message, fault), fault
    assert not content.verified


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"commitment": "1" * 64}, "commitment: '1111"),
        ({"emubench_version": "9"}, "emubench_version: '9' where '0.1.0' belongs"),
        ({"method": "oracle"}, "division standard and method linear, where season 2026a verified a standard oracle"),
        ({"rows": [verified_row(), verified_row()]}, "rows: \\['lorenz63-noisy', 'lorenz63-noisy'\\] where"),
        ({"rows": [verified_row("kpz-noisy")]}, "rows: \\['kpz-noisy'\\] where \\[\\] belongs"),
        ({"season": "2026b"}, "unknown season '2026b'"),
        ({"entry": "stranger"}, "rows of stranger, which is no entry of this board"),
    ],
)
def test_verified_rows_that_their_season_does_not_bear_out_are_refused(board, changed, message):
    found = verified("linear", [verified_row()]).model_copy(update=changed)
    publish(board, {"2026a": open_season()}, found)
    assert_left_out(board, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"skill": 1.0}, "skill: 1.0 where 0."),
        ({"low_99": -1e9, "high_99": 1e9}, "low_99: -1000000000.0 where"),
        ({"low": 3.0, "skill_low": 0.9}, "low: 3.0 where"),
        ({"skill_stability": 999.0}, "skill_stability: 999.0 where"),
        ({"lyapunov_times_per_second": 1e300}, "lyapunov_times_per_second: Input should be less than"),
        ({"train_seconds": -1.0}, "train_seconds: Input should be greater than"),
        ({"n_cases": 10**6}, "n_cases: 1000000 where 16 follows"),
        ({"claimed": 0.5}, "from other settings or claims than it has now"),
        ({"made_from": "1" * 64}, "from other settings or claims than it has now"),
    ],
)
def test_a_verified_row_that_was_edited_is_not_shown(board, changed, message):
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    assert len(read(board, "tiny").verified["2026a"]) == 2
    edit_json(board / "verified/2026a/linear.json", lambda content: content["rows"][0].update(changed))
    assert_left_out(board, re.escape(message))


def test_a_verified_row_of_settings_that_the_entry_no_longer_has_is_not_shown(board):
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    edit_entry(board / "entries/linear", CARDS, lambda c: c.update(overrides={"delays": 3}))
    path = board / "entries/linear/entry.toml"
    path.write_text(path.read_text().replace("[files]", f"[overrides.{TASK}]\ndelays = 3\n\n[files]"))
    sign_again(board / "entries/linear")
    assert_left_out(board, "verified in season 2026a from other settings or claims")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"secret": "ab" * 32, "closed": "2026-12-01"}, "the secret is not the one that this season committed to"),
        ({"secret": "ab" * 32}, "a season is closed by its secret, and shows none before"),
        ({"closed": "2026-12-01"}, "a season is closed by its secret, and shows none before"),
    ],
)
def test_a_season_whose_secret_does_not_fit_its_commitment_is_not_shown(board, changed, message):
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    text = (board / "seasons.toml").read_text()
    for key, value in changed.items():
        text = text.replace(f'{key} = ""', f'{key} = "{value}"')
    (board / "seasons.toml").write_text(text)
    with pytest.raises(EmubenchError, match=message):
        read(board, "tiny")


def test_what_a_killed_submission_left_is_no_entry_and_swept_at_the_next(board, submitted_runs, monkeypatch):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    with monkeypatch.context() as patch:
        patch.setattr(making, "_copy_runs", lambda *_: os._exit(9))
        arguments = ("third", [run], board / "entries", STATED)
        killed = multiprocessing.get_context("fork").Process(target=making.from_runs, args=arguments)
        killed.start()
        killed.join(60)
    assert killed.exitcode == 9
    assert len(list((board / "entries").iterdir())) == 3
    assert [one.entry.name for one in read(board, "tiny").shown] == ["linear", "persistence"]
    making.from_runs(*arguments)
    assert sorted(path.name for path in (board / "entries").iterdir()) == ["linear", "persistence", "third"]


def test_of_two_submissions_of_one_name_at_once_one_is_refused(board, submitted_runs, monkeypatch):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    copy = making._copy_runs

    def overtaken(*arguments) -> None:
        copy(*arguments)
        (board / "entries" / "third").mkdir()

    monkeypatch.setattr(making, "_copy_runs", overtaken)
    with pytest.raises(EmubenchError, match="third: is there already; choose another name"):
        making.from_runs("third", [run], board / "entries", STATED)
    assert list((board / "entries" / "third").iterdir()) == []


def test_verified_rows_in_another_s_place_are_refused(board):
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    shutil.move(board / "verified/2026a/linear.json", board / "verified/2026a/persistence.json")
    assert_left_out(board, "season and entry: '2026a/linear' where '2026a/persistence' belongs")


def test_an_open_entry_cannot_have_verified_rows(board):
    path = board / "entries/linear/entry.toml"
    path.write_text(path.read_text().replace('division = "standard"', 'division = "open"'))
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    assert_left_out(board, "division open and method linear")
