"""How many rings of kpz keep steep fronts: ``python benchmarks/rough_starts.py DATA RUNS…``

Every run is started from contexts of DATA, then from twice and four times as rough ones, 128 each. The data of another
seed do, which no training and no score knows: ``emubench generate kpz-scarce --seed 99 --out DATA``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.data import dataset
from emubench.emulator import Stepper
from emubench.runs import folders

ROUGHNESS, CASES, STEPS = (1.0, 2.0, 4.0), 128, 256
STEEP = 8.0
"""Height differences between neighbours; on a calm ring of the standard size the largest is about 5."""


@torch.no_grad()
def count_steep(run: Path, data: Path, roughness: float) -> int:
    """Rings with a difference above ``STEEP`` (NaN is one) after ``STEPS`` samples."""
    opened = folders.load(run)
    emulator, task = opened.emulator, opened.task
    if task.system.name != "kpz":
        raise EmubenchError(f"{run}: a run on {task.name}, where one on kpz belongs")
    if not isinstance(emulator, Stepper):
        raise EmubenchError(f"{run}: forecasts without a state to start from; a Stepper belongs here")
    context = dataset.load(task, data).context("test")[:CASES]
    level = context.nanmean(-1, keepdim=True)
    generator, count = torch_stream(0, "forecast", task.name, "test", 0), 0
    for part in (level + roughness * (context - level)).split(16):
        state = emulator.start(part, 1, generator)
        for _ in range(STEPS):
            state = emulator.step(state, generator)
        heights = emulator.read(state)[0]
        steepest = (heights.roll(-1, -1) - heights).abs().amax(-1)
        count += int((~(steepest <= STEEP)).sum())  # true for NaN
    return count


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("python benchmarks/rough_starts.py DATA RUNS…")
    torch.set_num_threads(1)
    try:
        for folder in folders.find_runs([Path(argument) for argument in sys.argv[2:]]):
            counts = [count_steep(folder, Path(sys.argv[1]), roughness) for roughness in ROUGHNESS]
            print(f"{folder}: {', '.join(map(str, counts))} of {CASES}", flush=True)
    except EmubenchError as error:
        raise SystemExit(str(error)) from None
