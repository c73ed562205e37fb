"""Emulators of strangers in a child process: one that misbehaves fails its cases with a reason, and no more."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.emulator import save_weights
from emubench.runs import jobs, stages
from emubench.runs.sandbox import child, judged, pipe
from emubench.runs.sandbox.judged import JudgedEmulator, Limits
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere
from tests.support.submissions import TASK, edit_json

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
    with JudgedEmulator.of_run(run, LIMITS) as emulator:
        assert "1000000" in emulator.told
        assert "while loading" in emulator.reason


# --- children that misbehave ------------------------------------------------------------------------------------------


LIMITS = Limits(start_seconds=60.0, call_seconds=60.0)
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
        r"failed at a forecast of 4 cases: no\\x1b\[31m luck",
    ),
}  # fmt: skip


def attempt(script: str, limits: Limits) -> tuple[torch.Tensor, str]:
    command = [sys.executable, "-S", "-c", READY + FRAME + script]
    with JudgedEmulator(command, limits) as emulator:
        emulator.wait_until_ready()
        forecast = emulator.forecast(torch.zeros(4, 8, 3).double(), 5, 1, torch.Generator().manual_seed(1))
    return forecast, emulator.told


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
    _, told = attempt(script, LIMITS)
    shown = set(told.rpartition(": ")[2].split(",")) - {"LC_CTYPE"}  # which Python itself may set
    own = {"HOME", "TMPDIR", "USER", "PATH", "PYTHONPATH", "PYTHONSAFEPATH", "OMP_NUM_THREADS"}
    assert shown - {"LD_LIBRARY_PATH"} == own


def test_the_reason_of_a_failure_is_the_judge_s_words():
    script = "h = b'{\"reason\": \"best of all\"}'\nos.write(1, b'EMUBE' + struct.pack('<I', len(h)) + h)"
    command = [sys.executable, "-S", "-c", READY + script]
    with JudgedEmulator(command, LIMITS) as emulator:
        emulator.wait_until_ready()
    assert emulator.reason == "failed while loading"
    assert emulator.told == "failed while loading: best of all"


OPENING = """
import os, sys, subprocess
from pathlib import Path
from emubench.runs.sandbox import landlock
readable, writable, *places = map(Path, sys.argv[1:])
print(landlock.shut([readable], [writable]))
for place in (*places, Path(f"/proc/{os.getppid()}/environ")):
    try:
        place.read_bytes()
        print("read", place)
    except OSError:
        print("refused")
(writable / "new").write_text("x")
try:
    (readable / "new").write_text("x")
except OSError:
    print("not written")
import torch._dynamo, emubench.baselines.linear
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
def test_a_child_opens_neither_truth_nor_home_nor_its_parent(data, tmp_path):
    for name in ("readable", "writable", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    hidden = [
        data / "tiny" / "lorenz63.truth.h5",
        tmp_path / "home" / "file",
        Path(child.__file__).parents[3] / "LICENSE",
    ]
    command = [sys.executable, "-c", OPENING, tmp_path / "readable", tmp_path / "writable", *hidden]
    done = subprocess.run([*command, tmp_path / "readable" / "file"], capture_output=True, text=True, check=True)
    shut, *found = done.stdout.splitlines()
    if shut == "False":
        pytest.skip("this kernel has no Landlock")
    assert found == [*["refused"] * 3, f"read {tmp_path / 'readable' / 'file'}", "refused", "not written"]


ANSWER = """
import os, socket, subprocess, sys, time
from pathlib import Path
from emubench.runs.sandbox import child, landlock, pipe
if not {landlock}:
    landlock.shut = lambda *_: False
def attempt(work, *given):
    try:
        return work(*given)
    except OSError as error:
        return type(error).__name__
def serve(folder, source, sink, device):
    {setup}
    pipe.send(sink, pipe.FAULT, {{"reason": str({wanted})}}, None, time.monotonic() + 60)
    os.read(source, 1)  # until the judge has heard it
child.serve = serve
sys.argv[1:] = [".", str(2**33), "100", "1", "cpu"]
child.main()
"""


def answer(setup: str, wanted: str = "None", landlock: bool = True) -> str:
    """What a confined child finds that runs ``setup``."""
    script = ANSWER.format(setup=setup, wanted=wanted, landlock=landlock)
    with JudgedEmulator([sys.executable, "-c", script], LIMITS) as emulator:
        emulator.wait_until_ready()
    assert emulator.reason == "failed while loading"
    return emulator.said


as_root = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="what root may give its child"
)


