"""``emubench submit verify``: retrain an entry on a season's sealed data, score it on its sealed contexts.

Only aggregates per task are kept, in ``leaderboard/verified/<season>/<entry>.json``, which the judge alone writes.
Times are those of the judge's machine, and are never compared with another's.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from emubench import __version__
from emubench.core import hardware
from emubench.core.errors import EmubenchError, unknown
from emubench.data import generation, reference, tasks
from emubench.data.tasks import Task
from emubench.evaluation import scoring
from emubench.evaluation.scoring import Progress
from emubench.files import run_files, schema, store
from emubench.files.run_files import Number
from emubench.files.schema import Model, Name
from emubench.leaderboard import ranking
from emubench.leaderboard.statistics import ENDS, Z_DIFFERENT, Z_SHOWN, bounded
from emubench.leaderboard.submission import checks, entries, judge, season
from emubench.leaderboard.submission.entries import Contents, Digest
from emubench.metrics._headline import headline
from emubench.runs import folders, jobs, scored
from emubench.runs.sandbox import judged
from emubench.runs.sandbox.judged import Limits

MAX_BYTES = 2**20
"""A file of verified rows is no larger."""
MAX_TIMES = 10.0
"""How many times as fast or as slow another machine, or a busy one, may be."""


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
    seeds: Annotated[list[int], Field(min_length=1, max_length=16)]
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
    """Of the entry's settings and claims and of the season, as they were: see :func:`made_from`."""

    @property
    def claim_is_outside(self) -> bool:
        """Whether the claimed score lies outside the judge's 99 % interval."""
        return self.claimed is not None and not self.low_99 <= self.claimed <= self.high_99


class Verified(Model):
    """``leaderboard/verified/<season>/<entry>.json``."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    season: Name
    commitment: Digest
    entry: Name
    method: Name
    judge: Annotated[str, Field(max_length=200)]
    rows: Annotated[list[VerifiedRow], Field(max_length=64)]


@dataclass(frozen=True)
class Finding:
    """What was verified, and how it differs from what is published."""

    verified: Verified
    path: Path
    written: bool
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it for machines."""
        outside = [row.task for row in self.verified.rows if row.claim_is_outside]
        return self.verified.model_dump() | {"written": self.written, "claims_outside": outside, "faults": self.faults}

    def lines(self) -> list[str]:
        """What people have to see of it, a line each."""
        lines = []
        for row in self.verified.rows:
            interval = f"[{row.low:.4g}, {row.high:.4g}]"
            lines.append(f"{row.task}: {row.metric} {row.value:.4g} {interval}, {len(row.seeds)} seeds")
            if row.claim_is_outside:
                interval = f"the judge's 99 % interval [{row.low_99:.4g}, {row.high_99:.4g}]"
                lines.append(f"  NOTE: {row.claimed:.4g} is claimed on the public contexts, outside {interval}")
            if row.reason:
                lines.append(f"  NOTE: the emulator {row.reason}")
        return [*lines, f"wrote {self.path}" if self.written else f"compared with {self.path}"]


