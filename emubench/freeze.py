"""Make the frozen reference values: ``python -m emubench.freeze --help``.

Run once per benchmark version by a maintainer: takes the accuracy floor from standard runs of seed 0 and measures
noise floors and anchors of the climate distances on independent truth, into ``reference.json``. The oracle's values
come from :mod:`emubench.perfect_model`, but for clean deterministic tasks: there they are the caps its run reaches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from emubench import evaluate, metrics, perfect_model, reference, schema, store, trajectories
from emubench import task as tasks
from emubench.errors import EmubenchError
from emubench.metrics import Pool, Truth, stability
from emubench.random import torch_stream
from emubench.task import SIZES, Task

app = typer.Typer(help=__doc__)
FLOOR_SEED = 1000
KEPT = ("d_zero", "d_floor", "oracle", "oracle_standard_error", "oracle_cases")
N_INDEPENDENT, N_SAMPLES, QUANTILE = 256, 2000, 0.99


@app.command()
def write(
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    climate: Annotated[bool, typer.Option("--climate", help="Measure noise floors and anchors (minutes).")] = False,
    path: Annotated[Path, typer.Option(help="The file to write.")] = reference.PATH,
) -> None:
    """Freeze the reference values of all tasks, in two steps: the climate's (``--climate``), then floor and oracle.

    The second step needs scored standard runs of the floors and of the oracle; it keeps the first one's values and the
    oracle's where it was measured by :mod:`emubench.perfect_model`.
    """
    stored: dict[str, Any] = {}
    climates: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    for name in tasks.names():
        task = tasks.get(name)
        key = (task.system.name, task.shape)
        if climate and key not in climates:
            climates[key] = climate_reference(task, data)
        kept = {k: v for k, v in reference.get(name).items() if k in KEPT}
        stored[name] = climates[key] if climate else {**headline_reference(task, runs), **kept}
        print(name, json.dumps(stored[name]), flush=True)
    store.write_text(path, json.dumps(stored, indent=1) + "\n")


def headline_reference(task: Task, runs: Path) -> dict[str, float]:
    """Floor (the better of persistence and linear), and where the oracle is the solver, its run's value."""
    best = min if task.system.stochastic else max
    values = {"floor": best(_headline(runs, "persistence", task.name), _headline(runs, "linear", task.name))}
    if perfect_model.solved_by_the_oracle(task):
        values |= {"oracle": _headline(runs, "oracle", task.name)}
        values |= {"oracle_standard_error": _standard_error(runs, task.name), "oracle_cases": task.n_test}
    return values


def _scores(runs: Path, baseline: str, task: str) -> schema.ScoreFile:
    found = sorted((runs / baseline / task).glob("standard-seed-0-*/scores.json"))
    if len(found) != 1:
        raise EmubenchError(f"{runs}: one scored standard run of {baseline} on {task} is needed, {len(found)} found")
    return schema.read_json(schema.ScoreFile, found[0])


def _headline(runs: Path, baseline: str, task: str) -> float:
    (cases,) = _scores(runs, baseline, task).cases.values()
    return float(np.mean(cases))


def _standard_error(runs: Path, task: str) -> float:
    (cases,) = _scores(runs, "oracle", task).cases.values()
    return float(np.std(cases, ddof=1) / len(cases) ** 0.5)


def independent_truth(task: Task) -> Tensor:
    """Scored components of independent stationary runs ``"B T *S"`` as long as a climate case, of another seed."""
    length, step = task.context + task.climate_steps, len(task.system.starts)
    rows = []
    for block in range(step * N_INDEPENDENT // trajectories.LANES):
        simulated = trajectories.simulate_block(task.system, FLOOR_SEED, "climate", block, length)
        rows.append(task.observation.select(simulated[::step, task.context :]))
    return torch.from_numpy(np.concatenate(rows))


def climate_reference(task: Task, data: Path) -> dict[str, Any]:
    """``d_zero`` and, per size, ``d_floor``: the 99 % quantile of d over samples of as many independent cases."""
    values = independent_truth(task)
    floors, anchors = {}, {}
    for size in SIZES:
        sized = tasks.get(task.name, size)
        truth_values, start, _ = evaluate.load_truth(sized, data, "climate")
        truth = Truth(sized, truth_values, start, Pool(sized, truth_values[start == 0]))
        d = stability.distances(metrics.deviation(values, sized), truth)
        generator = torch_stream(0, "floor", task.name)
        n = int((start == 0).sum())
        means = d[torch.randint(len(d), (N_SAMPLES, n), generator=generator)].mean(1)
        names = stability.aspects(sized)
        floors[size] = dict(zip(names, torch.quantile(means, QUANTILE, dim=0).tolist(), strict=True))
        if size == "standard":
            constant = truth.mean.expand(1, *values.shape[1:]).clone()
            zero = stability.distances(metrics.deviation(constant, sized), truth)[0]
            anchors = dict(zip(names, zero.tolist(), strict=True))
    return {"d_zero": anchors, "d_floor": floors}


if __name__ == "__main__":
    app()
