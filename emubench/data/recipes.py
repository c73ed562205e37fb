"""Recipes: a TOML file that says what a task is made of, and the same as a JSON attribute of the files made of it.

``datasets/<task>.toml`` holds the recipes of the sixteen tasks, each with its fingerprint (see
:mod:`emubench.data.fingerprints`); a user's own recipe makes a custom task: ``emubench generate my-task.toml``.
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.data.observation import Observation
from emubench.data.tasks import Amount, Task
from emubench.dynamics import climates, kernels
from emubench.dynamics.resolution import check_climate, check_resolved
from emubench.dynamics.system import Climate, System
from emubench.files import hdf5, header, schema
from emubench.files.schema import Model, Name

log = logging.getLogger(__name__)
MAX_SITES = 2**20
LEAST_TEST, LEAST_CLIMATE = 2, 8
"""Samples of a horizon: a variance takes two, and the shortest segment of a spectrum in time eight."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Values = Annotated[list[Finite], Field(min_length=1, max_length=65536)]


class ClimateTable(Model):
    """Long-time statistics: one value per component, or a single one on a ring."""

    mean: Values
    std: Annotated[list[Positive], Field(min_length=1, max_length=65536)]
    time_unit: Positive
    agreement_time: Positive | None = None


class SystemTable(Model):
    """A system by its name, with the parameters that differ from the benchmark's."""

    name: Name
    parameters: dict[Annotated[str, Field(max_length=80)], Finite | int] = {}
    climate: ClimateTable | None = None


class ObservationTable(Model):
    """The observation operator."""

    components: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=65536)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0


class AmountTable(Model):
    """How much data a split holds."""

    trajectories: Annotated[int, Field(ge=1, le=tasks.MAX_TRAJECTORIES)]
    length: Annotated[int, Field(ge=tasks.LEAST_LENGTH, le=tasks.MAX_LENGTH)]


