"""Grids: what a file may say, what it expands to, and the same results however the steps are run."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import generation, shards, tasks
from emubench.data.shards import Target
from emubench.files import schema, store
from emubench.runs import stages
from emubench.runs.grid import executors, runner, steps
from emubench.runs.grid import plan as grid
from emubench.runs.grid.steps import Outcome, Step
from emubench.runs.jobs import Job
from tests.support.contents import contents

GRID = """
tasks = ["lorenz63-noisy", "lorenz96-noisy"]
baselines = ["persistence", "climatology"]
seeds = [0, 1]
size = "tiny"
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What the grid makes in one process: ``data`` and ``runs``; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "grid.toml").write_text(GRID)
    plan = grid.expand(folder / "grid.toml", folder / "data")
    with executors.in_process() as place:
        run = runner.execute(plan, place, folder / "data", folder / "runs", 1, debug=True)
    assert set(run.state.values()) == {"done"}
    return folder


def results(runs: Path) -> dict[str, str]:
    """Hashes of everything deterministic in the folders of runs."""
    unlike = ("card.json", "timing.json", "log.jsonl")  # which hold seconds
    found = contents(runs).items()
    return {name: digest for name, digest in found if not name.endswith(unlike) and "/." not in f"/{name}"}


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("seeds = [0, 1]|seeds = [0, -1]", "seeds.1: Input should be greater than or equal to 0 (found -1)"),
        ("seeds = [0, 1]|seeds = [0, true]", "seeds.1: Input should be a valid integer (found True)"),
        ("seeds = [0, 1]|seeds = []", "seeds: List should have at least 1 item"),
        ("seeds = [0, 1]|seeds = [3, 3]", "seeds: Value error, 3 is there twice"),
        ("seeds = [0, 1]|", "seeds: Field required"),
        ("seeds = |seed = 0\nseeds = ", "unknown key 'seed': did you mean seeds or size?"),
        ("size = |threads = 0\nsize = ", "threads: Input should be greater than or equal to 1 (found 0)"),
        ("size = |budget = 1.5\nsize = ", "budget: Input should be a valid integer (found 1.5)"),
        ("size = |budget = 0\nsize = ", "budget: Input should be greater than or equal to 1 (found 0)"),
        ('size = "tiny"|size = "teeny"', "unknown size 'teeny': did you mean tiny?"),
        ("lorenz63-noisy|lorenz36-noisy", "unknown task 'lorenz36-noisy': did you mean lorenz"),
        ("persistence|persistense", "unknown baseline 'persistense': did you mean persistence?"),
        ("tasks = |tasks = 3 #", "tasks: Input should be a valid list (found 3)"),
        ("tasks = |tasks = [", "not valid TOML"),
        ("lorenz63-noisy|mine.toml", "mine.toml: no such recipe"),
        ('"tiny"|"tiny"\n[overrides.linear]\ndelays = 3', "[overrides.linear]: linear is not among baselines"),
        ('"tiny"|"tiny"\n[overrides.persistence]\nsteps = 3', "overrides.persistence: unknown setting of persistence"),
        (
            '"tiny"|"tiny"\n[resources.persistence]\nGPU = 0',
            "resources.persistence.GPU: Input should be greater than 0",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(file, refused, tmp_path, change, answer):
    before, _, after = change.partition("|")
    assert before in GRID
    file.write_text(GRID.replace(before, after, 1))
    for command in ("run", "status"):
        line = refused(command, file, "--data", tmp_path / "data", "--out", tmp_path / "runs")
        assert f"{file}: " in line
        assert answer in line
    assert [p.name for p in tmp_path.iterdir()] == ["grid.toml"]


def test_a_grid_that_is_none_is_refused(refused, tmp_path):
    assert "no such grid" in refused("run", tmp_path / "none.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * (schema.MAX_TEXT_BYTES + 1))
    assert "not a grid" in refused("run", tmp_path / "long.toml")


def test_a_grid_of_too_many_jobs_is_refused(file, refused):
    many, seeds = [f"recipe-{i}.toml" for i in range(1000)], list(range(100))
    file.write_text(f"tasks = {many}\nbaselines = ['persistence', 'climatology']\nseeds = {seeds}\n")
    assert "200000 jobs, where at most 100000 belong" in refused("run", file)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_holds_every_job_once_after_what_it_needs(file, tmp_path):
    plan = grid.expand(file, tmp_path / "data")
    assert len(plan.jobs) == len(set(job.folder(tmp_path) for job in plan.jobs)) == 8
    assert len(plan.steps) == len(set(plan.steps)) == len({step.name for step in plan.steps})
    place = {step: i for i, step in enumerate(plan.steps)}
    for step, needs in plan.needs.items():
        assert all(place[need] < place[step] for need in needs)
    kinds = [step.kind for step in plan.steps]
    assert kinds.count("train") == kinds.count("score") == 8
    assert kinds.count("merge") == 4
    assert kinds.count("shard") == 2 * (4 + 4)  # tiny: one block in each split of each file
    for step in plan.steps:
        if step.kind == "score":
            (train,) = plan.needs[step]
            assert steps.job_of(train) == steps.job_of(step)


def test_the_tracks_of_a_system_share_its_truth(file, tmp_path):
    file.write_text(GRID.replace("lorenz96-noisy", "lorenz63-partial"))
    plan = grid.expand(file, tmp_path / "data")
    assert [step.label for step in plan.steps if step.kind == "merge"] == [
        "merge lorenz63.truth.h5",
        "merge lorenz63-noisy.h5",
        "merge lorenz63-partial.h5",
    ]


def test_all_stands_for_the_sixteen(file, tmp_path):
    file.write_text(GRID.replace('["lorenz63-noisy", "lorenz96-noisy"]', '["all"]'))
    plan = grid.expand(file, tmp_path)
    assert {job.task for job in plan.jobs} == set(tasks.names())
    assert len(plan.jobs) == 16 * 2 * 2


def test_budget_and_overrides_reach_the_baselines_that_take_them(file, tmp_path):
    text = GRID.replace("climatology", "resnet_ode").replace("size", "budget = 70\nthreads = 2\nsize")
    file.write_text(text)
    plan = grid.expand(file, tmp_path)
    by_baseline = {job.baseline: job for job in plan.jobs}
    assert by_baseline["resnet_ode"].config().steps == 70
    assert by_baseline["persistence"].overrides == {}
    assert {job.threads for job in plan.jobs} == {2}
    file.write_text(text + "[overrides.resnet_ode]\nsteps = 30\nbatch = 8\n[resources.resnet_ode]\nGPU = 1\n")
    plan = grid.expand(file, tmp_path, threads=1)
    by_baseline = {job.baseline: job for job in plan.jobs}
    assert (by_baseline["resnet_ode"].config().steps, by_baseline["resnet_ode"].config().batch) == (30, 8)
    assert {job.threads for job in plan.jobs} == {1}
    for step in plan.steps:
        wants = step.kind in ("train", "score") and steps.job_of(step).baseline == "resnet_ode"
        assert step.resources == ((("GPU", 1.0),) if wants else ())


def test_a_step_is_small_hashable_and_says_all(file, tmp_path):
    plan = grid.expand(file, tmp_path)
    for step in plan.steps:
        assert len(step.content) < 600
        assert hash(step) == hash(dataclasses.replace(step))
        assert step.values["version"]
    assert grid.expand(file, tmp_path).steps == plan.steps


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_data_have_the_bytes_that_generate_writes(whole, tmp_path):
    for name in ("lorenz63-noisy", "lorenz96-noisy"):
        generation.generate(tasks.get(name, "tiny"), tmp_path)
    assert contents(whole / "data") == contents(tmp_path)  # and there are no shards left


def test_the_runs_are_those_of_train_and_score(whole, tmp_path):
    for job in grid.expand(whole / "grid.toml", whole / "data").jobs:
        if job.seed == 1:
            stages.score(stages.train(job, whole / "data", tmp_path), whole / "data")
    alone = results(tmp_path)
    assert len(alone) == 4 * 3
    assert alone.items() <= results(whole / "runs").items()


@pytest.mark.slow
def test_two_processes_give_the_same_files(whole, file, tmp_path, emubench):
    command = ("run", file, "--data", tmp_path / "data", "--out", tmp_path / "runs", "--workers", 2, "--json")
    finished = emubench(*command)
    assert finished.status == 0, finished
    told = json.loads(finished.out)
    assert told["failed"] == []
    assert {s: states["done"] for s, states in told["stages"].items()} == {
        "generate": 20,
        "train": 8,
        "score": 8,
    }
    assert len(told["runs"]) == 8
    assert contents(tmp_path / "data") == contents(whole / "data")
    assert results(tmp_path / "runs") == results(whole / "runs")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}
    assert emubench(*command).status == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")} == before


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """The finished grid, to be damaged at will."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def options(folder: Path) -> tuple[object, ...]:
    return folder / "grid.toml", "--data", folder / "data", "--out", folder / "runs"


def test_only_what_is_missing_or_invalid_is_made_again(whole, copy, emubench):
    job = Job("climatology", "lorenz63-noisy", "tiny", seed=1)
    gone, spoiled = job.folder(copy / "runs"), Job("persistence", "lorenz96-noisy", "tiny").folder(copy / "runs")
    shutil.rmtree(gone)
    (spoiled / "scores.json").write_text('{"schema_version": 1}')
    before = {p: p.stat().st_mtime_ns for p in (copy / "runs").rglob("*.json") if ".steps" not in str(p)}
    told = json.loads(emubench("status", *options(copy), "--json").out)["stages"]
    assert (told["train"]["waiting"], told["score"]["waiting"], told["generate"]["waiting"]) == (1, 2, 0)
    assert emubench("run", *options(copy)).status == 0
    assert results(copy / "runs") == results(whole / "runs")
    touched = {p.parent for p, then in before.items() if p.stat().st_mtime_ns != then}
    assert touched == {spoiled}


def test_status_shows_the_table_and_writes_nothing(copy, emubench):
    before = contents(copy)
    shown = emubench("status", *options(copy))
    assert shown.status == 0
    assert shown.out.count("0:00:00") == 3
    assert "nobody at work" in shown.out
    assert contents(copy) == before


def test_status_tells_who_is_at_work_and_shares_the_time_left_among_them(file, tmp_path, emubench):
    plan = grid.expand(file, tmp_path / "data")
    shard_steps = [step for step in plan.steps if step.kind == "shard"]
    records = [("done", "a:1", 8.0), ("running", "a:1", 0.0), ("running", "b:7", 0.0), ("running", "b:7", 0.0)]
    for step, (state, worker, seconds) in zip(shard_steps[:4], records, strict=True):
        record = steps.Record.model_validate({"state": state, "worker": worker, "seconds": seconds})
        store.write_text(steps.record_path(step, tmp_path / "runs"), record.model_dump_json())
    made = Target(tasks.get("lorenz63-clean", "tiny"), "truth", 0, tmp_path / "data")
    store.write_text(made.shard("train/truth", 0), "")
    told = json.loads(emubench("status", *options(tmp_path), "--json").out)
    assert (told["workers"], told["stages"]["generate"]["running"], told["stages"]["generate"]["done"]) == (2, 3, 1)
    run = runner.look(plan, tmp_path / "data", tmp_path / "runs")
    run.seconds["merge", ""].append(0.0)
    left = 8.0 * (len(shard_steps) - 1)
    assert run.left()["generate"] == left
    table = runner.table(run)
    assert table.title == "2 workers"
    assert f"0:{int(left / 2) // 60:02}:{int(left / 2) % 60:02}" in list(table.columns[-1].cells)


def test_runs_of_other_data_are_refused_by_name(copy, emubench):
    shutil.rmtree(copy / "data")
    generation.generate(tasks.get("lorenz63-noisy", "tiny"), copy / "data", seed=5)
    finished = emubench("run", *options(copy))
    assert finished.status == 1
    assert "failed: train persistence lorenz63-noisy tiny seed 0: " in finished.err
    assert "was trained on other data than" in finished.err


def test_a_job_that_fails_is_named_with_its_log_and_the_others_go_on(whole, tmp_path, monkeypatch, emubench):
    shutil.copytree(whole / "data", tmp_path / "data")
    shutil.copy(whole / "grid.toml", tmp_path)
    module, calls = baselines.get("climatology"), []

    def fail(emulator, data, config, seed, log) -> None:
        calls.append(seed)
        raise ValueError("no\nsecond line")

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", fail)
        finished = emubench("run", *options(tmp_path))
        assert sorted(calls) == [0, 0, 1, 1]  # none was tried twice
        with pytest.raises(ValueError, match="no"):
            emubench("--debug", "run", *options(tmp_path))
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 5
    assert (
        lines[-1]
        == "emubench: 4 of 36 steps failed and 4 that need them were not run; the same command tries these again"
    )
    assert lines[0].startswith("failed: train climatology lorenz63-noisy tiny seed 0: ValueError: no (on ")
    log = Path(lines[0].rpartition("log: ")[2].removesuffix(")"))
    assert "Traceback" in log.read_text()
    assert "second line" in log.read_text()
    told = json.loads(emubench("status", *options(tmp_path), "--json").out)
    assert told["stages"]["train"] == {"done": 4, "running": 0, "waiting": 0, "failed": 4, "not run": 0}
    assert told["stages"]["score"] == {"done": 4, "running": 0, "waiting": 0, "failed": 0, "not run": 4}
    assert told["failed"][0]["error"] == "ValueError: no"
    assert emubench("run", *options(tmp_path)).status == 0  # mended, the same command does the rest
    assert results(tmp_path / "runs") == results(whole / "runs")
    assert not list((tmp_path / "runs" / ".steps").glob("*.log"))


def test_a_full_disk_is_a_failure_that_names_the_file(whole, tmp_path, monkeypatch, emubench):
    shutil.copytree(whole / "data", tmp_path / "data")
    shutil.copy(whole / "grid.toml", tmp_path)
    calls = []

    def full(emulator, path) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        original(emulator, path)

    original = stages.save_weights
    monkeypatch.setattr(stages, "save_weights", full)
    finished = emubench("run", *options(tmp_path))
    assert finished.status == 1
    assert "cannot be written (No space left on device); nothing was left behind (on " in finished.err
    assert "1 of 36 steps failed and 1 that need them" in finished.err
    assert emubench("run", *options(tmp_path)).status == 0
    assert results(tmp_path / "runs") == results(whole / "runs")


def test_the_declared_threads_are_those_of_torch_and_numba(file, tmp_path, monkeypatch):
    import numba

    plan, seen = grid.expand(file, tmp_path, threads=2), []
    step = next(step for step in plan.steps if step.kind == "train")
    monkeypatch.setattr(steps, "_inputs", lambda *_: iter(()))  # there are no data
    monkeypatch.setattr(steps, "_make", lambda *_: seen.append((torch.get_num_threads(), numba.get_num_threads())))
    for n in (2, 1):
        assert not steps.run(step, tmp_path, tmp_path, n).error
    torch.set_num_threads(1)
    assert seen == [(2, min(2, numba.config.NUMBA_NUM_THREADS)), (1, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("key", "answer"), [("version", "this worker runs emubench"), ("hash8", "another baselines/")])
def test_a_worker_of_another_version_refuses(file, tmp_path, key, answer):
    plan = grid.expand(file, tmp_path)
    step = next(step for step in plan.steps if step.kind == "train")
    other = dataclasses.replace(step, content=json.dumps({**step.values, key: "0.0.0"}))
    assert answer in steps.run(other, tmp_path, tmp_path).error


def test_a_step_without_its_files_says_so(file, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "LATE", 0.0)
    train = next(step for step in grid.expand(file, tmp_path).steps if step.kind == "train")
    assert "do all workers see the same folders?" in steps.run(train, tmp_path, tmp_path).error


def test_a_step_is_running_while_it_gives_signs_of_life(file, tmp_path, monkeypatch):
    plan = grid.expand(file, tmp_path)
    step, states = plan.steps[0], []

    def look(*_) -> None:
        path = steps.record_path(step, tmp_path)
        os.utime(path, (0, 0))
        states.append(runner.look(plan, tmp_path, tmp_path).state[step])  # as after a kill
        while path.stat().st_mtime == 0:
            time.sleep(0.01)
        states.append(runner.look(plan, tmp_path, tmp_path).state[step])

    monkeypatch.setattr(steps, "BEAT", 0.2)
    monkeypatch.setattr(steps, "_make", look)
    assert not steps.run(step, tmp_path, tmp_path).error
    assert states == ["waiting", "running"]


# --- shards -----------------------------------------------------------------------------------------------------------

TASK = tasks.get("lorenz63-partial", "tiny-40x64")


def sharded(data: Path) -> list[Target]:
    targets = [Target(TASK, kind, 0, data) for kind in ("truth", "observations")]
    for target in targets:
        for block in reversed(target.blocks()):  # in any order
            shards.write(target, block.array, block.first)
        if target.kind == "truth":
            shards.merge(target)
    return targets


def test_shards_merge_to_the_bytes_of_one_process(tmp_path):
    generation.generate(TASK, tmp_path / "one")
    truth, observations = sharded(tmp_path / "many")
    assert len(list(observations.folder.iterdir())) == len(observations.blocks()) == 3 + 3
    shards.merge(observations)
    shards.merge(observations)  # a second client comes late
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert not truth.folder.exists()
    assert not observations.folder.exists()


def test_missing_and_damaged_shards_are_never_merged(tmp_path):
    _, target = sharded(tmp_path)
    one, other = sorted(target.folder.iterdir())[:2]
    spoiled = bytearray(one.read_bytes())
    spoiled[5] ^= 1
    one.write_bytes(spoiled)
    with pytest.raises(EmubenchError, match="damaged and was removed"):
        shards.merge(target)
    assert not one.exists()
    with pytest.raises(EmubenchError, match="is missing"):
        shards.merge(target)
    other.write_bytes(other.read_bytes()[:-1])
    shards.write(target, *next((b.array, b.first) for b in target.blocks() if target.shard(b.array, b.first) == one))
    with pytest.raises(EmubenchError, match="damaged"):
        shards.merge(target)
    assert not target.path.exists()


def test_shards_of_another_seed_are_not_mixed(tmp_path):
    folders = {Target(TASK, "truth", seed, tmp_path).folder for seed in (0, 1)}
    assert len(folders) == 2


def test_a_shard_on_a_full_disk_is_named(tmp_path, monkeypatch):
    target = Target(TASK, "truth", 0, tmp_path)

    def full(block) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emubench.data.generation.run_block", full)
    with pytest.raises(EmubenchError, match=r"train-0: cannot be written \(No space left on device\)"):
        shards.write(target, "train/truth", 0)
    assert contents(tmp_path) == {}


# --- the loop ---------------------------------------------------------------------------------------------------------


def chain(n: int, file: Path) -> grid.Plan:
    """``n`` pairs of a step and one that needs it."""
    pairs = [[Step(kind, f"{kind} x {i}", "{}") for kind in ("train", "score")] for i in range(n)]  # type: ignore
    needs: dict[Step, tuple[Step, ...]] = {}
    for train, score in pairs:
        needs |= {train: (), score: (train,)}
    return grid.Plan(grid.read(file), tuple(needs), needs, ())


@pytest.fixture
def loop(monkeypatch):
    """Steps made by hand describe no files: each is done once there is one of its label."""
    monkeypatch.setattr(steps, "is_done", lambda step, data, out: (out / step.label).exists())


def note(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    with (data / "calls").open("a") as calls:
        calls.write(f"{step.label}\n")
    if step.kind == "score":
        assert (out / step.label.replace("score", "train")).exists()
    (out / step.label).touch()
    return Outcome(0.01, "")


def killed(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """Dies the first time it is called for step 1, always for step 2."""
    first = data / f"begun {step.label}"
    again = first.exists()
    first.touch()
    if step.label == "train x 2" or (step.label == "train x 1" and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    return note(step, data, out, threads, debug)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("n", [1, 2])
def test_each_step_runs_once_after_what_it_needs(file, tmp_path, n):
    with executors.processes(n) if n > 1 else executors.in_process() as place:
        run = runner.execute(chain(10, file), place, tmp_path, tmp_path, 1, work=note)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 20
    assert set(run.state.values()) == {"done"}
    assert run.left() == {"generate": 0.0, "train": 0.0, "score": 0.0}


@pytest.mark.usefixtures("loop")
def test_a_killed_process_costs_its_step_a_second_try_and_a_deadly_step_is_named(file, tmp_path):
    with executors.processes(2) as place:
        run = runner.execute(chain(6, file), place, tmp_path, tmp_path, 1, work=killed)
    states = {step.label: state for step, state in run.state.items()}
    assert states.pop("train x 2") == "failed"
    assert states.pop("score x 2") == "not run"
    assert set(states.values()) == {"done"}
    (outcome,) = run.failed.values()
    assert "4 worker processes died at it" in outcome.error


@pytest.mark.usefixtures("loop")
def test_a_terminal_shows_the_table_while_the_grid_runs_and_a_pipe_does_not(file, tmp_path, monkeypatch, capsys):
    seen = []

    def work(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
        outcome = note(step, data, out, threads, debug)
        seen.append(capsys.readouterr().err)
        return outcome

    def go(folder: str) -> str:
        (tmp_path / folder).mkdir()
        with executors.in_process() as place, runner.live() as watch:
            runner.execute(chain(3, file), place, tmp_path / folder, tmp_path / folder, 1, watch, work=work)
        return capsys.readouterr().err

    assert go("pipe") == ""
    assert set(seen) == {""}
    seen.clear()
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    end = go("terminal")
    assert all(word in seen[0] for word in ("1 worker", "stage", "train", "time left", "?"))
    assert end.count("0:00:00") >= 3


def on_device(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """Holds what it sees as its device until every device was held once; fails where somebody else holds it."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    if step.resources:
        (data / f"held {device}").mkdir()
        (data / f"used {device}").touch()
        end = time.monotonic() + 60
        while len(list(data.glob("used *"))) < int((data / "devices").read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.02)
        (data / f"held {device}").rmdir()
    return Outcome(0.1, f"{device} {os.getpid()}")


@pytest.mark.parametrize("visible", ["3,5", "GPU-8932f937", ""])
@pytest.mark.usefixtures("loop")
def test_steps_that_ask_for_a_gpu_have_one_to_themselves(file, tmp_path, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "devices").write_text(str(len(executors.devices())))
    made = [Step("train", f"train x {i}", "{}", (("GPU", 1.0),) if i % 2 else ()) for i in range(12)]
    plan, seen = grid.Plan(grid.read(file), tuple(made), dict.fromkeys(made, ()), ()), {}
    note = runner.Run.note

    def keep(run: runner.Run, step: Step, outcome: Outcome) -> None:
        seen[step] = outcome.worker
        note(run, step, outcome)

    monkeypatch.setattr(runner.Run, "note", keep)
    if not visible:
        plan = dataclasses.replace(plan, steps=plan.steps[::2], needs=dict.fromkeys(made[::2], ()))
    with executors.processes(2) as place:
        run = runner.execute(plan, place, tmp_path, tmp_path, 1, work=on_device)
    assert not run.failed, run.failed
    devices = {worker.split(" ")[0] for step, worker in seen.items() if step.resources}
    assert devices == {device for device in visible.split(",") if device}
    assert {worker.split(" ")[0] for step, worker in seen.items() if not step.resources} == {visible}


def test_a_device_is_free_again_when_its_process_has_died(tmp_path):
    with executors.Processes(2, ["3", "5"]) as pool:
        with pytest.raises(BrokenExecutor):
            pool.submit(os._exit, 1).result()
        assert {pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() for _ in range(8)} <= {"3", "5"}


@pytest.mark.parametrize(("visible", "found"), [("0,1", ["0", "1"]), (" 2 ,", ["2"]), ("", []), ("-1", [])])
def test_the_devices_are_those_that_are_visible(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert executors.devices() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert executors.devices() == ["0", "1", "2"]


@pytest.mark.usefixtures("loop")
def test_time_left_follows_the_mean_of_like_steps(file, tmp_path):
    plan = chain(4, file)
    run = runner.look(plan, tmp_path, tmp_path)
    assert run.left() == {"generate": 0.0, "train": None, "score": None}
    run.note(plan.steps[0], Outcome(3.0, ""))
    run.note(plan.steps[2], Outcome(5.0, ""))
    assert run.left() == {"generate": 0.0, "train": 8.0, "score": None}
    assert "0:00:08" in str(list(runner.table(run).columns[-1].cells))


def test_an_interrupted_step_is_not_running_any_more(file, tmp_path, monkeypatch):
    plan = grid.expand(file, tmp_path)

    def interrupted(*_) -> None:
        assert runner.look(plan, tmp_path, tmp_path).state[plan.steps[0]] == "running"
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "_make", interrupted)
    with executors.in_process() as place, pytest.raises(KeyboardInterrupt):
        runner.execute(plan, place, tmp_path, tmp_path, 1)
    assert set(runner.look(plan, tmp_path, tmp_path).state.values()) == {"waiting"}


def client(file: Path, folder: Path, barrier) -> None:
    torch.set_num_threads(1)
    plan = grid.expand(file, folder / "data")
    barrier.wait(60)
    with executors.in_process() as place:
        run = runner.execute(plan, place, folder / "data", folder / "runs", 1)
    assert set(run.state.values()) == {"done"}, run.failed


def test_two_clients_run_one_grid_at_once(whole, file, tmp_path):
    """Both may work at a step; the first result stands, and nothing is left of the other."""
    file.write_text(GRID.replace(', "lorenz96-noisy"', ""))
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)
    both = [fork.Process(target=client, args=(file, tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    made, alone = contents(tmp_path / "data"), contents(whole / "data")
    assert made == {name: digest for name, digest in alone.items() if "lorenz63" in name}
    wanted = {name: digest for name, digest in results(whole / "runs").items() if "lorenz63" in name}
    assert results(tmp_path / "runs") == wanted
    assert len(wanted) == 4 * 3
    assert not list((tmp_path / "runs").rglob("*.partial"))


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    path, process = tmp_path / "run", multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    ours = store.temporary_name(path)
    kept = [ours, ours.with_name(".run.elsewhere-1.partial"), ours.with_name(".other" + ours.name.removeprefix(".run"))]
    for left in (*kept, ours.with_name(ours.name.replace(f"-{os.getpid()}.", f"-{process.pid}."))):
        left.mkdir()
    ours.with_name(ours.name.replace(f"-{os.getpid()}.", f"-0{process.pid}.")).touch()  # a file
    store.sweep(path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def merge_killed(target: Target, at: int) -> bool:
    """Merge in a child process that is killed as it writes for the ``at``-th time; whether it came to that."""
    child = os.fork()
    if child == 0:
        calls = iter(range(at))
        for owner, name in ((store.Sink, "write"), (store.Sink, "truncate"), (os, "pwrite"), (os, "replace")):

            def wrapper(*arguments, original=getattr(owner, name)):
                if next(calls, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments)

            setattr(owner, name, wrapper)
        shards.merge(target)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_merge_that_is_killed_at_any_write_and_once_more_gives_the_same_bytes(tmp_path):
    small = tasks.get("lorenz63-noisy", "tiny-2x8")
    for kind in ("truth", "observations"):
        target = Target(small, kind, 0, tmp_path / "source")
        for block in target.blocks():
            shards.write(target, block.array, block.first)
        if kind == "truth":
            shards.merge(target)
    shutil.copytree(tmp_path / "source", tmp_path / "whole")
    shards.merge(Target(small, "observations", 0, tmp_path / "whole"))
    wanted, killed = contents(tmp_path / "whole"), 0
    for first in range(0, 1000, 6):
        data = tmp_path / str(first)
        shutil.copytree(tmp_path / "source", data)
        target = Target(small, "observations", 0, data)
        died = merge_killed(target, first)
        killed += died
        if died:
            merge_killed(target, 5 * first % 31)
        shards.merge(target)
        assert contents(data) == wanted, first
        if not died:
            break
    assert killed > 10
