"""A season as steps of the engine :mod:`emubench.runs.grid`: sealed data once per task, entries × tasks × seeds.

Five kinds: ``seal`` makes a task's sealed data, ``retrain`` and ``judge`` train one seed of an entry and score it,
``ladder`` times the solvers of a task, and ``bench`` an entry's first seed beside them. Only ``seal`` needs the secret,
so it is done by the process that was given it, before any worker is handed a step; workers see the sealed files.
``ladder`` and ``bench`` are done last, task by task and one by one, with no worker beside them.
What a step makes lies below the season's place, which nobody else can read, at once and whole; so a command that was
killed goes on.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from emubench import __version__
from emubench.core.errors import EmubenchError
from emubench.data import generation, layout, tasks
from emubench.data.tasks import Task
from emubench.evaluation.throughput import ladder
from emubench.files import schema, store
from emubench.files.schema import Model
from emubench.files.timing import JudgedSpeed, Rung
from emubench.leaderboard.statistics import bounded
from emubench.leaderboard.submission import checks, entries, judge, season, speeds, verified_rows
from emubench.leaderboard.submission.entries import Contents
from emubench.leaderboard.submission.verified_rows import SeedScores, VerifiedRow
from emubench.runs import folders, jobs, scored
from emubench.runs.grid import executors, runner, steps
from emubench.runs.grid.plans import Grid, Plan
from emubench.runs.grid.steps import Kind, Outcome, Step
from emubench.runs.sandbox import judged
from emubench.runs.sandbox.judged import Limits

MADE = ("data", "runs", "found", ".steps")
"""What the steps make below the season's place."""
Watch = Callable[[runner.Execution], None]


class Found(Model):
    """What judging one seed has found."""

    scores: SeedScores
    train_seconds: Annotated[float, Field(ge=0, le=1e10)]
    reason: Annotated[str, Field(max_length=1000)]
    counted_share: Annotated[float, Field(gt=0, le=1)] = 1.0


class Ladder(Model):
    """The solvers of a task, as they were timed."""

    rungs: Annotated[list[Rung], Field(max_length=200)]


@dataclass(frozen=True)
class Entrant:
    """An entry of a season, with the tasks and seeds that are to be judged."""

    contents: Contents
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """That of the entry."""
        return self.contents.entry.name


