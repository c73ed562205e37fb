"""A season as a grid: each step once, whatever is killed; rows kept as they are judged; the secret nowhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emubench.core import hardware
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation.scoring import Result
from emubench.files import entry_files
from emubench.files.entry_files import SCORES
from emubench.leaderboard.submission import judge, making, season, season_grid, verified_rows, verifying
from emubench.leaderboard.submission.judge import Judgement
from emubench.runs import folders
from emubench.runs.grid import steps
from emubench.runs.sandbox import judged
from tests.support.submissions import STATED, TASK, judged_speed

NAME = "2026a"


@pytest.fixture
def board(submitted_runs, tmp_path, monkeypatch, emubench) -> Path:
    """A board of two entries with an open season of one task, whose secret lies outside of it."""
    folder = tmp_path / "board"
    for name in ("linear", "persistence"):
        making.from_runs(name, folders.find_runs([submitted_runs / name]), folder / "entries", STATED)
    (tmp_path / "outside").mkdir()
    monkeypatch.setenv(season.VARIABLE, str(tmp_path / "outside" / "secret.txt"))
    season.open_season(folder, NAME, "tiny", [TASK])
    return folder


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "place"


@pytest.fixture
def quick(submitted_runs, tmp_path, monkeypatch) -> Path:
    """Trainings and judgements that take no time, and are told, a line each, in the file that is returned."""
    calls = tmp_path / "calls"

    def tell(what: str) -> None:
        with calls.open("a") as file:
            file.write(f"{what}\n")

    def train(job, data, out, limits, max_weights) -> Path:
        assert (data / "tiny" / f"{TASK}.h5").exists()
        folder = job.folder(out)
        (run,) = folders.find_runs([submitted_runs / job.baseline])
        shutil.copytree(run, folder)
        tell(f"train {job.baseline} {job.seed}")
        return folder

    def judge_run(folder, task, data, seed, limits, progress=None) -> Judgement:
        name = folder.parts[folder.parts.index("runs") + 1]
        scores = entry_files.read(tmp_path / "board" / "entries" / name, SCORES)[TASK, 0]
        tell(f"score {name} {seed}")
        return Judgement(Result(tasks.get(TASK, "tiny"), scores, {}))

    def bench(step, data, out) -> None:
        tell(step.label)
        season_grid._found(step, out).write_text(judged_speed(100.0, ranked=False).model_dump_json())

    def climb(step, data, out) -> None:
        tell(step.label)
        season_grid._found(step, out).write_text('{"rungs": []}')

    monkeypatch.setattr(judged, "train", train)
    monkeypatch.setattr(judge, "judge_run", judge_run)
    monkeypatch.setitem(steps.KINDS, "bench", steps.KINDS["bench"]._replace(make=bench))
    monkeypatch.setitem(steps.KINDS, "ladder", steps.KINDS["ladder"]._replace(make=climb))
    return calls


def rows(board: Path, entry: str) -> list[verified_rows.VerifiedRow]:
    return verified_rows.read_file(board / "verified" / NAME / f"{entry}.json").rows


def test_a_season_does_every_step_once_and_keeps_every_row(emubench, board, place, quick):
    arguments = (NAME, "--board", board, "--place", place, "--seeds", "2")
    before = emubench("season", "status", *arguments)
    assert before.status == 0, before.err
    assert "0 rows are kept, 2 are missing" in before.out
    done = emubench("season", "verify", *arguments, "--json")
    assert done.status == 0, done.err
    answer = json.loads(done.out)
    assert answer["kept"] == {"linear": [TASK], "persistence": [TASK]}
    expected = [
        f"{kind} {name} {seed}" for name in ("linear", "persistence") for seed in (0, 1) for kind in ("train", "score")
    ]
    told = quick.read_text().splitlines()
    assert sorted(told[:-3]) == sorted(expected)
    assert told[-3:] == [f"ladder {TASK}", f"bench linear {TASK}", f"bench persistence {TASK}"]
    for name in ("linear", "persistence"):
        (row,) = rows(board, name)
        assert (row.seeds, row.lyapunov_times_per_second, row.task) == ([0, 1], 100.0, TASK)
    assert verified_rows.read(board)[1] == []
    assert list(place.iterdir()) == []  # nothing is missing, so no sealed data are left
    assert emubench("season", "verify", *arguments).status == 0
    assert quick.read_text().splitlines() == told
    assert "2 rows are kept, 0 are missing" in emubench("season", "status", *arguments).out


def test_a_failed_training_leaves_the_others_and_is_tried_again(emubench, board, place, quick, monkeypatch):
    with monkeypatch.context() as patch:
        works = judged.train

        def train(job, *rest) -> Path:
            if job.baseline == "linear":
                raise EmubenchError("no training today")
            return works(job, *rest)

        patch.setattr(judged, "train", train)
        failed = emubench("season", "verify", NAME, "--board", board, "--place", place, "--seeds", "1")
    assert failed.status == 1
    assert "train linear lorenz63-noisy tiny seed 0: no training today" in failed.err
    assert len(rows(board, "persistence")) == 1
    assert "1 are missing" in failed.out
    again = emubench("season", "verify", NAME, "--board", board, "--place", place, "--seeds", "1")
    assert again.status == 0, again.err
    assert quick.read_text().count("train persistence") == 1


def test_a_failed_ladder_costs_the_speeds_of_its_task_alone_and_is_tried_again(board, place, quick, monkeypatch):
    def fail(*_) -> None:
        raise EmubenchError("no solver today")

    with monkeypatch.context() as patch:
        patch.setitem(steps.KINDS, "ladder", steps.KINDS["ladder"]._replace(make=fail))
        found = verifying.verify_season(board, NAME, (), 1, place=place)
    assert found.missing == 2
    assert [fault.split(" (log")[0] for fault in found.faults] == [f"ladder {TASK}: no solver today"]
    told = quick.read_text().splitlines()
    assert not any(line.startswith("bench") for line in told)
    assert verifying.verify_season(board, NAME, (), 1, place=place).missing == 0
    benches = [f"bench {name} {TASK}" for name in ("linear", "persistence")]
    assert quick.read_text().splitlines() == [*told, f"ladder {TASK}", *benches]


def test_a_row_of_an_entry_that_was_changed_is_judged_again(board, place, quick):
    verifying.verify_season(board, NAME, ["linear"], 1, place=place)
    path = board / "verified" / NAME / "linear.json"
    found = verified_rows.read_file(path)
    old = found.rows[0].model_copy(update={"made_from": "1" * 64})
    path.write_text(found.model_copy(update={"rows": [old]}).text())
    assert verifying.look(board, NAME, ["linear"], 1, place=place).missing == 1
    verifying.verify_season(board, NAME, ["linear"], 1, place=place)
    assert rows(board, "linear") == found.rows


def test_an_entry_with_a_fault_is_named_and_the_others_are_judged(board, place, quick):
    (board / "entries" / "linear" / "x.pkl").write_bytes(b"")
    found = verifying.verify_season(board, NAME, (), 1, place=place)
    assert [name for name, kept in found.rows.items() if kept] == ["persistence"]
    assert len(found.faults) == 1
    assert "x.pkl: unexpected" in found.faults[0]


def test_rows_of_two_machines_do_not_stand_in_one_file(board, place, quick, monkeypatch):
    verifying.verify_season(board, NAME, ["linear"], 1, place=place)
    path = board / "verified" / NAME / "linear.json"
    other = rows(board, "linear")[0].model_copy(update={"task": "lorenz96-noisy"})
    opened = season.get(board, NAME).model_copy(update={"tasks": ["lorenz96-noisy", TASK]})
    entrant = season_grid.entrant(board / "entries" / "linear", NAME, opened, 1)
    grid = season_grid.SeasonGrid(board, NAME, opened, place, (entrant,), judged.Limits(threads=2))
    with pytest.raises(EmubenchError, match=r"was judged on .*1 thread.*; times of .*2 thread.* do not belong"):
        verifying.keep_row(grid, entrant, other)
    assert len(verified_rows.read_file(path).rows) == 1


def test_on_a_gpu_trainings_and_judgements_take_one_and_say_so(board, place, monkeypatch):
    opened = season.get(board, NAME)
    entrant = season_grid.entrant(board / "entries" / "linear", NAME, opened, 1)
    kinds = {}
    for device in ("cpu", "cuda:0"):
        limits = judged.Limits(device=device)
        plan = season_grid.SeasonGrid(board, NAME, opened, place, (entrant,), limits).plan()
        kinds[device] = {step.kind: step for step in plan.steps}
    taken = {kind: step.resources for kind, step in kinds["cuda:0"].items()}
    gpu = (("GPU", 1.0),)
    assert taken == {"seal": (), "retrain": gpu, "judge": gpu, "ladder": (), "bench": ()}
    assert kinds["cuda:0"]["ladder"].values["device"] == "cuda:0"
    assert kinds["cuda:0"]["retrain"].values["limits"]["device"] == "cuda:0"
    assert steps.job_of(kinds["cuda:0"]["retrain"]).device == "cuda:0"
    assert "device" not in kinds["cpu"]["retrain"].values["limits"]
    assert all(step.resources == () for step in kinds["cpu"].values())
    monkeypatch.setattr(hardware, "described", lambda device: f"{device} (a card)")
    assert verifying.judge_of(judged.Limits(device="cuda:0")).endswith(", 1 thread(s), cuda:0 (a card)")
    assert verifying.judge_of(judged.Limits()).endswith(", 1 thread(s)")


def test_sealed_data_lie_where_nobody_else_can_read_them(board, tmp_path, quick):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    for given in ("open", "link"):
        with pytest.raises(EmubenchError, match="that nobody else can read"):
            verifying.verify_season(board, NAME, place=tmp_path / given)
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    with pytest.raises(EmubenchError, match="keep sealed data outside of any"):
        verifying.verify_season(board, NAME, place=tmp_path / "checkout" / "place")
    assert not (board / "verified").exists()


# --- kills ------------------------------------------------------------------------------------------------------------


def killed_at_its_first_step(moment: str, *arguments) -> None:
    """Judge the season in this process, which is killed just before or just after the first step that is done."""
    for name, kind in steps.KINDS.items():

        def make(*given, works=kind.make) -> None:
            if moment == "after":
                works(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        steps.KINDS[name] = kind._replace(make=make)
    verifying.verify_season(*arguments)


def in_fork(function, *arguments) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def test_a_kill_at_any_moment_costs_at_most_the_step_under_way(board, place, quick):
    """Of a seal, two trainings, two judgements, a ladder and a bench each is met by two kills."""
    arguments = board, NAME, ["linear"], 2, (), judged.Limits(), place
    for _ in range(7):
        for moment in ("before", "after"):
            assert in_fork(killed_at_its_first_step, moment, *arguments) == -signal.SIGKILL
    assert in_fork(killed_at_its_first_step, "before", *arguments) == 0  # nothing is left to be done
    told = quick.read_text().splitlines()
    trained = ["train linear 0", "score linear 0", "train linear 1", "score linear 1"]
    assert told == [*trained, f"ladder {TASK}", f"bench linear {TASK}"]
    assert rows(board, "linear")[0].seeds == [0, 1]


# --- the secret -------------------------------------------------------------------------------------------------------


def assert_secret_is_nowhere(secret: str, *folders_: Path) -> None:
    needles = (secret.encode(), bytes.fromhex(secret))
    files = [path for folder in folders_ for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert secret not in str(path)
        assert not any(needle in path.read_bytes() for needle in needles), path


def test_the_secret_is_in_no_step_and_in_no_file(emubench, board, place, quick, monkeypatch):
    monkeypatch.setattr(season_grid, "tidy", lambda grid: None)

    def fail(*_) -> None:
        raise RuntimeError("a failure, of which a log is written")

    monkeypatch.setattr(judged, "train", fail)
    failed = emubench("season", "verify", NAME, "--board", board, "--place", place, "--seeds", "1")
    assert failed.status == 1
    secret = (board.parent / "outside" / "secret.txt").read_text().strip()
    assert list(place.glob(".steps/*.log"))
    assert_secret_is_nowhere(secret, board, place)
    assert secret not in failed.out + failed.err
    grid, _ = verifying._whole_grid(board, NAME, (), 1, (), judged.Limits(), place)
    assert secret not in repr(grid) + repr(grid.plan())


@pytest.mark.slow
def test_no_child_of_a_season_sees_the_secret(emubench, board, place, monkeypatch):
    """A real season of one seed by two workers: what its children were started with, and all that it writes."""
    seen, popen = board.parent / "seen", subprocess.Popen

    class Told(popen):
        def __init__(self, command, **options) -> None:
            super().__init__(command, **options)
            with seen.open("ab") as file:
                file.write(repr((command, options)).encode())
                for name in ("cmdline", "environ", "status"):
                    file.write(Path(f"/proc/{self.pid}/{name}").read_bytes())

    monkeypatch.setattr(subprocess, "Popen", Told)
    monkeypatch.setattr(season_grid, "tidy", lambda grid: None)
    arguments = (
        NAME,
        "persistence",
        "--board",
        board,
        "--place",
        place,
        "--seeds",
        "1",
        "--workers",
        "2",
        "--ladder",
        "1",
    )
    done = emubench("season", "verify", *arguments)
    assert done.status == 0, done.err
    secret_file = board.parent / "outside" / "secret.txt"
    secret, told = secret_file.read_text().strip(), seen.read_bytes()
    assert told.count(b"emubench.runs.sandbox.child") >= 2
    for needle in (secret.encode(), bytes.fromhex(secret), str(secret_file).encode(), season.VARIABLE.encode()):
        assert needle not in told
    assert_secret_is_nowhere(secret, board, place)
    assert secret not in done.out + done.err


@pytest.mark.campaign
def test_twenty_kills_of_a_real_season_at_random_moments(board, place):
    """The command and its children are killed twenty times; then it ends, and no finished step was done again."""
    program = "from emubench.cli.main import main; main()"
    command = [sys.executable, "-c", program, "season", "verify", NAME, "linear", "persistence"]
    command += ["--board", str(board), "--place", str(place), "--seeds", "2", "--ladder", "1"]
    moments, killed, done = random.Random(0), 0, dict[Path, float]()
    while True:
        process = subprocess.Popen(command, start_new_session=True)
        try:
            code = process.wait(moments.uniform(1, 20) if killed < 20 else 3600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            for path, changed in done.items():
                assert path.stat().st_mtime == changed, path
            done = {path: path.stat().st_mtime for path in place.glob("found/*.json")}
            continue
        assert code == 0
        if killed == 20:
            break
        shutil.rmtree(board / "verified")  # it was done before all kills were: once more
        done.clear()
    print(f"{killed} kills")
    assert [len(rows(board, name)) for name in ("linear", "persistence")] == [1, 1]
