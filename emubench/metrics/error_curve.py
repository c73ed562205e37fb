"""Root-mean-square error against lead time, in climatological σ: √(mean over cases of e(t)²).

e(t) is that of :mod:`emubench.metrics.valid_prediction_time`, capped at 10 σ, where failed forecasts stand. Two
independent states differ by √2. Range 0 … 10, lower is better. It can't see whether a few cases or all are wrong.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from emubench.metrics import Row, Summary, Truth
from emubench.metrics.valid_prediction_time import error
from emubench.task import Task

split = "test"
MAX_POINTS = 120


def applies(task: Task) -> bool:
    """Deterministic systems."""
    return not task.system.stochastic


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Squared error at about a hundred lead times."""
    squared = error(forecast, truth) ** 2
    stride = -(-squared.shape[1] // MAX_POINTS)
    leads = range(0, squared.shape[1], stride)
    step = truth.task.lead_time_step
    return Summary(
        cases=squared[:, ::stride],
        rows=tuple(Row("rms_error", round((t + 1) * step, 6), "climatological std") for t in leads),
        finish=lambda mean: mean.sqrt(),
    )
