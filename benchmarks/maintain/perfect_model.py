"""The perfect-model reference: ``python -m benchmarks.maintain.perfect_model tune TASK`` and ``… measure``.

The oracle (the true system behind an ensemble Kalman filter and, on the Lorenz systems, a fit) sets the upper end of
``skill_accuracy``. ``tune`` compares its settings on contexts of one seed; ``measure`` scores it on 4096 contexts of
another, neither of which is the benchmark's, and freezes value and standard error in ``reference.json``. Scarce
tasks observe as partial ones do, so they share their reference; on clean deterministic tasks it is the solver itself,
whose score is the cap.

On stochastic systems floor and oracle differ by a few per cent, less than the benchmark's 256 cases differ in
difficulty from the average (which moves all entries alike). There skill is measured by the oracle's score on these very
cases, and what ``measure`` finds is kept beside it, as ``population``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from emubench import baselines
from emubench.core.random import stream
from emubench.data import reference, tasks, trajectories
from emubench.data.tasks import Task
from emubench.emulator import Emulator
from emubench.evaluation.forecast import forecast_chunk
from emubench.files import store
from emubench.metrics import Truth
from emubench.metrics._headline import headline

app = typer.Typer(help=__doc__)
TUNE_SEED, MEASURE_SEED, N_CONTEXTS = 99, 4096, 4096
KINDS = int, float, float, int, int
"""Types of the oracle's settings: members, inflation, radius, rotate, window."""
BLOCK = 2 * trajectories.LANES
"""Cases that are made and scored at a time: a filter of 200 members stays within some hundred megabytes."""


def fresh_cases(task: Task, seed: int, block: int) -> tuple[Tensor, Truth]:
    """Contexts ``"B C *S"`` and truth of ``BLOCK`` test cases of ``seed``, made anew and stored nowhere."""
    length = task.context + task.test_steps
    lanes = BLOCK // trajectories.LANES
    parts = [trajectories.simulate_block(task.system, seed, "test", lanes * block + i, length) for i in range(lanes)]
    states = np.concatenate(parts)
    rows = range(BLOCK * block, BLOCK * (block + 1))
    observed = [
        task.observation(task.system, state[: task.context], stream(seed, task.name, "test", i))
        for i, state in zip(rows, states, strict=True)
    ]
    values = torch.from_numpy(task.observation.select(states[:, task.context :]).copy())
    start = torch.tensor([i % len(task.system.starts) for i in rows])
    return torch.from_numpy(np.stack(observed)), Truth(task, values, start)


def headline_cases(emulator: Emulator, task: Task, seed: int, block: int) -> Tensor:
    """The headline score of each case of a block."""
    context, truth = fresh_cases(task, seed, block)
    made = forecast_chunk(emulator, task, "test", context, block, seed)
    return headline(task).cases(made, truth.values, truth.start)


def measured(name: str, folder: Path, n: int = N_CONTEXTS) -> Tensor:
    """The oracle's score on ``n`` contexts of ``MEASURE_SEED``, kept by block in ``folder``, so that it resumes."""
    task = tasks.get(name)
    oracle = baselines.get("oracle").build(task, baselines.get("oracle").Config())
    parts = []
    for block in range(-(-n // BLOCK)):
        path = folder / name / f"{block:04d}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            store.write_text(path, json.dumps(headline_cases(oracle, task, MEASURE_SEED, block).tolist()))
        parts += json.loads(path.read_text())
    return torch.tensor(parts[:n], dtype=torch.float64)


def solved_by_the_oracle(task: Task) -> bool:
    """Whether the oracle's score is the solver's own agreement with itself: the last sample shown without noise."""
    return task.observation.noise == 0 and task.full_state and not task.system.scored_in_law


def judged_on_its_cases(task: Task) -> bool:
    """Whether skill is measured by the oracle's score on the benchmark's own cases."""
    return task.system.scored_in_law or solved_by_the_oracle(task)


@app.command()
def tune(name: str, settings: list[str], blocks: int = 2) -> None:
    """Compare SETTINGS ("members,inflation,radius,rotate,window") on NAME, on contexts that serve nothing else.

    Each is printed with its score and with what it gains on the first, case by case; both with standard errors.
    """
    task, module, first = tasks.get(name), baselines.get("oracle"), None
    for text in settings:
        config = module.Config(*(kind(value) for kind, value in zip(KINDS, text.split(","), strict=True)))
        oracle = module.build(task, config)
        score = torch.cat([headline_cases(oracle, task, TUNE_SEED, block) for block in range(blocks)])
        first = score if first is None else first
        whole, gain = (f"{x.mean():.4f} ± {float(x.std()) / len(x) ** 0.5:.4f}" for x in (score, score - first))
        print(f"{name} {text}: {whole}, gain {gain}", flush=True)


@app.command()
def measure(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all if none is named.")] = None,
    folder: Annotated[Path, typer.Option(help="Where finished blocks are kept.")] = Path("runs/perfect_model"),
    path: Annotated[Path, typer.Option(help="The file of reference values.")] = reference.PATH,
) -> None:
    """Score the oracle on 4096 contexts and freeze the value with its standard error (hours)."""
    for name in names or tasks.names():
        task = tasks.get(name)
        if solved_by_the_oracle(task):
            continue
        source = name.replace("-scarce", "-partial")
        score = measured(source, folder)
        error = float(score.std()) / len(score) ** 0.5
        stored = json.loads(path.read_text(encoding="utf-8"))
        entry = {"oracle": float(score.mean()), "oracle_standard_error": error, "oracle_cases": len(score)}
        stored[name] = stored.get(name, {}) | ({"population": entry} if task.system.scored_in_law else entry)
        store.write_text(path, json.dumps(stored, indent=1) + "\n")
        print(f"{name}: {score.mean():.4f} ± {error:.4f} ({len(score)} contexts)", flush=True)


if __name__ == "__main__":
    app()
