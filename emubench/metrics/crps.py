"""Fair continuous ranked probability score of an ensemble, for stochastic systems.

CRPS = mean_i |x_i − y| − 1/(2 M (M − 1)) Σ_ij |x_i − x_j|, unbiased in the number of members M (Ferro 2014,
doi:10.1002/qj.2270); with one member it is the absolute error. It is taken at every site of h − h̄ (the deviation
from the ring's mean) and averaged over sites and the leads 1, 2, 4 … 128; the mean height h̄ apart; flat and
stationary starts apart. Lower is better; 0 at best on average (fairness lets single values fall below). A forecast
with a member that is not finite or further than 10 σ from the ring's mean has failed and counts 10 σ from then on,
which is also the cap. It can't see correlations between sites or in time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import LOST, Row, Summary, Truth
from emubench.task import Task

split = "test"
LEADS = (1, 2, 4, 8, 16, 32, 64, 128)


def applies(task: Task) -> bool:
    """Stochastic systems."""
    return task.system.stochastic


def fair_crps(members: Float[Tensor, "M ..."], truth: Tensor) -> Tensor:
    """Fair CRPS along the first axis, by sorting: O(M log M).

    >>> float(fair_crps(torch.tensor([1.0, 3.0]), torch.tensor(2.0)))
    0.0
    """
    m = members.shape[0]
    distance = (members - truth).abs().mean(0)
    if m == 1:
        return distance
    rank = torch.arange(1, m + 1, dtype=members.dtype, device=members.device) * 2 - m - 1
    ordered = members.sort(dim=0).values
    spread = torch.tensordot(rank, ordered, dims=1) / (m * (m - 1))
    return distance - spread


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """CRPS of h − h̄ per lead, its mean over leads, that of h̄, and the mean by kind of start."""
    index = torch.tensor([t - 1 for t in LEADS if t <= truth.values.shape[1]])
    y, x = truth.values[:, index], forecast[:, :, index].double()
    cap = LOST * float(truth.std.mean())
    y_mean, x_mean = y.mean(-1), x.mean(-1)
    lost = ((forecast - forecast.mean(-1, keepdim=True)).abs() <= cap).flatten(3).all(-1).all(0).logical_not()
    sites = fair_crps(x - x_mean[..., None], y - y_mean[..., None]).mean(-1)
    heights = fair_crps(x_mean, y_mean)
    failed = torch.cummax(lost.to(torch.int8), dim=1).values.bool()[:, index]
    sites, heights = (torch.where(failed, cap, v).clamp(max=cap) for v in (sites, heights))
    total = sites.mean(1, keepdim=True)
    kinds = [(truth.start == i).double()[:, None] for i in range(len(truth.task.system.starts))]
    by_kind = [column for kind in kinds for column in (total * kind, kind)]
    n, unit = len(index), "height"

    def finish(mean: Tensor) -> Tensor:
        shares = [mean[..., n + 2 + 2 * i] / mean[..., n + 3 + 2 * i] for i in range(len(kinds))]
        return torch.cat([mean[..., : n + 2], torch.stack(shares, dim=-1)], dim=-1)

    return Summary(
        cases=torch.cat([total, sites, heights.mean(1, keepdim=True), *by_kind], dim=1),
        rows=(
            Row("crps", None, unit),
            *(Row("crps", float(t + 1), unit) for t in index),
            Row("crps_mean_height", None, unit),
            *(Row(f"crps_{start}", None, unit) for start in truth.task.system.starts),
        ),
        finish=finish,
        headline={"crps": 0},
    )