@as_root
def test_a_child_of_root_is_nobody_and_signals_connects_to_and_reads_nothing_of_its_judge_s(data):
    truth = data / "tiny" / "lorenz63.truth.h5"
    assert truth.exists()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)
        wanted = [
            "os.getresuid(), os.getresgid(), os.getgroups()",
            f"[attempt(os.kill, pid, 0) for pid in ({os.getpid()}, os.getppid())]",
            f"attempt(socket.create_connection, {server.getsockname()}, 5.0)",
            *(f"attempt(lambda: open({str(path)!r}, 'rb').read(4))" for path in (truth, "/etc/shadow")),
            "len(Path('/proc/self/status').read_text().split('CapEff:\\t0000000000000000')) - 1",
            "sum(name.isdigit() for name in os.listdir('/proc'))",
        ]
        found = answer("pass", f"[{', '.join(wanted)}]", landlock=False)
        with pytest.raises(BlockingIOError):
            server.accept()
    nobody = "(65534, 65534, 65534), (65534, 65534, 65534), []"
    assert found.startswith(f"[{nobody}, ["), found
    killed, refused, hidden = "['ProcessLookupError', 'PermissionError']", "'OSError'", "'FileNotFoundError'"
    if "ProcessLookupError" not in found:
        pytest.skip("no namespaces here: another user alone")
    assert found == f"[{nobody}, {killed}, {refused}, {hidden}, {hidden}, 1, 2]"


def sleepers(seconds: str) -> int:
    """How many processes sleep for so long."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended since
            found += path.read_bytes() == f"sleep\0{seconds}\0".encode()
    return found


def settled(seconds: str, wanted: int) -> int:
    """How many do when it is as many as are ``wanted``, or after five seconds: the list shows an exec a little late."""
    end = time.monotonic() + 5
    while (found := sleepers(seconds)) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return found


@as_root
def test_what_a_child_started_ends_with_it_in_a_session_of_its_own_too():
    """No signal to the child's group reaches that."""
    seconds = f"3600.{os.getpid()}"
    script = (
        "import subprocess; from emubench.runs.sandbox import landlock, namespaces\n"
        "namespaces.enter(landlock.needed())\n"
        f"subprocess.Popen(['sleep', '{seconds}'], start_new_session=True)\n"
    )
    with JudgedEmulator([sys.executable, "-c", READY + script + LISTEN], LIMITS) as emulator:
        emulator.wait_until_ready()
        assert emulator.reason == ""
        assert settled(seconds, 1) == 1
    assert settled(seconds, 0) == 0


# --- training in the child --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_settings_of_ten_million_layers_end_with_their_time(data, tmp_path):
    """Built, sized and trained in a child: the judge's own process neither works for them nor waits."""
    job = jobs.Job("fourier_operator", "lorenz96-noisy", "tiny", overrides={"layers": 10**7})
    begun = time.monotonic()
    with pytest.raises(EmubenchError, match=r"training on lorenz96-noisy takes more than 0.5 s \(--train-seconds\)"):
        judged.train(job, data, tmp_path, dataclasses.replace(LIMITS, train_seconds=0.5), 10**6)
    assert time.monotonic() - begun < 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("linked", ["model.safetensors", "."])
def test_what_a_training_leaves_is_read_where_it_belongs(monkeypatch, data, tmp_path, linked):
    """A link could lead the judge, who may read more than the child, to a file of others."""
    others, job = tmp_path / "others", jobs.Job("persistence", TASK, "tiny")
    others.mkdir()
    for name in ("card.json", "model.safetensors"):
        (others / name).write_text("a secret")
    script = READY + (
        f"run = os.path.join(sys.argv[1], '{job.folder(Path('runs'))}')\n"
        f"os.makedirs(os.path.dirname(run) if '{linked}' == '.' else run)\n"
        f"os.symlink(os.path.join('{others}', '{linked}'), os.path.normpath(os.path.join(run, '{linked}')))\n"
        "os.write(1, R + R)\n"
    )
    monkeypatch.setattr(judged, "_command", lambda _, place, *__: [sys.executable, "-S", "-c", script, str(place)])
    with pytest.raises(EmubenchError, match="training on lorenz63-noisy left a link, where model.safetensors belongs"):
        judged.train(job, data, tmp_path / "runs", LIMITS, 10**6)


