"""Seasons: committed to, verified on sealed data, closed, verified again by anyone; the secret shows up nowhere."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.random import SealedSeed, stream, torch_stream
from emubench.data import generation, layout, tasks, verification
from emubench.files import entry_files
from emubench.files.entry_files import SCORES
from emubench.leaderboard.submission import checks, making, season, verifying
from emubench.leaderboard.submission.verified_rows import SeedScores, Verified
from emubench.runs import folders, jobs, stages
from emubench.runs.sandbox import judged
from tests.support.contents import contents
from tests.support.submissions import STATED, TASK, edit_json, verified, verified_row

OTHER = "lorenz63-scarce"
TASKS = ("--task", TASK, "--task", OTHER, "--size", "tiny")
SECRET = bytes(range(32))


@pytest.fixture
def secret_file(monkeypatch, tmp_path) -> Path:
    path = tmp_path / "outside" / "secret.txt"
    path.parent.mkdir()
    monkeypatch.setenv(season.VARIABLE, str(path))
    return path


@pytest.fixture
def board(tmp_path) -> Path:
    (tmp_path / "board").mkdir()
    return tmp_path / "board"


@pytest.fixture(scope="session")
def two_tasks(data, tmp_path_factory) -> Path:
    """Scored runs of ``linear`` on two tiny tasks."""
    out = tmp_path_factory.mktemp("two") / "runs"
    for name in (TASK, OTHER):
        stages.score(stages.train(jobs.Job("linear", name, "tiny"), data, out), data)
    return out


# --- the seed ---------------------------------------------------------------------------------------------------------


def test_a_sealed_seed_draws_by_its_secret_and_shows_its_commitment():
    seed, other = SealedSeed(SECRET), SealedSeed(bytes(32))
    shown = "sealed:" + hashlib.sha256(SECRET).hexdigest()
    for text in (str(seed), repr(seed), f"{seed}", f"{seed!r}", repr([seed])):
        assert shown in text
    assert stream(seed, "a").normal() == stream(SealedSeed(SECRET), "a").normal()
    assert stream(seed, "a").normal() != stream(other, "a").normal()
    assert stream(seed, "a").normal() != stream(-1, "a").normal()
    assert torch_stream(seed, "a").initial_seed() != torch_stream(other, "a").initial_seed()
    assert seed == SealedSeed(SECRET)
    assert seed not in (other, -1, 0)
    with pytest.raises(TypeError, match="stays in its process") as caught:
        pickle.dumps(seed)
    assert SECRET.hex() not in str(caught.value)


def test_sealed_files_carry_the_commitment_for_a_seed(tmp_path):
    task = tasks.get(TASK, "tiny")
    for path in generation.generate(task, tmp_path / "sealed", SealedSeed(SECRET)):
        with h5py.File(path) as file:
            found = file.attrs["seed"]
        assert found == "sealed:" + hashlib.sha256(SECRET).hexdigest()
        assert SECRET.hex().encode() not in path.read_bytes()
        assert SECRET not in path.read_bytes()
        verification.verify(path)
    with h5py.File(layout.truth_path(task, tmp_path / "sealed")) as file:
        sealed = np.array(file["test/truth"])
    generation.generate(task, tmp_path / "other", SealedSeed(bytes(32)))
    with h5py.File(layout.truth_path(task, tmp_path / "other")) as file:
        assert np.abs(sealed - np.array(file["test/truth"])).mean() > 1
    with pytest.raises(EmubenchError, match="attribute seed: sealed:"):
        generation.generate(task, tmp_path / "sealed", SealedSeed(bytes(32)))


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_a_season_commits_to_its_secret_and_reveals_it(emubench, refused, board, secret_file):
    opened = emubench("season", "new", "2026a", "--board", board, *TASKS)
    assert opened.status == 0, opened.err
    secret = secret_file.read_text().strip()
    assert len(bytes.fromhex(secret)) == 32
    assert secret_file.stat().st_mode & 0o777 == 0o600
    listed = tomllib.loads((board / "seasons.toml").read_text())["seasons"]["2026a"]
    assert listed["commitment"] == hashlib.sha256(bytes.fromhex(secret)).hexdigest()
    assert listed["tasks"] == [TASK, OTHER]
    for text in (opened.out, opened.err, (board / "seasons.toml").read_text()):
        assert secret not in text
    assert "is there already" in refused("season", "new", "2026a", "--board", board, *TASKS)
    assert f"{secret_file}: is there already" in refused("season", "new", "2026b", "--board", board, *TASKS)
    assert secret_file.read_text().strip() == secret
    closed = emubench("season", "close", "2026a", "--board", board)
    assert closed.status == 0
    assert season.get(board, "2026a").secret == secret  # now published
    assert "is closed since" in refused("season", "close", "2026a", "--board", board)
    assert "unknown season '2026b': did you mean 2026a" in refused("season", "close", "2026b", "--board", board)


def test_seasons_that_are_opened_at_once_are_all_listed_and_a_name_is_taken_once(board, monkeypatch, tmp_path):
    files = iter(tmp_path / f"secret-{i}" for i in range(6))
    monkeypatch.setattr(season, "_file", lambda: next(files))
    draws, together = season._first_draws, threading.Barrier(6)

    def meeting(*arguments) -> str:  # when the list would have been read
        together.wait(30)
        return draws(*arguments)

    monkeypatch.setattr(season, "_first_draws", meeting)
    names = ["a", "b", "c", "same", "same", "same"]
    with ThreadPoolExecutor(6) as pool:
        made = [pool.submit(season.open_season, board, name, "tiny", [TASK]) for name in names]
    refused = [str(error) for one in made if (error := one.exception())]
    assert sorted(season.read(board)) == ["a", "b", "c", "same"]
    assert len(refused) == 2
    assert all("season same is there already" in line for line in refused)
    assert len(list(tmp_path.glob("secret-*"))) == 4  # the losers leave none


@pytest.mark.slow
def test_the_sealed_data_of_a_killed_verification_are_unreadable_and_swept_at_the_next(
    emubench, refused, board, sound_entry, secret_file, monkeypatch, tmp_path
):
    assert emubench("season", "new", "2026a", "--board", board, "--task", TASK, "--size", "tiny").status == 0
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    with monkeypatch.context() as patch:
        patch.setattr(judged, "train", lambda *_: os._exit(9))
        killed = multiprocessing.get_context("fork").Process(
            target=verifying.verify, args=(sound_entry, board, "2026a")
        )
        killed.start()
        killed.join(60)
    assert killed.exitcode == 9
    (left,) = (tmp_path / "t").iterdir()
    assert list(left.rglob("*.truth.h5"))
    assert left.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(judged, "train", failing)
    assert "no training today" in refused("submit", "verify", sound_entry, "--season", "2026a", "--board", board)
    assert list((tmp_path / "t").iterdir()) == []


def failing(*_) -> None:
    raise EmubenchError("no training today")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", TASK, "--task", TASK, "--size", "tiny"), f"task {TASK} stands twice"),
        (("--task", "lorenz63-clean", "--size", "tiny"), "task lorenz63-clean is of no ranked track"),
        (("--task", TASK, "--size", "tiny-40x120"), "unknown size 'tiny-40x120'"),
    ],
)
def test_a_season_of_odd_tasks_or_sizes_is_not_opened(refused, board, secret_file, arguments, message):
    assert message in refused("season", "new", "2026a", "--board", board, *arguments)
    assert list(board.iterdir()) == []
    assert not secret_file.exists()


def test_the_secret_stays_out_of_git(refused, board, monkeypatch, tmp_path):
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    (tmp_path / "checkout" / "deep").mkdir()
    monkeypatch.setenv(season.VARIABLE, str(tmp_path / "checkout" / "deep" / "secret.txt"))
    before = contents(tmp_path)
    assert "lies in the git checkout" in refused("season", "new", "2026a", "--board", board, *TASKS)
    (tmp_path / "link").symlink_to(tmp_path / "checkout")
    monkeypatch.setenv(season.VARIABLE, str(tmp_path / "link" / "secret.txt"))
    assert "lies in the git checkout" in refused("season", "new", "2026a", "--board", board, *TASKS)
    monkeypatch.delenv(season.VARIABLE)
    line = refused("season", "new", "2026a", "--board", board, *TASKS)
    assert "outside any git checkout" in line
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab" * 32, "commitment: the secret is not the one that this season committed to"),
        (b"ab" * 31, "64 hexadecimal digits belong here"),
        (b"xy" * 32, "64 hexadecimal digits belong here"),
        (b"\xff\xfe" * 40, "64 hexadecimal digits belong here"),
        (b"", "64 hexadecimal digits belong here"),
    ],
)
def test_a_secret_that_does_not_match_is_refused_and_not_shown(refused, emubench, board, secret_file, content, message):
    assert emubench("season", "new", "2026a", "--board", board, *TASKS).status == 0
    secret_file.write_bytes(content)
    before = contents(board)
    line = refused("season", "close", "2026a", "--board", board)
    assert message in line
    if content:
        assert content.decode("latin-1") not in line
    assert contents(board) == before


def test_a_season_of_other_draws_is_refused(refused, emubench, board, secret_file):
    assert emubench("season", "new", "2026a", "--board", board, *TASKS).status == 0
    path = board / "seasons.toml"
    digest = season.get(board, "2026a").draws_sha256
    path.write_text(path.read_text().replace(digest, "0" * 64))
    assert "draws_sha256: the secret is not the one" in refused("season", "close", "2026a", "--board", board)


def test_without_a_terminal_the_secret_is_not_waited_for(refused, emubench, board, secret_file, monkeypatch):
    assert emubench("season", "new", "2026a", "--board", board, *TASKS).status == 0
    monkeypatch.delenv(season.VARIABLE)
    assert f"in {season.VARIABLE}" in refused("season", "close", "2026a", "--board", board)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: secret_file.read_text().strip())
    assert emubench("season", "close", "2026a", "--board", board).status == 0


@pytest.mark.parametrize("text", ["[seasons.a]\nsecret = 3", "x = [", "[" * 100_000, "[other]\na = 1"])
def test_seasons_that_are_none_are_refused(refused, board, secret_file, text):
    (board / "seasons.toml").write_text(text)
    assert "seasons.toml: " in refused("season", "close", "a", "--board", board)


# --- verifying --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_season_from_its_opening_to_verification_by_anyone(
    emubench, board, secret_file, two_tasks, tmp_path, monkeypatch
):
    folder = making.from_runs("mine", folders.find_runs([two_tasks]), tmp_path / "entries", STATED)
    assert emubench("season", "new", "2026a", "--board", board, *TASKS).status == 0
    secret = secret_file.read_text().strip()
    arguments = ("submit", "verify", folder, "--season", "2026a", "--board", board, "--seeds", "1", "--ladder", "2")
    before = contents(folder)
    first = emubench(*arguments)
    assert first.status == 0, first.err
    path = board / "verified" / "2026a" / "mine.json"
    stored = json.loads(path.read_text())
    assert [row["task"] for row in stored["rows"]] == [TASK, OTHER]
    assert contents(folder) == before
    # while it is open: scores alone, and no trace of the secret
    assert {key for row in stored["rows"] for one in row["by_seed"] for key in one} == set(SeedScores.model_fields)
    assert [len(one["cases"]) for row in stored["rows"] for one in row["by_seed"]] == [16, 16]
    public = entry_files.read(folder, SCORES)[TASK, 0]
    for row in stored["rows"]:
        assert row["low_99"] <= row["low"] <= row["value"] <= row["high"] <= row["high_99"]
        assert row["lyapunov_times_per_second"] == row["speed"]["lyapunov_times_per_second"]["median"] > 0
        assert row["speed"]["speedup"]["scheme"]
    assert stored["rows"][0]["claimed"] == pytest.approx(np.mean(public.cases["valid_prediction_time"]))
    for place in (*board.rglob("*"), *folder.rglob("*")):
        assert not place.is_file() or secret not in place.read_text(errors="replace"), place
    assert secret not in first.out + first.err
    # closed: anyone can do it again, without the file
    assert emubench("season", "close", "2026a", "--board", board).status == 0
    monkeypatch.delenv(season.VARIABLE)
    again = emubench(*arguments, "--task", OTHER, "--json")
    assert again.status == 0, again.err
    answer = json.loads(again.out)
    assert answer["written"] is False
    keys = ("value", "low", "high", "low_99", "high_99", "skill_stability")
    assert [answer["rows"][0][k] for k in keys] == [stored["rows"][1][k] for k in keys]


def test_a_claim_outside_the_judge_s_interval_is_named(tmp_path):
    row = verified_row(claimed=9.0)
    assert row.claim_is_outside
    assert not row.model_copy(update={"claimed": row.high}).claim_is_outside
    finding = kept(verified("mine", [row]), tmp_path / "v.json")
    interval = f"[{row.low_99:.4g}, {row.high_99:.4g}]"
    assert any("9 is claimed" in line and interval in line for line in finding.lines())


def kept(found: Verified, path: Path) -> verifying.Finding:
    return verifying._keep(found, path, again=False, size="tiny", origin=lambda row: "0" * 64)


EDITS = [
    {"skill": 1.0},
    {"value": 3.0},
    {"low_99": 0.0},
    {"skill_stability_low": 0.1},
    {"skill_stability": 0.9},
    {"surviving_fraction": 0.5},
    {"lyapunov_times_per_second": 1e15},
    {"train_seconds": 0.0},
    {"n_cases": 15},
    {"claimed": 0.6},
    {"reason": "visit https://evil.example"},
    {"made_from": "1" * 64},
    {"unit": "m"},
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: next(iter(edit)))
def test_every_field_of_a_published_row_is_compared_with_what_is_found(tmp_path, edit):
    assert_edit_is_found(tmp_path / "v.json", lambda row: row.update(edit), f"{TASK}: {next(iter(edit))}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda seeds: seeds[1].update(seed=7), "seeds: [0, 7, 2] are published"),
        (lambda seeds: seeds.pop(), "seeds: [0, 1] are published"),
        (lambda seeds: seeds[1]["cases"].pop(), "seed 1: cases: 16 numbers in 0 … "),
        (lambda seeds: seeds[1]["cases"].sort(), "seed 1: cases: other values than were found"),
        (lambda seeds: seeds[1].update(cases=[3.5] * 16), "seed 1: cases: other values than were found"),
        (lambda seeds: seeds[1]["cases"].__setitem__(0, -1.0), "seed 1: cases: 16 numbers in 0 … "),
        (lambda seeds: seeds[1].update(skill_stability=0.69), "skill_stability: 0.6"),
        (lambda seeds: seeds[1].update(skill_stability_low=0.65), "skill_stability: (0.65, 0.6, 0.7) where rising"),
        (lambda seeds: seeds[1].update(surviving_fraction=0.5), "seed 1: surviving_fraction: 0.5 is published"),
        (lambda seeds: seeds[1].update(surviving_fraction=None), "seed 1: surviving_fraction: None is published"),
    ],
)
def test_every_seed_s_scores_are_compared_with_what_is_found(tmp_path, change, message):
    assert_edit_is_found(tmp_path / "v.json", lambda row: change(row["by_seed"]), message)


def assert_edit_is_found(path: Path, change, message: str) -> None:
    """A published row that was edited is named, and stays as it is."""
    found = verified("mine", [verified_row()])
    assert kept(found, path).written
    edit_json(path, lambda content: change(content["rows"][0]))
    before = path.read_bytes()
    finding = kept(found, path)
    assert not finding.written
    assert any(message in fault for fault in finding.faults), finding.faults
    assert path.read_bytes() == before


def test_another_machine_s_round_off_and_speed_are_no_edit(tmp_path):
    kept(verified("mine", [verified_row()]), tmp_path / "v.json")
    steady = {"skill_stability": 0.61, "skill_stability_low": 0.51, "skill_stability_high": 0.71}
    here = verified_row(skill=0.51, stability=steady, train_seconds=0.3)
    assert kept(verified("mine", [here]), tmp_path / "v.json").faults == ()


def test_a_training_beyond_its_time_is_refused(refused, emubench, board, sound_entry, secret_file, monkeypatch):
    assert emubench("season", "new", "2026a", "--board", board, "--task", TASK, "--size", "tiny").status == 0

    def too_slow(job, data, out, limits, max_weights):
        assert (job.baseline, limits.train_seconds, max_weights) == ("linear", 7.0, checks.MAX_WEIGHTS)
        raise EmubenchError("training takes too long")

    monkeypatch.setattr(judged, "train", too_slow)
    monkeypatch.setattr(baselines.get("linear"), "train", lambda *_: pytest.fail("was trained in the judge's process"))
    line = refused("submit", "verify", sound_entry, "--season", "2026a", "--board", board, "--train-seconds", "7")
    assert f"{sound_entry}: training takes too long" in line
    assert not (board / "verified").exists()


def test_what_cannot_be_verified_is_refused(refused, emubench, board, sound_entry, secret_file):
    assert emubench("season", "new", "2026a", "--board", board, "--task", OTHER, "--size", "tiny").status == 0
    arguments = ("submit", "verify", sound_entry, "--season", "2026a", "--board", board)
    assert "none of its tasks is one of season 2026a" in refused(*arguments)
    text = (sound_entry / "entry.toml").read_text().replace('division = "standard"', 'division = "open"')
    (sound_entry / "entry.toml").write_text(text)
    assert "only standard entries are verified" in refused(*arguments)
    (sound_entry / "x.pkl").write_bytes(b"")
    assert "unexpected" in refused(*arguments)
    assert not (board / "verified").exists()
