"""A job: one baseline on one task with one seed, and the hash of all that determines its run."""

import dataclasses
import hashlib
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from emubench import __version__, baselines
from emubench.core.errors import EmubenchError, one_line, reason, unknown
from emubench.core.random import check_seed
from emubench.data import recipes, tasks
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.emulator import n_parameters
from emubench.evaluation import soundness
from emubench.learning.training.compiled import compiled
from emubench.learning.training.logs import Log
from emubench.learning.training.settings import on_small_ring

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What determines a run; equal jobs have equal folders."""

    baseline: str
    task: str
    size: str = "standard"
    seed: int = 0
    threads: int = 1
    overrides: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    """The recipe of a custom task, as JSON (see :mod:`emubench.data.recipes`)."""
    device: str = "cpu"
    """Where it is trained and scored; its kind, such as ``cuda``, is part of what determines the run."""
    compile: bool = False
    """Whether training steps are compiled, which changes rounding."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def config(self) -> Any:
        """The baseline's ``Config`` for this task with ``overrides`` applied; unknown keys and types are refused."""
        module = baselines.get(self.baseline)
        return configured(defaults_of(module, self.get_task()), self.overrides, self.baseline, "--set ")

    def get_task(self) -> Task:
        """The task at the job's size."""
        if self.recipe:
            return recipes.from_json(self.recipe, self.size, self.task)
        return tasks.get(self.task, self.size)

    def build(self) -> nn.Module:
        """The emulator before training."""
        return build_emulator(baselines.get(self.baseline), self.get_task(), self.config())

    def values(self) -> dict[str, Any]:
        """Its fields, the device only where it is not the CPU, and whether it is compiled only where it is."""
        fields = dataclasses.asdict(self)
        if not self.compile:
            del fields["compile"]
        if self.kind == "cpu":
            del fields["device"]
        return fields

    @property
    def kind(self) -> str:
        """The kind of its device."""
        return self.device.partition(":")[0]

    def hash8(self) -> str:
        """First eight hex digits of the hash of everything that determines the run."""
        content = {**self.values(), "config": dataclasses.asdict(self.config()), "version": __version__}
        if not self.recipe:
            del content["recipe"]
        if "device" in content:
            content["device"] = self.kind
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:8]

    def folder(self, out: Path) -> Path:
        """Where its run lies."""
        return out / self.baseline / self.task / f"{self.size}-seed-{self.seed}-{self.hash8()}"


def defaults_of(module: ModuleType, task: Task) -> Any:
    """The ``Config`` that a baseline takes for a task if nothing is set."""
    return on_small_ring(module.default_config(task) if hasattr(module, "default_config") else module.Config(), task)


def configured(defaults: Any, settings: dict[str, Any], baseline_name: str, where: str) -> Any:
    """The ``Config`` ``defaults`` with ``settings`` applied; unknown keys and values of another type are refused."""
    known = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
    values = {}
    for key, given in settings.items():
        if key not in known:
            raise unknown(f"setting of {baseline_name}", key, known)
        value, wanted = tuple(given) if isinstance(given, list) else given, type(known[key])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise EmubenchError(f"{where}{key}: {given!r} where a value like {known[key]!r} belongs")
        values[key] = value
    return dataclasses.replace(defaults, **values)


def name_of(module: ModuleType) -> str:
    """The name of a baseline's module: the last part of its own."""
    return module.__name__.rpartition(".")[2]


def build_emulator(module: ModuleType, task: Task, config: Any) -> nn.Module:
    """The emulator of a baseline before training; settings that it can't be built with are one line."""
    try:
        return module.build(task, config)
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EmubenchError(f"{name_of(module)} can't be built with these settings: {reason}") from error


def check_lengths(module: ModuleType, task: Task, config: Any, train: int, validation: int) -> None:
    """Raise :class:`EmubenchError` where trajectories of so many samples are too short for a baseline's ``least``."""
    needed = module.least(task, config) if hasattr(module, "least") else (1, 1)
    for split, length, least in (("training", train, needed[0]), ("validation", validation, needed[1])):
        if length < least:
            what = f"{split} trajectories of {length} samples, where at least {least} belong with these settings"
            raise EmubenchError(f"{name_of(module)} on {task.name}: {what}")


def fit(
    module: ModuleType,
    task: Task,
    config: Any,
    data: Observations,
    seed: int = 0,
    log: Log | None = None,
    device: torch.device | str = "cpu",
    compile: bool = False,
) -> Any:
    """Build the emulator of a baseline and train it in memory, on ``device``; equal arguments give equal weights.

    It is built on the CPU, and moved: its first weights are the same everywhere. ``compile``: see
    :mod:`emubench.learning.training.compiled`.
    Torch's own generator is seeded, so that what was drawn from it before plays no part. A fit that breaks down, as a
    matrix that can't be inverted, raises :class:`EmubenchError`.
    """
    torch.manual_seed(seed)
    emulator = build_emulator(module, task, config)
    check_lengths(module, task, config, data.train.shape[1], data.validation.shape[1])
    if isinstance(emulator, nn.Module):  # whatever a stranger builds
        emulator = emulator.to(device)
    try:
        with compiled(emulator, f"{name_of(module)} on {device}") if compile else nullcontext():
            module.train(emulator, data.to(device), config, seed, log or Log())
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]  # documented as public
        what = f"{name_of(module)} on {task.name}: with these settings the fit breaks down"
        raise EmubenchError(f"{what}: {str(error).splitlines()[0]}") from error
    except torch.OutOfMemoryError as error:
        batch = f"batches of {config.batch} do not" if hasattr(config, "batch") else "it does not"
        what = f"{name_of(module)} on {task.name}: {batch} fit in the memory of {device}"
        raise EmubenchError(f"{what}; a smaller --set batch is another training, --device cpu the same") from error
    return emulator


def look(module: ModuleType, emulator: Any, data: Observations) -> str:
    """Log, and return, how free forecasts of what was trained run away or stand still (:func:`soundness.fault`).

    Not of a baseline that ``comes_to_rest`` by design, nor where nothing was learned. A forecast that fails is told,
    and does not undo a training.
    """
    if getattr(module, "comes_to_rest", False) or not n_parameters(emulator):
        return ""
    try:
        found = soundness.fault(emulator, data)
    except Exception as error:  # whatever an emulator raises
        found = f"a free forecast failed: {type(error).__name__}: {reason(error)}"
    if found:
        log.warning("%s on %s: %s", name_of(module), data.task.name, found)
    return one_line(found)[:400]
