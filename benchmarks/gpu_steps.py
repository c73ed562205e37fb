"""What ``benchmarks/gpu.py`` measures: each step returns what it found, as plain values for JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_ceilings
from emubench import baselines, systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import dataset, generation, tasks
from emubench.data.tasks import Task
from emubench.dynamics.solvers import Setting, SettingSolver
from emubench.emulator import Stepper, checked_ensemble, roll_out
from emubench.evaluation import scoring
from emubench.evaluation.throughput import ladder, modes, roofline, stopwatch
from emubench.evaluation.throughput.modes import Mode
from emubench.evaluation.throughput.stopwatch import EndToEnd, RolloutOnly, Subject
from emubench.files import entry_files
from emubench.files.timing import RANKED, Quantiles, Rung, Scenario
from emubench.runs import jobs, stages

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = ROOT / "leaderboard" / "entries"
BRIEF = {"steps": 3, "checks": 1, "polish": 0, "pool": 32, "twins": 2, "rounds": 0, "filtered": (2, 64)}
BRIEF |= {"rows": 2000, "driven": (2, 128)}
"""A training of a moment: settings on which no forecast's cost depends. What a baseline has no use for stays off."""
TINY = {"batch": 4, "members": 8, "spin_up": 8, "half_widths": (4,), "width": 16, "size": 20, "max_lead": 8}
"""The least of the rest, for a dry run."""
GPU_TESTS = ("tests/runs/test_gpu.py", "tests/dynamics/test_cuda.py")
"""Where tests are marked ``gpu``: to collect all takes longer than to run them."""
LONGEST = 4.0
"""Seconds that a call may be expected to take; larger batches are left out."""
ROLLED = 32
"""Samples of a rollout that is timed alone."""
COUNTED = 16
"""Cases of the rollout whose operations are counted."""


@dataclass(frozen=True)
class Place:
    """Where it is measured, and how much: on a GPU all of it, in a dry run the least that takes every path."""

    device: torch.device
    work: Path
    """Folder of the data and runs that are made on the way."""
    dry: bool = False

    @property
    def size(self) -> str:
        """The amounts of data that are forecast and scored; trainings take the small ones."""
        return "tiny" if self.dry else "standard"

    @property
    def batches(self) -> tuple[int, ...]:
        """Cases at once."""
        return (1, 2) if self.dry else (1, 16, 256, 4096, 65536)

    def task(self, name: str, size: str = "") -> Task:
        """A task whose data are there."""
        task = tasks.get(name, size or self.size)
        generation.generate(task, self.data, 0, workers=1 if self.dry else os.cpu_count() or 1)
        return task

    @property
    def data(self) -> Path:
        """Folder of the data."""
        return self.work / "data"


