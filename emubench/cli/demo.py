"""The main job at tiny size, through the same code as the real thing."""

from __future__ import annotations

from concurrent.futures import as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from emubench import systems
from emubench.cli import compare
from emubench.core.workers import worker_pool
from emubench.data import generation, tasks
from emubench.runs import jobs, stages

TRACKS = ("noisy",)
BASELINES = ("persistence", "linear", "resnet_ode", "oracle")
STEPS = {"lorenz63": 1500, "lorenz96": 400, "kuramoto_sivashinsky": 300, "kpz": 150}
"""Optimiser steps of ``resnet_ode`` here: a tenth of the real budget."""


def demo_jobs() -> list[jobs.Job]:
    """Every system's noisy task × the demo's baselines."""
    todo = []
    for system in systems.names():
        for track in TRACKS:
            for baseline in BASELINES:
                overrides = {"steps": STEPS.get(system, 300)} if baseline == "resnet_ode" else {}
                todo.append(jobs.Job(baseline, f"{system}-{track}", "tiny", overrides=overrides))
    return sorted(todo, key=lambda job: job.baseline != "resnet_ode")  # the long ones first


def _run(job: jobs.Job, data: Path, out: Path) -> Path:
    folder = stages.train(job, data, out)
    stages.score(folder, data)
    return folder


def run(folder: Path, workers: int, json: bool) -> None:
    """Generate, train, score, rank and plot below ``folder``."""
    console = Console(stderr=True)
    data, out, plots = folder / "data", folder / "runs", folder / "plots"
    todo = demo_jobs()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        names = sorted({job.task for job in todo})
        step = bar.add_task("generate", total=len(names))
        for name in names:
            generation.generate(tasks.get(name, "tiny"), data, seed=0, workers=workers)
            bar.advance(step)
        step = bar.add_task("train and score", total=len(todo))
        with worker_pool(workers) as pool:
            futures = [pool.submit(_run, job, data, out) for job in todo]
            runs = []
            for future in as_completed(futures):
                runs.append(future.result())
                bar.advance(step)
    compare.compare(sorted(runs), plots, json)
    console.print(f"data in {data}, runs in {out}, tables and plots in {plots}")
