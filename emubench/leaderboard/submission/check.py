"""``emubench submit check``: validate an entry's folder without executing anything of it or importing torch.

The layout is ``entry.toml`` and, per task and seed, ``<task>/seed-<n>/`` with ``card.json`` and ``model.safetensors``
(or ``forecast.npz``, ``forecast.h5`` in the open division), ``scores.json`` and, if wanted, ``figures.json`` and
``timing.json``. Whatever else lies there is refused. Hashes find accidents, not fraud: see CONTRIBUTING.md.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from emubench import baselines
from emubench.core.errors import EmubenchError, unknown
from emubench.files import hdf5, run_files, safetensors_header, schema
from emubench.files.schema import Model, Name
from emubench.files.timing import Speedup
from emubench.leaderboard.submission import entries
from emubench.leaderboard.submission.entries import ENTRY_FILE, FORECASTS, Entry, Setting

MAX_BYTES = {
    "card.json": 2**20,
    "scores.json": 2**21,
    "figures.json": 2**18,
    "timing.json": 2**16,
    "model.safetensors": 25 * 10**6,
    "forecast.npz": 2**32,
    "forecast.h5": 2**32,
}
FORECAST_FILES = ("forecast.npz", "forecast.h5")
MAX_WEIGHTS = 25 * 10**6
"""Bytes of all weights of an entry together."""
MAX_FILES = 2000
MAX_SCORE = 1e6
"""What no score or lead time goes beyond: errors are capped, horizons are at most 1024."""
MAX_SPEED = 1e15
"""Lyapunov times per second."""
FILL_IN = "FILL IN"
"""What ``submit new`` writes where only the submitter knows."""
FREE_TEXT = ("training_command", "data", "budget", "hardware", "notes")
Number = Annotated[float, Field(allow_inf_nan=False)]
Field2 = Annotated[list[Annotated[list[Number], Field(max_length=1024)]], Field(max_length=1024)]
Numbers = Annotated[list[Number], Field(max_length=4096)]


class Settings(Model):
    """The settings of a card: plain values, or lists of them."""

    config: Annotated[dict[Name, Setting], Field(max_length=200)]


class Figures(Model):
    """``figures.json``: one forecast beside its truth, and spectra of the long runs, thinned for the page."""

    lead_time: Numbers
    truth: Field2
    forecast: Field2
    spatial_power: Numbers | None = None
    truth_spatial_power: Numbers | None = None

    @model_validator(mode="after")
    def _fits(self) -> Figures:
        widths = {len(row) for field in (self.truth, self.forecast) for row in field}
        if not len(self.lead_time) == len(self.truth) == len(self.forecast) or len(widths) != 1 or 0 in widths:
            raise ValueError("lead_time, truth and forecast: one row of values per time belongs here, all as long")
        return self


class Solver(Model):
    """One setting of the solver ladder, timed in the same run as the emulator: what it is, how accurate, how fast."""

    name: Annotated[str, Field(max_length=200)]
    accuracy: Annotated[float, Field(ge=-MAX_SCORE, le=MAX_SCORE)]
    lyapunov_times_per_second: Annotated[float, Field(ge=0, le=MAX_SPEED)]


class Timing(Model):
    """``timing.json``: what the submitter's machine took; never compared with another machine's."""

    lyapunov_times_per_second: Annotated[float, Field(ge=0, le=MAX_SPEED)]
    unit: Annotated[str, Field(max_length=200)]
    test_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    climate_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    device: Annotated[str, Field(max_length=200)]
    speedup: Speedup | None = None
    """At equal accuracy, by ``emubench bench``, over one of ``solvers``."""
    solvers: Annotated[list[Solver], Field(max_length=200)] = []


@dataclass(frozen=True)
class Item:
    """A line of the checklist; ``faults`` is empty where all is well."""

    what: str
    faults: tuple[str, ...] = ()


def check(folder: Path) -> list[Item]:
    """The checklist of an entry's folder."""
    items: list[Item] = []
    try:
        entry = entries.read(folder)
    except EmubenchError as error:
        return [Item(ENTRY_FILE, (str(error),))]
    items.append(Item(f"{ENTRY_FILE}: schema, division, name", _names(folder, entry)))
    layout = tuple(_layout(folder, entry))
    items.append(Item(f"files: {len(entry.files)} listed, nothing else, sizes", layout))
    if layout:  # nothing below is opened in a folder that holds what it should not
        return items
    items.append(Item("hashes", tuple(_hashes(folder, entry))))
    for task in entry.tasks():
        for seed in entry.seeds:
            items += _seed_items(folder, entry, task, seed)
    items.append(Item("one truth for all seeds of a task, one version", tuple(_one_footing(folder, entry))))
    return items


def faults(items: list[Item]) -> list[str]:
    """All faults of a checklist, each once."""
    return list(dict.fromkeys(fault for item in items for fault in item.faults))


def require(folder: Path) -> Entry:
    """The entry of a folder; the first fault raises :class:`EmubenchError`."""
    found = faults(check(folder))
    if found:
        more = f" (and {len(found) - 1} more; see: emubench submit check {folder})" if len(found) > 1 else ""
        raise EmubenchError(found[0] + more)
    return entries.read(folder)


