"""``make gpu``: what it keeps and goes on from, what its time cuts, the section that it makes, and its dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_steps, gpu_table
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation.throughput.stopwatch import scenario_of
from emubench.files.timing import RANKED, Rung

ROOT = Path(__file__).resolve().parents[2]
HEAD = {
    "hardware": {"name": "A Card 80GB", "driver": "CUDA 99", "torch": "2", "device": "cuda:0", "cores": 8},
    "cpu": "a processor",
    "emubench_version": "0",
    "code": "abc",
}
PLACE = gpu_steps.Place(torch.device("cpu"), Path("none"), dry=True)
SIMULATED = """
import numpy as np
from benchmarks import gpu_ceilings
rate, out = gpu_ceilings.in_registers("float64", blocks=1, threads=2, n=3)
chains = [np.float64(v) for v in (1, 1.001, 0.999, 1.999, 0.001, 2.0, 1.998, 2.998)]
for _ in range(3):
    chains = [0.999 * v + 0.001 for v in chains]
assert rate > 0
assert np.allclose(out, sum(chains), rtol=1e-12), (out, sum(chains))
"""


@pytest.mark.slow
def test_a_dry_run_takes_every_kind_of_step_and_leaves_nothing(capfd):
    before = sorted(gpu.RESULTS.iterdir())
    assert gpu.main(["--dry-run"]) == 0
    shown = capfd.readouterr()
    assert "0 failed" in shown.out, shown.err
    assert sorted(gpu.RESULTS.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(capsys):
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == f"emubench: {gpu.NO_GPU}\n"


@pytest.mark.slow
def test_the_ceiling_in_registers_computes_what_it_counts():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-c", SIMULATED]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def step(name, found, seconds=1.0):
    def work(place, known):
        if isinstance(found, Exception):
            raise found
        return found(known) if callable(found) else found

    return gpu.Step(name, seconds, work)


def test_what_is_measured_is_kept_and_the_rest_goes_on(tmp_path, capsys):
    wanted = [step("a", 1), step("b", EmubenchError("no luck")), step("c", lambda known: known["a"] + 1)]
    results = gpu.Results(tmp_path, HEAD)
    assert gpu.run(PLACE, results, wanted, 10.0) == (1, 0)
    assert results.found == {"a": 1, "c": 2}
    assert results.path.name.startswith("a-card-80gb-gpu-")
    wanted[0], wanted[1] = step("a", AssertionError("measured twice")), step("b", 5)
    resumed = gpu.Results(tmp_path, HEAD)
    assert gpu.run(PLACE, resumed, wanted, 10.0) == (0, 0)
    assert json.loads(resumed.path.read_text())["steps"].keys() == {"a", "b", "c"}
    assert gpu.Results(tmp_path, HEAD, again=True).found == {}


def test_an_interrupt_leaves_what_was_measured(tmp_path):
    def interrupted(place, known):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu.run(PLACE, gpu.Results(tmp_path, HEAD), [step("a", 1), gpu.Step("b", 1.0, interrupted)], 10.0)
    assert gpu.Results(tmp_path, HEAD).found == {"a": 1}


def test_figures_of_other_code_are_not_mixed(tmp_path):
    gpu.run(PLACE, gpu.Results(tmp_path, HEAD), [step("a", 1)], 10.0)
    with pytest.raises(EmubenchError, match="other code or libraries; --again replaces it"):
        gpu.Results(tmp_path, HEAD | {"code": "def"})


def test_the_time_cuts_what_does_not_fit(tmp_path):
    wanted = [step("a", 1), step("long", 2, seconds=60.0), step("short", 3)]
    results = gpu.Results(tmp_path, HEAD)
    assert gpu.run(PLACE, results, wanted, 5.0) == (0, 1)
    assert results.found == {"a": 1, "short": 3}


def test_the_steps_are_all_that_is_asked_once_and_the_important_first():
    names = [one.name for one in gpu.steps("cuda:0")]
    assert len(names) == len(set(names))
    assert names[:3] == ["tests", "ceilings", "solvers"]
    for baseline in gpu.baselines.names():
        for system in gpu.systems.names():
            for task in (f"{system}-noisy", f"{system}-clean"):
                assert {f"bench {baseline} {task} {mode.name}" for mode in gpu.MODES} <= set(names)
    assert sum(name.startswith("ladder") for name in names) == 8
    assert names.index("ladder lorenz96-noisy") < names.index("bench neural_ode lorenz96-noisy compiled")


def rung(steps, accuracy, seconds):
    task = tasks.get("lorenz63-clean", "tiny")
    one = scenario_of(task, 64, 1, [seconds] * 3, [seconds] * 3, 0)
    scores = [accuracy] * 4
    return Rung(
        scheme="rk4", steps_per_sample=steps, sites=3, dtype="float64", start="sample", path="torch",
        accuracy=accuracy, scenarios={RANKED: one}, cases=scores,
    )  # fmt: skip


def test_the_rival_is_the_fastest_setting_as_accurate():
    task, rungs = tasks.get("lorenz63-clean", "tiny"), [rung(1, 1.0, 0.1), rung(2, 3.0, 0.2), rung(4, 5.0, 0.4)]
    found = gpu_steps.rival(task, rungs, np.array([2.0, 2.0, 3.0, 3.0]))
    assert found["label"] == "rk4, 2 steps per sample"
    speed = 64 * task.test_steps * task.lead_time_step / 0.2
    assert found["lead_times_per_second"]["median"] == pytest.approx(speed)
    assert gpu_steps.rival(task, rungs, np.full(4, 9.0)) is None


def timed(batch, rate):
    rates = {"median": rate, "low": rate / 2, "high": 2 * rate}
    return {
        "kind": "end_to_end", "batch": batch, "seconds": rates, "samples_per_second": 10 * rate,
        "lead_times_per_second": rates, "peak_memory": 2048,
    }  # fmt: skip


def test_the_section_says_what_was_measured_and_what_was_not():
    rival = {"label": "rk4, 2 steps per sample", "accuracy": 2.0, "lead_times_per_second": timed(1, 50.0)["seconds"]}
    found = {
        "tests": {"passed": 3},
        "training resnet_ode lorenz96-noisy cpu": {"steps_per_second": 10.0},
        "training resnet_ode lorenz96-noisy cuda:0": {"steps_per_second": 40.0},
        "bench resnet_ode lorenz96-noisy eager": [timed(1, 20.0), {"kind": "end_to_end", "batch": 16, "missing": "no"}],
        "bench linear lorenz96-noisy compiled": [{"missing": "no Stepper"}],
        "ladder lorenz96-noisy": {"rungs": [], "rivals": {"resnet_ode": rival, "linear": rival}},
    }
    steps = {name: {"found": one, "seconds": 1.0} for name, one in found.items()} | {"solvers": {"error": "E: no"}}
    text = gpu_table.section({**HEAD, "date": "2030-01-01", "steps": steps})
    assert "A Card 80GB, CUDA 99, torch 2, 2030-01-01" in text
    assert "Tests that need a GPU: 3 passed, 0 failed, 0 skipped." in text
    assert "| `resnet_ode` | lorenz96-noisy | 10 | 40 | – | 4 |" in text
    assert "| `resnet_ode` | lorenz96-noisy | eager | end to end | 200 | – | 2.05k | – | – |" in text
    assert "| `resnet_ode` | lorenz96-noisy | 1 | 20 | 0.4 [0.1, 1.6] | rk4, 2 steps per sample |" in text
    assert "Not measured, as they failed: solvers." in text


def test_the_page_has_the_section_of_what_is_there(tmp_path):
    text = gpu_table.PAGE.read_text(encoding="utf-8")
    assert gpu_table.page(text, gpu.RESULTS) == text
    assert gpu_table.NONE in gpu_table.page(text, tmp_path)
