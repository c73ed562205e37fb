"""``emubench submit check``: validate an entry's folder without executing anything of it or importing torch.

The layout is ``entry.toml``, one file per kind for all tasks and seeds (:mod:`emubench.files.entry_files`):
``cards.json``, ``scores.json.xz`` and, if wanted, ``figures.json.xz`` and ``timing.json.xz``; and per task and seed
``<task>/seed-<n>/`` with ``model.safetensors``, which a standard entry may leave out, or ``forecast.npz`` or
``forecast.h5``, which stand for cards, weights and timing. Whatever else lies there is refused. Hashes find accidents,
not fraud: see CONTRIBUTING.md.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emubench import baselines
from emubench.core.errors import EmubenchError, reason, unknown
from emubench.data import reference
from emubench.files import entry_files, hdf5, safetensors_header, schema
from emubench.files.entry_files import CARDS, FIGURES, KINDS, SCORES, TIMING, RunKey
from emubench.files.run_files import Card, Figures, ScoreFile
from emubench.files.schema import Model, Name
from emubench.leaderboard.submission import entries
from emubench.leaderboard.submission.entries import (
    ENTRY_FILE,
    FORECAST_FILES,
    FORECASTS,
    WEIGHTS,
    Contents,
    Entry,
    Setting,
)

MAX_WEIGHTS = 25 * 10**6
"""Bytes of all weights of an entry together, and so of one file of them."""
MAX_FORECAST = 2**32
MAX_BYTES = {name: kind.max_bytes for name, kind in KINDS.items()}
MAX_BYTES |= {WEIGHTS: MAX_WEIGHTS} | dict.fromkeys(FORECAST_FILES, MAX_FORECAST)
MAX_FILES = 2000
SHOWN = ("skill_accuracy", "skill_stability", "surviving_fraction", "dead_fraction")
"""Scores that the page shows beside the headline, so that every task has to have them."""
FILL_IN = "FILL IN"
"""What ``submit new`` writes where only the submitter knows."""
TO_FILL_IN = {"authors", "contact", "licence", "training_command", "data", "budget", "hardware", "notes"}


class Settings(Model):
    """The settings of a card: plain values, or lists of them."""

    config: Annotated[dict[Name, Setting], Field(max_length=200)]


@dataclass(frozen=True)
class Item:
    """A line of the checklist; ``faults`` is empty where all is well."""

    what: str
    faults: tuple[str, ...] = ()


def check(folder: Path) -> list[Item]:
    """The checklist of an entry's folder."""
    return look(folder)[0]


def look(folder: Path) -> tuple[list[Item], Contents | None]:
    """The checklist, and the contents if all of them could be looked at."""
    try:
        entry = entries.read(folder)
    except EmubenchError as error:
        return [Item(ENTRY_FILE, (str(error),))], None
    items = [Item(f"{ENTRY_FILE}: schema, division, name", _names(folder, entry))]
    layout = tuple(_layout(folder, entry))
    items.append(Item(f"files: {len(entry.files)} listed, nothing else, sizes", layout))
    if layout:  # nothing below is opened in a folder that holds what it should not
        return items, None
    items.append(Item("hashes", tuple(_hashes(folder, entry))))
    found: dict[str, dict[RunKey, Any]] = {}
    for name in KINDS:
        if name in entry.files:
            items.append(_item(name, _kind(folder, entry, name, found)))
    cards = found.get(CARDS, {})
    for run in _known_runs(entry):
        what, path = f"{run[0]} seed {run[1]}", folder / entries.place(run)
        if entry.method == FORECASTS:
            items.append(_item(f"{what}: forecast", _forecast(entry, path, run[0])))
        elif entry.has_weights and run in cards:
            items.append(_item(f"{what}: weights", _weights(path / WEIGHTS, cards[run])))
    scores = found.get(SCORES, {})
    items.append(_item("one truth for all seeds of a task, one version", _one_footing(folder, scores)))
    return items, Contents(folder, entry, scores, cards, found.get(TIMING, {}))


def faults(items: list[Item]) -> list[str]:
    """All faults of a checklist, each once."""
    return list(dict.fromkeys(fault for item in items for fault in item.faults))