@dataclass(frozen=True)
class SeasonGrid:
    """What is to be judged of a season, and where."""

    board: Path
    name: str
    opened: season.Season
    place: Path
    entrants: tuple[Entrant, ...]
    limits: Limits
    ladder_seconds: float = speeds.LADDER_SECONDS
    """For the solvers of a task; 0: no ladder, and no speed-up."""

    @property
    def data(self) -> Path:
        """Where the sealed data lie."""
        return self.place / "data"

    def task(self, name: str) -> Task:
        """A task at the season's size."""
        return tasks.get(name, self.opened.size)

    def jobs(self, entrant: Entrant, task: str) -> list[jobs.Job]:
        """The trainings of an entry on one task."""
        entry, size, threads = entrant.contents.entry, self.opened.size, self.limits.threads
        overrides = dict(entry.overrides.get(task, {}))
        where = {"overrides": overrides, "device": self.limits.device}
        return [jobs.Job(entry.method, task, size, seed, threads, **where) for seed in entrant.seeds]

    def cells(self) -> Iterator[tuple[Entrant, str]]:
        """Every entry on each of its tasks."""
        yield from ((entrant, task) for entrant in self.entrants for task in entrant.tasks)

    def ladder(self, task: str) -> Step:
        """The step that times the solvers of a task."""
        known: dict[str, Any] = {"task": task, "size": self.opened.size, "commitment": self.opened.commitment}
        known |= {"seconds": self.ladder_seconds, "threads": self.limits.threads, "device": self.limits.device}
        return steps.describe("ladder", f"ladder {task}", **known)

    def steps_of(self, entrant: Entrant, task: str) -> tuple[list[Step], list[Step], Step]:
        """The steps that retrain and judge an entry's seeds on one task, and that which times it."""
        retrain, score = list[Step](), list[Step]()
        entered: dict[str, Any] = {"entry": entrant.name, "limits": self.limits.values()}
        taken = ((executors.GPU, 1.0),) if self.limits.device.startswith("cuda") else ()
        found = self.jobs(entrant, task)
        for job in found:
            known = entered | {"job": job.values(), "hash8": job.hash8()}
            label = f"{entrant.name} {task} {job.size} seed {job.seed}"
            retrain.append(steps.describe("retrain", f"train {label}", taken, **known))
            score.append(steps.describe("judge", f"score {label}", taken, **known))
        first = entered | {"job": found[0].values(), "hash8": found[0].hash8()}
        first |= {"judged": score[0].name, "ladder": self.ladder(task).name}
        return retrain, score, steps.describe("bench", f"bench {entrant.name} {task}", **first)

    def plan(self) -> Plan:
        """All steps, those that seal first and those that time last."""
        needs: dict[Step, tuple[Step, ...]] = {}
        sealed, timed, made = dict[str, Step](), dict[str, dict[Step, tuple[Step, ...]]](), list[jobs.Job]()
        for name in dict.fromkeys(task for _, task in self.cells()):
            known: dict[str, Any] = {"task": name, "size": self.opened.size, "commitment": self.opened.commitment}
            known |= {"board": str(self.board.absolute()), "season": self.name}
            sealed[name] = steps.describe("seal", f"seal {name}", **known)
            needs[sealed[name]] = ()
            timed[name] = {self.ladder(name): (sealed[name],)}
        for entrant, task in self.cells():
            retrain, score, bench = self.steps_of(entrant, task)
            made += self.jobs(entrant, task)
            for one, two in zip(retrain, score, strict=True):
                needs |= {one: (sealed[task],), two: (one,)}
            timed[task][bench] = (*score, self.ladder(task))
        for last in timed.values():
            needs |= last
        grid = Grid(
            tasks=list(sealed) or list(self.opened.tasks),
            baselines=sorted({job.baseline for job in made}) or ["none"],
            seeds=sorted({job.seed for job in made}) or [0],
            size=self.opened.size,
            threads=self.limits.threads,
        )
        return Plan(grid, tuple(needs), needs, tuple(made))

    def row(self, entrant: Entrant, task: str) -> VerifiedRow | None:
        """What was found of an entry on one task; ``None`` until all of its steps are done."""
        _, score, bench = self.steps_of(entrant, task)
        if not all(_is_found(step, self.data, self.place) for step in (*score, bench)):
            return None
        found = [_read(Found, step, self.place) for step in score]
        by_seed, speed = [one.scores for one in found], _read(JudgedSpeed, bench, self.place)
        return VerifiedRow(
            **verified_rows.scores(entrant.name, self.task(task), by_seed),
            lyapunov_times_per_second=speed.lyapunov_times_per_second.median,
            speed=speed,
            train_seconds=float(np.mean([one.train_seconds for one in found])),
            claimed=verified_rows.claimed(entrant.contents, task, self.opened.size),
            made_from=verified_rows.made_from(entrant.contents, self.opened, task, by_seed),
            reason="; ".join(one.reason for one in found if one.reason)[:1000],
            by_seed=by_seed,
        )


# --- what belongs to a season -----------------------------------------------------------------------------------------


def current(board: Path, name: str) -> season.Season:
    """The season called ``name``, which has to be of this version."""
    opened = season.get(board, name)
    if opened.emubench_version != __version__:
        raise EmubenchError(f"season {name} is of emubench {opened.emubench_version}, and this is {__version__}")
    return opened


def entrant(folder: Path, name: str, opened: season.Season, n_seeds: int, only: Collection[str] = ()) -> Entrant:
    """A checked entry of the standard division with its tasks of a season, or of these ``only`` some."""
    contents = checks.require(folder)
    entry = contents.entry
    if entry.division != "standard":
        raise EmubenchError(f"{folder}: of the open division; only standard entries are verified")
    judge.check_method(contents)
    wanted = tuple(task for task in opened.tasks if task in entry.tasks and (not only or task in only))
    if not wanted:
        raise EmubenchError(f"{folder}: none of its tasks is one of season {name}: {', '.join(opened.tasks)}")
    seeds = entry.seeds[:n_seeds] if len(entry.seeds) >= n_seeds else range(n_seeds)
    return Entrant(contents, wanted, tuple(seeds))


