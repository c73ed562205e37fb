"""Rows that a judge verified, ``leaderboard/verified/<season>/<entry>.json``: what they hold, and what bears them out.

Of sealed data the headline score of every case and the climate scores of every seed are published. They reveal no
truth, entries are compared on the same cases by them, and all other scores of a row follow from them.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from emubench.core.errors import EmubenchError, unknown
from emubench.data import reference, tasks
from emubench.evaluation.throughput.ladder import RANKED_SKILL
from emubench.files import schema
from emubench.files.entry_files import MAX_SEEDS, MAX_TASKS
from emubench.files.schema import Model, Name, Number
from emubench.files.timing import JudgedSpeed
from emubench.leaderboard import estimates, ranking
from emubench.leaderboard.statistics import bounded
from emubench.leaderboard.submission import checks, entries, season
from emubench.leaderboard.submission.entries import Contents, Digest
from emubench.metrics._headline import headline

MAX_BYTES = 2**24
"""A file of verified rows is no larger."""
MAX_CASES = 4096
REDONE = 0.02
"""Share of an interval by which another library's draws may move its ends."""


class SeedScores(Model):
    """What the judge found of one training: its headline score of every case, and how it stays on the attractor."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    cases: Annotated[list[Number], Field(min_length=1, max_length=MAX_CASES)]
    skill_stability: Number | None
    skill_stability_low: Number | None
    skill_stability_high: Number | None
    surviving_fraction: Number | None

    @property
    def stability(self) -> tuple[float, float, float] | None:
        """Stability with its interval over the long runs; ``None`` if it was not scored."""
        found = self.skill_stability, self.skill_stability_low, self.skill_stability_high
        return None if None in found else found  # type: ignore[return-value]


class VerifiedRow(Model):
    """What the judge found of an entry on one task of a season: means over seeds and cases, with intervals."""

    task: Name
    metric: Name
    unit: Annotated[str, Field(max_length=40)]
    value: Number
    low: Number
    high: Number
    low_99: Number
    high_99: Number
    n_cases: Annotated[int, Field(ge=1)]
    skill: Number | None
    skill_low: Number | None
    skill_high: Number | None
    skill_stability: Number | None
    skill_stability_low: Number | None
    skill_stability_high: Number | None
    surviving_fraction: Number | None
    lyapunov_times_per_second: Annotated[float, Field(ge=0, le=1e15)]
    train_seconds: Annotated[float, Field(ge=0, le=1e10)]
    claimed: Number | None
    """What the entry says of the public contexts."""
    reason: Annotated[str, Field(max_length=1000)]
    """Why cases failed, if the emulator itself did."""
    made_from: Digest
    """Of the entry's settings and claims, of the season and of ``by_seed``: see :func:`made_from`."""
    by_seed: Annotated[list[SeedScores], Field(min_length=1, max_length=MAX_SEEDS)]
    speed: JudgedSpeed | None = None
    """Of the first seed, beside the solvers of its task; ``None`` in rows from before it was measured."""

    @property
    def seeds(self) -> list[int]:
        """The seeds of its trainings."""
        return [one.seed for one in self.by_seed]

    @property
    def claim_is_outside(self) -> bool:
        """Whether the claimed score lies outside the judge's 99 % interval."""
        return self.claimed is not None and not self.low_99 <= self.claimed <= self.high_99


class Verified(Model):
    """``leaderboard/verified/<season>/<entry>.json``."""

    schema_version: Literal[2]
    emubench_version: Annotated[str, Field(max_length=40)]
    season: Name
    commitment: Digest
    entry: Name
    method: Name
    judge: Annotated[str, Field(max_length=200)]
    rows: Annotated[list[VerifiedRow], Field(max_length=MAX_TASKS)]

    def text(self) -> str:
        """The file's content, a line per row."""
        head = json.dumps(self.model_dump(exclude={"rows"}), indent=1).removesuffix("\n}")
        return f'{head},\n "rows": [\n' + ",\n".join(row.model_dump_json() for row in self.rows) + "\n ]\n}\n"


