"""``emubench submit new``: make an entry's folder from scored runs, or from forecasts made elsewhere."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.evaluation.throughput import ladder
from emubench.files import entry_files, schema, store, timing
from emubench.files.entry_files import CARDS, FIGURES, SCORES, TIMING, RunKey
from emubench.files.run_files import Card, Figures, ScoreFile
from emubench.files.timing import RANKED, EntryTiming, Solver, Speed, Timing
from emubench.leaderboard.submission import entries
from emubench.leaderboard.submission.checks import FILL_IN
from emubench.leaderboard.submission.entries import ENTRY_FILE, FORECASTS, WEIGHTS, Contents, Entry

MAX_TIMES = 96
OF_SCORING = ("test_seconds", "counted_share", "scored_on", "climate_seconds", "widths_seconds")
"""Fields of a timing that scoring measures."""


def thinned(figures: Figures) -> Figures:
    """The figures that an entry keeps: the example at no more than 96 times, and four significant digits of all."""
    every = math.ceil(len(figures.lead_time) / MAX_TIMES) or 1
    content = _rounded(figures.model_dump())
    example = {key: content[key][::every] for key in ("lead_time", "truth", "forecast", "mean", "spread")}
    example["context"] = content["context"][::-every][::-1]
    return Figures.model_validate(content | example)


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.4g}") if isinstance(values, float) else values


def from_runs(name: str, runs: list[Path], out: Path, stated: dict[str, Any], weights: bool = False) -> Path:
    """Make ``out/name`` from scored runs of one method: one run per task and seed.

    ``stated`` holds what the submitter says of them: authors, contact, licence … A standard entry has its weights only
    if they are asked for, an open one always. Raises :class:`EmubenchError` for runs that do not belong together or
    were not scored.
    """
    placed: dict[RunKey, tuple[Path, Card]] = {}
    for run in runs:
        card = schema.read_json(Card, run / "card.json", 2**20)
        if (run / "recipe.json").exists() or card.task not in entries.asked().shapes.get(card.size, {}):
            raise EmubenchError(f"{run}: {card.task} at size {card.size} is none of the benchmark's tasks")
        if not (run / "scores.json").exists():
            raise EmubenchError(f"{run}: has no scores yet; make them with: emubench score {run}")
        first = next(iter(placed.values()), (run, card))[1]
        for part in ("baseline", "size", "knowledge"):
            if (one := getattr(first, part)) != (two := getattr(card, part)):
                raise EmubenchError(f"the runs differ in their {part} ({one}, {two}): make an entry of each")
        key = card.task, card.seed
        if key in placed:
            raise EmubenchError(f"{run} and {placed[key][0]}: the same task and seed; give one of them")
        placed[key] = (run, card)
    cards = [card for _, card in placed.values()]
    first = cards[0]
    overrides = {card.task: {k: v for k, v in (card.overrides or {}).items() if v is not None} for card in cards}
    settings = {json.dumps(v) for v in overrides.values()}
    shown = " ".join(f"--set {k}={json.dumps(v)}" for k, v in first.overrides.items()) if first.overrides else ""
    command = f"emubench train {first.baseline} TASK --size {first.size} --seed SEED {shown}".strip()
    measured = timing.read(runs[0])
    bench = measured.benches.get("eager") if measured else None
    content = {
        "method": first.baseline,
        "knowledge": first.knowledge,
        "size": first.size,
        "tasks": sorted({task for task, _ in placed}),
        "seeds": sorted({seed for _, seed in placed}),
        "overrides": {task: v for task, v in overrides.items() if v},
        "training_command": command if len(settings) == 1 else f"{command} (settings per task: overrides)",
        "budget": f"{sum(card.train_seconds for card in cards):.0f} s of training in all",
        "hardware": f"{bench.hardware.name if bench else first.device}, {first.threads} thread(s)",
    }
    weights = weights or stated.get("division") == "open"
    return _make(name, out, content | stated, lambda folder: _copy_runs(folder, placed, weights))


def from_forecasts(name: str, forecasts: dict[str, Path], data: Path, size: str, out: Path, stated: dict) -> Path:
    """Make ``out/name``, an open entry, from one forecast file per task; they are scored here."""
    results = {task: scoring.score_forecast(path, tasks.get(task, size), data) for task, path in forecasts.items()}
    content = {"method": FORECASTS, "division": "open", "size": size, "tasks": sorted(forecasts), "seeds": [0]}
    content |= dict.fromkeys(("knowledge", "training_command", "budget", "hardware"), FILL_IN)

    def fill(folder: Path) -> None:
        for task, path in forecasts.items():
            place = folder / entries.place((task, 0))
            place.mkdir(parents=True)
            shutil.copyfile(path, place / ("forecast.npz" if path.suffix == ".npz" else "forecast.h5"))
        figures = {(task, 0): thinned(Figures(**result.figures)) for task, result in results.items()}
        entry_files.write(folder, SCORES, {(task, 0): result.scores for task, result in results.items()})
        entry_files.write(folder, FIGURES, figures)

    return _make(name, out, content | stated, fill)


def _copy_runs(folder: Path, placed: dict[RunKey, tuple[Path, Card]], weights: bool) -> None:
    scores, figures, timings = {}, {}, {}
    first = min(seed for _, seed in placed)  # whose solvers are kept
    for key, (run, _) in sorted(placed.items()):
        task, seed = key
        scores[key] = schema.read_json(ScoreFile, run / "scores.json")
        if (measured := timing.read(run)) is not None:
            timings[key] = _timing(measured, task, solvers=seed == first)
        drawn = {task for task, _ in figures}  # one seed is enough to look at
        if task not in drawn and (run / "figures.json").exists():
            figures[key] = thinned(schema.read_json(Figures, run / "figures.json"))
        if weights:
            if not (run / WEIGHTS).exists():
                raise EmubenchError(f"{run}: has no {WEIGHTS}, which the entry is to keep")
            place = folder / entries.place(key)
            place.mkdir(parents=True)
            shutil.copyfile(run / WEIGHTS, place / WEIGHTS)
            os.chmod(place / WEIGHTS, 0o644)
    entry_files.write(folder, CARDS, {key: card for key, (_, card) in placed.items()})
    for kind, found in ((SCORES, scores), (FIGURES, figures), (TIMING, timings)):
        if found:
            entry_files.write(folder, kind, found)


def keep_timing(contents: Contents, measured: dict[RunKey, Timing]) -> None:
    """Keep in an entry what was benched of its runs, beside what their scoring took, and hash the file anew."""
    if not measured:
        return
    found: dict[RunKey, EntryTiming] = dict(contents.timing)
    for run, timed in measured.items():
        scored = found[run].model_dump(include=set(OF_SCORING)) if run in found else {}
        found[run] = _timing(timed, run[0], solvers=True).model_copy(update=scored)
    entry, folder = contents.entry, contents.folder
    try:
        entry_files.write(folder, TIMING, found)
        files = entry.files | {TIMING: entries.sha256(folder / TIMING)}
        store.write_text(folder / ENTRY_FILE, entries.to_toml(entry.model_copy(update={"files": files})))
    except OSError as error:
        raise EmubenchError(f"{folder}: what was benched can't be kept there ({error.strerror})") from None


def _timing(measured: Timing, task: str, solvers: bool) -> EntryTiming:
    """What the page shows of a run's timing: its speed, and where it was benched, the solvers beside it."""
    speed = measured.model_dump(include=set(Speed.model_fields))
    bench = measured.benches.get("eager")
    if bench is None or RANKED not in bench.speedups:
        return EntryTiming(**speed)
    found = []
    for rung in measured.ladder:
        rate = rung.scenarios[RANKED].lyapunov_times_per_second.median
        name = ladder.label(tasks.get(task), rung)
        found.append(Solver(name=name, accuracy=_rounded(rung.accuracy), lyapunov_times_per_second=_rounded(rate)))
    return EntryTiming(**speed, speedup=bench.speedups[RANKED], solvers=found if solvers else [])


