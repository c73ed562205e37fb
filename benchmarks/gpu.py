"""All that a GPU is asked, in at most ten minutes: ``make gpu``, or ``python -m benchmarks.gpu [--dry-run]``.

Steps are done in the order of their importance, so that ``--minutes`` cuts the least of them. Each is kept as soon as
it is done, in one file below ``benchmarks/results/``, whose name tells the hardware; the same command goes on from
there, after an interrupt and after the time is over. ``table`` writes what was measured into ``docs/throughput.md``.
``--dry-run`` walks through every kind of step on the CPU, at tiny size and in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_steps, gpu_table
from benchmarks.gpu_steps import ROOT, Place
from emubench import __version__, baselines, systems
from emubench.core.errors import EmubenchError, one_line
from emubench.core.hardware import processor
from emubench.evaluation.throughput import stopwatch
from emubench.evaluation.throughput.modes import Mode
from emubench.files import store

RESULTS = ROOT / "benchmarks" / "results"
FAMILIES = ("resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial")
FIRST = ("lorenz96-noisy", "kuramoto_sivashinsky-noisy")
MODES = (Mode(), Mode(compile=True), Mode(precision="bfloat16"))
HARDWARE = {"device", "name", "driver", "cores", "threads", "torch"}
NO_GPU = "no GPU: torch sees none on this machine; --dry-run walks through every step on the CPU"


@dataclass(frozen=True)
class Step:
    """One measurement: its name in the file, the seconds that it may take on a GPU, and what does it."""

    name: str
    seconds: float
    work: Callable[[Place, dict[str, Any]], Any]
    """Given what was found so far, by the names of the steps."""


def benched(baseline: str, task: str, mode: Mode) -> Step:
    """Forecasts of a baseline at every batch."""
    seconds = 60.0 if mode.compile else 15.0
    name = f"bench {baseline} {task} {mode.name}"
    return Step(name, seconds, lambda place, known: gpu_steps.bench(place, baseline, task, mode, known["ceilings"]))


def trained(baseline: str, task: str, device: str, compiled: bool = False) -> Step:
    """Training steps of a baseline."""
    kind = f"{device}{' compiled' if compiled else ''}"
    name = f"training {baseline} {task} {kind}"
    return Step(
        name, 60.0 if compiled else 15.0, lambda place, _: gpu_steps.training(place, baseline, task, device, compiled)
    )


def climbed(task: str) -> Step:
    """The solver ladder of a task."""
    return Step(f"ladder {task}", 20.0, lambda place, known: gpu_steps.climb(place, task, known["ceilings"]))


def steps(device: str, dry: bool = False) -> list[Step]:
    """All steps, the most important first; of a dry run every kind of step."""
    found = [
        Step("tests", 120.0, lambda place, _: gpu_steps.tests(place, 180.0)),
        Step("ceilings", 10.0, lambda place, _: gpu_steps.ceilings(place)),
        Step("solvers", 10.0, lambda place, known: gpu_steps.solvers(place, known["ceilings"])),
    ]
    short = FIRST[:1] if dry else FIRST
    found += [trained(baseline, task, where) for task in short for baseline in FAMILIES for where in (device, "cpu")]
    tasks = [f"{name}-{track}" for track in ("noisy", "clean") for name in systems.names()]
    first, others, rest = list(FIRST), baselines.names(), [task for task in tasks if task not in FIRST]
    if dry:
        first, rest = ["lorenz63-noisy"], []
    found += [benched(baseline, task, MODES[0]) for task in first for baseline in FAMILIES]
    found += [climbed(task) for task in first]
    found += [benched(baseline, task, mode) for task in first for baseline in FAMILIES for mode in MODES[1:]]
    found += [trained(baseline, task, device, True) for task in short for baseline in FAMILIES]
    found += [benched(baseline, task, MODES[0]) for task in first for baseline in others if baseline not in FAMILIES]
    for task in rest:
        found += [climbed(task), *(benched(baseline, task, MODES[0]) for baseline in others)]
    found += [benched(baseline, task, mode) for task in first for baseline in others for mode in MODES[1:]]
    found += [benched(baseline, task, mode) for task in rest for baseline in others for mode in MODES[1:]]
    once = list({step.name: step for step in found}.values())
    if (
        dry
    ):  # a bench and a training that are compiled, and what is in low precision of the four families, stand for all
        kinds = (("bench", "compiled", 1), ("training", "compiled", 1), ("bench", "bfloat16", len(FAMILIES)))
        left_out = {
            step.name
            for kind, word, n in kinds
            for step in [one for one in once if one.name.startswith(kind) and word in one.name][n:]
        }
        once = [step for step in once if step.name not in left_out]
    return once


def head(place: Place) -> dict[str, Any]:
    """What the figures belong to."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD:emubench", "HEAD:baselines"]  # no commit of results changes it
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    hardware = stopwatch.record(place.device, torch.float64, False).model_dump(include=HARDWARE)
    code = "-".join(line[:8] for line in done.stdout.split())
    return {"hardware": hardware, "cpu": processor(), "emubench_version": __version__, "code": code}


