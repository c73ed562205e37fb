"""What a dataset file is made of: where it lies, its groups, arrays, attributes and axes."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emubench import __version__
from emubench.data import recipes, tasks
from emubench.data.tasks import Task
from emubench.files import schema

TRAINING = ("train", "validation")
SPLITS = (*TRAINING, "test", "climate")


def truth_path(task: Task, data: Path) -> Path:
    """Where the truth of the task's system lies; a custom task has one of its own."""
    return data / task.size / f"{task.name if task.custom else task.system.name}.truth.h5"


def task_path(task: Task, data: Path) -> Path:
    """Where the task's observations lie."""
    return data / task.size / f"{task.name}.h5"


@dataclass(frozen=True)
class Layout:
    """The layout of one dataset file: ``kind`` is "observations", "truth" or "contexts"."""

    task: Task
    kind: str

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every data array."""
        task = self.task
        if self.kind == "truth":  # the most that any of the four tracks needs
            size = task if task.custom else tasks.size_of(task.size)
            cases = {s: (task.cases(s), task.context + task.steps(s)) for s in ("test", "climate")}
            amounts = {"train": size.train, "validation": size.validation, **cases}
            return {f"{split}/truth": (*amount, *task.system.shape) for split, amount in amounts.items()}
        splits = task.splits if self.kind == "contexts" else ("test", "climate")
        contexts = {f"{s}/context": (task.cases(s), task.context, *task.shape) for s in splits}
        if self.kind == "contexts":
            return contexts
        amounts = {"train": task.train, "validation": task.validation}
        return contexts | {f"{s}/observation": (a.trajectories, a.length, *task.shape) for s, a in amounts.items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """Groups of the file, in their order."""
        return self.task.splits if self.kind == "contexts" else SPLITS

    def array(self, split: str) -> str:
        """Name of the data array of a group."""
        return next(name for name in self.shapes if name.startswith(f"{split}/"))

    @property
    def names(self) -> list[str]:
        """Names of all arrays, axes included."""
        axes = [f"{split}/time" for split in self.splits]
        if self.kind == "truth":
            return [*self.shapes, *axes, *(f"{split}/start" for split in self.splits)]
        return [*self.shapes, *axes, *(f"{split}/lead_time" for split in self.splits if split not in TRAINING)]

    def dtype(self, array: str) -> str:
        """Type of a data array: noisy training data are stored in single precision."""
        return "f4" if array.endswith("/observation") and self.task.observation.noise else "f8"

    def header(self, seed: int | str) -> dict[str, Any]:
        """Root attributes of a file made from ``seed``."""
        task, system = self.task, self.task.system
        known = {
            "schema_version": schema.SCHEMA_VERSION,
            "emubench_version": __version__,
            "kind": self.kind,
            "system": system.name,
            "task": "" if self.kind == "truth" else task.name,
            "size": task.size,
            "seed": str(seed),
            "parameters": json.dumps(system.parameters(), sort_keys=True),
            "equation": system.equation,
            "sample_interval": float(system.sample_interval),
            "time_unit": float(system.time_unit),
            "score_time_unit": system.lead_time_unit,
        }
        return known | ({"recipe": recipes.to_json(task)} if task.custom else {})


UNITS = "time units of the equation"


def time_units(split: str) -> dict[str, str]:
    """Attributes of the axis ``time`` of a group."""
    return {"units": f"{UNITS}; 0 is the {'first' if split in TRAINING else 'last context'} sample"}


def noise_attributes(made: Layout) -> dict[str, Any]:
    """Attributes of a data array: none of the truth, and of contexts alone no climate."""
    if made.kind == "truth":
        return {}
    observation, system = made.task.observation, made.task.system
    climate = {f"climatological_{name}": observation.select(getattr(system, name)) for name in ("mean", "std")}
    shown = climate if made.kind == "observations" else {}
    return {"noise_std": observation.noise_std(system), **shown, "missing": "NaN = not observed"}
