"""Make the frozen reference values: ``python -m benchmarks.maintain.freeze`` ``climate``, ``growth`` and ``write``.

Run once per benchmark version by a maintainer. ``climate`` measures noise floors and anchors of the climate distances
on independent truth, ``growth`` the exact solver's growth from flat, and ``write`` takes the accuracy floor from
standard runs of seed 0; all put them into ``reference.json`` and raise its ``version``. The oracle's values come from
:mod:`benchmarks.maintain.perfect_model`, but for clean deterministic tasks, where they are the caps its run reaches,
and stochastic ones, where they are its run's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.maintain import floors, perfect_model
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import reference, tasks
from emubench.data.tasks import SIZES, Task
from emubench.data.trajectories import FLAT_BLANK
from emubench.dynamics.simulate import simulate
from emubench.evaluation import scoring
from emubench.files import run_files, schema, store
from emubench.metrics import Pool, Truth
from emubench.metrics._ensemble import LEADS
from emubench.metrics._headline import headline

app = typer.Typer(help=__doc__)
N_GROWTH = 8192
"""Runs from flat: the variance is then known to 0.3 %."""
BATCH = 256
"""Runs that are simulated at a time."""
PathOption = Annotated[Path, typer.Option(help="The file to write.")]


@app.command()
def climate(data: Path = Path("data"), path: PathOption = reference.PATH) -> None:
    """Freeze noise floors and anchors of the climate distances (ten minutes); other values are kept."""
    measured: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    for name in tasks.names():
        task = tasks.get(name)
        key = (task.system.name, task.shape)
        if key not in measured:
            measured[key] = climate_reference(task, data)
            print(*key, json.dumps(measured[key]), flush=True)
    _store(path, {name: measured[(t := tasks.get(name)).system.name, t.shape] for name in tasks.names()})


@app.command()
def growth(path: PathOption = reference.PATH) -> None:
    """Freeze the exact solver's growth from flat, at the leads scored (minutes); other values are kept."""
    names = [name for name in tasks.names() if "flat" in tasks.get(name).system.starts]
    found = growth_moments(tasks.get(names[0]), LEADS, N_GROWTH, floors.SEED) | {"lead": LEADS, "runs": N_GROWTH}
    print(json.dumps(found), flush=True)
    _store(path, {name: {"growth": found} for name in names})


@app.command()
def write(runs: Path = Path("runs"), path: PathOption = reference.PATH) -> None:
    """Freeze the accuracy floor, from scored standard runs; other values are kept."""
    measured = {}
    for name in tasks.names():
        measured[name] = headline_reference(tasks.get(name), runs)
        print(name, json.dumps(measured[name]), flush=True)
    _store(path, measured)


def _store(path: Path, measured: dict[str, dict[str, Any]]) -> None:
    """Put values of tasks into the file, whose version counts up."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored |= {name: stored.get(name, {}) | values for name, values in measured.items()}
    content = {"version": 0} | stored | {"version": stored.get("version", 0) + 1}
    store.write_text(path, json.dumps(content, indent=1) + "\n")


def headline_reference(task: Task, runs: Path) -> dict[str, float]:
    """Floor (the better of persistence and linear), and where skill goes by the oracle on these cases, its value."""
    best = max if headline(task).better > 0 else min
    values = {"floor": best(_headline(runs, "persistence", task.name), _headline(runs, "linear", task.name))}
    if perfect_model.judged_on_its_cases(task):
        values |= {"oracle": _headline(runs, "oracle", task.name)}
        values |= {"oracle_standard_error": _standard_error(runs, task.name), "oracle_cases": task.n_test}
    return values


def _scores(runs: Path, baseline: str, task: str) -> run_files.ScoreFile:
    found = sorted((runs / baseline / task).glob("standard-seed-0-*/scores.json"))
    if len(found) != 1:
        raise EmubenchError(f"{runs}: one scored standard run of {baseline} on {task} is needed, {len(found)} found")
    return schema.read_json(run_files.ScoreFile, found[0])


def _headline(runs: Path, baseline: str, task: str) -> float:
    (cases,) = _scores(runs, baseline, task).cases.values()
    return float(np.mean(cases))


def _standard_error(runs: Path, task: str) -> float:
    (cases,) = _scores(runs, "oracle", task).cases.values()
    return float(np.std(cases, ddof=1) / len(cases) ** 0.5)


def climate_reference(task: Task, data: Path) -> dict[str, Any]:
    """``d_floor`` per size and, of the standard one, ``d_zero``, against the benchmark's own truth."""
    floors_of_size, anchors = {}, {}
    for size in SIZES:
        sized = tasks.get(task.name, size)
        values, start, _ = scoring.load_truth(sized, data, "climate")
        found = floors.measure(Truth(sized, values, start, Pool(sized, values[start == 0])))
        floors_of_size[size] = found["d_floor"]
        if size == "standard":
            anchors = found["d_zero"]
    return {"d_zero": anchors, "d_floor": floors_of_size}


def growth_moments(task: Task, leads: tuple[int, ...], n_runs: int, seed: int) -> dict[str, list[float]]:
    """Mean, variance, skewness and excess kurtosis of h over runs of the exact solver from flat, and sites.

    ``leads`` are samples after a flat case's context, which ends 7 samples after the flat start. The standard error of
    the variance is that of independent runs.
    """
    start_to_context = task.context - FLAT_BLANK - 1
    index = np.array(leads) + start_to_context - 1
    parts = []
    for first in range(0, n_runs, BATCH):
        rngs = [stream(seed, task.system.name, "growth", i) for i in range(first, min(first + BATCH, n_runs))]
        flat = np.stack([task.system.draw(rng, "flat") for rng in rngs])
        h = simulate(task.system, flat, int(index[-1]) + 1, rngs)[:, index]
        parts.append(np.stack([(h**p).mean(-1) for p in (1, 2, 3, 4)]))
    raw = np.concatenate(parts, axis=1)  # power, run, lead
    m1, m2, m3, m4 = raw.mean(1)
    variance = m2 - m1**2
    by_run = raw[1] - 2 * raw[0] * m1 + m1**2
    return {
        "mean": m1.tolist(),
        "variance": variance.tolist(),
        "variance_standard_error": (by_run.std(0, ddof=1) / n_runs**0.5).tolist(),
        "skewness": ((m3 - 3 * m1 * m2 + 2 * m1**3) / variance**1.5).tolist(),
        "excess_kurtosis": ((m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / variance**2 - 3).tolist(),
    }


if __name__ == "__main__":
    app()
