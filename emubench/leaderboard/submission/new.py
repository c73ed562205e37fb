"""``emubench submit new``: make an entry's folder from scored runs, or from forecasts made elsewhere."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.evaluation.throughput import speedup
from emubench.files import run_files, schema, store, timing
from emubench.leaderboard.submission import check, entries
from emubench.leaderboard.submission.check import FILL_IN
from emubench.leaderboard.submission.entries import ENTRY_FILE, FORECASTS, Entry

MAX_TIMES = 96


def thinned(figures: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's ``figures.json`` that the page shows: at most 96 times, four significant digits.

    >>> thinned({"lead_time": [0.12345678], "truth": [[1.0]], "forecast": [[2.0]], "more": 3})
    {'lead_time': [0.1235], 'truth': [[1.0]], 'forecast': [[2.0]]}
    """
    every = math.ceil(len(figures.get("lead_time", [])) / MAX_TIMES) or 1
    content = {key: _rounded(figures[key][::every]) for key in ("lead_time", "truth", "forecast")}
    for key in ("spatial_power", "truth_spatial_power"):
        if key in figures:
            content[key] = _rounded(figures[key])
    return content


def _rounded(values: Any) -> Any:
    return [_rounded(v) for v in values] if isinstance(values, list) else float(f"{values:.4g}")


def from_runs(name: str, runs: list[Path], out: Path, stated: dict[str, Any]) -> Path:
    """Make ``out/name`` from scored runs of one method: one run per task and seed.

    ``stated`` holds what the submitter says of them: authors, contact, licence … Raises :class:`EmubenchError` for
    runs that do not belong together or were not scored.
    """
    placed: dict[tuple[str, int], tuple[Path, run_files.Card]] = {}
    for run in runs:
        card = schema.read_json(run_files.Card, run / "card.json", 2**20)
        if (run / "recipe.json").exists() or card.task not in entries.shapes().get(card.size, {}):
            raise EmubenchError(f"{run}: {card.task} at size {card.size} is none of the benchmark's tasks")
        if not (run / "scores.json").exists():
            raise EmubenchError(f"{run}: has no scores yet; make them with: emubench score {run}")
        first = next(iter(placed.values()), (run, card))[1]
        for key in ("baseline", "size", "knowledge"):
            if getattr(card, key) != getattr(first, key):
                one, two = getattr(first, key), getattr(card, key)
                raise EmubenchError(f"the runs differ in their {key} ({one}, {two}): make an entry of each")
        if (card.task, card.seed) in placed:
            raise EmubenchError(
                f"{run} and {placed[card.task, card.seed][0]}: the same task and seed; give one of them"
            )
        placed[card.task, card.seed] = (run, card)
    cards = [card for _, card in placed.values()]
    first = cards[0]
    overrides = {card.task: {k: v for k, v in (card.overrides or {}).items() if v is not None} for card in cards}
    settings = {json.dumps(v) for v in overrides.values()}
    shown = " ".join(f"--set {k}={json.dumps(v)}" for k, v in first.overrides.items()) if first.overrides else ""
    command = f"emubench train {first.baseline} TASK --size {first.size} --seed SEED {shown}".strip()
    content = {
        "method": first.baseline,
        "knowledge": first.knowledge,
        "size": first.size,
        "seeds": sorted({seed for _, seed in placed}),
        "overrides": {task: v for task, v in overrides.items() if v},
        "training_command": command if len(settings) == 1 else f"{command} (settings per task: overrides)",
        "budget": f"{sum(card.train_seconds for card in cards):.0f} s of training in all",
        "hardware": f"{_hardware(next(iter(placed.values()))[0]) or first.device}, {first.threads} thread(s)",
    }
    sources = {f"{task}/seed-{seed}": run for (task, seed), (run, _) in placed.items()}
    return _make(name, out, content | stated, lambda folder: _copy_runs(folder, sources))


