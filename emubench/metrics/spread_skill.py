"""Spread–skill ratio of an ensemble, for stochastic systems: does it know how wrong it is?

√((M + 1)/M · mean variance of the members) / √(mean squared error of their mean), variances with 1/(M − 1), means over
sites and cases of h − h̄. Truth and members drawn from one law give 1 for any M, which is what (M + 1)/M is for (Fortin
et al. 2014, doi:10.1175/JHM-D-14-0008.1): below, the ensemble is overconfident. Per lead 1, 2, 4 … 128, and the mean
over leads. Range 0 … ∞; one member has no spread and gets 0. A failed forecast has no spread and an error of 10 σ. 1
does not make a forecast good: the climatology has it too. It is reported, and never ranked.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import POSITIVE, Summary, Truth, _ensemble
from emubench.metrics.crps import applies as applies

split = "test"


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Variance and squared error per lead; the ratio is taken of their means."""
    given = _ensemble.at_leads(forecast, truth)
    m, n = len(given.members), given.truth.shape[1]
    variance = given.members.var(0, correction=1) if m > 1 else torch.zeros_like(given.truth)
    spread = torch.where(given.failed, 0.0, (m + 1) / m * variance.mean(-1))
    squared = (given.members.mean(0) - given.truth).square().mean(-1)
    error = torch.where(given.failed, given.cap**2, squared).clamp(max=given.cap**2)

    def finish(mean: Tensor) -> Tensor:
        return _ensemble.with_mean((mean[..., :n] / mean[..., n:]).sqrt())

    rows = _ensemble.rows("spread_skill_ratio", truth, "1", 0, POSITIVE)
    return Summary(torch.cat([spread, error], dim=1), rows, finish)
