"""Continuous ranked probability score of an ensemble whose halves are drawn independently, for systems scored in law.

CRPS = E|X − y| − ½ E|X − X′| (Gneiting & Raftery 2007, doi:10.1198/016214506000001437), estimated by mean_i |x_i − y|
− ½ mean_ab |x_a − x_b|, with a of the first half of the members and b of the second. The halves come from calls
with generators of their own, so that x_a and x_b are independent draws given the context: the estimate is unbiased in
the number of members, as the fair one (Ferro 2014, doi:10.1002/qj.2270), which takes all pairs, and unlike it also
where members of one call repel each other. With one member it is the absolute error. It is taken at every site or
component, in σ, and averaged over them and the leads 1, 2, 4 … 128; kinds of start apart. Where the spatial mean grows
(kpz) it is taken of the deviation from it, h − h̄, in units of height, and of h̄ apart. Lower is better; 0 at best. A
forecast with a member that is not finite or further than 10 σ from the mean has failed and counts 10 σ from then on,
which is also the cap. It can't see correlations between sites or in time.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.tasks import Task
from emubench.metrics import Row, Summary, Truth, _ensemble

split = "test"


def applies(task: Task) -> bool:
    """Systems that are scored in law."""
    return task.system.scored_in_law


def crps(members: Float[Tensor, "M ..."], truth: Tensor) -> Tensor:
    """CRPS along the first axis, whose first and second half are independent; by sorting: O(M log M).

    >>> float(crps(torch.tensor([1.0, 3.0]), torch.tensor(2.0)))
    0.0
    """
    m = members.shape[0]
    distance = (members - truth).abs().mean(0)
    if m == 1:
        return distance
    half = (m + 1) // 2
    across = _pairs(members) - _pairs(members[:half]) - _pairs(members[half:])
    return distance - across / (2 * half * (m - half))


def _pairs(members: Float[Tensor, "M ..."]) -> Tensor:
    """Σ_{i<j} |x_i − x_j|: of the ordered values, the k-th counts 2k − M − 1 times."""
    m = members.shape[0]
    weight = torch.arange(1, m + 1, dtype=members.dtype, device=members.device) * 2 - m - 1
    return torch.tensordot(weight, members.sort(dim=0).values, dims=1)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """CRPS per lead, its mean over leads, that of the spatial mean where it grows, and the mean by kind of start."""
    given = _ensemble.at_leads(forecast, truth)
    sites = given.capped(crps(given.members, given.truth).mean(-1))
    growing, unit, bounds = truth.task.system.growing, _ensemble.unit(truth.task), (0.0, given.cap)
    heights = [given.capped(crps(given.member_means, given.truth_means)).mean(1, keepdim=True)] if growing else []
    total = sites.mean(1, keepdim=True)
    kinds = [(truth.start == i).double()[:, None] for i in range(len(truth.task.system.starts))]
    by_kind = [column for kind in kinds for column in (total * kind, kind)]
    n = 1 + sites.shape[1] + len(heights)

    def finish(mean: Tensor) -> Tensor:
        shares = [mean[..., n + 2 * i] / mean[..., n + 1 + 2 * i] for i in range(len(kinds))]
        return torch.cat([mean[..., :n], torch.stack(shares, dim=-1)], dim=-1)

    return Summary(
        cases=torch.cat([total, sites, *heights, *by_kind], dim=1),
        rows=(
            *_ensemble.rows("crps", truth, unit, -1, bounds),
            *(Row("crps_mean_height", None, unit, -1, bounds) for _ in heights),
            *(Row(f"crps_{start}", None, unit, -1, bounds) for start in truth.task.system.starts),
        ),
        finish=finish,
        headline={"crps": 0},
    )
