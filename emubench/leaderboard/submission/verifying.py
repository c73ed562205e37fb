"""``emubench submit verify`` and ``season verify``: retrain entries on sealed data, score them there, keep the rows.

What is kept of it (:mod:`emubench.leaderboard.submission.verified_rows`) the judge alone writes. Times are those of
the judge's machine, and are never compared with another's.
"""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emubench import __version__
from emubench.core import hardware
from emubench.core.errors import EmubenchError
from emubench.files import store
from emubench.files.timing import JudgedSpeed
from emubench.leaderboard.statistics import ENDS, Z_DIFFERENT, Z_SHOWN
from emubench.leaderboard.submission import checks, entries, judge, season, season_grid, speeds, verified_rows
from emubench.leaderboard.submission.season_grid import Entrant, SeasonGrid
from emubench.leaderboard.submission.verified_rows import Verified, VerifiedRow
from emubench.runs.grid import executors, runner
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
        lines = [line for row in self.verified.rows for line in lines_of(row)]
        return [*lines, f"wrote {self.path}" if self.written else f"compared with {self.path}"]


def lines_of(row: VerifiedRow) -> list[str]:
    """What people have to see of a row, a line each."""
    lines = [f"{row.task}: {row.metric} {row.value:.4g} [{row.low:.4g}, {row.high:.4g}], {len(row.seeds)} seeds"]
    if row.claim_is_outside:
        interval = f"the judge's 99 % interval [{row.low_99:.4g}, {row.high_99:.4g}]"
        lines.append(f"  NOTE: {row.claimed:.4g} is claimed on the public contexts, outside {interval}")
    if row.speed is not None:
        lines += [f"  {line}" for line in speed_lines(row.speed)]
    return lines + ([f"  NOTE: the emulator {row.reason}"] if row.reason else [])


def speed_lines(speed: JudgedSpeed) -> list[str]:
    """What people have to see of a speed, a line each."""
    if speed.refused:
        return [f"NOTE: no speed: {speed.refused}"]
    told = f"{speed.lyapunov_times_per_second.median:.3g} Lyapunov times per second on {speed.where}"
    if (gained := speed.speedup) is None:
        return [told]
    if gained.value is None:
        return [f"{told}, {gained.scheme}"]
    return [f"{told}, {gained.value:.3g} [{gained.low:.3g}, {gained.high:.3g}] times a solver as accurate"]


def verify(
    folder: Path,
    board: Path,
    name: str,
    n_seeds: int = 3,
    only: Sequence[str] = (),
    limits: Limits = Limits(),
    again: bool = False,
    watch: season_grid.Watch = lambda run: None,
    ladder_seconds: float = speeds.LADDER_SECONDS,
) -> Finding:
    """Retrain, score and time an entry of the standard division on the sealed data of a season, in this process."""
    opened = season_grid.current(board, name)
    entrant = season_grid.entrant(folder, name, opened, n_seeds, only)
    season.seed_of(board, name)  # a secret that is none is told before anything is made
    usual = Path(tempfile.gettempdir()) / "emubench-season"
    store.sweep(usual)  # sealed data of a verification that was killed; others can't read them
    begins, _, ends = store.temporary_name(usual).name.rpartition("-")
    with tempfile.TemporaryDirectory(prefix=f"{begins}-", suffix=f"-{ends}") as place:
        grid = SeasonGrid(board, name, opened, Path(place), (entrant,), limits, ladder_seconds)
        ended = season_grid.execute(grid, executors.in_process(), watch)
        for outcome in ended.failed.values():
            raise EmubenchError(f"{folder}: {outcome.error}")
        rows = [row for task in entrant.tasks if (row := grid.row(entrant, task))]

    def origin(row: VerifiedRow) -> str:
        return verified_rows.made_from(entrant.contents, opened, row.task, row.by_seed)

    return _keep(_head(grid, entrant, rows), path_of(grid, entrant), again, opened.size, origin)


def path_of(grid: SeasonGrid, entrant: Entrant) -> Path:
    """Where the rows of an entry are kept."""
    return grid.board / "verified" / grid.name / f"{entrant.name}.json"


def _head(grid: SeasonGrid, entrant: Entrant, rows: list[VerifiedRow]) -> Verified:
    return Verified(
        schema_version=2,
        emubench_version=__version__,
        season=grid.name,
        commitment=grid.opened.commitment,
        entry=entrant.name,
        method=entrant.contents.entry.method,
        judge=judge_of(grid.limits),
        rows=rows,
    )


def judge_of(limits: Limits) -> str:
    """The machine that judges, by its processor, threads, and its device where that is no CPU."""
    machine = f"{hardware.processor()}, {limits.threads} thread(s)"
    device = torch.device(limits.device)
    return machine if device.type == "cpu" else f"{machine}, {hardware.described(device)}"[:200]


def missing(grid: SeasonGrid) -> SeasonGrid:
    """The grid without the tasks of which a row is kept that was made from the entry as it is."""
    left = list[Entrant]()
    for entrant in grid.entrants:
        kept = _kept(grid, entrant)
        wanted = tuple(task for task in entrant.tasks if task not in kept)
        left += [dataclasses.replace(entrant, tasks=wanted)] if wanted else []
    return dataclasses.replace(grid, entrants=tuple(left))


