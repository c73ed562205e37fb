"""Reliability index of the rank histogram of an ensemble, for stochastic systems.

The rank of the truth among the M members at every site of h − h̄, that is how many of them lie below it, is uniform on
0 … M if truth and members are drawn from one law (Hamill 2001,
doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2). Among t equal members it counts 1/(t + 1) in each of the t + 1
ranks that it could have: the mean of breaking ties at random, without drawing. With f_k the frequency of rank k over
sites and cases, at one lead,

    reliability index = Σ_k |f_k − 1/(M + 1)|      (Delle Monache et al. 2006, doi:10.1029/2005JD006917),

here the mean over the leads 1, 2, 4 … 128, and each of them. Range 0 … 2M/(M + 1), lower is better; of n independent
ranks of a perfect ensemble it is about √(2M/πn). A failed case counts 2M/(M + 1), the worst there is, so that failing
is never cheaper. It can't see compensating faults (Hamill 2001): 0 does not make a forecast good.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import Summary, Truth, _ensemble
from emubench.metrics.crps import applies as applies

split = "test"


def rank_frequencies(members: Float[Tensor, "M ... N"], truth: Float[Tensor, "... N"]) -> Float[Tensor, "... M+1"]:
    """Frequencies of the ranks 0 … M of ``truth`` among ``members``, over the last axis.

    >>> rank_frequencies(torch.tensor([[0.0, 5.0, 1.0], [1.0, 6.0, 1.0]]), torch.tensor([0.5, 7.0, 1.0]))
    tensor([0.1111, 0.4444, 0.4444])
    """
    m, n = members.shape[0], truth.shape[-1]
    below, equal = (members < truth).sum(0), (members == truth).sum(0)
    # A rank that is shared out evenly over below … below + equal begins there and ends after it.
    share = 1.0 / (n * (equal + 1).to(truth.dtype))
    steps = truth.new_zeros(*truth.shape[:-1], m + 2)
    steps.scatter_add_(-1, below, share).scatter_add_(-1, below + equal + 1, -share)
    return steps.cumsum(-1)[..., :-1]


def frequencies(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> tuple[Tensor, Tensor]:
    """Rank frequencies per case and lead ``"B K M+1"``, 0 where the forecast failed, and ``failed`` ``"B K"``."""
    given = _ensemble.at_leads(forecast, truth)
    ranks = rank_frequencies(given.members, given.truth)
    return torch.where(given.failed[..., None], 0.0, ranks), given.failed


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Rank frequencies per lead; the index is taken of their means."""
    ranks, failed = frequencies(forecast, truth)
    n_leads, n_ranks = ranks.shape[1:]

    def finish(mean: Tensor) -> Tensor:
        f = mean[..., n_leads:].unflatten(-1, (n_leads, n_ranks))
        lost = mean[..., :n_leads]
        sound = (f - (1 - lost[..., None]) / n_ranks).abs().sum(-1)
        return _ensemble.with_mean(sound + lost * 2 * (n_ranks - 1) / n_ranks)

    cases = torch.cat([failed.double(), ranks.flatten(1)], dim=1)
    rows = _ensemble.rows("reliability_index", truth, "1", -1, (0.0, 2 * (n_ranks - 1) / n_ranks))
    return Summary(cases, rows, finish)