class AmountsTable(Model):
    """Amounts of data; those that are not given are the size's."""

    train: AmountTable | None = None
    validation: AmountTable | None = None
    test: Annotated[int, Field(ge=1, le=10**6)] | None = None
    climate: Annotated[int, Field(ge=1, le=10**6)] | None = None
    context: Annotated[int, Field(ge=8, le=10**6)] | None = None
    test_horizon: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Horizon in units of lead time, as the next."""
    climate_horizon: Annotated[float, Field(gt=0, le=1e6)] | None = None


class Recipe(Model):
    """A whole recipe. ``observation`` or ``track`` says what is seen; ``fingerprint`` is for published tasks."""

    name: Name | None = None
    track: Literal["clean", "noisy", "partial", "scarce"] | None = None
    system: SystemTable
    observation: ObservationTable | None = None
    amounts: AmountsTable = AmountsTable()
    fingerprint: dict[Name, Any] = {}

    @model_validator(mode="after")
    def _seen(self) -> "Recipe":
        if (self.track is None) == (self.observation is None):
            raise ValueError("give either track or an [observation] table")
        return self


def read(path: Path) -> Recipe:
    """The validated recipe of a file; the first fault becomes one line that names key, value and allowed range."""
    content = schema.read_toml(path, "recipe")
    recipe: Recipe = schema.parse(Recipe, content, path)
    return recipe if recipe.name else schema.parse(Recipe, {**content, "name": path.stem}, path)


def load(path: Path, size: str = "standard", data: Path | None = None) -> Task:
    """The task of a recipe file, whose system has to be chaotic and resolved, see :func:`check_resolved`.

    What its climate lacks is that of the data made of it already, or is measured.
    """
    recipe = read(path)
    given = recipe.system.climate
    if data is not None and (known := stored(recipe.name or "", size, data)):
        climate = ClimateTable(**_climate(known.system) | (given.model_dump(exclude_none=True) if given else {}))
        system = recipe.system.model_copy(update={"climate": climate})
        if task_of(recipe.model_copy(update={"system": system}), size, path) == known:
            return known
    task = task_of(recipe, size, path)
    if task.system == systems.get(task.system.name):  # the benchmark's own, whose facts are tested
        return task
    try:
        if given:
            _say_if_slow(task.system)
            if not task.system.stochastic:
                check_climate(task.system)
        agreement = check_resolved(task.system, task.test_steps * task.lead_time_step)
    except EmubenchError as error:
        raise EmubenchError(f"{path}: {error}") from None
    climate = task.system.known_climate()
    if climate.agreement_time is not None or agreement is None:
        return task
    climate = dataclasses.replace(climate, agreement_time=agreement)
    return dataclasses.replace(task, system=dataclasses.replace(task.system, climate=climate))


def task_of(recipe: Recipe, size: str, where: Path | str) -> Task:
    """The task that a recipe describes; a recipe called like one of the sixteen has to describe that one."""
    name = recipe.name or ""
    try:
        system = _system(recipe.system)
        base = tasks.make(system, recipe.track or "noisy", size)
        if recipe.observation is not None:
            base = dataclasses.replace(base, observation=_observation(recipe.observation, system))
        task = _with_amounts(base, recipe.amounts)
    except EmubenchError as error:
        raise EmubenchError(f"{where}: {error}") from None
    if name in tasks.names():
        if dataclasses.replace(task, name=name) != tasks.get(name, size):
            raise EmubenchError(f"{where}: name: {name!r} is a task of the benchmark, and not this one; choose another")
        return tasks.get(name, size)
    if name in systems.names() or name.endswith(".truth"):
        raise EmubenchError(f"{where}: name: {name!r} is a system; choose another name for the task")
    return dataclasses.replace(task, name=name, custom=True)


def _system(table: SystemTable) -> System:
    defaults = type(systems.get(table.name)).default_parameters()
    parameters: dict[str, Any] = {}
    for key, value in table.parameters.items():
        integral = isinstance(defaults.get(key), int)
        if integral and (not float(value).is_integer() or not 1 <= value <= MAX_SITES):
            raise EmubenchError(f"system.parameters.{key}: {value!r}, where an integer from 1 to {MAX_SITES} belongs")
        parameters[key] = int(value) if integral else float(value)
    given = table.climate
    climate = given and Climate(tuple(given.mean), tuple(given.std), given.time_unit, given.agreement_time)
    try:
        system = systems.get(table.name, **parameters, climate=climate)
        if climate is not None:
            assert system.mean.shape == system.std.shape == system.shape  # broadcast: a value per component, or one
    except (ValueError, ArithmeticError) as error:
        raise EmubenchError(f"system: {table.name} can't be made of these values: {error}") from None
    if system.climate is None:
        _say_if_slow(system)
        system = dataclasses.replace(system, climate=climates.measure_climate(system))
    return system


def _say_if_slow(system: System) -> None:
    """Before it is measured: it is simulated for long."""
    if slower := kernels.slower(system):
        log.warning("%s: %s", system.name, slower)


def _observation(table: ObservationTable, system: System) -> Observation:
    components = tuple(table.components) if table.components is not None else None
    n = system.shape[-1]
    if components is not None and (max(components) >= n or len(set(components)) != len(components)):
        raise EmubenchError(f"observation.components: {list(components)}, where different ones of 0 to {n - 1} belong")
    if system.grid and min(n, len(components or range(n))) < 2:
        raise EmubenchError("observation.components: one site, where at least 2 belong: spectra in space are scored")
    return Observation(components, table.fraction, table.noise)


def _with_amounts(task: Task, amounts: AmountsTable) -> Task:
    given = {key: value for key, value in amounts if value is not None}
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, AmountTable):
            changes[key] = Amount(value.trajectories, value.length)
        elif key.endswith("_horizon"):
            changes[key.replace("horizon", "steps")] = tasks.steps_of(task.system, value)
        else:
            changes[key if key == "context" else f"n_{key}"] = value
    if "flat" in task.system.starts and given.get("context", tasks.CONTEXT) != tasks.CONTEXT:
        raise EmubenchError(f"amounts.context: {amounts.context}: flat starts fix the context at {tasks.CONTEXT}")
    made = dataclasses.replace(task, **changes)
    for key, steps, least in (("test", made.test_steps, LEAST_TEST), ("climate", made.climate_steps, LEAST_CLIMATE)):
        if steps < least:
            right = f"where at least {least} belong: {least * made.lead_time_step:.3g}"
            found = f"{given[f'{key}_horizon']:g}, which makes {steps} sample{'s' * (steps > 1)}"
            raise EmubenchError(f"amounts.{key}_horizon: {found}, {right}")
    return made


def _climate(system: System) -> dict[str, Any]:
    known = {k: v for k, v in dataclasses.asdict(system.known_climate()).items() if v is not None}
    return {k: list(map(float, v)) if isinstance(v, tuple) else float(v) for k, v in known.items()}


def describe(task: Task) -> dict[str, Any]:
    """The whole recipe of a task: everything explicit, so that no default of ours can change it."""
    unit = task.system.sample_interval / task.system.time_unit
    observation = {k: v for k, v in dataclasses.asdict(task.observation).items() if v is not None}
    return {
        "name": task.name,
        "system": {"name": task.system.name, "parameters": task.system.parameters(), "climate": _climate(task.system)},
        "observation": {k: list(v) if isinstance(v, tuple) else v for k, v in observation.items()},
        "amounts": {
            "train": task.train._asdict(),
            "validation": task.validation._asdict(),
            "test": task.n_test,
            "climate": task.n_climate,
            "context": task.context,
            # the middle of the last sample, so that rounding can't change their number
            "test_horizon": (task.test_steps - 0.5) * unit,
            "climate_horizon": (task.climate_steps - 0.5) * unit,
        },
    }


def to_json(task: Task) -> str:
    """The recipe attribute of a custom task's files; empty for the sixteen, whose recipe is their name."""
    return json.dumps(describe(task), sort_keys=True) if task.custom else ""


def from_json(text: str, size: str, where: Path | str) -> Task:
    """The task of a recipe attribute, which a stranger may have written."""
    where = f"{where}: attribute recipe"
    recipe: Recipe = schema.parse_json(Recipe, text, where)
    if recipe.name is None or recipe.system.climate is None:
        raise EmubenchError(f"{where}: name and system.climate belong in it")
    return task_of(recipe, size, where)


def stored(name: str, size: str, data: Path) -> Task | None:
    """The custom task ``name`` that was generated below ``data``, if there is one."""
    path = data / size / f"{name}.h5"
    if not path.is_file():
        return None
    with hdf5.open_plain(path) as file:
        text = header.read_header(path, file).recipe
    return from_json(text, size, path) if text else None


TaskLike = Task | str | Path
"""A task, or at standard size the name of one or the path of its recipe."""


def resolve(task: TaskLike, size: str = "standard", data: Path | str | None = None) -> Task:
    """The task called so, or that of a recipe file, or a custom one that was generated below the folder ``data``.

    A task itself is handed back as it is.
    """
    if isinstance(task, Task):
        return task
    folder = None if data is None else Path(data)
    if str(task).endswith(".toml") or isinstance(task, Path):
        return load(Path(task), size, folder)
    if task not in tasks.names() and folder is not None and (custom := stored(task, size, folder)) is not None:
        return custom
    return tasks.get(task, size)