def belongs(folder: Path, opened: season.Season, only: Collection[str]) -> bool:
    """Whether a folder is that of a standard entry with tasks of a season; one that can't be read is told of later."""
    try:
        entry = entries.read(folder)
    except EmubenchError:
        return True
    wanted = [task for task in opened.tasks if task in entry.tasks and (not only or task in only)]
    return entry.division == "standard" and bool(wanted)


def place_of(name: str, opened: season.Season, given: Path | None = None, make: bool = True) -> Path:
    """The folder of a season's sealed data and results, outside any git checkout, which nobody else may read."""
    usual = Path(tempfile.gettempdir()) / f"emubench-season-{os.getuid()}-{name}-{opened.commitment[:8]}"
    place = season.outside_git((given or usual).absolute(), "sealed data")
    if make:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.exists() or place.is_symlink():
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EmubenchError(f"{place}: a folder of yours that nobody else can read (mode 700) belongs here")
    return place


# --- doing it ---------------------------------------------------------------------------------------------------------


def run(step: Step, data: Path, out: Path, threads: int = 1, debug: bool = False) -> Outcome:
    """Do a step; a worker that is handed this function knows the kinds of this module."""
    return steps.run(step, data, out, threads, debug)


def execute(
    grid: SeasonGrid,
    place: executors.Context,
    watch: Watch = lambda run: None,
    kept: Callable[[Entrant, VerifiedRow], None] = lambda entrant, row: None,
    debug: bool = False,
) -> runner.Execution:
    """Do all that is not done; ``kept`` is called with each row as soon as it is whole. Return what became of all."""
    plan, told = grid.plan(), set[tuple[str, str]]()

    def tell() -> None:
        for one, task in grid.cells():
            if (one.name, task) not in told and (row := grid.row(one, task)):
                kept(one, row)
                told.add((one.name, task))

    def phase(kinds: Collection[str], where: executors.Context) -> None:
        part = _part(plan, kinds, grid)
        if part.steps:
            with where as workers:
                runner.execute(part, workers, grid.data, grid.place, grid.limits.threads, watch, debug, run)

    tell()
    phase({"seal"}, executors.in_process())
    phase({"retrain", "judge"}, place)
    for step in _part(plan, {"ladder", "bench"}, grid).steps:
        if not _of_use(step, plan, grid):
            continue
        one = Plan(plan.grid, (step,), {step: ()}, ())
        with executors.in_process() as alone:
            runner.execute(one, alone, grid.data, grid.place, grid.limits.threads, watch, debug, run)
        tell()
    return runner.look(plan, grid.data, grid.place)


def _of_use(step: Step, plan: Plan, grid: SeasonGrid) -> bool:
    """Whether all that a step needs is done; of a ladder, whether an entry can be timed beside it."""
    waiting = [plan.needs[step]]
    if step.kind == "ladder":
        waiting = [set(needs) - {step} for needs in plan.needs.values() if step in needs]
    return any(all(steps.is_done(need, grid.data, grid.place) for need in needs) for needs in waiting)


def _part(plan: Plan, kinds: Collection[str], grid: SeasonGrid) -> Plan:
    """The steps of some kinds that are not done, and whose needs are done or stand before them."""
    state, needs = runner.look(plan, grid.data, grid.place).state, dict[Step, tuple[Step, ...]]()
    for step in plan.steps:
        left = tuple(need for need in plan.needs[step] if state[need] != "done")
        if step.kind in kinds and state[step] != "done" and all(need in needs for need in left):
            needs[step] = left
    return Plan(plan.grid, tuple(needs), needs, ())


def tidy(grid: SeasonGrid) -> None:
    """Remove the sealed data, and all else that the steps have made."""
    for name in MADE:
        shutil.rmtree(grid.place / name, ignore_errors=True)


# --- the kinds of steps -----------------------------------------------------------------------------------------------