def cell(entry: str, task: tasks.Task, by_seed: list[SeedScores]) -> ranking.Cell:
    """An entry's seeds on one task, as rankings take them."""
    steady = [one.stability for one in by_seed]
    stability = None if None in steady else ranking.pooled(steady, entry, task.name, "skill_stability")
    return ranking.make_cell(entry, task, np.array([one.cases for one in by_seed]), stability)


def scores(entry: str, task: tasks.Task, by_seed: list[SeedScores]) -> dict[str, Any]:
    """The fields of a row that follow from the scores of its seeds."""
    pooled, scale, asked = cell(entry, task, by_seed), reference.scale(task.name), headline(task)
    low, high = pooled.interval()
    low_99, high_99 = pooled.interval(estimates.DIFFERENT)
    skills = sorted(map(scale.skill, (low, high))) if scale.usable else [None, None]
    survived = [one.surviving_fraction for one in by_seed]
    steady = ranking.columns_of("skill_stability", pooled.stability, 0.0, 1.0)
    return (
        {"task": task.name, "metric": asked.metric, "unit": asked.unit, "n_cases": len(by_seed[0].cases)}
        | {"value": pooled.value, "low": low, "high": high, "low_99": low_99, "high_99": high_99}
        | bounded("skill", scale.skill(pooled.value) if scale.usable else None, *skills)
        | {name: None if math.isnan(value) else value for name, value in steady.items()}
        | {"surviving_fraction": None if None in survived else float(np.mean(np.array(survived, dtype=np.float64)))}
    )


# --- what bears a row out ---------------------------------------------------------------------------------------------


def claimed(contents: Contents, task: str, size: str) -> float | None:
    """Mean over the entry's seeds of its own score on the public contexts, if it is of the same size."""
    if contents.entry.size != size:
        return None
    name = entries.asked().headlines[task]
    return float(np.mean([np.mean(contents.scores[task, seed].cases[name]) for seed in contents.entry.seeds]))


def made_from(contents: Contents, opened: season.Season, task: str, by_seed: list[SeedScores]) -> str:
    """SHA-256 of what a row is made from.

    That is the entry's settings and claims on the task, what the season commits to, and the scores that were found.
    So a row is known to be out of date where its entry was changed since.
    """
    entry, commits = contents.entry, opened.model_dump(include={"size", "emubench_version", "commitment"})
    settings = [task, entry.method, entry.knowledge, entry.seeds, entry.overrides.get(task, {})]
    cases = [contents.scores[task, seed].cases for seed in entry.seeds]
    found = [one.model_dump() for one in by_seed]
    return hashlib.sha256(json.dumps([settings, cases, commits, found], sort_keys=True).encode()).hexdigest()


def unsound(where: str, entry: str, row: VerifiedRow, size: str) -> Iterator[str]:
    """One line for everything that a row can't say: scores beyond their range, and what does not follow from them."""
    asked = entries.asked()
    shapes, known = asked.shapes.get(size, {}).get(row.task), asked.scores.get(row.task)
    if shapes is None or known is None:
        yield f"{where}: no task of size {size}"
        return
    name, n_cases = asked.headlines[row.task], shapes["test"][1]
    for one in row.by_seed:
        place = f"{where}: seed {one.seed}"
        if len(one.cases) != n_cases or not all(map(known[name].allows, one.cases)):
            yield f"{place}: cases: {n_cases} numbers in {checks.shown_range(known[name])} belong here"
            return
        steady = one.skill_stability_low, one.skill_stability, one.skill_stability_high
        for score, ends in (("skill_stability", steady), ("surviving_fraction", (one.surviving_fraction,))):
            rising = [end for end in ends if end is not None]
            if len(rising) not in (0, len(ends)) or not all(map(known[score].allows, rising)) or not _rise(rising):
                yield f"{place}: {score}: {ends} where rising numbers in {checks.shown_range(known[score])} belong"
                return
    if len(set(row.seeds)) != len(row.seeds):
        yield f"{where}: seeds: one stands twice"
    yield from _unsound_speed(where, row)
    wanted = scores(entry, tasks.get(row.task, size), row.by_seed)
    for key, value in wanted.items():
        stated, width = getattr(row, key), 0.0
        for begin in ("skill_stability", "skill"):
            if key in (f"{begin}_low", f"{begin}_high"):
                width = wanted[f"{begin}_high"] - wanted[f"{begin}_low"] if value is not None else 0.0
        if key in ("low", "high", "low_99", "high_99"):
            width = wanted["high_99"] - wanted["low_99"]
        if not _same(stated, value, REDONE * width):
            yield f"{where}: {key}: {stated!r} where {value!r} follows from the cases"


