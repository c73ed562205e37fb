"""Training a job into its folder."""

import dataclasses
import json
import logging
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from emubench import __version__, baselines
from emubench.core.errors import EmubenchError, one_line
from emubench.core.hardware import check_device, described, synchronise
from emubench.data import dataset, layout
from emubench.data.tasks import Task
from emubench.emulator import n_parameters, save_weights
from emubench.evaluation import diagnostics, scoring
from emubench.evaluation.forecast import Progress, part_of
from emubench.evaluation.throughput import modes
from emubench.files import run_files, schema, store, timing
from emubench.learning.training import logs
from emubench.learning.training.checkpoint import Checkpoints
from emubench.runs.folders import RECIPE, load, read_card
from emubench.runs.jobs import Job, fit, look

log = logging.getLogger(__name__)

DTYPE = torch.float64
"""The precision of the data, which a device that trains or scores has to know."""


def train(job: Job, data: Path, out: Path, progress: Progress | None = None, tensorboard: bool = False) -> Path:
    """Train the job's baseline unless its run is there; return the run's folder (``tensorboard``: see ``Log``)."""
    if tensorboard:
        logs.summary_writer()  # where it is missing nothing begins
    folder, task, config, device = job.folder(out), job.get_task(), job.config(), check_device(job.device, DTYPE)
    if job.compile and device.type == "cpu" and modes.compiler() is None:
        raise EmubenchError(modes.NONE_FOUND)
    store.sweep(folder)
    if finished(folder, task, data):
        return folder
    module, observations = baselines.get(job.baseline), dataset.load(task, data)
    torch.set_num_threads(job.threads)
    partial, kept = store.temporary_name(folder), store.partial_name(folder)
    try:
        partial.mkdir(parents=True)
        checkpoints = Checkpoints(kept, observations.digest)
        with closing(logs.Log(partial / "log.jsonl", progress, checkpoints, tensorboard)) as log:
            emulator = fit(module, task, config, observations, job.seed, log, device, job.compile)
            synchronise(device)
            seconds = log.seconds
        digest = save_weights(emulator, partial / "model.safetensors")
        card = run_files.Card(
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
            train_seconds=round(seconds, 3),
            threads=job.threads,
            device=described(device) + (", compiled" if job.compile else ""),
            weights_sha256=digest,
            warning=look(module, emulator, observations.to(device)),
        )
        if job.recipe:
            (partial / RECIPE).write_text(job.recipe + "\n", encoding="utf-8")
        (partial / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _publish(partial, folder)
        shutil.rmtree(kept, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        after = "the same command goes on from its checkpoint"
        if not any(kept.glob("*.safetensors")):  # a whole one is good, whatever came after it
            shutil.rmtree(kept, ignore_errors=True)
            after = "nothing was left behind"
        reason = getattr(error, "strerror", None) or error
        raise EmubenchError(f"{folder}: cannot be written ({reason}); {after}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def finished(run: Path, task: Task, data: Path) -> bool:
    """Whether the run is there; one that saw other data raises, and where there are none it is taken as it is."""
    path = layout.task_path(task, data)
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


def is_current(stored: run_files.ScoreFile | run_files.DiagnosticsFile, task: Task, data: Path) -> bool:
    """Whether scores, or diagnostics, are of these data and by this version."""
    return (stored.truth_sha256, stored.emubench_version) == (scoring.truth_digest(task, data), __version__)


def stored_scores(run: Path, task: Task, data: Path) -> run_files.ScoreFile | None:
    """The scores of a run if it was scored on these data by this version, else ``None``."""
    path = run / "scores.json"
    if not path.exists():
        return None
    stored: run_files.ScoreFile = schema.read_json(run_files.ScoreFile, path)
    return stored if is_current(stored, task, data) else None


def score(
    run: Path, data: Path, progress: Progress | None = None, again: bool = False, device: str = "cpu"
) -> run_files.ScoreFile:
    """Score a run and write ``scores.json``, ``timing.json``, ``figures.json``, unless it was scored on these data.

    The run may come from any other kind of ``device``.
    """
    where, opened = check_device(device, DTYPE), load(run)
    path, card, task = run / "scores.json", opened.card, opened.task
    if card.warning:
        log.warning("%s on %s: %s (when it was trained)", card.baseline, card.task, one_line(card.warning))
    if not again and (stored := stored_scores(run, task, data)) is not None:
        if (current := scoring.with_skill(stored, task)) != stored:  # the reference values were frozen since
            store.write_text(path, current.model_dump_json(indent=1) + "\n")
        return current
    torch.set_num_threads(card.threads)
    emulator: Any = opened.emulator.to(where)
    result = scoring.evaluate(emulator, task, data, seed=card.seed, progress=progress, device=where)
    store.write_text(run / "figures.json", json.dumps(result.figures) + "\n")
    timing.add_scored(run, result.timing)
    store.write_text(path, result.scores.model_dump_json(indent=1) + "\n")
    return result.scores


def read_diagnostics(run: Path) -> run_files.DiagnosticsFile | None:
    """The diagnostics of a run, as far as they were made."""
    path = run / "diagnostics.json"
    return schema.read_json(run_files.DiagnosticsFile, path) if path.exists() else None


def diagnose(run: Path, data: Path, progress: Progress | None = None, again: bool = False) -> run_files.DiagnosticsFile:
    """Write ``diagnostics.json`` (see :mod:`emubench.evaluation.diagnostics`), one diagnostic after another.

    What is there for these data and this version is kept, so that an interrupted run goes on where it was.
    """
    opened = load(run)
    card, task = opened.card, opened.task
    stored = None if again else read_diagnostics(run)
    if stored is None or not is_current(stored, task, data):
        empty = scoring.header(task, scoring.truth_digest(task, data))
        stored = run_files.DiagnosticsFile(**empty, diagnostics={})
    torch.set_num_threads(card.threads)
    for i, name in enumerate(diagnostics.DIAGNOSTICS):
        if name in stored.diagnostics:
            continue
        show = part_of(progress, i, len(diagnostics.DIAGNOSTICS))
        found = diagnostics.measure(name, diagnostics.Subject(opened.emulator, task, data, card.seed, show))
        stored = stored.model_copy(update={"diagnostics": {**stored.diagnostics, name: found}})
        store.write_text(run / "diagnostics.json", stored.model_dump_json(indent=1) + "\n")
    return stored
