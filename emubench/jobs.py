"""A job: one baseline trained on one task with one seed. Its folder carries its hash and holds all that it made.

``<out>/<baseline>/<task>/<size>-seed-<n>-<hash8>/`` with ``card.json``, ``model.safetensors``, ``log.jsonl``, and once
scored ``scores.json`` (deterministic), ``timing.json`` and ``figures.json``. A folder appears under its name only when
its training has ended well.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from emubench import __version__, dataset, evaluate, registry, schema, store
from emubench import task as tasks
from emubench.emulator import load_weights, n_parameters, save_weights
from emubench.errors import EmubenchError, unknown
from emubench.task import Task
from emubench.training import Log

Progress = Callable[[int, int], None]


BASELINES = "emubench.baselines"


def baseline_names() -> list[str]:
    """Names of all baselines: the files of ``baselines/``."""
    return registry.names(BASELINES)


def baseline(name: str) -> ModuleType:
    """The module of a baseline: ``knowledge``, ``Config``, ``build``, ``train``."""
    return registry.load(BASELINES, name, "baseline")


@dataclass(frozen=True)
class Job:
    """What determines a run; equal jobs have equal folders."""

    baseline: str
    task: str
    size: str = "standard"
    seed: int = 0
    threads: int = 1
    overrides: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        """The baseline's ``Config`` for this task with ``overrides`` applied; unknown keys and types are refused."""
        module = baseline(self.baseline)
        defaults = module.default_config(self.get_task()) if hasattr(module, "default_config") else module.Config()
        known = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
        for key, value in self.overrides.items():
            if key not in known:
                raise unknown(f"setting of {self.baseline}", key, known)
            wanted = type(known[key])
            if not (isinstance(value, wanted) or (wanted is float and isinstance(value, int))):
                raise EmubenchError(f"--set {key}: {value!r} where a value like {known[key]!r} belongs")
        return dataclasses.replace(defaults, **self.overrides)

    def get_task(self) -> Task:
        """The task at the job's size."""
        return tasks.get(self.task, self.size)

    def hash8(self) -> str:
        """First eight hex digits of the hash of everything that determines the run."""
        content = {**dataclasses.asdict(self), "config": dataclasses.asdict(self.config()), "version": __version__}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:8]

    def folder(self, out: Path) -> Path:
        """Where its run lies."""
        return out / self.baseline / self.task / f"{self.size}-seed-{self.seed}-{self.hash8()}"


def train(job: Job, data: Path, out: Path, progress: Progress | None = None) -> Path:
    """Train the job's baseline unless its run is there; return the run's folder."""
    folder, task, config = job.folder(out), job.get_task(), job.config()
    if (folder / "card.json").exists():
        return folder
    module, observations = baseline(job.baseline), dataset.load(task, data)
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        emulator, log, begun = module.build(task, config), Log(partial / "log.jsonl", progress), time.perf_counter()
        try:
            module.train(emulator, observations, config, job.seed, log)
        finally:
            log.close()
        card = schema.Card(
            schema_version=schema.SCHEMA_VERSION,
            emubench_version=__version__,
            baseline=job.baseline,
            task=job.task,
            size=job.size,
            seed=job.seed,
            data_sha256=observations.digest,
            knowledge=module.knowledge,
            config=json.loads(json.dumps(dataclasses.asdict(config))),
            n_parameters=n_parameters(emulator),
            train_seconds=round(time.perf_counter() - begun, 3),
            threads=job.threads,
            device="cpu",
        )
        save_weights(emulator, partial / "model.safetensors")
        (partial / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _publish(partial, folder)
    except OSError as error:
        raise EmubenchError(f"{folder}: cannot be written ({error.strerror}); nothing was left behind") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _publish(partial: Path, folder: Path) -> None:
    """Rename a finished folder into place; if another process was first, its result stands."""
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / "card.json").exists():
            raise


def read_card(run: Path) -> schema.Card:
    """The validated card of a run."""
    if not (run / "card.json").exists():
        raise EmubenchError(f"{run}: not a run (no card.json); make one with: emubench train BASELINE TASK")
    return schema.read_json(schema.Card, run / "card.json", max_bytes=2**20)


def load(run: Path) -> tuple[nn.Module, Task]:
    """Rebuild the emulator of a run, with its task."""
    card = read_card(run)
    module, task = baseline(card.baseline), tasks.get(card.task, card.size)
    known = {f.name for f in dataclasses.fields(module.Config)}
    for key in card.config:
        if key not in known:
            raise unknown(f"{run / 'card.json'}: setting of {card.baseline}", key, known)
    config = module.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in card.config.items()})
    emulator = module.build(task, config)
    load_weights(emulator, run / "model.safetensors")
    return emulator, task


def score(run: Path, data: Path, progress: Progress | None = None, again: bool = False) -> schema.ScoreFile:
    """Score a run and write ``scores.json``, ``timing.json``, ``figures.json``, unless it was scored on these data."""
    emulator, task = load(run)
    path, card = run / "scores.json", read_card(run)
    if path.exists() and not again:
        stored = schema.read_json(schema.ScoreFile, path)
        if stored.truth_sha256 == evaluate.truth_digest(task, data) and stored.emubench_version == __version__:
            return stored
    torch.set_num_threads(card.threads)
    result, timing = evaluate.evaluate(emulator, task, data, card.seed, progress)  # type: ignore[arg-type]
    store.write_text(run / "figures.json", json.dumps(result.figures) + "\n")
    store.write_text(run / "timing.json", json.dumps(timing, indent=1) + "\n")
    store.write_text(path, result.scores.model_dump_json(indent=1) + "\n")
    return result.scores


def find_runs(paths: list[Path]) -> list[Path]:
    """The run folders at or below ``paths``, sorted."""
    runs = []
    for path in paths:
        found = [path] if (path / "card.json").exists() else [p.parent for p in path.rglob("card.json")]
        found = [run for run in found if not run.name.startswith(".")]
        if not found:
            raise EmubenchError(f"{path}: no runs here; make one with: emubench train BASELINE TASK --out {path}")
        runs += found
    return sorted(set(runs))
