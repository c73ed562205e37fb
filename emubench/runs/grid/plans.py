"""``GRID.toml``: tasks × baselines × seeds, expanded to steps with what each needs: generate → train → score."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from emubench import baselines
from emubench.core.errors import EmubenchError, unknown
from emubench.data import layout, recipes, tasks
from emubench.files import schema
from emubench.files.schema import Name
from emubench.runs.grid import steps
from emubench.runs.grid.executors import GPU
from emubench.runs.grid.steps import Step
from emubench.runs.jobs import Job

MAX_JOBS = 10**5
DATA_SEED = 0
"""The seed of the datasets that a grid makes: the benchmark's own."""
BUDGET = "steps"
"""The setting that ``budget`` stands for, in every baseline that has it."""

Resource = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,39}$")]


class Grid(schema.Model):
    """What a grid file holds.

    ``budget`` is the number of optimiser steps of every baseline that takes some; ``[overrides.<baseline>]`` holds
    settings, and ``[resources.<baseline>]`` what its jobs take of a Dask worker, such as ``GPU = 1``.
    """

    tasks: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=1000)]
    """Names of tasks, or recipe files beside the grid; ``["all"]``: the sixteen."""
    baselines: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1, max_length=1000)]
    size: Name = "standard"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of each job: they change sums in their last digits, so they are part of what determines it."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|mps)$")] = "cpu"
    """The kind of device of each job; of GPUs a job takes one, ``GPU = 1``, unless its resources say otherwise."""
    budget: Annotated[int, Field(ge=1, le=10**8)] | None = None
    overrides: dict[Name, dict[Name, Any]] = {}
    resources: dict[Name, dict[Resource, Annotated[float, Field(gt=0)]]] = {}

    @field_validator("tasks", "baselines", "seeds")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice")
        return values

    @model_validator(mode="after")
    def _tables_belong(self) -> "Grid":
        for table in ("overrides", "resources"):
            for name in getattr(self, table):
                if name not in self.baselines:
                    raise ValueError(f"[{table}.{name}]: {name} is not among baselines")
        return self


@dataclass(frozen=True)
class Plan:
    """All steps of a grid in an order in which they may be done, and what each needs."""

    grid: Grid
    steps: tuple[Step, ...]
    needs: dict[Step, tuple[Step, ...]]
    jobs: tuple[Job, ...]


def read(path: Path) -> Grid:
    """The validated grid of a file; the first fault becomes one line that names key, value and allowed range."""
    content = schema.read_toml(path, "grid")
    for key in content:
        if key not in Grid.model_fields:
            raise EmubenchError(f"{path}: {unknown('key', key, Grid.model_fields)}")
    return schema.parse(Grid, content, path)


def _job(grid: Grid, baseline: str, task: tasks.Task, seed: int, threads: int) -> Job:
    module, overrides = baselines.get(baseline), dict(grid.overrides.get(baseline, {}))
    if grid.budget is not None and hasattr(module.Config(), BUDGET):
        overrides.setdefault(BUDGET, grid.budget)
    job = Job(baseline, task.name, grid.size, seed, threads, overrides, recipes.to_json(task), grid.device)
    try:
        job.config()
    except EmubenchError as error:
        raise EmubenchError(f"overrides.{baseline}: {str(error).removeprefix('--set ')}") from None
    return job


def expand(path: Path, data: Path, threads: int | None = None) -> Plan:
    """The plan of a grid file; ``threads`` per job stands above the file's."""
    grid = read(path)
    if (n := len(grid.tasks) * len(grid.baselines) * len(grid.seeds)) > MAX_JOBS:
        raise EmubenchError(f"{path}: {n} jobs, where at most {MAX_JOBS} belong")
    try:
        names = tasks.names() if grid.tasks == ["all"] else grid.tasks
        wanted = [recipes.resolve(path.parent / n if n.endswith(".toml") else n, grid.size, data) for n in names]
        todo = [
            _job(grid, baseline, task, seed, threads or grid.threads)
            for task in wanted
            for baseline in grid.baselines
            for seed in grid.seeds
        ]
    except EmubenchError as error:
        raise EmubenchError(f"{path}: {error}") from None
    needs: dict[Step, tuple[Step, ...]] = {}
    merged = {task.name: _generate(task, data, needs) for task in wanted}
    for job in todo:
        taken = grid.resources.get(job.baseline, {GPU: 1.0} if grid.device == "cuda" else {})
        resources = tuple(sorted(taken.items()))
        train, score = steps.job_steps(job, resources)
        needs[train], needs[score] = (merged[job.task],), (train,)
    return Plan(grid, tuple(needs), needs, tuple(todo))


def _generate(task: tasks.Task, data: Path, needs: dict[Step, tuple[Step, ...]]) -> Step:
    """Add the steps that make a task's files; the tracks of a system share its truth. Return the last one."""
    shared = task if task.custom else tasks.get(f"{task.system.name}-clean", task.size)
    assert layout.truth_path(shared, data) == layout.truth_path(task, data)
    before: tuple[Step, ...] = ()
    for made, kind in ((shared, "truth"), (task, "observations")):
        *parts, merge = steps.file_steps(made, kind, DATA_SEED, data)
        needs |= {**dict.fromkeys(parts, before), merge: tuple(parts)}
        before = (merge,)
    return before[0]
