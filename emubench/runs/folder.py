"""A job: one baseline trained on one task with one seed. Its folder carries its hash and holds all that it made.

``<out>/<baseline>/<task>/<size>-seed-<n>-<hash8>/`` with ``card.json``, ``model.safetensors``, ``log.jsonl``, and once
scored ``scores.json`` (deterministic), ``timing.json`` and ``figures.json``. A folder appears under its name only when
its training has ended well; one that was interrupted, or has diverged, leaves its checkpoints in a hidden folder beside
it, from which the same command goes on. TensorBoard's event files lie beside ``log.jsonl`` if they were asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from emubench import __version__
from emubench.core import registry
from emubench.core.errors import EmubenchError, unknown
from emubench.data import dataset, recipes, tasks
from emubench.data.tasks import Task
from emubench.emulator import load_weights, n_parameters, save_weights
from emubench.evaluation import scoring
from emubench.files import schema, store
from emubench.learning.training import log as logs
from emubench.learning.training.checkpoint import Checkpoints

Progress = Callable[[int, int], None]


BASELINES = "emubench.baselines"
RECIPE = "recipe.json"
"""Beside the card of a run on a custom task."""


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
    recipe: str = ""
    """Of a custom task, as JSON (see :mod:`emubench.data.recipes`)."""

    def config(self) -> Any:
        """The baseline's ``Config`` for this task with ``overrides`` applied; unknown keys and types are refused."""
        module = baseline(self.baseline)
        defaults = module.default_config(self.get_task()) if hasattr(module, "default_config") else module.Config()
        return _configured(defaults, self.overrides, self.baseline, "--set ")

    def get_task(self) -> Task:
        """The task at the job's size."""
        if self.recipe:
            return recipes.from_json(self.recipe, self.size, self.task)
        return tasks.get(self.task, self.size)

    def build(self) -> nn.Module:
        """The emulator before training."""
        return _build(self.baseline, self.get_task(), self.config())

    def hash8(self) -> str:
        """First eight hex digits of the hash of everything that determines the run."""
        content = {**dataclasses.asdict(self), "config": dataclasses.asdict(self.config()), "version": __version__}
        if not self.recipe:
            del content["recipe"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:8]

    def folder(self, out: Path) -> Path:
        """Where its run lies."""
        return out / self.baseline / self.task / f"{self.size}-seed-{self.seed}-{self.hash8()}"


def _configured(defaults: Any, settings: dict[str, Any], baseline_name: str, where: str) -> Any:
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


def _build(name: str, task: Task, config: Any) -> nn.Module:
    try:
        return baseline(name).build(task, config)
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EmubenchError(f"{name} can't be built with these settings: {reason}") from error


