"""What every task asks for, so that it is known without torch: ``python -m benchmarks.maintain.shapes`` writes it."""

from __future__ import annotations

import json
from typing import Any

import torch

from emubench import metrics
from emubench.core.random import torch_stream
from emubench.data import reference, tasks
from emubench.data.tasks import Task
from emubench.evaluation import scoring
from emubench.files import store
from emubench.leaderboard.submission import entries
from emubench.metrics import Bounds, Pool, Row, Truth
from emubench.metrics._headline import headline


def content() -> str:
    """What :data:`emubench.leaderboard.submission.entries.SHAPES_FILE` has to hold, from the tasks themselves."""
    sizes, names = ("tiny", "standard"), tasks.names()
    shapes = {size: {name: scoring.forecast_shapes(tasks.get(name, size)) for name in names} for size in sizes}
    headlines = {name: headline(tasks.get(name)).metric for name in names}
    found = {"headlines": headlines, "shapes": shapes, "scores": {name: scores(tasks.get(name)) for name in names}}
    return json.dumps(found, sort_keys=True) + "\n"


def scores(task: Task) -> dict[str, dict[str, Any]]:
    """The rows that scoring makes of a task, by their metric: see :class:`entries.AskedScore`."""
    found: dict[str, dict[str, Any]] = {}
    rows = [(split, row) for split in task.splits for row in _rows(task, split)]
    (head,) = (row for _, row in rows if row.metric == headline(task).metric and row.lead_time is None)
    if (scale := reference.scale(task.name)).usable:  # what follows from the cases of the headline
        bounds: Bounds = tuple(sorted(map(scale.skill, head.bounds)))  # type: ignore[assignment]
        rows.append(("test", Row("skill_accuracy", None, "1", 1, bounds)))
    for split, row in rows:
        same = {"unit": row.unit, "split": split, "bounds": list(row.bounds)}
        known = found.setdefault(row.metric, same | {"lead_times": []})
        assert known.items() >= same.items()
        known["lead_times"].append(row.lead_time)
    return found


def _rows(task: Task, split: str) -> list[Row]:
    """The rows of all metrics of a split, which depend on no value: here noise is scored against noise."""
    m, _, t, *sites = scoring.forecast_shapes(task)[split]
    std, mean = (torch.from_numpy(task.observation.select(v)) for v in (task.system.std, task.system.mean))
    noise = mean + std * torch.randn(1, t, *sites, generator=torch_stream(0, "shapes"), dtype=torch.float64)
    pool = Pool(task, noise) if split == "climate" else None
    truth = Truth(task, noise, torch.zeros(1, dtype=torch.long), pool, reference.get(task.name))
    modules = [m for m in map(metrics.get, metrics.names()) if m.split == split and m.applies(task)]
    made = noise.expand(m, *noise.shape)
    return [row for module in modules for row in module.summarise(made, truth).rows]


if __name__ == "__main__":
    store.write_text(entries.SHAPES_FILE, content())