def _make(name: str, out: Path, content: dict[str, Any], fill: Any) -> Path:
    """Fill a folder under a temporary name, hash its files, write ``entry.toml``, and only then give it its name."""
    blank = {key: FILL_IN for key in ("contact", "licence")} | {"authors": [FILL_IN], "division": "standard"}
    blank["data"] = "the task's own training and validation data, nothing else"
    content = {"schema_version": 2, "name": name} | blank | content
    if content["knowledge"] == FILL_IN:
        raise EmubenchError("say with --knowledge what the method knows: none, structure, 'equation form' or equation")
    schema.parse(Entry, content | {"files": {SCORES: "0" * 64}}, f"entry {name}")  # before any work
    folder = out / name
    store.sweep(folder)
    partial, taken = store.temporary_name(folder), f"{folder}: is there already; choose another name or remove it"
    if folder.exists():
        raise EmubenchError(taken)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        found = sorted(path for path in partial.rglob("*") if path.is_file())
        files = {str(path.relative_to(partial)): entries.sha256(path) for path in found}
        entry = schema.parse(Entry, content | {"files": files}, f"entry {name}")
        store.write_text(partial / ENTRY_FILE, entries.to_toml(entry))
        with store.locked(out):  # an empty folder of that name would be replaced in silence
            if folder.exists():
                raise EmubenchError(taken)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