def tests(place: Place, seconds: float) -> dict[str, Any]:
    """The tests that need a GPU: how many passed, failed and were skipped, and the names of those that failed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-rf", "-p", "no:cacheprovider", *GPU_TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1):
        raise EmubenchError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    return {**counts, "names_of_failed": failed}


def ceilings(place: Place) -> dict[str, float]:
    """What the device can do at most (:mod:`benchmarks.gpu_ceilings`)."""
    return gpu_ceilings.measured(place.device, place.dry)


def solvers(place: Place, known: dict[str, float]) -> list[dict[str, Any]]:
    """The fused Lorenz solvers, RK4: steps of a trajectory per second, and their share of the ceiling in registers."""
    found = []
    for name, batch in (("lorenz63", 2**18), ("lorenz96", 2**15)):
        system, batch = systems.get(name), 64 if place.dry else batch
        n_steps = 20 if place.dry else 4000
        longer = dataclasses.replace(system, sample_interval=n_steps * system.solver_step)
        start = np.stack([system.draw(stream(0, name, "gpu", i), system.starts[0]) for i in range(64)])
        states = np.tile(start, (batch // 64, *[1] * (start.ndim - 1)))
        for dtype in ("float64", "float32"):
            solver = SettingSolver(longer, Setting("rk4", n_steps, dtype=dtype), place.device)
            seconds = gpu_ceilings.least(lambda solver=solver, states=states: solver.solve(states, 1, []), place.device)
            work = roofline.solver_work(system, "rk4", n_steps, batch, dtype)
            assert work is not None
            share = work[0] / seconds / known[f"registers_{dtype}"]
            one = {"system": name, "dtype": dtype, "path": solver.path, "batch": batch, "share_of_ceiling": share}
            found.append(one | {"steps_per_second": batch * n_steps / seconds})
    return found


def brief(place: Place, baseline: str, task: Task, more: dict[str, Any]) -> dict[str, Any]:
    """The settings of :data:`BRIEF`, and ``more``, that a baseline has and that a task takes."""
    module = baselines.get(baseline)
    defaults = jobs.defaults_of(module, task)
    least = BRIEF | (TINY if place.dry else {}) | more
    wanted = {key: value for key, value in least.items() if getattr(defaults, key, None)}
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        try:
            jobs.build_emulator(module, task, jobs.configured(defaults, {**found, key: value}, baseline, ""))
        except EmubenchError:
            continue
        found[key] = value
    return found


def training(place: Place, baseline: str, name: str, device: str, compiled: bool = False) -> dict[str, Any]:
    """Optimiser steps per second of a baseline at its default width and batch, from the first look on."""
    if compiled and device == "cpu" and modes.compiler() is None:
        return {"steps_per_second": None, "missing": modes.NONE_FOUND}
    task = place.task(name, "tiny")
    threads = torch.get_num_threads()
    settings = brief(place, baseline, task, {"steps": 4, "checks": 2} if place.dry else {"steps": 100, "checks": 10})
    job = jobs.Job(baseline, name, "tiny", threads=threads, overrides=settings, device=device, compile=compiled)
    run = stages.train(job, place.data, place.work / "runs" / device.replace(":", "-"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    looks = [row for row in rows if "loss" in row]
    last = next((i for i in range(1, len(looks)) if looks[i]["step"] < looks[i - 1]["step"]), len(looks)) - 1
    steps, seconds = (looks[last][key] - looks[0][key] for key in ("step", "seconds"))
    return {"steps_per_second": steps / max(seconds, 0.01), "steps": steps, "threads": threads}


def bench(place: Place, baseline: str, name: str, mode: Mode, known: dict[str, float]) -> list[dict[str, Any]]:
    """Forecasts in ``mode`` at every batch: in the plain one end to end, and the rollout of a Stepper alone in all.

    The training was one of a moment: no figure depends on it. Samples count even where they stand still.
    """
    task, tiny = place.task(name), place.task(name, "tiny")
    module = baselines.get(baseline)
    config = jobs.configured(jobs.defaults_of(module, tiny), brief(place, baseline, tiny, {}), baseline, "")
    emulator = jobs.fit(module, tiny, config, dataset.load(tiny, place.data)).to(place.device).requires_grad_(False)
    if mode.compile and not isinstance(emulator, Stepper):
        return [{"missing": "no Stepper: it has no step that could be compiled"}]
    if mode.compile and place.device.type == "cpu" and modes.compiler() is None:
        return [{"missing": modes.NO_COMPILER}]
    modes.apply(emulator, mode, place.device)
    if place.dry:
        task = dataclasses.replace(task, test_steps=8)
    subject = Subject(
        f"{baseline} on {name}", emulator, task, dataset.load(place.task(name), place.data).context("test"),
        device=place.device, seconds=0.02 if place.dry else 0.3,
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    if isinstance(emulator, Stepper):
        short = dataclasses.replace(subject, task=dataclasses.replace(task, test_steps=4 if place.dry else ROLLED))
        found += _timed(place, short, RolloutOnly(), "rollout", mode, known)
    if mode == Mode() or not found:
        found += _timed(place, subject, EndToEnd(), "end_to_end", mode, known)
    return found


def _timed(
    place: Place, subject: Subject, work: EndToEnd, kind: str, mode: Mode, known: dict[str, float]
) -> list[dict[str, Any]]:
    """One way of asking at every batch, as far as memory and patience reach."""
    per_sample = _work(subject, kind) if mode == Mode() else None
    found, before = list[dict[str, Any]](), 0.0
    for batch in place.batches:
        if before > LONGEST:
            found.append({"kind": kind, "batch": batch, "missing": f"a call would take longer than {LONGEST:g} s"})
            continue
        try:
            one, _ = stopwatch.measure(subject, work, batch, f"{kind}-{batch}")
        except torch.OutOfMemoryError:
            found.append({"kind": kind, "batch": batch, "missing": "does not fit in memory"})
            break
        found.append({"kind": kind, **_figures(one)})
        if per_sample is not None:
            found[-1] |= _shares(per_sample, one.trajectory_steps_per_second.median, subject, known)
        before = one.seconds.median * (min(max(one.seconds.median / before, 1.0), 16.0) if before else 1.0)
    return found


def _figures(one: Scenario) -> dict[str, Any]:
    return {
        "batch": one.batch,
        "seconds": one.seconds.model_dump(),
        "samples_per_second": one.trajectory_steps_per_second.median,
        "lead_times_per_second": one.lyapunov_times_per_second.model_dump(),
        "peak_memory": one.peak_memory,
    }


def _work(subject: Subject, kind: str) -> np.ndarray:
    """Operations and bytes of a sample of one member: what four more samples cost, in torch's operators."""
    cases = torch.arange(COUNTED) % len(subject.contexts)
    context = subject.contexts[cases].to(subject.device)

    def run(n: int) -> object:
        generator = subject.generator("counted")
        if kind == "rollout":
            assert isinstance(subject.emulator, Stepper)
            return roll_out(subject.emulator, state, n, generator)
        return checked_ensemble(subject.emulator, context, n, subject.n_members, generator)

    with torch.no_grad():
        if kind == "rollout":
            assert isinstance(subject.emulator, Stepper)
            state = subject.emulator.start(context, subject.n_members, subject.generator("states"))
        few, more = (np.array(roofline.count(lambda n=n: run(n)), dtype=float) for n in (2, 6))
    return (more - few) / 4 / (COUNTED * subject.n_members)


