"""Anomaly correlation against lead time: does the forecast have the truth's shape, whatever its amplitude?

Per case, with a and b the deviations of forecast and truth from the climatological mean, in σ and at one lead time,
r = Σ a b / √(Σ a² Σ b²) over the scored components; the score is the mean over cases (Murphy & Epstein 1989,
doi:10.1175/1520-0493(1989)117<0572:SSACCI>2.0.CO;2). Of an ensemble the mean over members is taken. Range −1 … 1,
higher is better; the climatological mean itself has no anomaly and gets 0, a forecast that is not finite −1 from then
on. It can't see amplitudes: a forecast damped to nothing correlates as well. Where one component is scored, it is the
share of equal signs less that of unequal ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import Summary, Truth
from emubench.metrics.error_curve import applies as applies
from emubench.metrics.error_curve import points, rows

split = "test"


def correlation(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Float[Tensor, "B T"]:
    """Anomaly correlation per case and lead time; −1 once a forecast has failed."""
    a = ((forecast.mean(0, dtype=torch.float64) - truth.mean) / truth.std).flatten(2)
    b = ((truth.values - truth.mean) / truth.std).flatten(2)
    norm = a.norm(dim=-1)
    failed = (~torch.isfinite(norm)).cumsum(1) > 0
    r = ((a / norm.clamp(min=1e-300)[..., None]) * b).sum(-1) / b.norm(dim=-1).clamp(min=1e-300)
    return torch.where(failed, -1.0, r).clamp(-1, 1)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """The correlation at about a hundred lead times."""
    chosen = points(truth)
    return Summary(correlation(forecast, truth)[:, chosen], rows("anomaly_correlation", truth, "1", 1, (-1.0, 1.0)))