@dataclass(frozen=True)
class Judged:
    """How far a season is: the rows that are kept, what has become of the steps of all others, and what is wrong."""

    rows: dict[str, tuple[VerifiedRow, ...]]
    ended: runner.Execution
    missing: int
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it for machines."""
        kept = {entry: [row.task for row in rows] for entry, rows in self.rows.items()}
        return runner.summary(self.ended) | {"kept": kept, "missing_rows": self.missing, "faults": self.faults}

    def lines(self) -> list[str]:
        """What people have to see of it, a line each."""
        lines = [f"{entry}: {line}" for entry, rows in self.rows.items() for row in rows for line in lines_of(row)]
        return [*lines, f"{sum(map(len, self.rows.values()))} rows are kept, {self.missing} are missing"]


def _whole_grid(
    board: Path,
    name: str,
    names: Sequence[str],
    n_seeds: int,
    only: Sequence[str],
    limits: Limits,
    place: Path,
    ladder_seconds: float = speeds.LADDER_SECONDS,
) -> tuple[SeasonGrid, list[str]]:
    """All that is to be judged of a season, and a line for each entry that is not: by default of all standard ones."""
    opened, found, faults = season_grid.current(board, name), list[Entrant](), list[str]()
    folders = [board / "entries" / one for one in names] or sorted((board / "entries").glob("*/"))
    for folder in folders:
        if store.is_litter(folder) or (not names and not season_grid.belongs(folder, opened, only)):
            continue
        try:
            found.append(season_grid.entrant(folder, name, opened, n_seeds, only))
        except EmubenchError as error:
            faults.append(str(error))
    return SeasonGrid(board, name, opened, place, tuple(found), limits, ladder_seconds), faults


def look(
    board: Path,
    name: str,
    names: Sequence[str] = (),
    n_seeds: int = 3,
    only: Sequence[str] = (),
    limits: Limits = Limits(),
    place: Path | None = None,
    ladder_seconds: float = speeds.LADDER_SECONDS,
) -> Judged:
    """How far a season is, from its folders alone."""
    where = season_grid.place_of(name, season_grid.current(board, name), place, make=False)
    grid, faults = _whole_grid(board, name, names, n_seeds, only, limits, where, ladder_seconds)
    return _judged(grid, faults)


def _judged(grid: SeasonGrid, faults: Sequence[str]) -> Judged:
    left = missing(grid)
    rows = {one.name: tuple(_kept(grid, one).values()) for one in grid.entrants}
    ended = runner.look(left.plan(), grid.data, grid.place)
    return Judged(rows, ended, sum(len(one.tasks) for one in left.entrants), tuple(faults))


def verify_season(
    board: Path,
    name: str,
    names: Sequence[str] = (),
    n_seeds: int = 3,
    only: Sequence[str] = (),
    limits: Limits = Limits(),
    place: Path | None = None,
    workers: executors.Context | None = None,
    watch: season_grid.Watch = lambda run: None,
    ladder_seconds: float = speeds.LADDER_SECONDS,
) -> Judged:
    """Judge all of a season of which no row is kept; each is kept as soon as it is whole, so the same call goes on.

    Once no row is missing the sealed data and all else that was made on the way are removed.
    """
    where = season_grid.place_of(name, season_grid.current(board, name), place)
    grid, faults = _whole_grid(board, name, names, n_seeds, only, limits, where, ladder_seconds)
    season.seed_of(board, name)  # a secret that is none is told before anything is made

    def keep(entrant: Entrant, row: VerifiedRow) -> None:
        try:
            keep_row(grid, entrant, row)
        except EmubenchError as error:
            faults.append(str(error))

    season_grid.execute(missing(grid), workers or executors.in_process(), watch, keep)
    found = _judged(grid, faults)
    failed = [f"{one['step']}: {one['error']} (log: {one['log']})" for one in runner.failures(found.ended)]
    if not found.missing:
        season_grid.tidy(grid)
    return dataclasses.replace(found, faults=(*found.faults, *failed))


def _kept(grid: SeasonGrid, entrant: Entrant) -> dict[str, VerifiedRow]:
    """The rows that are kept of an entry, and were made from it as it is, with as many seeds."""
    if not (path := path_of(grid, entrant)).exists():
        return {}
    made = ((row, verified_rows.made_from(entrant.contents, grid.opened, row.task, row.by_seed)) for row in _rows(path))
    return {row.task: row for row, digest in made if row.made_from == digest and row.seeds == [*entrant.seeds]}


def _rows(path: Path) -> list[VerifiedRow]:
    return verified_rows.read_file(path).rows


def keep_row(grid: SeasonGrid, entrant: Entrant, row: VerifiedRow) -> None:
    """Add a row to those of its entry, or put it in the place of one that was made from an entry that has changed."""
    path = path_of(grid, entrant)
    with store.locked(path.parent):
        kept, found = _kept(grid, entrant), _head(grid, entrant, [])
        if row.task in kept:
            return
        kept[row.task] = row
        if len(kept) > 1 and (other := verified_rows.read_file(path).judge) != found.judge:
            raise EmubenchError(f"{path}: was judged on {other}; times of {found.judge} do not belong beside those")
        rows = [kept[task] for task in grid.opened.tasks if task in kept]
        store.write_text(path, found.model_copy(update={"rows": rows}).text())


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
    times = {name: (getattr(old, name), getattr(new, name)) for name in ("lyapunov_times_per_second", "train_seconds")}
    one, two = (row.speed and row.speed.speedup and row.speed.speedup.value for row in (old, new))
    if one is not None and two is not None:  # whether a setting as accurate is reached is the machine's affair
        times["speedup_at_equal_accuracy"] = one, two
    for name, (one, two) in times.items():
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