@pytest.mark.slow
def test_settings_that_take_too_much_memory_end_with_a_reason(data, tmp_path):
    job = jobs.Job("fourier_operator", "lorenz96-noisy", "tiny", overrides={"layers": 10**7})
    with pytest.raises(EmubenchError, match=r"training on lorenz96-noisy (failed while training: .*[Mm]emory|died)"):
        judged.train(job, data, tmp_path, dataclasses.replace(LIMITS, memory_bytes=2**27, train_seconds=300.0), 10**6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch": -4}, "training on lorenz63-noisy failed while training: "),
        ({"width": 10**6}, "failed while training: weights of [0-9]+ bytes on lorenz63-noisy, where at most"),
        ({"unroll": 2**62}, "training on lorenz63-noisy failed while training: "),
    ],
)
def test_settings_that_cannot_be_trained_are_one_line(data, tmp_path, overrides, message):
    job = jobs.Job("resnet_ode", TASK, "tiny", overrides={"steps": 2} | overrides)
    with pytest.raises(EmubenchError, match=message) as error:
        judged.train(job, data, tmp_path, LIMITS, 10**6)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_what_is_trained_in_the_child_is_what_is_trained_here(data, tmp_path):
    job = jobs.Job("resnet_ode", TASK, "tiny", overrides={"steps": 2, "batch": 4})
    here = stages.train(job, data, tmp_path / "here")
    there = judged.train(job, data, tmp_path / "there", LIMITS, 10**6)
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert sorted(path.name for path in there.iterdir()) == ["card.json", "model.safetensors"]


# --- whole entries, some of them bad ----------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory are Linux's")
def test_memory_processor_time_and_files_are_bounded(tmp_path):
    script = (
        "import sys; from pathlib import Path; from emubench.runs.sandbox.child import limit\n"
        "limit(2**28, 2)\n"
        "try: bytearray(2**30)\nexcept MemoryError: print('memory')\n"
        "try:\n    with open(sys.argv[1], 'w') as f: f.write('x' * 100)\nexcept OSError: print('file', flush=True)\n"
        "while True: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(child.__file__).parents[3])}
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "f"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert found.stdout.split() == ["memory", "file"]
    assert found.returncode < 0  # ended by the system, for its time


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


@pytest.mark.slow
def test_torch_may_look_for_a_temporary_folder_within_the_bounds():
    """Its compiler does when it is imported, which building some emulators on the meta device makes it be."""
    assert answer("import torch._dynamo") == "None"


# --- devices ----------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_refused_before_any_child_starts(monkeypatch):
    monkeypatch.setattr(judged, "JudgedEmulator", None)
    with pytest.raises(EmubenchError, match="--device cuda:77: cannot be used here"):
        judged.usable("cuda:77", LIMITS)
    assert judged.usable("cpu", LIMITS) == "cpu"


def test_a_device_that_the_sandbox_keeps_away_is_refused_in_one_line(monkeypatch):
    """The judge has it, as meta stands for here; its confined child says that it can compute nothing there."""
    monkeypatch.setattr(judged, "check_device", lambda device, dtype: torch.device(device))
    with pytest.raises(EmubenchError) as error:
        judged.usable("meta", LIMITS)
    assert str(error.value).startswith("--device meta: an emulator in the judge's sandbox cannot use it (failed while")
    assert "Cannot copy out of meta tensor" in str(error.value)
    assert str(error.value).endswith("judge it with --device cpu")
    assert "\n" not in str(error.value)


def test_what_the_sandbox_lets_through_is_tried_and_taken(monkeypatch):
    tried = []
    command = judged._command
    monkeypatch.setattr(judged, "check_device", lambda device, dtype: torch.device("meta"))

    def as_cpu(module, folder, limits, seconds, *more):
        tried.append((module, limits.device))
        return command(module, folder, dataclasses.replace(limits, device="cpu"), seconds, *more)

    monkeypatch.setattr(judged, "_command", as_cpu)
    assert judged.usable("auto", LIMITS) == "meta"
    assert tried == [("probe", "meta")]


def test_a_child_forecasts_where_it_is_told_and_answers_from_the_host():
    class There:
        def forecast(self, context, n_steps, n_members, generator):
            assert context.device == ELSEWHERE
            return torch.nan_to_num(context[:, -1:]).expand(-1, n_steps, -1)[None].clone()

    context = np.arange(24.0).reshape(2, 4, 3)
    with Elsewhere():
        found = child._answer(There(), {"seed": 0, "n_steps": 2, "n_members": 1}, context, ELSEWHERE)
    assert np.array_equal(found, context[None, :, [-1, -1]])


def test_a_run_is_judged_on_a_device_of_another_name_alike(data, tmp_path):
    run = stages.train(jobs.Job("linear", TASK, "tiny"), data, tmp_path)
    context, made = torch.ones(2, 64, 3, dtype=torch.float64), []
    for device in ("cpu", "cpu:0"):
        with JudgedEmulator.of_run(run, dataclasses.replace(LIMITS, device=device)) as emulator:
            made.append(emulator.forecast(context, 3, 1, torch.Generator().manual_seed(0)))
            assert not emulator.told
    assert torch.equal(*made)


def test_limits_say_their_device_where_it_is_no_cpu():
    assert "device" not in Limits().values()
    assert Limits(**dataclasses.replace(LIMITS, device="cuda").values()).device == "cuda"
