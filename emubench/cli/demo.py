"""The main job at tiny size, through the same code as the real thing."""

import sys
from concurrent.futures import as_completed
from pathlib import Path

from emubench import systems
from emubench.cli import report
from emubench.cli.options import leave, progress
from emubench.core.hardware import check_device
from emubench.core.workers import worker_pool
from emubench.data import generation, tasks
from emubench.runs import jobs, stages

TRAINED = "resnet_ode"
BASELINES = (TRAINED, "oracle", "persistence", "linear")
"""Those that take long come first."""
STEPS = {"lorenz63": 1500, "lorenz96": 400, "kuramoto_sivashinsky": 300, "kpz": 150}
"""Optimiser steps of ``resnet_ode`` here: a tenth of the real budget."""


def demo_jobs(device: str = "cpu") -> list[jobs.Job]:
    """Every baseline of the demo on every system's noisy task."""
    names = systems.names()
    steps = {name: {"steps": STEPS.get(name, 300)} for name in names}
    return [
        jobs.Job(baseline, f"{name}-noisy", "tiny", overrides=steps[name] if baseline == TRAINED else {}, device=device)
        for baseline in BASELINES
        for name in names
    ]


def _run(job: jobs.Job, data: Path, out: Path) -> Path:
    folder = stages.train(job, data, out)
    stages.score(folder, data, device=job.device)
    return folder


def run(folder: Path, workers: int, json: bool, device: str = "cpu") -> None:
    """Generate, train, score, rank and plot below ``folder``."""
    where = str(check_device(device, stages.DTYPE))
    data, out, plots = folder / "data", folder / "runs", folder / "plots"
    todo = demo_jobs(where)
    names = sorted({job.task for job in todo})
    with progress("generate", lines=True) as show:
        for done, name in enumerate(names, 1):
            generation.generate(tasks.get(name, "tiny"), data, seed=0, workers=workers)
            show(done, len(names))
    with progress("train and score", lines=True) as show, worker_pool(workers) as pool:
        runs: list[Path] = []
        for future in as_completed([pool.submit(_run, job, data, out) for job in todo]):
            runs.append(future.result())
            show(len(runs), len(todo))
    print("rank and plot ...", file=sys.stderr, flush=True)
    faults = report.compare(sorted(runs), plots, json)
    print(f"data in {data}, runs in {out}, tables and plots in {plots}", file=sys.stderr)
    leave(faults)
