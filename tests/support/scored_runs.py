"""Scored runs on disk with planted scores, and their table: what the tests of ranking, entries and reports share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emubench.leaderboard import ranking
from emubench.runs import folders, jobs, scored

SYSTEMS = ("kpz", "kuramoto_sivashinsky", "lorenz63", "lorenz96")


def write_run(
    out: Path,
    baseline: str,
    task: str,
    cases: Any,
    *,
    seed: int = 0,
    size: str = "tiny",
    config: dict[str, Any] | None = None,
    speed: float | None = 1000.0,
    rows: dict[str, tuple[Any, Any, Any]] | None = None,
    truth: str = "a" * 64,
    version: str = "0.1.0",
    name: str = "",
) -> Path:
    """A scored run as ``jobs.score`` leaves it, with the per-case values and whole-forecast rows given."""
    run = out / baseline / task / (name or f"{size}-seed-{seed}-{len(config or {})}")
    run.mkdir(parents=True)
    header = {"schema_version": 1, "emubench_version": version, "task": task, "size": size}
    card = {"baseline": baseline, "seed": seed, "data_sha256": "", "knowledge": "none", "config": config or {}}
    cost = {"n_parameters": 10, "train_seconds": 2.0, "threads": 1, "device": "cpu"}
    (run / "card.json").write_text(json.dumps(header | card | cost))
    metric = "crps" if task.startswith("kpz") else "valid_prediction_time"
    whole = {"lead_time": None, "n_cases": 8, "unit": "1", "task": task}
    found = rows if rows is not None else {"surviving_fraction": (1.0, 1.0, 1.0), "dead_fraction": (0.0, 0.0, 0.0)}
    score_rows = [{"metric": m, "value": v, "low": lo, "high": hi} | whole for m, (v, lo, hi) in found.items()]
    scores = {"truth_sha256": truth, "rows": score_rows, "cases": {metric: list(map(float, cases))}}
    (run / "scores.json").write_text(json.dumps(header | scores))
    if speed is not None:
        (run / "timing.json").write_text(json.dumps({"lyapunov_times_per_second": speed, "threads": 1}))
    return run


def table(*runs: Path) -> pd.DataFrame:
    return ranking.table(scored.read_runs(folders.find_runs(list(runs))))


def row(frame: pd.DataFrame, entry: str, task: str | None, track: str = "noisy") -> dict[str, Any]:
    rows = ranking.records(frame)
    (found,) = [r for r in rows if (r["entry"], r["task"], r["track"]) == (entry, task, track)]
    return found


def normal(seed: int, n: int, mean: float = 5.0, std: float = 1.0) -> np.ndarray:
    """Values whose mean and standard deviation are exact."""
    values = np.random.default_rng(seed).standard_normal(n)
    return mean + std * (values - values.mean()) / values.std()


def everything(out: Path, baseline: str, level: float, **more: Any) -> None:
    stable = {"skill_stability": (0.8, 0.7, 0.9), "surviving_fraction": (1.0, 1.0, 1.0), "dead_fraction": (0.0,) * 3}
    for i, system in enumerate(SYSTEMS):
        values = normal(10 + i, 16, mean=2.0 if system == "kpz" else level, std=0.2)
        write_run(out, baseline, f"{system}-noisy", values, **({"rows": stable} | more))


def config(task: str, **overrides: Any) -> dict[str, Any]:
    job = jobs.Job("linear", task, "tiny", overrides=overrides)
    return json.loads(json.dumps(job.config().__dict__))