def verify(
    folder: Path,
    board: Path,
    name: str,
    n_seeds: int = 3,
    only: list[str] | None = None,
    limits: Limits = Limits(),
    again: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Retrain, score and time an entry of the standard division on the sealed data of a season."""
    contents = checks.require(folder)
    entry = contents.entry
    if entry.division != "standard":
        raise EmubenchError(f"{folder}: of the open division; only standard entries are verified")
    judge.check_method(contents)
    opened = season.get(board, name)
    if opened.emubench_version != __version__:
        raise EmubenchError(f"season {name} is of emubench {opened.emubench_version}, and this is {__version__}")
    wanted = [task for task in opened.tasks if task in entry.tasks and (only is None or task in only)]
    if not wanted:
        raise EmubenchError(f"{folder}: none of its tasks is one of season {name}: {', '.join(opened.tasks)}")
    seed, rows = season.seed_of(board, name), []
    seeds = entry.seeds[:n_seeds] if len(entry.seeds) >= n_seeds else list(range(n_seeds))
    place = Path(tempfile.gettempdir()) / "emubench-season"
    store.sweep(place)  # sealed data of a verification that was killed; others can't read them
    begins, _, ends = store.temporary_name(place).name.rpartition("-")
    with tempfile.TemporaryDirectory(prefix=f"{begins}-", suffix=f"-{ends}") as temporary:
        for task_name in wanted:
            task, data = tasks.get(task_name, opened.size), Path(temporary) / "data"
            generation.generate(task, data, seed, workers=1, progress=progress)
            rows.append(_row(contents, opened, task, data, seeds, limits, progress))
    verified = Verified(
        schema_version=schema.SCHEMA_VERSION,
        emubench_version=__version__,
        season=name,
        commitment=opened.commitment,
        entry=entry.name,
        method=entry.method,
        judge=f"{hardware.processor()}, {limits.threads} thread(s)",
        rows=rows,
    )
    return _keep(verified, board / "verified" / name / f"{entry.name}.json", again, opened.size)


def _row(
    contents: Contents,
    opened: season.Season,
    task: Task,
    data: Path,
    seeds: list[int],
    limits: Limits,
    progress: Progress | None,
) -> VerifiedRow:
    folder, entry = contents.folder, contents.entry
    runs, reasons = [], []
    for seed in seeds:
        overrides = dict(entry.overrides.get(task.name, {}))
        job = jobs.Job(entry.method, task.name, task.size, seed, limits.threads, overrides)
        torch.set_num_threads(limits.threads)
        try:
            run = judged.train(job, data, data.parent / "runs", limits, checks.MAX_WEIGHTS)
        except EmubenchError as error:
            raise EmubenchError(f"{folder}: {error}") from None
        found = judge.judge_run(run, task, data, seed, limits, progress)
        speed = float(found.result.timing["lyapunov_times_per_second"])
        runs.append(scored.ScoredRun(run, folders.read_card(run), found.result.scores, speed, entry.name))
        reasons += [found.reason] if found.reason else []
    cell = ranking.make_cell(runs)
    low_99, low, high, high_99 = np.quantile(cell.pooled(cell.sampled), (0.005, *scoring.INTERVAL, 0.995)).tolist()
    scale = reference.scale(task.name)
    skill, *ends = map(float, scale.skill(np.array([cell.value, low, high]))) if scale.usable else [np.nan] * 3
    stability = np.clip(ranking.pooled_row(runs, "skill_stability", 0.0), 0.0, 1.0).tolist()
    skills = bounded("skill", skill, min(ends), max(ends)) | bounded("skill_stability", *stability)
    return VerifiedRow(
        task=task.name,
        metric=headline(task).metric,
        unit=headline(task).unit,
        value=cell.value,
        low=low,
        high=high,
        low_99=low_99,
        high_99=high_99,
        n_cases=len(runs[0].cases),
        seeds=seeds,
        **{name: run_files.finite_or_none(value) for name, value in skills.items()},
        surviving_fraction=run_files.finite_or_none(ranking.pooled_row(runs, "surviving_fraction", 0.0)[0]),
        lyapunov_times_per_second=float(np.mean([run.throughput for run in runs])),
        train_seconds=float(np.mean([run.card.train_seconds for run in runs])),
        claimed=claimed(contents, task.name, task.size),
        made_from=made_from(contents, opened, task.name),
        reason="; ".join(reasons)[:1000],
    )


def claimed(contents: Contents, task: str, size: str) -> float | None:
    """Mean over the entry's seeds of its own score on the public contexts, if it is of the same size."""
    if contents.entry.size != size:
        return None
    name = entries.asked().headlines[task]
    return float(np.mean([np.mean(contents.scores[task, seed].cases[name]) for seed in contents.entry.seeds]))


def made_from(contents: Contents, opened: season.Season, task: str) -> str:
    """SHA-256 of what a row is made from: the entry's settings and claims on the task, and what the season commits to.

    So a row is known to be out of date where its entry was changed since.
    """
    entry, commits = contents.entry, opened.model_dump(include={"size", "emubench_version", "commitment"})
    settings = [task, entry.method, entry.knowledge, entry.seeds, entry.overrides.get(task, {})]
    cases = [contents.scores[task, seed].cases for seed in entry.seeds]
    return hashlib.sha256(json.dumps([settings, cases, commits], sort_keys=True).encode()).hexdigest()


def _keep(found: Verified, path: Path, again: bool, size: str) -> Finding:
    """Write the rows; or, where there are some already, compare them field by field."""
    with store.locked(path.parent):  # of two judges at once one writes, and the other compares
        if written := not path.exists() or again:
            store.write_text(path, found.model_dump_json(indent=1) + "\n")
    if written:
        return Finding(found, path, True, ())
    published: Verified = schema.read_json(Verified, path, MAX_BYTES)
    same = ("season", "entry", "method", "commitment", "emubench_version")
    faults = list(checks.differing(str(path), {key: (getattr(published, key), getattr(found, key)) for key in same}))
    rows = {row.task: row for row in published.rows}
    for row in found.rows:
        if (old := rows.get(row.task)) is None:
            faults.append(f"{path}: {row.task}: no row is published; write it with --again")
        else:
            faults += [*_unsound(f"{path}: {row.task}", old, size), *_moved(f"{path}: {row.task}", old, row, size)]
    return Finding(found, path, False, tuple(faults))


def _moved(where: str, old: VerifiedRow, new: VerifiedRow, size: str) -> Iterator[str]:
    """One line for every field of a published row that differs from what was found by more than a machine can move.

    Another machine rounds otherwise, which moves a score no more than other seeds do: within the 99 % interval that was
    found. Times are within a factor, and skills follow from the score; all else is the same.
    """
    n, p = entries.asked().shapes[size][new.task]["climate"][1], new.surviving_fraction or 0.0
    stable = ((new.skill_stability_high or 0.0) - (new.skill_stability_low or 0.0)) / 2
    allowed = dict.fromkeys(("value", "low", "high", "low_99", "high_99"), (new.high_99 - new.low_99) / 2)
    allowed |= {f"skill_stability{end}": stable * Z_DIFFERENT / Z_SHOWN + 1 / n for end in ENDS}  # and one run
    allowed["surviving_fraction"] = Z_DIFFERENT * math.sqrt(p * (1 - p) / (n * len(new.seeds))) + 1 / n
    for name in VerifiedRow.model_fields.keys() - {"skill", "skill_low", "skill_high"}:
        one, two = getattr(old, name), getattr(new, name)
        if name in ("lyapunov_times_per_second", "train_seconds"):
            same = one <= MAX_TIMES * two and two <= MAX_TIMES * one
        elif name in allowed and None not in (one, two):
            same = abs(one - two) <= allowed[name] + 1e-9 * abs(two)
        else:
            same = one == two
        if not same:
            yield f"{where}: {name}: {one!r} is published, {two!r} was found"


def _unsound(where: str, row: VerifiedRow, size: str) -> Iterator[str]:
    """One line for everything that a row can't say, whatever was found: scores beyond their range, another's skill."""
    asked, scale = entries.asked(), reference.scale(row.task)
    shapes, known = asked.shapes.get(size, {}).get(row.task), asked.scores.get(row.task)
    if shapes is None or known is None:
        yield f"{where}: no task of size {size}"
        return
    head = known[asked.headlines[row.task]]
    wanted = {"metric": asked.headlines[row.task], "unit": head.unit, "n_cases": shapes["test"][1]}
    yield from checks.differing(where, {key: (getattr(row, key), value) for key, value in wanted.items()})
    steady = (row.skill_stability_low, row.skill_stability, row.skill_stability_high)
    for name, score, ends in (
        ("value", head, (row.low_99, row.low, row.value, row.high, row.high_99)),
        ("skill_stability", known["skill_stability"], steady),
        ("surviving_fraction", known["surviving_fraction"], (row.surviving_fraction,)),
    ):
        rising = [end for end in ends if end is not None]
        if not all(map(score.allows, rising)) or any(a > b + 1e-9 * (1 + abs(b)) for a, b in pairwise(rising)):
            yield f"{where}: {name}: {ends} where rising numbers in {checks.shown_range(score)} belong"
    skills = scale.skill(row.value), *sorted(map(scale.skill, (row.low, row.high)))
    for stated, skill in zip((row.skill, row.skill_low, row.skill_high), skills, strict=True):
        if stated is None or abs(stated - skill) > 1e-9 * (1 + abs(skill)):
            yield f"{where}: skill: {stated} where {skill} follows from the score"


def check_origin(found: Verified, contents: Contents, opened: season.Season) -> None:
    """Raise :class:`EmubenchError` unless the rows were made from the entry as it is, and say what it claims."""
    for row in found.rows:
        where = f"{contents.folder}: {row.task}: verified in season {found.season}"
        if row.task not in contents.entry.tasks:
            raise EmubenchError(f"{where}, and none of the entry's tasks")
        made = made_from(contents, opened, row.task), claimed(contents, row.task, opened.size)
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


def _rows(path: Path, seasons: dict[str, season.Season]) -> Verified:
    rows: Verified = schema.read_json(Verified, path, MAX_BYTES)
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
        for fault in _unsound(f"{path}: {row.task}", row, opened.size):
            raise EmubenchError(fault)
    return rows
