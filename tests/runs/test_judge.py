"""The judge: the same scores as at home, false claims named; children that misbehave fail their cases and no more."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.emulator import save_weights
from emubench.evaluation import scoring
from emubench.files import run_files, schema
from emubench.leaderboard.submission import entries, judge, new
from emubench.runs import folders, jobs, stages
from emubench.runs.sandbox import child, pipe
from emubench.runs.sandbox.judged import JudgedEmulator, Limits
from tests.support.contents import contents
from tests.support.submissions import STATED, TASK, edit_json, entry, forecast_entry, runs, sign_again  # noqa: F401

SEED = f"{TASK}/seed-0"
LIMITS = Limits(start_seconds=60.0, call_seconds=60.0)


# --- the same scores as at home ---------------------------------------------------------------------------------------


def test_an_entry_is_scored_as_its_run_was(emubench, entry, data):  # noqa: F811
    before = contents(entry)
    finished = emubench("submit", "run", entry, "--data", data, "--bench-seconds", 0, "--json")
    assert finished.status == 0, finished.err
    (found,) = json.loads(finished.out)
    claimed = json.loads((entry / SEED / "scores.json").read_text())["rows"]
    whole = [row for row in claimed if row["lead_time"] is None]
    assert found["scores"] == whole  # to the last bit, on one machine
    assert found["timing"]["lyapunov_times_per_second"] > 0
    assert contents(entry) == before


@pytest.mark.slow
def test_an_entry_is_benched_on_request_and_left_as_it_was(emubench, entry, data):  # noqa: F811
    before = contents(entry)
    done = emubench("submit", "run", entry, "--data", data, "--bench-seconds", 0.02, "--json")
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)
    assert row["bench"]["scenarios"]["offline_end_to_end"]["lyapunov_times_per_second"]["median"] > 0
    assert row["bench"]["speedups"]["offline_end_to_end"]["ranked"] is False  # linear has next to no skill
    assert contents(entry) == before


def test_an_edited_score_is_named(emubench, entry, data):  # noqa: F811
    def better(content):
        (row,) = [r for r in content["rows"] if r["metric"] == "valid_prediction_time" and r["lead_time"] is None]
        cases = content["cases"]["valid_prediction_time"]
        cases[:] = [2 * value for value in cases]
        row["value"] = sum(cases) / len(cases)

    edit_json(entry / SEED / "scores.json", better)
    sign_again(entry)
    assert emubench("submit", "check", entry).status == 0  # consistent, and hashed anew
    finished = emubench("submit", "run", entry, "--data", data)
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert "scores.json: valid_prediction_time: " in line
    assert "is claimed" in line
    assert finished.out.startswith("FAULT")


def test_an_entry_that_fails_the_check_is_not_run(refused, entry, data, monkeypatch):  # noqa: F811
    (entry / "model.pt").write_bytes(b"x")
    monkeypatch.setattr(judge, "judge_place", lambda *_: pytest.fail("was run"))
    assert "unexpected" in refused("submit", "run", entry, "--data", data)


def test_knowledge_is_the_method_s(refused, entry, data):  # noqa: F811
    edit_json(entry / SEED / "card.json", lambda c: c.update(knowledge="none"))
    text = (entry / "entry.toml").read_text().replace('knowledge = "structure"', 'knowledge = "none"')
    (entry / "entry.toml").write_text(text)
    sign_again(entry)
    line = refused("submit", "run", entry, "--data", data)
    assert "knowledge: 'none', where linear says 'structure'" in line


def test_a_card_s_config_is_the_defaults_with_the_overrides(refused, entry, data):  # noqa: F811
    edit_json(entry / SEED / "card.json", lambda c: c["config"].update(ridges=[1.0]))
    sign_again(entry)
    line = refused("submit", "run", entry, "--data", data)
    assert "card.json: config: ridges: [1.0], where linear's defaults and entry.toml's overrides give [" in line


def test_a_time_limit_ends_its_block_and_nothing_after():
    before = signal.getsignal(signal.SIGALRM)
    begun = time.monotonic()
    with pytest.raises(EmubenchError, match="too long"), judge.time_limit(0.05, "too long"):
        time.sleep(10)
    assert time.monotonic() - begun < 5
    with judge.time_limit(0.05, "too long"):
        pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


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


def test_false_claims_are_told_from_round_off(runs):  # noqa: F811
    (run,) = folders.find_runs([runs / "linear"])
    found = schema.read_json(run_files.ScoreFile, run / "scores.json")
    (row,) = [r for r in found.rows if r.metric == "valid_prediction_time" and r.lead_time is None]

    def claim(**changed):
        rows = [r.model_copy(update=changed) if r is row else r for r in found.rows]
        return judge.false_claims(Path("s"), found.model_copy(update={"rows": rows}), found)

    assert claim() == []
    assert claim(value=row.value + 0.05 * (row.high - row.low)) == []
    assert len(claim(value=row.value + 0.2 * (row.high - row.low))) == 1
    assert len(claim(value=None)) == 1
    assert "no such score is known" in claim(metric="my_score")[0]


# --- the architecture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", baselines.names())
def test_shapes_are_checked_before_anything_is_allocated(data, tmp_path, baseline):
    run = tmp_path / "run"
    run.mkdir()
    job = jobs.Job(baseline, TASK, "tiny")
    emulator = baselines.get(baseline).build(job.get_task(), job.config())
    save_weights(emulator, run / "model.safetensors")
    card = {"schema_version": 1, "emubench_version": "0.1.0", "baseline": baseline, "task": TASK, "size": "tiny"}
    card |= {"seed": 0, "data_sha256": "", "knowledge": "none", "config": dataclasses.asdict(job.config())}
    card |= {"n_parameters": 0, "train_seconds": 0.0, "threads": 1, "device": "cpu"}
    (run / "card.json").write_text(json.dumps(card, default=list))
    child.check_architecture(run)


def test_a_config_of_a_million_million_parameters_is_refused_unallocated(data, tmp_path):
    job = jobs.Job("resnet_ode", TASK, "tiny", overrides={"steps": 1, "batch": 4})
    run = stages.train(job, data, tmp_path / "runs")
    edit_json(run / "card.json", lambda c: c["config"].update(width=10**6))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(EmubenchError, match=r"card.json: config: tensor .*1000000.* in this architecture"):
        child.check_architecture(run)
    assert int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") - before < 2**28
    with JudgedEmulator.of_run(run, LIMITS) as judged:
        assert "1000000" in judged.reason
        assert "while loading" in judged.reason


# --- children that misbehave ------------------------------------------------------------------------------------------

READY = "import os, sys, time, struct\nR = b'EMUBR' + struct.pack('<I', 2) + b'{}'\n"
FRAME = (
    "def frame(header, data=b''):\n    import json\n    h = json.dumps(header).encode()\n"
    "    return b'EMUBF' + struct.pack('<I', len(h)) + h + data\n"
)
LISTEN = "os.write(1, R)\nos.read(0, 10)\n"
CHILDREN = {
    "says nothing": ("time.sleep(600)", "gave no answer in time while loading"),
    "exits": ("sys.exit(3)", r"died \(exit status 3\) while loading"),
    "is killed": ("os.kill(os.getpid(), 9)", r"died \(SIGKILL\) while loading"),
    "prints": ("os.write(1, b'hello, world, this is no frame')", "sent garbage while loading"),
    "floods": ("while True: os.write(1, bytes(65536))", "sent garbage while loading"),
    "claims a long header": ("os.write(1, b'EMUBR' + struct.pack('<I', 2**31))", "sent garbage"),
    "sends no JSON": ("os.write(1, b'EMUBR' + struct.pack('<I', 2) + b'[}')", "sent garbage"),
    "sends a list": ("os.write(1, b'EMUBR' + struct.pack('<I', 2) + b'[]')", "sent garbage"),
    "sends a pickle": ("import pickle; os.write(1, pickle.dumps([1, 2, 3]))", "sent garbage"),
    "hangs at work": (LISTEN + "time.sleep(600)", "gave no answer in time at a forecast of 4 cases"),
    "dies at work": (LISTEN + "os.abort()", r"died \(SIGABRT\) at a forecast of 4 cases"),
    "is late": (LISTEN + "while True: os.write(1, b'E'); time.sleep(0.05)", "sent garbage|gave no answer in time"),
    "answers otherwise": (LISTEN + "os.write(1, R)", "sent garbage"),
    "answers with nothing": (LISTEN + "os.write(1, frame({}))", "sent garbage"),
    "sends another shape": (
        LISTEN + "os.write(1, frame({'dtype': '<f8', 'shape': [1, 4, 10**9, 3]}))",
        r"shape \[1, 4, 1000000000, 3\], where \(1, 4, 5, 3\)",
    ),
    "sends true for one": (LISTEN + "os.write(1, frame({'dtype': '<f8', 'shape': [True, 4, 5, 3]}))", "shape"),
    "sends objects": (LISTEN + "os.write(1, frame({'dtype': '|O', 'shape': [1, 4, 5, 3]}))", "type |O"),
    "stops half-way": (
        LISTEN + "os.write(1, frame({'dtype': '<f8', 'shape': [1, 4, 5, 3]}, bytes(100)))",
        "died",
    ),
    "tells of a failure": (
        LISTEN + "h = b'{\"reason\": \"no\\\\u001b[31m luck\"}'\n"
        "os.write(1, b'EMUBE' + struct.pack('<I', len(h)) + h)",
        r"failed: no\\x1b\[31m luck at a forecast",
    ),
}  # fmt: skip


def attempt(script: str, limits: Limits) -> tuple[torch.Tensor, str]:
    command = [sys.executable, "-S", "-c", READY + FRAME + script]
    with JudgedEmulator(command, limits) as judged:
        judged.wait_until_ready()
        forecast = judged.forecast(torch.zeros(4, 8, 3).double(), 5, 1, torch.Generator().manual_seed(1))
    return forecast, judged.reason


@pytest.mark.parametrize("case", CHILDREN)
def test_a_child_that_misbehaves_fails_its_cases_with_a_reason(case):
    script, reason = CHILDREN[case]
    hangs = "time.sleep" in script
    begun = time.monotonic()
    seconds = 3.0 if hangs else 30.0
    forecast, found = attempt(script, Limits(start_seconds=seconds, call_seconds=1.0 if hangs else 30.0))
    assert forecast.shape == (1, 4, 5, 3)
    assert torch.isnan(forecast).all()
    assert re.search(reason, found), found
    assert "\x1b" not in found
    assert time.monotonic() - begun < 25


def test_a_child_that_answers_is_believed_to_the_bit():
    echo = LISTEN + (
        "values = struct.pack('<60d', *range(60))\n"
        "os.write(1, frame({'dtype': '<f8', 'shape': [1, 4, 5, 3]}, values))\n"
        "time.sleep(5)\n"
    )
    forecast, reason = attempt(echo, LIMITS)
    assert reason == ""
    assert forecast.flatten().tolist() == list(range(60))


def test_what_a_child_started_ends_with_it(tmp_path):
    mark = tmp_path / "mark"
    script = f"import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 2; touch {mark}'])\ntime.sleep(600)"
    attempt(script, Limits(start_seconds=1.0))
    time.sleep(2.5)
    assert not mark.exists()


def test_a_child_sees_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("EMUBENCH_SEASON_SECRET", "/a/file")
    monkeypatch.setenv("TOKEN", "x")
    script = "h = ','.join(sorted(os.environ)); t = ('{\"reason\": \"%s\"}' % h).encode()\n"
    script += "os.write(1, b'EMUBE' + struct.pack('<I', len(t)) + t)"
    _, reason = attempt(script, LIMITS)
    assert "PYTHONPATH" in reason
    assert "SECRET" not in reason
    assert "TOKEN" not in reason


# --- whole entries, some of them bad ----------------------------------------------------------------------------------


def test_an_entry_whose_emulator_fails_is_scored_as_failed_and_the_next_as_ever(
    emubench,
    entry,  # noqa: F811
    runs,  # noqa: F811
    data,
    tmp_path,
):
    def other_shapes(card) -> None:  # than its weights have
        card["config"].update(delays=10**6)
        card["overrides"] = {"delays": 10**6}

    edit_json(entry / SEED / "card.json", other_shapes)
    stated = (entry / "entry.toml").read_text()
    (entry / "entry.toml").write_text(stated.replace("[files]", f"[overrides.{TASK}]\ndelays = 1000000\n\n[files]"))
    sign_again(entry)
    finished = emubench("submit", "run", entry, "--data", data, "--bench-seconds", 0, "--json")
    assert finished.status == 1
    assert finished.err.count("\n") == 1
    assert "its cases count as failed" in finished.err
    (found,) = json.loads(finished.out)
    score = {row["metric"]: row["value"] for row in found["scores"]}
    assert score["valid_prediction_time"] == 0.0
    assert score["surviving_fraction"] == 0.0
    folder = new.from_runs("next", folders.find_runs([runs / "persistence"]), tmp_path / "entries", STATED)
    assert emubench("submit", "run", folder, "--data", data, "--bench-seconds", 0).status == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory are Linux's")
def test_memory_processor_time_and_files_are_bounded(tmp_path):
    script = (
        "import sys; from pathlib import Path; from emubench.runs.sandbox.child import limit\n"
        "limit(2**28, 2)\n"
        "try: bytearray(2**30)\nexcept MemoryError: print('memory')\n"
        "try:\n    with open(sys.argv[1], 'w') as f: f.write('x' * 100)\nexcept OSError: print('file', flush=True)\n"
        "while True: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(judge.__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "f"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert found.stdout.split() == ["memory", "file"]
    assert found.returncode < 0  # ended by the system, for its time


def test_a_remote_forecast_is_the_local_one(runs, data):  # noqa: F811
    (run,) = folders.find_runs([runs / "linear"])
    emulator, task = folders.load(run)
    here, _ = scoring.evaluate(emulator, task, data, 3)  # type: ignore[arg-type]
    there = judge.judge_run(run, task, data, 3, LIMITS)
    assert there.reason == ""
    assert there.result.scores == here.scores
    assert there.result.figures == here.figures


def test_a_frame_is_read_as_it_was_sent():
    source, sink = os.pipe()
    values = np.arange(6, dtype=">f4").reshape(2, 3)
    deadline = time.monotonic() + 10
    pipe.send(sink, pipe.FORECAST, {"a": 1}, values, deadline)
    tag, header, found = pipe.receive(source, pipe.FORECAST, ((2, 3),), deadline)
    os.close(source), os.close(sink)
    assert (tag, header["a"]) == (pipe.FORECAST, 1)
    assert found is not None
    assert found.tolist() == values.tolist()


def test_torch_may_look_for_a_temporary_folder_within_the_bounds():
    """Its compiler does when it is imported, which building some emulators on the meta device makes it be."""
    code = (
        "import sys; from emubench.runs.sandbox import child;"
        "child.serve = lambda *_: __import__('torch._dynamo');"
        "sys.argv[1:] = ['.', str(2**33), '100', '1']; child.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    assert done.returncode == 0
