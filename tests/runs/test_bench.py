"""``emubench bench``: the command on tiny runs, what it writes and prints, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation.throughput import modes, stopwatch
from emubench.evaluation.throughput.modes import Mode
from emubench.files import timing
from emubench.runs import benches, folders, jobs, stages
from emubench.runs import scored as entries
from emubench.runs.benches import Options, Session
from tests.support import benched

QUICK = Options(seconds=0.05, ladder_seconds=1.0)
METRICS = [
    "lyapunov_times_per_second",
    "trajectory_steps_per_second",
    "latency",
    "peak_memory",
    "speedup_at_equal_accuracy",
    "break_even_lyapunov_times",
    "valid_prediction_time",
]


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory):
    folder = stages.train(jobs.Job("linear", "lorenz63-clean", "tiny"), data, tmp_path_factory.mktemp("runs"))
    stages.score(folder, data)
    return folder


@pytest.fixture
def run(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "runs" / "linear" / "lorenz63-clean" / scored.name)


def again(run):
    return folders.load(run).emulator


@pytest.mark.slow
def test_the_command_measures_checks_writes_and_prints(run, data, emubench):
    """With the comparison in a child process, as always on the command line."""
    kept = json.loads((run / "timing.json").read_text())
    done = emubench("bench", run, "--data", data, "--seconds", 0.05, "--ladder", 1, "--json")
    assert done.status == 0, done.err
    rows = json.loads(done.out)
    assert [row["metric"] for row in rows] == METRICS
    assert all(set(row) == {"run", *benches.ScoreRow.model_fields} for row in rows)
    assert {row["run"] for row in rows} == {str(run)}
    by = {row["metric"]: row for row in rows}
    assert by["lyapunov_times_per_second"]["low"] <= by["lyapunov_times_per_second"]["value"]
    assert 0 < by["latency"]["value"] < 1
    stored = json.loads((run / "timing.json").read_text())
    assert stored["test_seconds"] == kept["test_seconds"]
    assert stored["lyapunov_times_per_second"] == by["lyapunov_times_per_second"]["value"]
    read = timing.read(run)
    assert read is not None
    found = read.benches["eager"]
    assert found.hardware.threads == 1
    assert found.rollout_note.startswith("not available")
    assert found.accuracy == by["valid_prediction_time"]["value"] == pytest.approx(stored_score(run), abs=1e-9)
    assert found.speedups["offline_end_to_end"].ranked is False  # skill 0
    assert "rk4" in {rung.scheme for rung in read.ladder} <= {"rk4", "heun", "euler"}
    assert read.ladder[0].limit is not None
    assert set(found.limits) == {"single_end_to_end", "offline_end_to_end"}
    assert found.limits["offline_end_to_end"].flops_per_second > 0
    (entry,) = entries.read_runs([run])
    assert entry.throughput == stored["lyapunov_times_per_second"]
    assert not list(run.glob(".*"))


def stored_score(run):
    (row,) = [r for r in entries.read_run(run).scores.rows if r.metric == "valid_prediction_time"]
    return row.value


def test_what_was_benched_stays_when_the_run_is_scored_again(run, data):
    benched.write(run, 3000.0, 0.5)
    before = timing.read(run)
    stages.score(run, data, again=True)
    after = timing.read(run)
    assert before.benches
    assert (after.benches, after.ladder) == (before.benches, before.ladder)
    assert after.lyapunov_times_per_second == before.lyapunov_times_per_second
    assert after.test_seconds


@pytest.mark.slow
def test_a_cheat_is_told_in_one_line_and_nothing_is_written(run, data, emubench, monkeypatch):
    """Fewer steps when it is timed in this process; in the child it is the file's own self."""
    kind = type(again(run))
    original = kind.forecast

    def less(self, context, n_steps, n_members, generator):
        few = original(self, context, n_steps // 2, n_members, generator)
        return (
            few.repeat_interleave(2, dim=2)[:, :, :n_steps]
            if n_steps % 2 == 0
            else original(self, context, n_steps, n_members, generator)
        )

    monkeypatch.setattr(kind, "forecast", less)
    before = (run / "timing.json").read_text()
    done = emubench("bench", run, "--data", data, "--seconds", 0.05, "--ladder", 0)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"emubench: {run}: linear on lorenz63-clean: ")
    assert "not the scored one" in done.err
    assert (run / "timing.json").read_text() == before


@pytest.mark.slow
def test_one_ladder_serves_all_runs_of_a_task(run, data, monkeypatch):
    session, calls = Session(data, QUICK), []
    measure = benches.ladder.measure
    monkeypatch.setattr(benches.ladder, "measure", lambda *a: calls.append(a[0].name) or measure(*a))
    for _ in range(2):
        session.bench(run, reference_emulator=again(run))
    assert calls == ["lorenz63-clean"]


def test_a_run_without_scores_or_with_others_is_refused(run, data, refused):
    scores = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(scores | {"truth_sha256": "0" * 64}))
    assert "was not scored on these data" in refused("bench", run, "--data", data)
    (run / "scores.json").unlink()
    assert "has no scores yet" in refused("bench", run, "--data", data)


