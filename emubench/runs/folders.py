"""A job: one baseline trained on one task with one seed. Its folder carries its hash and holds all that it made.

``<out>/<baseline>/<task>/<size>-seed-<n>-<hash8>/`` with ``card.json``, ``model.safetensors``, ``log.jsonl``, and once
scored ``scores.json`` (deterministic), ``timing.json`` and ``figures.json``. A folder appears under its name only when
its training has ended well; one that was interrupted, or has diverged, leaves its checkpoints in a hidden folder beside
it, from which the same command goes on. TensorBoard's event files lie beside ``log.jsonl`` if they were asked for.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import recipes, tasks
from emubench.data.tasks import Task
from emubench.emulator import load_weights, n_parameters
from emubench.files import run_files, schema
from emubench.runs.jobs import build_emulator, configured

RECIPE = "recipe.json"
"""The file beside a run's card that holds the recipe of its custom task."""


def read_card(run: Path) -> run_files.Card:
    """The validated card of a run."""
    if not (run / "card.json").exists():
        raise EmubenchError(f"{run}: not a run (no card.json); make one with: emubench train BASELINE TASK")
    return schema.read_json(run_files.Card, run / "card.json", max_bytes=2**20)


def task_of(run: Path, card: run_files.Card) -> Task:
    """The task of a run: one of the sixteen, or that of the recipe beside its card."""
    path = run / RECIPE
    if not path.exists():
        return tasks.get(card.task, card.size)
    recipe = schema.read_json(recipes.Recipe, path, schema.MAX_TEXT_BYTES)
    return recipes.from_json(recipe.model_dump_json(exclude_none=True), card.size, path)


@dataclass(frozen=True)
class OpenRun:
    """A run that was opened once: what its card says, its task and its emulator."""

    card: run_files.Card
    task: Task
    emulator: nn.Module


def build(run: Path) -> OpenRun:
    """Open a run with the emulator as it is before its weights are loaded.

    Raises :class:`EmubenchError` where the card is missing or does not fit its baseline.
    """
    card = read_card(run)
    try:
        module, task = baselines.get(card.baseline), task_of(run, card)
        defaults = module.Config()
        for setting in dataclasses.fields(defaults):
            if setting.name not in card.config:
                raise EmubenchError(f"config: setting {setting.name} of {card.baseline} is missing")
        config = configured(defaults, card.config, card.baseline, "config.")
        return OpenRun(card, task, build_emulator(module, task, config))
    except EmubenchError as error:
        raise EmubenchError(f"{run / 'card.json'}: {error}") from error.__cause__


def load(run: Path) -> OpenRun:
    """Open a run with its trained emulator."""
    found = build(run)
    load_weights(found.emulator, run / "model.safetensors", found.card.weights_sha256)
    if (n := n_parameters(found.emulator)) != found.card.n_parameters:
        raise EmubenchError(f"{run / 'card.json'}: n_parameters: {found.card.n_parameters} where {n} belongs")
    return found


def find_runs(paths: list[Path]) -> list[Path]:
    """The run folders at or below ``paths``, sorted."""
    runs = []
    for path in paths:
        if path.is_file():
            score = f"emubench score --forecast {path} --task TASK"
            raise EmubenchError(f"{path}: a file, where a folder of runs belongs; scores of a forecast: {score}")
        found = [path] if (path / "card.json").exists() else [p.parent for p in path.rglob("card.json")]
        found = [run for run in found if not run.name.startswith(".")]
        if not found:
            raise EmubenchError(f"{path}: no runs here; make one with: emubench train BASELINE TASK --out {path}")
        runs += found
    return sorted(set(runs))
