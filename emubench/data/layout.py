"""What a dataset file is made of: where it lies, its groups, arrays, attributes and axes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emubench import __version__
from emubench.data import recipes, tasks
from emubench.data.tasks import Task
from emubench.files import netcdf, schema

SPLITS = ("train", "validation", "test", "climate")


def truth_path(task: Task, data: Path) -> Path:
    """Where the truth of the task's system lies; a custom task has one of its own."""
    return data / task.size / f"{task.name if task.custom else task.system.name}.truth.h5"


def task_path(task: Task, data: Path) -> Path:
    """Where the task's observations lie."""
    return data / task.size / f"{task.name}.h5"


def truth_amounts(task: Task) -> dict[str, tuple[int, int]]:
    """(trajectories, samples) of each group of the truth file: the largest that any of the four tracks needs."""
    size = task if task.custom else tasks.size_of(task.size)
    return {
        "train": size.train,
        "validation": size.validation,
        "test": (task.n_test, task.context + task.test_steps),
        "climate": (task.n_climate, task.context + task.climate_steps),
    }


@dataclass(frozen=True)
class Layout:
    """The layout of one dataset file: ``kind`` is "observations", "truth" or "contexts"."""

    task: Task
    kind: str

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every data array."""
        task = self.task
        if self.kind == "truth":
            return {f"{split}/truth": (n, t, *task.system.shape) for split, (n, t) in truth_amounts(task).items()}
        splits = task.splits if self.kind == "contexts" else ("test", "climate")
        contexts = {f"{s}/context": (task.cases(s), task.context, *task.shape) for s in splits}
        if self.kind == "contexts":
            return contexts
        amounts = {"train": task.train, "validation": task.validation}
        return contexts | {f"{s}/observation": (a.trajectories, a.length, *task.shape) for s, a in amounts.items()}

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
            "lead_time_unit": system.lead_time_unit,
        }
        return known | ({"recipe": recipes.to_json(task)} if task.custom else {})


def noise_attributes(task: Task) -> dict[str, Any]:
    """Attributes of an observed array."""
    return {
        "noise_std": task.observation.noise_std(task.system),
        "climatological_mean": task.observation.select(task.system.mean),
        "climatological_std": task.observation.select(task.system.std),
        "missing": "NaN = not observed",
    }


def time_axis(task: Task, split: str, samples: range) -> np.ndarray:
    """Times of some samples of a split; in test and climate, 0 is the last context sample."""
    first = 0 if split in ("train", "validation") else 1 - task.context
    return (np.arange(samples.start, samples.stop) + first) * task.system.sample_interval


def write_lead_times(group: Any, task: Task, split: str) -> None:
    """Write the lead times asked for."""
    lead = np.array(task.leads(split)) * task.system.sample_interval
    units = {"units": "time units of the equation after the last context sample: forecast these"}
    netcdf.Column(group, "lead_time", ("lead_time",), lead.shape, "f8", units).append(lead)