class Results:
    """The file of one machine: what was measured, kept step by step."""

    def __init__(self, folder: Path, stated: dict[str, Any], again: bool = False) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", stated["hardware"]["name"].lower()).strip("-")
        files = sorted(folder.glob(f"{slug}-gpu-*.json"))
        self.path = folder / f"{slug}-gpu-{time.strftime('%Y-%m-%d')}.json"
        self.content: dict[str, Any] = {**stated, "date": time.strftime("%Y-%m-%d"), "steps": {}}
        known = json.loads(files[-1].read_text(encoding="utf-8")) if files else None
        if known is not None and not again and all(known.get(key) == value for key, value in stated.items()):
            self.path, self.content = files[-1], known
        elif self.path.exists() and not again:
            raise EmubenchError(f"{self.path}: was measured with other code or libraries; --again replaces it")

    @property
    def found(self) -> dict[str, Any]:
        """What the steps have found that ended well."""
        return {name: one["found"] for name, one in self.content["steps"].items() if "found" in one}

    def keep(self, name: str, one: dict[str, Any]) -> None:
        """Add what a step has found, or why it failed; the file is whole at any time."""
        self.content["steps"][name] = one
        store.write_text(self.path, json.dumps(self.content, indent=1) + "\n")


def run(place: Place, results: Results, wanted: list[Step], seconds: float) -> tuple[int, int]:
    """Do what is not found yet, as far as it fits into ``seconds``; return how many failed and how many are left."""
    begun, failed, left = time.monotonic(), 0, 0
    for i, step in enumerate(wanted):
        if step.name in results.found:
            continue
        spent = time.monotonic() - begun
        if spent + step.seconds > seconds:
            left += 1
            continue
        print(f"[{i + 1} of {len(wanted)}, {spent:.0f} s] {step.name}", file=sys.stderr, flush=True)
        try:
            found = step.work(place, results.found)
            results.keep(step.name, {"found": found, "seconds": round(time.monotonic() - begun - spent, 2)})
        except Exception as error:  # whatever it is, the other steps are measured
            failed += 1
            line = one_line(f"{type(error).__name__}: {error}")[:300]
            print(f"{step.name}: {line}", file=sys.stderr, flush=True)
            results.keep(step.name, {"error": line})
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    return failed, left


def dry_run() -> int:
    """Every kind of step on the CPU, with the table that would be written; nothing is kept."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="emubench-gpu-") as folder:
        place = Place(torch.device("cpu"), Path(folder), dry=True)
        results, wanted = Results(Path(folder), head(place)), steps("cpu", dry=True)
        failed, _ = run(place, results, wanted, 3600.0)
        text = gpu_table.section(results.content)
    print(f"{len(wanted)} steps, {failed} failed; a section of {text.count(chr(10))} lines would be written")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Measure, or make the table; the exit status is 1 without a GPU and where a step failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["measure", "table"], default="measure")
    parser.add_argument("--dry-run", action="store_true", help="every step on the CPU, at tiny size, nothing kept")
    parser.add_argument("--minutes", type=float, default=10.0, help="no step begins that would take longer")
    parser.add_argument("--again", action="store_true", help="measure all anew")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu", help="folder of data and runs on the way")
    given = parser.parse_args(arguments)
    if given.what == "table":
        gpu_table.write(RESULTS)
        return 0
    if given.dry_run:
        return dry_run()
    if not torch.cuda.is_available():
        print(f"emubench: {NO_GPU}", file=sys.stderr)
        return 1
    torch.set_num_threads(os.cpu_count() or 1)
    place = Place(torch.device("cuda", 0), given.work)
    try:
        results = Results(RESULTS, head(place), given.again)
        failed, left = run(place, results, steps("cuda:0"), 60 * given.minutes)
    except EmubenchError as error:
        print(f"emubench: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("emubench: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    more = f"; {left} steps are left, the same command goes on" if left else ""
    print(f"wrote {results.path}{more}; the docs are made from it by: python -m benchmarks.gpu table")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