def _shares(per_sample: np.ndarray, rate: float, subject: Subject, known: dict[str, float]) -> dict[str, float]:
    """The shares of the measured ceilings: of operations the higher one, of bytes that of a copy."""
    weights = {p.dtype for p in subject.emulator.parameters()}  # type: ignore[attr-defined]
    dtype = "float32" if torch.float32 in weights else "float64"
    most = max(known[f"registers_{dtype}"], known[f"products_{dtype}"])
    return {"arithmetic": per_sample[0] * rate / most, "memory": per_sample[1] * rate / known["bytes"]}


def climb(place: Place, name: str, known: dict[str, float]) -> dict[str, Any]:
    """The solver ladder of a task, and for each entry of the leaderboard the fastest setting as accurate as it."""
    task = place.task(name)
    rungs = ladder.measure(task, place.data, 3.0 if place.dry else 15.0, device=place.device)
    shown = []
    for rung in rungs:
        one = {"label": ladder.label(task, rung), "path": rung.path, "accuracy": rung.accuracy}
        one |= {key.partition("_")[0]: _figures(scenario) for key, scenario in rung.scenarios.items()}
        shown.append(one | _kernel_share(task, rung, known))
    cases = accuracies(task, place.data)
    return {"rungs": shown, "rivals": {entry: rival(task, rungs, values) for entry, values in cases.items()}}


def _kernel_share(task: Task, rung: Rung, known: dict[str, float]) -> dict[str, float]:
    """Of a fused kernel that starts from samples: the share of the ceiling in registers."""
    if rung.path != "kernel" or rung.start != "sample":
        return {}
    sites = {"n_sites": rung.sites} if "n_sites" in task.system.parameters() else {}
    system = dataclasses.replace(task.system, **sites)
    one = rung.scenarios[RANKED]
    samples = one.batch * task.test_steps
    work = roofline.solver_work(system, rung.scheme, rung.steps_per_sample, samples, rung.dtype)
    return {} if work is None else {"share_of_ceiling": work[0] / one.seconds.median / known[f"registers_{rung.dtype}"]}


def accuracies(task: Task, data: Path) -> dict[str, np.ndarray]:
    """The headline scores per case of every entry's first seed that was scored on these data; none at another size."""
    name, found = ladder.headline(task).metric, {}
    digest = scoring.truth_digest(task, data)
    for folder in sorted(ENTRIES.glob("*/")):
        scored = entry_files.read(folder, entry_files.SCORES)
        one = next((scores for (of, _), scores in sorted(scored.items()) if of == task.name), None)
        if one is not None and one.truth_sha256 == digest:
            found[folder.name] = np.array(one.cases[name], dtype=float)
    return found


def rival(task: Task, rungs: list[Rung], cases: np.ndarray) -> dict[str, Any] | None:
    """The fastest setting that is as accurate as an emulator with these scores, and its speed; ``None`` without one."""
    others = ladder.as_accurate(task, rungs, cases)
    if not others:
        return None
    best = max(others, key=lambda rung: rung.scenarios[RANKED].lyapunov_times_per_second.median)
    speed: Quantiles = best.scenarios[RANKED].lyapunov_times_per_second
    shown = {"label": ladder.label(task, best), "accuracy": float(cases.mean())}
    return shown | {"lead_times_per_second": speed.model_dump()}