def _names(folder: Path, entry: Entry) -> tuple[str, ...]:
    path, known = folder / ENTRY_FILE, entries.shapes()[entry.size]
    methods = baselines.names()
    found = []
    for key, value in entry.model_dump(include={"authors", "contact", "licence", *FREE_TEXT}).items():
        if FILL_IN in (value if isinstance(value, list) else [value]):
            found.append(f"{path}: {key}: still says {FILL_IN}")
    if entry.method not in methods and entry.method != FORECASTS:
        found.append(f"{path}: method: {unknown('baseline', entry.method, methods)}")
    for task in sorted({*entry.tasks(), *entry.overrides}):
        if task not in known:
            found.append(f"{path}: {unknown('task', task, known)}")
        elif task not in entry.tasks():
            found.append(f"{path}: overrides.{task}: the entry has no files of this task")
    return tuple(found)


# --- files ------------------------------------------------------------------------------------------------------------


def _walk(folder: Path, top: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(path below ``top``, what is wrong with it as a file) of everything below ``folder``."""
    with os.scandir(folder) as found:
        for item in sorted(found, key=lambda item: item.name):
            name = str(Path(item.path).relative_to(top))
            mode = item.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                yield name, "a link; the file itself belongs here"
            elif stat.S_ISDIR(mode):
                if depth == 2:
                    yield name, "a folder where none belongs"
                else:
                    yield from _walk(Path(item.path), top, depth + 1)
            elif not stat.S_ISREG(mode):
                yield name, "not a plain file"
            else:
                yield name, ""


def _layout(folder: Path, entry: Entry) -> Iterator[str]:
    if folder.is_symlink():
        yield f"{folder}: a link; the folder itself belongs here"
        return
    present, weights = set(), 0
    for n, (name, fault) in enumerate(_walk(folder, folder)):
        shown = f"{folder}/{ascii(name)[1:-1][:200]}"
        if n >= MAX_FILES:
            yield f"{folder}: more than {MAX_FILES} files"
            return
        if fault:
            yield f"{shown}: {fault}"
        elif name == ENTRY_FILE:
            continue
        elif name not in entry.files or Path(name).name not in MAX_BYTES:
            yield f"{shown}: unexpected: only files listed in {ENTRY_FILE} belong here: {', '.join(MAX_BYTES)}"
        else:
            present.add(name)
            size, most = (folder / name).stat().st_size, MAX_BYTES[Path(name).name]
            weights += size if name.endswith(".safetensors") else 0
            if size > most:
                yield f"{shown}: {size} bytes, where at most {most} belong"
    if weights > MAX_WEIGHTS:
        yield f"{folder}: weights of {weights} bytes together, where at most {MAX_WEIGHTS} belong"
    for name in sorted(entry.files.keys() - present):
        yield f"{folder}/{name}: listed in {ENTRY_FILE}, and not there as a plain file of a known kind"
    yield from _expected(folder, entry)


def _expected(folder: Path, entry: Entry) -> Iterator[str]:
    """Every task has every seed, and every seed its files."""
    wanted = {f"{task}/seed-{seed}" for task in entry.tasks() for seed in entry.seeds}
    found: dict[str, set[str]] = {place: set() for place in wanted}
    for name in entry.files:
        place, _, kind = name.rpartition("/")
        if place not in wanted:
            yield f"{folder}/{name}: seed {place.rpartition('-')[2]} is none of seeds = {entry.seeds}"
        else:
            found[place].add(kind)
    for place, kinds in sorted(found.items()):
        if entry.method == FORECASTS:
            if len(kinds.intersection(FORECAST_FILES)) != 1:
                yield f"{folder}/{place}: one of {' or '.join(FORECAST_FILES)} belongs here"
            needed, refused = {"scores.json"}, {"card.json", "model.safetensors", "timing.json"}
        else:
            needed, refused = {"card.json", "model.safetensors", "scores.json"}, set(FORECAST_FILES)
        for kind in sorted(needed - kinds):
            yield f"{folder}/{place}/{kind}: missing"
        for kind in sorted(refused & kinds):
            yield f"{folder}/{place}/{kind}: does not belong to the method {entry.method}"


def _hashes(folder: Path, entry: Entry) -> Iterator[str]:
    for name, digest in sorted(entry.files.items()):
        if (found := entries.sha256(folder / name)) != digest:
            yield f"{folder}/{name}: sha256 {found[:16]}…, where {ENTRY_FILE} says {digest[:16]}…: it was changed since"


# --- one task and seed ------------------------------------------------------------------------------------------------


def _seed_items(folder: Path, entry: Entry, task: str, seed: int) -> list[Item]:
    place = folder / task / f"seed-{seed}"
    if task not in entries.shapes()[entry.size]:
        return []
    parts: dict[str, Callable[[], object]] = {}
    if entry.method == FORECASTS:
        parts["forecast"] = lambda: _forecast(entry, place, task)
    else:
        parts |= {"card": lambda: _card(entry, place, task, seed), "weights": lambda: _weights(place)}
    parts["scores"] = lambda: _scores(entry, place, task)
    for name, reader in (("figures", read_figures), ("timing", read_timing)):
        if (place / f"{name}.json").exists():
            parts[name] = lambda reader=reader: reader(place)
    return [_item(f"{task} seed {seed}: {name}", part) for name, part in parts.items()]


def _item(what: str, part: Callable[[], Any]) -> Item:
    try:
        part()
    except EmubenchError as error:
        return Item(what, (str(error),))
    except (RecursionError, MemoryError, OSError) as error:
        return Item(what, (f"{what}: cannot be read ({type(error).__name__})",))
    return Item(what)


def _same(path: Path, key: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise EmubenchError(f"{path}: {key}: {repr(found)[:80]} where {repr(wanted)[:80]} belongs")


def _card(entry: Entry, place: Path, task: str, seed: int) -> None:
    path = place / "card.json"
    card = schema.read_json(run_files.Card, path, MAX_BYTES["card.json"])
    schema.parse(Settings, {"config": card.config}, path)
    _same(path, "baseline", card.baseline, entry.method)
    for key, wanted in (("task", task), ("seed", seed), ("size", entry.size), ("knowledge", entry.knowledge)):
        _same(path, key, getattr(card, key), wanted)
    stated = {key: value for key, value in (card.overrides or {}).items() if value is not None}
    _same(path, "overrides", stated, entry.overrides.get(task, {}))


def _weights(place: Path) -> None:
    path = place / "model.safetensors"
    tensors = safetensors_header.read_header(path)
    safetensors_header.check_values(path, tensors)
    card = schema.read_json(run_files.Card, place / "card.json", MAX_BYTES["card.json"])
    n = safetensors_header.n_floats(tensors)
    if n != card.n_parameters:
        raise EmubenchError(f"{path}: {n} floating-point values, where card.json says {card.n_parameters}")


def _forecast(entry: Entry, place: Path, task: str) -> None:
    (path,) = (place / name for name in FORECAST_FILES if (place / name).exists())
    hdf5.read_forecast(path, entries.shapes()[entry.size][task])


def read_scores(place: Path) -> run_files.ScoreFile:
    """The scores of one task and seed."""
    return schema.read_json(run_files.ScoreFile, place / "scores.json", MAX_BYTES["scores.json"])


def read_figures(place: Path) -> Figures | None:
    """What one task and seed has to show, if anything."""
    return _read_optional(Figures, place / "figures.json")


def read_timing(place: Path) -> Timing | None:
    """What an entry says of the speed of one task and seed, if anything."""
    return _read_optional(Timing, place / "timing.json")


def _read_optional(model: type[Any], path: Path) -> Any:
    return schema.read_json(model, path, MAX_BYTES[path.name]) if path.exists() else None


def headline(task: str) -> str:
    """Name of the metric whose per-case values are kept."""
    return "crps" if task.startswith("kpz-") else "valid_prediction_time"


def _scores(entry: Entry, place: Path, task: str) -> None:
    path, scores = place / "scores.json", read_scores(place)
    for key, wanted in (("schema_version", schema.SCHEMA_VERSION), ("task", task), ("size", entry.size)):
        _same(path, key, getattr(scores, key), wanted)
    for i, row in enumerate(scores.rows):
        _same(path, f"rows.{i}.task", row.task, task)
        if not all(v is None or abs(v) <= MAX_SCORE for v in (row.lead_time, row.value, row.low, row.high)):
            raise EmubenchError(f"{path}: rows.{i}: a number that is not finite or beyond {MAX_SCORE:g}")
    name, n_cases = headline(task), entries.shapes()[entry.size][task]["test"][1]
    cases = scores.cases.get(name, [])
    _same(path, f"cases.{name}: number of cases", len(cases), n_cases)
    if not all(0 <= case <= MAX_SCORE for case in cases):
        raise EmubenchError(f"{path}: cases.{name}: numbers from 0 to {MAX_SCORE:g} belong here")
    whole = [row.value for row in scores.rows if row.metric == name and row.lead_time is None]
    mean = sum(cases) / n_cases
    if len(whole) != 1 or whole[0] is None or not math.isclose(whole[0], mean, rel_tol=1e-6, abs_tol=1e-9):
        raise EmubenchError(f"{path}: {name}: {whole} where the mean over cases {mean:.6g} belongs: it was edited")


def _one_footing(folder: Path, entry: Entry) -> Iterator[str]:
    for task in entry.tasks():
        first: run_files.ScoreFile | None = None
        for seed in entry.seeds:
            place = folder / task / f"seed-{seed}"
            try:
                scores = read_scores(place)
            except EmubenchError:
                continue  # named above
            first = first or scores
            for key in ("truth_sha256", "emubench_version"):
                if getattr(scores, key) != getattr(first, key):
                    yield f"{place}/scores.json: {key}: not that of the task's other seeds; score all of them again"