def _unsound_speed(where: str, row: VerifiedRow) -> Iterator[str]:
    """One line for everything that a row can't say of its speed."""
    if row.speed is None:
        return
    rate, gained, scale = row.speed.lyapunov_times_per_second, row.speed.speedup, reference.scale(row.task)
    if rate.median != row.lyapunov_times_per_second:
        yield f"{where}: speed: {rate.median!r} where lyapunov_times_per_second is {row.lyapunov_times_per_second!r}"
    ends: list[tuple[float | None, ...]] = [(rate.low, rate.median, rate.high)]
    if gained is not None:
        ends.append((gained.low, gained.value, gained.high))
        right = scale.usable and bool(scale.skill(np.mean(row.by_seed[0].cases)) >= RANKED_SKILL)
        if gained.ranked != right:
            yield f"{where}: speed: ranked is {gained.ranked}, where {right} follows from the first seed's cases"
    for found in ends:
        rising = [end for end in found if end is not None]
        if len(rising) not in (0, 3) or not _rise(rising):
            yield f"{where}: speed: {found} where three rising numbers belong"


def _rise(values: list[float]) -> bool:
    return all(a <= b + 1e-9 * (1 + abs(b)) for a, b in zip(values, values[1:], strict=False))


def _same(one: Any, two: Any, allowed: float) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) <= allowed + 1e-9 * (1 + abs(two))
    return one == two


def check_origin(found: Verified, contents: Contents, opened: season.Season) -> None:
    """Raise :class:`EmubenchError` unless the rows were made from the entry as it is, and say what it claims."""
    for row in found.rows:
        where = f"{contents.folder}: {row.task}: verified in season {found.season}"
        if row.task not in contents.entry.tasks:
            raise EmubenchError(f"{where}, and none of the entry's tasks")
        made = made_from(contents, opened, row.task, row.by_seed), claimed(contents, row.task, opened.size)
        if (row.made_from, row.claimed) != made:
            raise EmubenchError(f"{where} from other settings or claims than it has now; verify it again with --again")


def read(board: Path) -> tuple[list[Verified], list[str]]:
    """All verified rows of a board, and a line for each file that is damaged or that its season does not bear out."""
    seasons, found, faults = season.read(board), [], []
    for path in sorted((board / "verified").glob("*/*.json")):
        try:
            found.append(_rows(path, seasons))
        except EmubenchError as error:
            faults.append(str(error))
    return found, faults


def read_file(path: Path) -> Verified:
    """The rows of one file."""
    return schema.read_json(Verified, path, MAX_BYTES)


def _rows(path: Path, seasons: dict[str, season.Season]) -> Verified:
    rows = read_file(path)
    opened = seasons.get(rows.season)
    if opened is None:
        raise EmubenchError(f"{path}: {unknown('season', rows.season, seasons)}")
    names = [row.task for row in rows.rows]
    pairs = {
        "season and entry": (f"{rows.season}/{rows.entry}", f"{path.parent.name}/{path.stem}"),
        "commitment": (rows.commitment, opened.commitment),
        "emubench_version": (rows.emubench_version, opened.emubench_version),
        "rows": (names, [task for task in opened.tasks if task in names]),
    }
    for fault in checks.differing(str(path), pairs):
        raise EmubenchError(fault)
    for row in rows.rows:
        for fault in unsound(f"{path}: {row.task}", rows.entry, row, opened.size):
            raise EmubenchError(fault)
    return rows
