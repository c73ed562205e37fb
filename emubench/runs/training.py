"""An emulator by the name of its method: trained in memory, or kept as a run."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device
from emubench.core.random import check_seed
from emubench.data import dataset, recipes
from emubench.data.recipes import TaskLike
from emubench.evaluation.forecast import Progress
from emubench.learning.training.logs import Log
from emubench.runs import folders, stages
from emubench.runs.jobs import Job, configured, defaults_of, fit, look, name_of


def train(
    baseline: str | ModuleType,
    task: TaskLike,
    data: Path | str = "data",
    *,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **settings: Any,
) -> nn.Module:
    """Train a baseline on a task and return its emulator; equal arguments give equal weights.

    ``baseline`` is one of ``emubench.baselines.names()``, or a module that defines what such a file does (see
    CONTRIBUTING.md). ``settings`` replace some of its defaults, such as ``steps=500``. ``task`` is a task, or the name
    or recipe of one at standard size, ``data`` the folder it was generated below. With ``out`` the run is kept below
    that folder, as by ``emubench train``, and one that is there is read instead. ``progress(done, total)`` is called on
    the way. It is trained on ``device``, and its emulator is there; one that is read from ``out`` is on the CPU.

    Raises :class:`EmubenchError` for a setting that does not exist, where the data are missing, and where a training
    diverges. One whose free forecasts run away or stand still is logged as a warning.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> emulator = emubench.train("resnet_ode", task, steps=2)
    >>> isinstance(emulator, emubench.Emulator)
    True
    """
    check_seed(seed)
    task = recipes.resolve(task, data=data)
    if out is not None:
        name = baseline if isinstance(baseline, str) else name_of(baseline)
        if not isinstance(baseline, str) and (name not in baselines.names() or baselines.get(name) is not baseline):
            raise EmubenchError(f"out={str(out)!r}: a run is rebuilt by the name of its baseline, and {name} is none")
        job = Job(name, task.name, task.size, seed, overrides=settings, recipe=recipes.to_json(task), device=device)
        return folders.load(stages.train(job, Path(data), Path(out), progress)).emulator
    module = baselines.get(baseline) if isinstance(baseline, str) else baseline
    where = check_device(device, stages.DTYPE)
    config = configured(defaults_of(module, task), settings, name_of(module), "")
    observations = dataset.load(task, data)
    with torch.random.fork_rng(devices=[]):
        emulator = fit(module, task, config, observations, seed, Log(progress=progress), where)
    look(module, emulator, observations.to(where))
    return emulator
