"""``emubench submit verify``: retrain an entry on a season's sealed data, score it on its sealed contexts.

What is kept of it (:mod:`emubench.leaderboard.submission.verified_rows`) the judge alone writes. Times are those of
the judge's machine, and are never compared with another's.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emubench import __version__
from emubench.core import hardware
from emubench.core.errors import EmubenchError
from emubench.data import generation, tasks
from emubench.data.tasks import Task
from emubench.evaluation.scoring import Progress
from emubench.files import store
from emubench.leaderboard.statistics import ENDS, Z_DIFFERENT, Z_SHOWN, bounded
from emubench.leaderboard.submission import checks, entries, judge, season, verified_rows
from emubench.leaderboard.submission.entries import Contents
from emubench.leaderboard.submission.verified_rows import SeedScores, Verified, VerifiedRow
from emubench.runs import folders, jobs, scored
from emubench.runs.sandbox import judged
from emubench.runs.sandbox.judged import Limits

MAX_TIMES = 10.0
"""How many times as fast or as slow another machine, or a busy one, may be."""


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
    found = Verified(
        schema_version=2,
        emubench_version=__version__,
        season=name,
        commitment=opened.commitment,
        entry=entry.name,
        method=entry.method,
        judge=f"{hardware.processor()}, {limits.threads} thread(s)",
        rows=rows,
    )

    def origin(row: VerifiedRow) -> str:
        return verified_rows.made_from(contents, opened, row.task, row.by_seed)

    return _keep(found, board / "verified" / name / f"{entry.name}.json", again, opened.size, origin)


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
    by_seed = [_seed_scores(run) for run in runs]
    return VerifiedRow(
        **verified_rows.scores(entry.name, task, by_seed),
        lyapunov_times_per_second=float(np.mean([run.throughput for run in runs])),
        train_seconds=float(np.mean([run.card.train_seconds for run in runs])),
        claimed=verified_rows.claimed(contents, task.name, task.size),
        made_from=verified_rows.made_from(contents, opened, task.name, by_seed),
        reason="; ".join(reasons)[:1000],
        by_seed=by_seed,
    )


def _seed_scores(run: scored.ScoredRun) -> SeedScores:
    """What is published of one training; a score that could not be made counts as the worst."""
    steady, survived = (run.row(name, 0.0) for name in ("skill_stability", "surviving_fraction"))
    ends = bounded("skill_stability", *(steady or (None, None, None)))
    return SeedScores(seed=run.card.seed, cases=run.cases.tolist(), **ends, surviving_fraction=survived and survived[0])


def _keep(found: Verified, path: Path, again: bool, size: str, origin: Callable[[VerifiedRow], str]) -> Finding:
    """Write the rows; or, where there are some already, compare them field by field.

    ``origin`` says what ``made_from`` of a row should be, by its scores and the entry as it is.
    """
    with store.locked(path.parent):  # of two judges at once one writes, and the other compares
        if written := not path.exists() or again:
            store.write_text(path, found.text())
    if written:
        return Finding(found, path, True, ())
    published = verified_rows.read_file(path)
    same = ("season", "entry", "method", "commitment", "emubench_version")
    faults = list(checks.differing(str(path), {key: (getattr(published, key), getattr(found, key)) for key in same}))
    rows = {row.task: row for row in published.rows}
    for row in found.rows:
        where = f"{path}: {row.task}"
        if (old := rows.get(row.task)) is None:
            faults.append(f"{where}: no row is published; write it with --again")
            continue
        faults += verified_rows.unsound(where, found.entry, old, size)
        faults += checks.differing(where, {"made_from": (old.made_from, origin(old))})
        faults += _moved(where, old, row, size)
    return Finding(found, path, False, tuple(faults))


def _moved(where: str, old: VerifiedRow, new: VerifiedRow, size: str) -> Iterator[str]:
    """One line for all of a published row that differs from what was found by more than a machine can move.

    Another machine rounds otherwise, which moves a training's scores no more than another seed does. Times are within a
    factor. What follows from the scores of the seeds is not compared, and all else is the same.
    """
    yield from checks.differing(where, {key: (getattr(old, key), getattr(new, key)) for key in ("claimed", "reason")})
    for name in ("lyapunov_times_per_second", "train_seconds"):
        one, two = getattr(old, name), getattr(new, name)
        if one > MAX_TIMES * two or two > MAX_TIMES * one:
            yield f"{where}: {name}: {one!r} is published, {two!r} was found"
    if old.seeds != new.seeds:
        yield f"{where}: seeds: {old.seeds} are published, {new.seeds} were trained"
        return
    cases = [one.cases for one in new.by_seed]
    between = max(math.dist(one, two) for one in cases for two in cases)
    n = entries.asked().shapes[size][new.task]["climate"][1]
    p, stable = (
        new.surviving_fraction or 0.0,
        ((new.skill_stability_high or 0.0) - (new.skill_stability_low or 0.0)) / 2,
    )
    allowed = {f"skill_stability{end}": stable * Z_DIFFERENT / Z_SHOWN + 1 / n for end in ENDS}  # and one run
    allowed["surviving_fraction"] = Z_DIFFERENT * math.sqrt(p * (1 - p) / n) + 1 / n
    for one, two in zip(old.by_seed, new.by_seed, strict=True):
        far = len(one.cases) != len(two.cases) or math.dist(one.cases, two.cases) > max(
            between, judge.spread(two.cases)
        )
        if far or abs(np.mean(one.cases) - np.mean(two.cases)) > (new.high_99 - new.low_99) / 2 + 1e-9:
            yield f"{where}: seed {two.seed}: cases: other values than were found"
        for name, most in allowed.items():
            stated, here = getattr(one, name), getattr(two, name)
            if (stated is None) != (here is None) or abs((stated or 0.0) - (here or 0.0)) > most + 1e-9:
                yield f"{where}: seed {two.seed}: {name}: {stated!r} is published, {here!r} was found"