@pytest.mark.slow
def test_growth_is_benched_in_samples_and_by_its_crps(data, tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "BATCHES", (1, 4))
    folder = stages.train(jobs.Job("climatology", "kpz-noisy", "tiny"), data, tmp_path)
    stages.score(folder, data)
    found = Session(data, Options(seconds=0.02, ladder_seconds=0.5)).bench(folder, reference_emulator=again(folder))
    rows = {row.metric: row for row in benches.rows(tasks.get("kpz-noisy", "tiny"), found)}
    assert rows["lyapunov_times_per_second"].unit == "sample interval/s"
    (row,) = [r for r in entries.read_run(folder).scores.rows if r.metric == "crps" and r.lead_time is None]
    assert row.value is not None
    assert rows["crps"].value == pytest.approx(row.value)
    speeds = [rows[f"{name}_per_second"].value for name in ("lyapunov_times", "trajectory_steps")]
    assert speeds[0] == speeds[1]


@pytest.mark.slow
def test_a_lower_precision_is_scored_anew_and_kept_apart(data, tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "BATCHES", (1, 4))
    settings = {"steps": 20, "width": 16}
    folder = stages.train(jobs.Job("resnet_ode", "lorenz63-clean", "tiny", overrides=settings), data, tmp_path)
    stages.score(folder, data)
    plain = Session(data, Options(seconds=0.02, ladder_seconds=0)).bench(folder, reference_emulator=again(folder))
    mode = Mode(precision="bfloat16")
    low = Session(data, Options(mode, seconds=0.02, ladder_seconds=0)).bench(folder, reference_emulator=again(folder))
    assert plain.accuracy == pytest.approx(stored_score(folder))
    assert low.accuracy != plain.accuracy
    assert set(plain.scenarios) > {"single_rollout", "offline_rollout"}
    read = timing.read(folder)
    assert read is not None
    assert set(read.benches) == {"eager", "eager-bfloat16"}
    ranked = plain.scenarios[timing.RANKED].lyapunov_times_per_second.median
    assert read.lyapunov_times_per_second == ranked  # the plain mode's


def test_without_a_compiler_the_eager_figure_and_one_line(run, data, monkeypatch, capsys):
    monkeypatch.setattr(modes, "compiler", lambda: None)
    session = Session(data, Options(Mode(compile=True), seconds=0.05, ladder_seconds=0))
    assert capsys.readouterr().err == modes.NO_COMPILER + "\n"
    assert session.bench(run, reference_emulator=again(run)).mode == "eager"


def test_a_compiler_that_fails_is_one_line():
    from torch._dynamo.exc import TorchDynamoException

    def forecast(batch):
        raise TorchDynamoException("file too short\nand a page more")

    with pytest.raises(EmubenchError, match="^--compile: file too short$"):
        modes.compile_seconds(forecast, torch.device("cpu"))


def test_modes_say_what_they_need(run, data):
    cpu = torch.device("cpu")
    with pytest.raises(EmubenchError, match="no Stepper"):
        modes.apply(again(run), Mode(compile=True), cpu)
    with pytest.raises(EmubenchError, match="tf32: a GPU's number format"):
        modes.apply(again(run), Mode(precision="tf32"), cpu)
    with pytest.raises(EmubenchError, match="unknown --precision"):
        Mode(precision="half")
    assert modes.compile_options(cpu)["mode"] == "default"
    assert modes.compile_options(torch.device("cuda"))["mode"] == "reduce-overhead"  # CUDA graphs
    assert Mode(compile=True).name == "compiled"


@pytest.mark.slow
def test_a_compiled_flow_forecasts_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what an interrupted compiler left is not met again
    if modes.compiler() is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(modes, "WARM_UP_BATCHES", (1, 2))
    task, module, cpu = tasks.get("lorenz96-clean", "tiny"), baselines.get("neural_ode"), torch.device("cpu")
    torch.manual_seed(0)
    flow = module.build(task, dataclasses.replace(module.default_config(task), width=8)).requires_grad_(False)
    torch.nn.init.normal_(flow.field.network.out.weight, std=0.1)
    context = torch.randn(2, 64, 40, dtype=torch.float64)

    def forecast(batch: int) -> torch.Tensor:
        with torch.no_grad():
            return flow.forecast(context[:batch], 8, 1, torch.Generator())

    eager = forecast(2)
    modes.apply(flow, Mode(compile=True), cpu)
    assert modes.compile_seconds(forecast, cpu) > 0.1
    assert torch.allclose(forecast(2), eager, atol=1e-4)
    assert not torch.equal(eager[:, :, 0], eager[:, :, -1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"benches": {"eager": {}}}, "benches.eager"),
        ({"benches": []}, "benches"),
        ({"ladder": [{"scheme": "rk4"}]}, "ladder.0"),
    ],
)
def test_an_edited_timing_is_refused_with_the_key(run, change, words):
    content = json.loads((run / "timing.json").read_text()) | change
    (run / "timing.json").write_text(json.dumps(content))
    with pytest.raises(EmubenchError, match=words):
        entries.read_run(run)