def from_forecasts(name: str, forecasts: dict[str, Path], data: Path, size: str, out: Path, stated: dict) -> Path:
    """Make ``out/name``, an open entry, from one forecast file per task; they are scored here."""
    results = {task: scoring.score_forecast(path, tasks.get(task, size), data) for task, path in forecasts.items()}
    content = {
        "method": FORECASTS,
        "knowledge": FILL_IN,
        "division": "open",
        "size": size,
        "seeds": [0],
        "training_command": FILL_IN,
        "budget": FILL_IN,
        "hardware": FILL_IN,
    }

    def fill(folder: Path) -> None:
        for task, path in forecasts.items():
            place = folder / task / "seed-0"
            place.mkdir(parents=True)
            shutil.copyfile(path, place / ("forecast.npz" if path.suffix == ".npz" else "forecast.h5"))
            (place / "scores.json").write_text(results[task].scores.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _write_json(place / "figures.json", thinned(results[task].figures))

    return _make(name, out, content | stated, fill)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _copy_runs(folder: Path, sources: dict[str, Path]) -> None:
    drawn = set()  # tasks of which a figure is there: one seed is enough to look at
    for place, run in sorted(sources.items()):
        (folder / place).mkdir(parents=True)
        for kind in ("card.json", "model.safetensors", "scores.json"):
            shutil.copyfile(run / kind, folder / place / kind)
            os.chmod(folder / place / kind, 0o644)
        if (run / "timing.json").exists():
            _write_json(folder / place / "timing.json", _timing(run, place.split("/")[0]))
        task = place.split("/")[0]
        if (run / "figures.json").exists() and task not in drawn:
            drawn.add(task)
            figures = json.loads((run / "figures.json").read_text(encoding="utf-8"))
            _write_json(folder / place / "figures.json", thinned(figures))


def _hardware(run: Path) -> str:
    """The processor or accelerator that a run was benched on, if it was."""
    measured = timing.read(run)
    bench = measured.benches.get("eager") if measured else None
    return bench.hardware.name if bench else ""


def _timing(run: Path, task: str) -> dict[str, Any]:
    """What the page shows of a run's ``timing.json``: its speed, and where it was benched, the solvers beside it."""
    content = json.loads((run / "timing.json").read_text(encoding="utf-8"))
    known = {key: content[key] for key in check.Timing.model_fields if key in content}
    measured = timing.read(run)
    bench = measured.benches.get("eager") if measured else None
    if measured and bench and timing.RANKED in bench.speedups:
        known["speedup"] = bench.speedups[timing.RANKED].model_dump()
        rates = [(rung, rung.scenarios[timing.RANKED].lyapunov_times_per_second.median) for rung in measured.ladder]
        known["solvers"] = [
            {
                "name": speedup.label(tasks.get(task), rung),
                "accuracy": float(f"{rung.accuracy:.4g}"),
                "lyapunov_times_per_second": float(f"{rate:.4g}"),
            }
            for rung, rate in rates
        ]
    return known


def _make(name: str, out: Path, content: dict[str, Any], fill: Any) -> Path:
    """Fill a folder under a temporary name, hash its files, write ``entry.toml``, and only then give it its name."""
    blank = {key: FILL_IN for key in ("contact", "licence")} | {"authors": [FILL_IN], "division": "standard"}
    blank["data"] = "the task's own training and validation data, nothing else"
    content = {"schema_version": 1, "name": name} | blank | content
    if content["knowledge"] == FILL_IN:
        raise EmubenchError("say with --knowledge what the method knows: none, structure, 'equation form' or equation")
    schema.parse(Entry, content | {"files": {"a/seed-0/card.json": "0" * 64}}, f"entry {name}")  # before any work
    folder = out / name
    if folder.exists():
        raise EmubenchError(f"{folder}: is there already; choose another name or remove it")
    partial = folder.with_name(f".{name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        fill(partial)
        files = {
            str(p.relative_to(partial)): entries.sha256(p) for p in partial.rglob("*") if stat.S_ISREG(p.stat().st_mode)
        }
        entry = schema.parse(Entry, content | {"files": files}, f"entry {name}")
        store.write_text(partial / ENTRY_FILE, entries.to_toml(entry))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
