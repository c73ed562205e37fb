"""Speed and accuracy of scored forecasts, beside those of another checkout:

    python benchmarks/forecasts.py OTHER_CHECKOUT DATA RUNS…

Both checkouts load the same runs and take turns, one thread each; seconds are of the processor, so that what else the
machine does counts little. Batches of 1 and 64 are whole forecasts, from context to horizon. At 1024 it is a part, for
the whole would take hours: with a filter 4 samples of context (18 where it begins at the 16th) and 8 steps, else 64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import torch

from emubench.core.random import torch_stream
from emubench.emulator import Emulator, checked_forecast
from emubench.evaluation.scoring import Cases
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.filters.ensemble import Filter
from emubench.metrics._headline import headline
from emubench.runs import folders

ROUNDS = {1: 2, 64: 1, 1024: 1}


def serve(data: Path) -> None:
    """Answer lines "batch run" with seconds, and of whole batches of 64 with the mean score and the forecast's size."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        size, run = line.rstrip("\n").split(" ", 1)
        batch, opened = int(size), folders.load(Path(run))
        emulator, task = cast(Emulator, opened.emulator), opened.task
        cases = Cases.load(task, data)
        context, steps = cases.contexts[torch.arange(batch) % 64], cases.truth.shape[1]
        checked_forecast(emulator, context[:1, -18:], 2, 1, torch_stream(0))
        if batch > 64:
            early = any(isinstance(module, ClimateFilter) for module in opened.emulator.modules())
            late = isinstance(getattr(emulator, "filter", None), Filter)
            context, steps = context[:, -4 if early else -18 :], 8 if early or late else 64
        begun = time.process_time()
        made = checked_forecast(emulator, context, steps, task.n_members("test"), torch_stream(0, "forecast"))
        spent = time.process_time() - begun
        score = 0.0
        if batch == 64:
            score = float(headline(task).cases(made, cases.truth[:64], cases.start[:64]).mean())
        print(json.dumps({"seconds": spent, "steps": made.shape[2], "score": score}), flush=True)


def served(checkout: Path, data: Path) -> subprocess.Popen[str]:
    """A process that forecasts with the code of ``checkout``."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--serve", str(data)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    )


def ask(process: subprocess.Popen[str], batch: int, run: Path) -> dict[str, float]:
    """What a process measured."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(batch, run.resolve(), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{run}: batch {batch}: the other process ended; what it said is above")
    return json.loads(answer)


def compare(other: Path, data: Path, runs: list[Path]) -> None:
    """Print a row per run and batch: samples of one case per second before and now, and scores."""
    both = [served(checkout.resolve(), data.resolve()) for checkout in (other, Path(__file__).parents[1])]
    print("| run | batch | before, samples/s | now | ratio | score before | now |\n|---|---|---|---|---|---|---|")
    for run in runs:
        for batch, rounds in ROUNDS.items():
            found = [[ask(process, batch, run) for process in both] for _ in range(rounds)]
            least = [min(answers, key=lambda a: a["seconds"]) for answers in zip(*found, strict=True)]
            before, now = (batch * a["steps"] / a["seconds"] for a in least)
            scores = " | ".join(f"{a['score']:.3f}" if batch == 64 else "" for a in least)
            name = "/".join(run.resolve().parts[-3:-1])
            print(f"| {name} | {batch} | {before:.4g} | {now:.4g} | {now / before:.2f} | {scores} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"] and len(sys.argv) == 3:
        serve(Path(sys.argv[2]))
    elif len(sys.argv) >= 4:
        compare(Path(sys.argv[1]), Path(sys.argv[2]), folders.find_runs([Path(a) for a in sys.argv[3:]]))
    else:
        raise SystemExit("python benchmarks/forecasts.py OTHER_CHECKOUT DATA RUNS…")
