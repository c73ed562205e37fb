"""Make the published recipes with their fingerprints: ``python -m benchmarks.maintain.fingerprints DATA``.

Once per benchmark version, on purpose: a change of any byte of the data needs a new version.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import tomli_w
import typer

from emubench.data import dataset, fingerprints, generation, layout, recipes, tasks, verification
from emubench.data.fingerprints import SEED, ArrayPrint, Fingerprint
from emubench.data.tasks import Task
from emubench.files import store

LEAD_TIMES = (2.0, 5.0, 8.0)
SAMPLES = (1, 8, 63)
"""Samples compared where there is no Lyapunov time; rounding errors hardly grow there."""
MAX_SITES = 8
N_ERRORS = 6.0
"""Statistics may differ by so many standard errors."""
TEXT = """# Recipe and fingerprint of {name}. The recipe says what the task is made of; [fingerprint.<size>] is what
# `emubench verify` compares a file of seed {seed} with.
# Made by `python -m benchmarks.maintain.fingerprints DATA`, not by hand.
"""


def _spread(n: int, count: int) -> list[int]:
    return sorted({round(i * (n - 1) / max(1, count - 1)) for i in range(min(n, count))})


def _times(task: Task, length: int) -> list[int]:
    unit = task.system.time_unit / task.system.sample_interval
    early = SAMPLES if task.system.stochastic else [round(lead * unit) for lead in LEAD_TIMES]
    return sorted({0, *(t for t in early if t < length)})


def _tolerance(rows: np.ndarray, std: float) -> float:
    """Of a mean over independent rows: some standard errors; of few rows, a quarter of σ."""
    if len(rows) < 4:
        return 0.25 * std
    return N_ERRORS * float(rows.std(ddof=1)) / math.sqrt(len(rows)) + 1e-5 * std


def of_array(task: Task, array: h5py.Dataset) -> ArrayPrint:
    """The fingerprint of a stored array."""
    means, stds, mask = fingerprints.statistics(task, array)
    rows = sorted({0, min(1, len(means) - 1), len(means) - 1})
    times, sites = _times(task, array.shape[1]), _spread(array.shape[-1], MAX_SITES)
    std = float(stds.mean())
    return ArrayPrint(
        sha256=str(array.attrs[store.DIGEST]),
        mask_sha256=mask,
        rows=rows,
        times=times,
        sites=sites,
        values=[float(v) for v in fingerprints.values_at(array, rows, times, sites).ravel()],
        mean=float(means.mean()),
        std=std,
        mean_tolerance=_tolerance(means, std),
        std_tolerance=_tolerance(stds, std),
    )


def of_task(task: Task, data: Path) -> Fingerprint:
    """The fingerprint of a generated task; that of the clean track is the truth's as well."""
    arrays = {}
    for kind, path in (("observations", layout.task_path(task, data)), ("truth", layout.truth_path(task, data))):
        if kind == "truth" and task.track != "clean":
            continue
        verification.verify(path)
        with dataset.open_file(path, kind, task, SEED) as file:
            for name in layout.Layout(task, kind).shapes:
                arrays[name] = of_array(task, file[name])  # type: ignore[arg-type]
    return Fingerprint(seed=SEED, draws_sha256=fingerprints.draws(task, SEED), arrays=arrays)


def recipe_text(task: Task, prints: dict[str, Fingerprint]) -> str:
    """``datasets/<task>.toml``: the recipe, whose amounts are the size's, and a fingerprint per size."""
    content = recipes.describe(task)
    del content["amounts"]
    head = {"name": task.name, "track": task.track, "system": content["system"]}
    content = head | {"fingerprint": {size: found.model_dump() for size, found in prints.items()}}
    return TEXT.format(name=task.name, seed=SEED) + tomli_w.dumps(content, indent=1)


def write(data: Path, target: Path, names: list[str], sizes: list[str]) -> None:
    """Generate what is missing below ``data`` and write the recipes to ``target``."""
    for name in names:
        prints = {}
        for size in sizes:
            task = tasks.get(name, size)
            generation.generate(task, data, SEED, workers=None)
            prints[size] = of_task(task, data)
        store.write_text(target / f"{name}.toml", recipe_text(tasks.get(name), prints))


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the datasets of seed 0; what is missing is generated.")],
    target: Path = fingerprints.folder(),
    only: Annotated[list[str] | None, typer.Option("--task", help="May be given several times; default: all.")] = None,
) -> None:
    """Write the recipes of the published tasks, with a fingerprint per size."""
    write(data, target, only or tasks.names(), list(tasks.SIZES))


if __name__ == "__main__":
    typer.run(main)