def require(folder: Path) -> Contents:
    """The contents of a folder that passes the check; the first fault raises :class:`EmubenchError`."""
    items, contents = look(folder)
    found = faults(items)
    if found or contents is None:
        more = f" (and {len(found) - 1} more; see: emubench submit check {folder})" if len(found) > 1 else ""
        raise EmubenchError(found[0] + more)
    return contents


def _item(what: str, lines: Iterable[str]) -> Item:
    """A line of the checklist, with what is found wrong, or what keeps from looking."""
    try:
        return Item(what, tuple(lines))
    except EmubenchError as error:
        return Item(what, (str(error),))
    except (RecursionError, MemoryError, OSError) as error:
        return Item(what, (f"{what}: cannot be read ({reason(error)})",))


def _names(folder: Path, entry: Entry) -> tuple[str, ...]:
    path, known = folder / ENTRY_FILE, entries.asked().shapes[entry.size]
    methods = baselines.names()
    said = entry.model_dump(include=TO_FILL_IN).items()
    blank = [key for key, value in said if FILL_IN in (value if isinstance(value, list) else [value])]
    found = [f"{path}: {key}: still says {FILL_IN}" for key in blank]
    if entry.method not in methods and entry.method != FORECASTS:
        found.append(f"{path}: method: {unknown('baseline', entry.method, methods)}")
    for task in sorted({*entry.tasks, *entry.overrides}):
        if task not in known:
            found.append(f"{path}: {unknown('task', task, known)}")
        elif task not in entry.tasks:
            found.append(f"{path}: overrides.{task}: none of the entry's tasks")
    return tuple(found)


# --- files ------------------------------------------------------------------------------------------------------------


