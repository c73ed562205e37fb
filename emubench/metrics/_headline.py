"""The score that says how accurate forecasts of a task are: which it is, which way it is better, what failing costs."""

from dataclasses import dataclass

from torch import Tensor

from emubench.data.tasks import Task
from emubench.metrics import Truth, _ensemble, crps, valid_prediction_time


@dataclass(frozen=True)
class Headline:
    """The headline score of a task."""

    task: Task
    metric: str
    """The name of the score in score files."""
    better: int
    """+1 where higher is better, −1 where lower is."""
    worst: float
    """What a failed case scores."""
    unit: str
    label: str
    """The label of a plot's axis on which up is better."""
    bounds: tuple[float, float]
    """The least and the most that it can be."""

    def cases(self, forecast: Tensor, truth: Tensor, start: Tensor) -> Tensor:
        """The score ``"B"`` of forecasts ``"M B T *S"`` against the truth ``"B T *S"``, started by kinds ``"B"``."""
        module = crps if self.task.system.scored_in_law else valid_prediction_time
        return module.summarise(forecast, Truth(self.task, truth, start)).cases[:, 0]


def headline(task: Task) -> Headline:
    """The headline score of ``task``: CRPS where it is scored in law, else valid prediction time."""
    if task.system.scored_in_law:
        unit = _ensemble.unit(task)
        most = _ensemble.cap(task)
        return Headline(task, "crps", -1, most, unit, f"CRPS [{unit}], inverted", (0.0, most))
    unit = task.system.lead_time_unit
    bounds = 0.0, valid_prediction_time.cap(task)
    return Headline(task, "valid_prediction_time", 1, 0.0, unit, f"valid prediction time [{unit}s]", bounds)
