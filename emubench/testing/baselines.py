"""The contract of a baseline: a module that defines ``knowledge``, ``Config``, ``build`` and ``train``."""

import dataclasses
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, tasks
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.emulator import load_weights, same_values, save_weights
from emubench.files.run_files import Card
from emubench.runs.jobs import build_emulator, configured, defaults_of, fit, name_of
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere, check_trips
from emubench.testing.emulators import N_MEMBERS, N_STEPS, check_emulator, check_emulator_elsewhere
from emubench.testing.examples import contexts, require

CPU = torch.device("cpu")
MORE = 2
"""Optimiser steps that are added to one to see whether any of them waits for the host."""
KNOWLEDGE = get_args(Card.model_fields["knowledge"].annotation)


def check_baseline(
    module: ModuleType, task: Task | None = None, data: Path | None = None, *, elsewhere: bool = True, **settings: Any
) -> None:
    """Raise AssertionError where ``module`` breaks the contract of a baseline (see CONTRIBUTING.md).

    It is trained twice on ``task`` (lorenz63-noisy at tiny size if not given), whose dataset lies below the folder
    ``data``, or is made in a temporary one. ``settings`` replace some of its defaults: give a small budget. Checked:

    - ``knowledge`` is one of "none", "structure", "equation form", "equation"; ``Config`` is a frozen dataclass whose
      fields all have defaults, and comes back from JSON as it was;
    - ``build`` makes a torch module, ``train`` leaves the data as they are, and equal seeds give equal weights;
    - all that was fitted is saved: a fresh emulator with the stored weights gives the same forecasts;
    - unless ``elsewhere`` is false, what :func:`check_baseline_elsewhere` does;
    - the trained emulator keeps the contract of :func:`~emubench.testing.check_emulator`.

    >>> from emubench import baselines
    >>> check_baseline(baselines.get("persistence"))
    """
    task = task or tasks.get("lorenz63-noisy", "tiny")
    who = f"{name_of(module)} on {task.name}"
    _check_declarations(who, module, task)
    config = configured(defaults_of(module, task), settings, name_of(module), "")
    with tempfile.TemporaryDirectory() if data is None else nullcontext(data) as folder:
        generation.generate(task, Path(folder))
        observations = dataset.load(task, Path(folder))
    with torch.random.fork_rng(devices=[]):
        emulator = _check_training(who, module, task, config, observations)
        _check_weights(who, module, task, config, emulator)
        if elsewhere:
            check_baseline_elsewhere(module, observations, **settings)
    check_emulator(emulator, task, elsewhere=False)


def _check_declarations(who: str, module: ModuleType, task: Task) -> None:
    for name in ("knowledge", "Config", "build", "train"):
        require(who, hasattr(module, name), f"defines no {name}")
    known = module.knowledge in KNOWLEDGE
    require(who, known, f"knowledge is {module.knowledge!r}, where one of {', '.join(map(repr, KNOWLEDGE))} belongs")
    kind: Any = module.Config
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    require(who, frozen, "Config is no frozen dataclass")
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    require(who, not needed, f"Config has no default for {', '.join(needed)}")
    config = defaults_of(module, task)
    require(who, isinstance(config, kind), f"default_config(task) gives {type(config).__name__}, not a Config")
    try:
        stored = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
        same = configured(kind(), stored, who, "Config.") == config
    except (TypeError, ValueError, EmubenchError) as error:
        raise AssertionError(f"{who}: Config can't be stored as JSON ({error})") from error
    require(who, same, "Config does not come back from JSON as it was")


def _tensors(data: Observations) -> dict[str, Tensor]:
    held = {name: value for name, value in vars(data).items() if isinstance(value, Tensor)}
    return held | {f"contexts[{split!r}]": value for split, value in data.contexts.items()}


def _check_training(who: str, module: ModuleType, task: Task, config: Any, data: Observations) -> Any:
    before = {name: tensor.clone() for name, tensor in _tensors(data).items()}
    emulator = _fit(who, module, task, config, data)
    for name, tensor in _tensors(data).items():
        require(who, same_values(tensor, before[name]), f"train() changes the data: {name}")
    torch.manual_seed(99)  # what came before plays no part
    first, again = emulator.state_dict(), _fit(who, module, task, config, data).state_dict()
    for name in sorted(first.keys() | again.keys()):
        same = name in first and name in again and same_values(first[name], again[name])
        require(who, same, f"two trainings with one seed differ in {name}")
    return emulator


def check_baseline_elsewhere(module: ModuleType, data: Observations, **settings: Any) -> None:
    """Raise AssertionError unless a baseline trains and forecasts on another device without keeping the host waiting.

    If it takes a number of ``steps``, the host may wait for none of them. ``settings`` replace some of the defaults.
    See :mod:`emubench.testing.elsewhere`.
    """
    task, who = data.task, f"{name_of(module)} on {data.task.name}"
    config = configured(defaults_of(module, task), settings, name_of(module), "")
    known = {field.name for field in dataclasses.fields(config)}
    budgets = [{"steps": n, "checks": 1, "polish": 0} for n in (1, 1 + MORE)] if "steps" in known else [{}]
    trips = []
    with torch.random.fork_rng(devices=[]), Elsewhere() as there:
        for budget in budgets:
            asked = dataclasses.replace(config, **{name: n for name, n in budget.items() if name in known})
            before = there.trips.copy()
            emulator = _fit(who, module, task, asked, data, ELSEWHERE)
            trips.append(there.trips - before)
        emulator = emulator.to(CPU)
    check_trips(f"{who}: a training step", trips[0], trips[-1], MORE)
    check_emulator_elsewhere(emulator, task)  # type: ignore[arg-type]


def _fit(
    who: str, module: ModuleType, task: Task, config: Any, data: Observations, device: torch.device = CPU
) -> nn.Module:
    try:
        emulator = fit(module, task, config, data, device=device)
    except EmubenchError as error:
        raise AssertionError(f"{who}: {error}") from error
    require(who, isinstance(emulator, nn.Module), f"build() gives {type(emulator).__name__}, not a torch.nn.Module")
    return emulator


def _check_weights(who: str, module: ModuleType, task: Task, config: Any, emulator: Any) -> None:
    """Saved, and loaded into a fresh emulator."""
    fresh: Any = build_emulator(module, task, config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        try:
            save_weights(emulator, path)
            load_weights(fresh, path)
        except (EmubenchError, RuntimeError) as error:
            reason = str(error).splitlines()[0].replace(f"{path}: ", "")
            raise AssertionError(f"{who}: its weights can't be saved and loaded again: {reason}") from error
    given = contexts(task)[:2]
    with torch.no_grad():
        one, other = (
            made.forecast(given.clone(), N_STEPS, N_MEMBERS, torch.Generator().manual_seed(1))
            for made in (emulator, fresh)
        )
    require(who, same_values(one, other), "something fitted is not saved: a loaded emulator differs")