def _task(step: Step) -> Task:
    values = step.values
    return steps.job_of(step).get_task() if "job" in values else tasks.get(values["task"], values["size"])


def _files(step: Step, data: Path) -> tuple[Path, Path]:
    return layout.task_path(_task(step), data), layout.truth_path(_task(step), data)


def _run(step: Step, out: Path) -> Path:
    return steps.job_of(step).folder(out / "runs" / step.values["entry"])


def _found(step: Step, out: Path) -> Path:
    return out / "found" / f"{step.name}.json"


def _read(model: type[Any], step: Step, out: Path) -> Any:
    return schema.read_json(model, _found(step, out), verified_rows.MAX_BYTES)


def _limits(step: Step) -> Limits:
    return Limits(**step.values["limits"])


def _seal(step: Step, data: Path, out: Path) -> None:
    seed = season.seed_of(Path(step.values["board"]), step.values["season"])
    generation.generate(_task(step), data, seed, workers=1)


def _retrain(step: Step, data: Path, out: Path) -> None:
    run = _run(step, out)
    store.sweep(run)
    making = store.temporary_name(run)
    try:
        made = judged.train(steps.job_of(step), data, making, _limits(step), checks.MAX_WEIGHTS)
        if not run.exists():  # of another client that was faster
            made.rename(run)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _judge(step: Step, data: Path, out: Path) -> None:
    run, job = _run(step, out), steps.job_of(step)
    found = judge.judge_run(run, _task(step), data, job.seed, _limits(step))
    one = scored.ScoredRun(run, folders.read_card(run), found.result.scores, None)
    steady, survived = (one.row(name, 0.0) for name in ("skill_stability", "surviving_fraction"))
    ends = bounded("skill_stability", *(steady or (None, None, None)))
    scores = SeedScores(seed=job.seed, cases=one.cases.tolist(), **ends, surviving_fraction=survived and survived[0])
    share = found.result.timing.get("counted_share", 1.0)
    content = Found(scores=scores, train_seconds=one.card.train_seconds, reason=found.reason, counted_share=share)
    store.write_text(_found(step, out), content.model_dump_json())


def _ladder(step: Step, data: Path, out: Path) -> None:
    seconds, device = step.values["seconds"], torch.device(step.values["device"])
    rungs = ladder.measure(_task(step), data, seconds, device=device) if seconds > 0 else []
    store.write_text(_found(step, out), Ladder(rungs=rungs).model_dump_json())


def _bench(step: Step, data: Path, out: Path) -> None:
    found = schema.read_json(Found, _beside(step, "judged", out), verified_rows.MAX_BYTES)
    rungs = schema.read_json(Ladder, _beside(step, "ladder", out), verified_rows.MAX_BYTES).rungs
    seed, cases = steps.job_of(step).seed, np.array(found.scores.cases)
    judged_before = (cases, found.counted_share, found.train_seconds)
    asked = speeds.Asked(_run(step, out), _task(step), data, seed, _limits(step), *judged_before)
    store.write_text(_found(step, out), speeds.measure(asked, rungs).model_dump_json())


def _beside(step: Step, name: str, out: Path) -> Path:
    """What another step has found, which ``step`` names."""
    return out / "found" / f"{step.values[name]}.json"


def _is_found(step: Step, data: Path, out: Path) -> bool:
    return _found(step, out).exists()


steps.KINDS |= {
    "seal": Kind(lambda step, data, out: all(path.exists() for path in _files(step, data)), lambda *_: (), _seal),
    "retrain": Kind(
        lambda step, data, out: (_run(step, out) / "card.json").exists(),
        lambda step, data, out: _files(step, data)[:1],
        _retrain,
    ),
    "judge": Kind(_is_found, lambda step, data, out: (*_files(step, data), _run(step, out) / "card.json"), _judge),
    "ladder": Kind(_is_found, lambda step, data, out: _files(step, data), _ladder),
    "bench": Kind(
        _is_found,
        lambda step, data, out: (*(_beside(step, name, out) for name in ("judged", "ladder")), *_files(step, data)),
        _bench,
    ),
}
