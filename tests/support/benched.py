"""Timings as ``emubench bench`` leaves them, made up, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emubench.files.timing import RANKED

HARDWARE = {
    "device": "cpu",
    "name": "a processor",
    "driver": "",
    "cores": 2,
    "threads": 1,
    "dtype": "float32",
    "tf32": False,
    "compiled": False,
    "torch": "2",
    "date": "2026-11-22",
}


def quantiles(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.8 * median, "high": 1.2 * median}


def scenario(speed: float) -> dict[str, Any]:
    rates = {"lyapunov_times_per_second": quantiles(speed), "trajectory_steps_per_second": quantiles(speed)}
    sizes = {"batch": 64, "repetitions": 20, "repeated_over_fresh": 1.0, "peak_memory": 0}
    return rates | sizes | {"seconds": quantiles(1 / speed)}


def rung(speed: float, accuracy: float, steps: int, start: str = "sample") -> dict[str, Any]:
    kind = {"scheme": "rk4", "steps_per_sample": steps, "sites": 3, "dtype": "float64", "start": start}
    scenarios = {RANKED: scenario(speed), "single_end_to_end": scenario(speed)}
    return kind | {"path": "kernel", "accuracy": accuracy, "scenarios": scenarios, "cases": [accuracy] * 8}


LADDER = [rung(1e4, 1.0, 1), rung(5e3, 1.5, 2), rung(1e3, 0.5, 1, "filter"), rung(500.0, 3.0, 2, "filter")]


def bench(mode: str, speed: float, accuracy: float, speedup: float | None, skill: float) -> dict[str, Any]:
    gained = {"value": speedup, "low": speedup, "high": speedup, "scheme": "rk4, 2 steps per sample"}
    gained |= {"ranked": skill >= 0.25, "break_even": None}
    ends = {"accuracy": accuracy, "accuracy_low": 0.9 * accuracy, "accuracy_high": 1.1 * accuracy, "skill": skill}
    measured = {"scenarios": {RANKED: scenario(speed)}, "speedups": {RANKED: gained}, "memory_cap": 2**31}
    return {"emubench_version": "0.1.0", "mode": mode, "hardware": HARDWARE} | ends | measured


def write(run: Path, speed: float, accuracy: float, speedup: float | None = 2.0, skill: float = 0.5) -> None:
    """A plain and a compiled mode of a run, with a ladder."""
    benches = {m: bench(m, s, accuracy, speedup, skill) for m, s in (("eager", speed), ("compiled", 1.5 * speed))}
    content = {"lyapunov_times_per_second": speed, "benches": benches, "ladder": LADDER}
    (run / "timing.json").write_text(json.dumps(content))
