"""Which metric heads a task, and which way it is better."""

from __future__ import annotations

from torch import Tensor

from emubench import metrics
from emubench.data.tasks import Task
from emubench.metrics import Truth, crps, valid_prediction_time


def headline(task: Task) -> str:
    """Name of the metric that says how accurate a forecast is."""
    return "crps" if task.system.stochastic else "valid_prediction_time"


def gain(task: Task) -> float:
    """+1 where a higher headline score is better, −1 where a lower one is."""
    return -1.0 if task.system.stochastic else 1.0


def worst_case(task: Task) -> float:
    """What a failed case scores: no valid time, or the cap of the CRPS."""
    return metrics.LOST * float(task.system.std.mean()) if task.system.stochastic else 0.0


def headline_cases(task: Task, forecast: Tensor, truth: Tensor, start: Tensor) -> Tensor:
    """The headline score of each case: valid prediction time, or CRPS of stochastic systems."""
    metric = crps if task.system.stochastic else valid_prediction_time
    return metric.summarise(forecast, Truth(task, truth, start)).cases[:, 0]
