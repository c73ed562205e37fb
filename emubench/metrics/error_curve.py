"""Root-mean-square error against lead time, in climatological σ: √(mean over cases of e(t)²).

e(t) is that of :mod:`emubench.metrics.valid_prediction_time`, capped at 10 σ, where failed forecasts stand. Two
independent states differ by √2. Range 0 … 10, lower is better. It can't see whether a few cases or all are wrong.
"""

from jaxtyping import Float
from torch import Tensor

from emubench.metrics import LOST, Bounds, Row, Summary, Truth, lead_rows
from emubench.metrics.valid_prediction_time import applies as applies
from emubench.metrics.valid_prediction_time import error

split = "test"
MAX_POINTS = 120


def points(truth: Truth) -> list[int]:
    """Indices of the about hundred lead times that curves are given at."""
    n = truth.values.shape[1]
    return list(range(0, n, -(-n // MAX_POINTS)))


def rows(metric: str, truth: Truth, unit: str, better: int, bounds: Bounds) -> tuple[Row, ...]:
    """One row per lead time of :func:`points`."""
    return lead_rows(metric, truth.task, [t + 1 for t in points(truth)], unit, better, bounds)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Squared error at about a hundred lead times."""
    squared = error(forecast, truth)[:, points(truth)] ** 2
    curve = rows("rms_error", truth, "climatological std", -1, (0.0, LOST))
    return Summary(squared, curve, lambda mean: mean.sqrt())