def train(job: Job, data: Path, out: Path, progress: Progress | None = None, tensorboard: bool = False) -> Path:
    """Train the job's baseline unless its run is there; return the run's folder (``tensorboard``: see ``Log``)."""
    if tensorboard:
        logs.summary_writer()  # where it is missing nothing begins
    folder, task, config = job.folder(out), job.get_task(), job.config()
    if finished(folder, task, data):
        return folder
    if tensorboard:
        store.sweep(folder)  # event files of an attempt that was killed would be shown as a run of their own
    module, observations = baseline(job.baseline), dataset.load(task, data)
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    partial, kept = store.temporary_name(folder), store.partial_name(folder)
    try:
        partial.mkdir(parents=True)
        emulator = job.build()
        log = logs.Log(partial / "log.jsonl", progress, Checkpoints(kept, observations.digest), tensorboard)
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
            overrides=job.overrides,
            n_parameters=n_parameters(emulator),
            train_seconds=round(log.seconds, 3),
            threads=job.threads,
            device="cpu",
        )
        save_weights(emulator, partial / "model.safetensors")
        if job.recipe:
            (partial / RECIPE).write_text(job.recipe + "\n", encoding="utf-8")
        (partial / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _publish(partial, folder)
        shutil.rmtree(kept, ignore_errors=True)
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]  # documented as public
        what = f"{job.baseline} on {job.task}: with these settings the fit breaks down"
        raise EmubenchError(f"{what}: {str(error).splitlines()[0]}") from error
    except (OSError, SafetensorError) as error:
        shutil.rmtree(kept, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise EmubenchError(f"{folder}: cannot be written ({reason}); nothing was left behind") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def finished(run: Path, task: Task, data: Path) -> bool:
    """Whether the run is there; one that saw other data raises, and where there are none it is taken as it is."""
    path = dataset.task_path(task, data)
    if not (run / "card.json").exists():
        return False
    if path.exists() and dataset.train_digest(task, data) != read_card(run).data_sha256:
        raise EmubenchError(f"{run}: was trained on other data than {path}; choose another --out or remove it")
    return True


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


def task_of(run: Path, card: schema.Card) -> Task:
    """The task of a run: one of the sixteen, or that of the recipe beside its card."""
    path = run / RECIPE
    if not path.exists():
        return tasks.get(card.task, card.size)
    recipe = schema.read_json(recipes.Recipe, path, schema.MAX_TEXT_BYTES)
    return recipes.from_json(recipe.model_dump_json(exclude_none=True), card.size, path)


def build(run: Path) -> tuple[nn.Module, Task]:
    """The emulator of a run before its weights are loaded, with its task."""
    card = read_card(run)
    try:
        module, task = baseline(card.baseline), task_of(run, card)
        defaults = module.Config()
        for setting in dataclasses.fields(defaults):
            if setting.name not in card.config:
                raise EmubenchError(f"config: setting {setting.name} of {card.baseline} is missing")
        return _build(card.baseline, task, _configured(defaults, card.config, card.baseline, "config.")), task
    except EmubenchError as error:
        raise EmubenchError(f"{run / 'card.json'}: {error}") from error.__cause__


def load(run: Path) -> tuple[nn.Module, Task]:
    """Rebuild the emulator of a run, with its task."""
    (emulator, task), card = build(run), read_card(run)
    load_weights(emulator, run / "model.safetensors")
    if n_parameters(emulator) != card.n_parameters:
        found = f"{card.n_parameters} where {n_parameters(emulator)} belongs"
        raise EmubenchError(f"{run / 'card.json'}: n_parameters: {found}")
    return emulator, task


def stored_scores(run: Path, task: Task, data: Path) -> schema.ScoreFile | None:
    """The scores of a run if it was scored on these data by this version, else ``None``."""
    path = run / "scores.json"
    if not path.exists():
        return None
    stored = schema.read_json(schema.ScoreFile, path)
    same = stored.truth_sha256 == scoring.truth_digest(task, data) and stored.emubench_version == __version__
    return stored if same else None


def score(run: Path, data: Path, progress: Progress | None = None, again: bool = False) -> schema.ScoreFile:
    """Score a run and write ``scores.json``, ``timing.json``, ``figures.json``, unless it was scored on these data."""
    emulator, task = load(run)
    path, card = run / "scores.json", read_card(run)
    if not again and (stored := stored_scores(run, task, data)) is not None:
        if (current := scoring.with_skill(stored, task)) != stored:  # the reference values were frozen since
            store.write_text(path, current.model_dump_json(indent=1) + "\n")
        return current
    torch.set_num_threads(card.threads)
    result, timing = scoring.evaluate(emulator, task, data, card.seed, progress)  # type: ignore[arg-type]
    store.write_text(run / "figures.json", json.dumps(result.figures) + "\n")
    store.write_text(run / "timing.json", json.dumps(timing, indent=1) + "\n")
    store.write_text(path, result.scores.model_dump_json(indent=1) + "\n")
    return result.scores


def read_diagnostics(run: Path) -> schema.DiagnosticsFile | None:
    """The diagnostics of a run, as far as they were made."""
    path = run / "diagnostics.json"
    return schema.read_json(schema.DiagnosticsFile, path) if path.exists() else None


def diagnose(run: Path, data: Path, progress: Progress | None = None, again: bool = False) -> schema.DiagnosticsFile:
    """Write ``diagnostics.json`` (see :mod:`emubench.evaluation.diagnostics`), one diagnostic after another.

    What is there for these data and this version is kept, so that an interrupted run goes on where it was.
    """
    from emubench.evaluation import diagnostics  # scoring alone does not need it

    emulator, task = load(run)
    card, digest = read_card(run), scoring.truth_digest(task, data)
    empty = schema.DiagnosticsFile(
        schema_version=schema.SCHEMA_VERSION,
        emubench_version=__version__,
        task=task.name,
        size=task.size,
        truth_sha256=digest,
        diagnostics={},
    )
    stored = (None if again else read_diagnostics(run)) or empty
    if (stored.truth_sha256, stored.emubench_version) != (digest, __version__):
        stored = empty
    torch.set_num_threads(card.threads)
    for i, name in enumerate(diagnostics.DIAGNOSTICS):
        if name in stored.diagnostics:
            continue

        def show(done: int, total: int, i: int = i) -> None:
            if progress is not None:
                progress(1000 * i + 1000 * done // total, 1000 * len(diagnostics.DIAGNOSTICS))

        found = diagnostics.measure(name, diagnostics.Subject(emulator, task, data, card.seed, show))
        stored = stored.model_copy(update={"diagnostics": {**stored.diagnostics, name: found}})
        store.write_text(run / "diagnostics.json", stored.model_dump_json(indent=1) + "\n")
    return stored


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