def _walk(folder: Path, top: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Everything below ``folder``: its path below ``top``, and what is wrong with it as a file, if anything."""
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
        if not items and depth:
            yield str(folder.relative_to(top)), "an empty folder, where none belongs"
        for item in items:
            name = str(Path(item.path).relative_to(top))
            status = item.stat(follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISLNK(mode):
                yield name, "a link; the file itself belongs here"
            elif stat.S_ISDIR(mode) and depth == 2:
                yield name, "a folder where none belongs"
            elif stat.S_ISDIR(mode):
                yield from _walk(Path(item.path), top, depth + 1)
            elif stat.S_ISREG(mode) and status.st_nlink > 1:
                yield name, "a file of several names (hard links); a copy of its own belongs here"
            else:
                yield name, "" if stat.S_ISREG(mode) else "not a plain file"


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
        elif name not in entry.files:
            yield f"{shown}: unexpected: only files listed in {ENTRY_FILE} belong here: {', '.join(MAX_BYTES)}"
        else:
            present.add(name)
            size, most = (folder / name).stat().st_size, MAX_BYTES[Path(name).name]
            weights += size if name.endswith(WEIGHTS) else 0
            if size > most:
                yield f"{shown}: {size} bytes, where at most {most} belong"
    if weights > MAX_WEIGHTS:
        yield f"{folder}: weights of {weights} bytes together, where at most {MAX_WEIGHTS} belong"
    for name in sorted(entry.files.keys() - present):
        yield f"{folder}/{name}: listed in {ENTRY_FILE}, and not there as a plain file of a known kind"
    yield from _expected(folder, entry)


def _expected(folder: Path, entry: Entry) -> Iterator[str]:
    """A method has cards and may have weights, of all runs or of none; forecasts stand for both."""
    places = {entries.place(run) for run in entry.runs}
    of_runs = {place: {name for name in MAX_BYTES if f"{place}/{name}" in entry.files} for place in places}
    if entry.method == FORECASTS:
        needed, refused = [SCORES], [CARDS, TIMING, *(f"{place}/{WEIGHTS}" for place in sorted(places))]
        for place, found in sorted(of_runs.items()):
            if len(found.intersection(FORECAST_FILES)) != 1:
                yield f"{folder}/{place}: one of {' or '.join(FORECAST_FILES)} belongs here"
    else:
        needed, refused = [CARDS, SCORES], [f"{place}/{name}" for place in sorted(places) for name in FORECAST_FILES]
        if entry.has_weights or entry.division == "open":  # the judge retrains standard entries
            needed += [f"{place}/{WEIGHTS}" for place in sorted(places)]
    yield from (f"{folder}/{name}: missing" for name in needed if name not in entry.files)
    wrong = (name for name in refused if name in entry.files)
    yield from (f"{folder}/{name}: does not belong to the method {entry.method}" for name in wrong)
    for name in sorted(entry.files):
        if name not in KINDS and name.rpartition("/")[0] not in places:
            yield f"{folder}/{name}: none of the tasks and seeds that {ENTRY_FILE} names"


def _hashes(folder: Path, entry: Entry) -> Iterator[str]:
    for name, digest in sorted(entry.files.items()):
        if (found := entries.sha256(folder / name)) != digest:
            yield f"{folder}/{name}: sha256 {found[:16]}…, where {ENTRY_FILE} says {digest[:16]}…: it was changed since"


# --- what they hold ---------------------------------------------------------------------------------------------------


def _known_runs(entry: Entry) -> list[RunKey]:
    """Those of tasks that there are; another task is a fault of its own."""
    return [run for run in entry.runs if run[0] in entries.asked().shapes[entry.size]]


def _kind(folder: Path, entry: Entry, name: str, found: dict[str, dict[RunKey, Any]]) -> Iterator[str]:
    """Faults of one kind of file, which is put into ``found`` if it can be read."""
    found[name] = entry_files.read(folder, name)
    look = {CARDS: _card, SCORES: _scores, FIGURES: _figures}.get(name)
    for task, seed in sorted(found[name].keys() - set(entry.runs)):
        yield f"{folder / name}: {task}.{seed}: none of the tasks and seeds that {ENTRY_FILE} names"
    for run in _known_runs(entry):
        where = f"{folder / name}: {run[0]}.{run[1]}"
        if run not in found[name]:
            if name in (CARDS, SCORES):
                yield f"{where}: missing"
        elif look:
            yield from islice(look(where, entry, run, found[name][run]), 1)  # the first fault of each run


def differing(where: str, pairs: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """One line for every key whose value is not the one that belongs there."""
    for key, (one, two) in pairs.items():
        if one != two:
            yield f"{where}: {key}: {repr(one)[:80]} where {repr(two)[:80]} belongs"


def _card(where: str, entry: Entry, run: RunKey, card: Card) -> Iterator[str]:
    schema.parse(Settings, {"config": card.config}, where)
    task, seed = run
    stated = {key: value for key, value in (card.overrides or {}).items() if value is not None}
    wanted = {"baseline": entry.method, "task": task, "seed": seed, "size": entry.size, "knowledge": entry.knowledge}
    pairs = {key: (getattr(card, key), value) for key, value in wanted.items()}
    yield from differing(where, pairs | {"overrides": (stated, entry.overrides.get(task, {}))})
    if card.n_parameters > MAX_WEIGHTS:  # of one byte each at least
        yield f"{where}: n_parameters: {card.n_parameters}, where weights of at most {MAX_WEIGHTS} bytes belong"


def _weights(path: Path, card: Card) -> Iterator[str]:
    tensors = safetensors_header.read_header(path)
    safetensors_header.check_values(path, tensors)
    n = safetensors_header.n_floats(tensors)
    if n != card.n_parameters:
        yield f"{path}: {n} floating-point values, where {CARDS} says {card.n_parameters}"
    elif card.weights_sha256 not in ("", found := entries.sha256(path)):
        yield f"{path}: sha256 {found[:16]}…, where {CARDS} says {card.weights_sha256[:16]}…: not this run's weights"


def _forecast(entry: Entry, place: Path, task: str) -> Iterator[str]:
    (path,) = (place / name for name in FORECAST_FILES if (place / name).exists())
    hdf5.read_forecast(path, entries.asked().shapes[entry.size][task])
    yield from ()


def _scores(where: str, entry: Entry, run: RunKey, scores: ScoreFile) -> Iterator[str]:
    """Each row is one of the task's, stands once, within its range; what follows from the cases does follow."""
    task, name = run[0], entries.asked().headlines[run[0]]
    wanted = {"schema_version": schema.SCHEMA_VERSION, "task": task, "size": entry.size}
    yield from differing(where, {key: (getattr(scores, key), value) for key, value in wanted.items()})
    asked, shapes = entries.asked().scores[task], entries.asked().shapes[entry.size][task]
    left = {(metric, lead) for metric, one in asked.items() for lead in one.lead_times}
    for i, row in enumerate(scores.rows):
        place, key = f"{where}: rows.{i}", (row.metric, row.lead_time)
        if key not in left:
            fault = "twice" if row.metric in asked and row.lead_time in asked[row.metric].lead_times else "unknown"
            yield f"{place}: {named(*key)}: {fault}; each score of the task belongs here once"
            return
        left.remove(key)
        one = asked[row.metric]
        counted = {"unit": (row.unit, one.unit), "n_cases": (row.n_cases, shapes[one.split][1])}
        yield from differing(place, {"task": (row.task, task)} | counted)
        ends = row.value, row.low, row.high
        if not all(map(one.allows, ends)) or not _at_most(row.low, row.high):
            yield f"{place}: {named(*key)}: {ends} where value, low and high in {shown_range(one)} belong"
    for metric in (name, *SHOWN):  # other rows may be younger than the entry; submit run compares all
        if (metric, None) in left:
            yield f"{where}: {metric}: the row is missing"
    yield from differing(where, {"cases": (sorted(scores.cases), [name])})
    cases, n_cases = scores.cases[name], shapes["test"][1]
    yield from differing(where, {f"cases.{name}: number of cases": (len(cases), n_cases)})
    if not all(map(asked[name].allows, cases)):
        yield f"{where}: cases.{name}: numbers in {shown_range(asked[name])} belong here"
    yield from _means(where, scores, name, cases)


def named(metric: str, lead_time: float | None) -> str:
    """A score for people."""
    return metric if lead_time is None else f"{metric} at lead time {lead_time:g}"


def shown_range(one: entries.AskedScore) -> str:
    """The range of a score for people."""
    return " … ".join(f"{end:.6g}" for end in one.bounds)


def _at_most(low: float | None, high: float | None) -> bool:
    return low is None or high is None or low <= high


def _means(where: str, scores: ScoreFile, name: str, cases: list[float]) -> Iterator[str]:
    """The score and its skill are the mean over cases, and lie in intervals of means of cases drawn again."""
    scale, mean, ends = reference.scale(scores.task), sum(cases) / len(cases), (min(cases), max(cases))
    wanted = {name: [mean, *ends]}
    if scale.usable:
        wanted["skill_accuracy"] = [scale.skill(mean), *sorted(map(scale.skill, ends))]
    for row in (row for row in scores.rows if row.metric in wanted and row.lead_time is None):
        value, least, most = wanted[row.metric]
        rounding = 1e-6 * abs(value) + 1e-9
        if row.value is None or abs(row.value - value) > rounding:
            yield f"{where}: {row.metric}: {row.value} where the mean over cases {value:.6g} belongs: it was edited"
        low, high = (value if end is None else end for end in (row.low, row.high))
        if not least - rounding <= low <= value + rounding or not value - rounding <= high <= most + rounding:
            yield f"{where}: {row.metric}: low and high {low:.6g}, {high:.6g} are not about the mean {value:.6g}"


def _figures(where: str, entry: Entry, run: RunKey, figures: Figures) -> Iterator[str]:
    n_sites, n_times = entries.asked().shapes[entry.size][run[0]]["test"][-1], len(figures.lead_time)
    for name in ("truth", "forecast", "mean", "spread", "context"):
        field = getattr(figures, name)
        whole = len(field) == n_times > 0 or (not field and name in ("mean", "spread")) or name == "context"
        if not whole or {len(row) for row in field} - {n_sites}:
            yield f"{where}: {name}: a row of {n_sites} values for each of lead_time belongs here"


def _one_footing(folder: Path, scores: dict[RunKey, ScoreFile]) -> Iterator[str]:
    first: dict[str, ScoreFile] = {}
    for (task, seed), found in sorted(scores.items()):
        for key in ("truth_sha256", "emubench_version"):
            if getattr(found, key) != getattr(first.setdefault(task, found), key):
                fault = "not that of the task's other seeds; score all of them again"
                yield f"{folder / SCORES}: {task}.{seed}: {key}: {fault}"
