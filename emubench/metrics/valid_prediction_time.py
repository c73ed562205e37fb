"""Valid prediction time: how long a forecast stays within 0.5 σ of the truth.

With the error e(t) = √(mean over scored components of ((forecast − truth)/σ_clim)²), lead 0 the last context sample
with e = 0, it is the first crossing of 0.5, linearly interpolated; a forecast that never crosses gets the horizon; a
NaN crosses. The score is the mean over cases, in Lyapunov times; beside it median and 10th percentile (read from the
distribution over cases in steps of 1/2000 of the horizon), the mean first crossing of 0.3 and the fraction that never
crosses. Of an ensemble the mean over members is taken. Range 0 … horizon, higher is better. It can't see anything after
the crossing. After Vlachas et al. 2020, doi:10.1016/j.neunet.2020.02.016.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.tasks import Task
from emubench.dynamics.first_passage import STRICT_THRESHOLD, THRESHOLD, crossing
from emubench.metrics import LOST, SHARE, Row, Summary, Truth

split = "test"
QUANTILES = {"valid_prediction_time_median": 0.5, "valid_prediction_time_10th_percentile": 0.1}
RESOLUTION = 2000


def applies(task: Task) -> bool:
    """Systems of which a forecast can follow one realisation."""
    return not task.system.scored_in_law


def error(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Float[Tensor, "B T"]:
    """Normalised error of the ensemble mean per case and lead time; a failed forecast counts 10 σ from then on."""
    difference = (forecast.mean(0, dtype=torch.float64) - truth.values) / truth.std
    e = difference.flatten(2).square().mean(-1).sqrt()
    failed = (~torch.isfinite(e)).cumsum(1) > 0
    return torch.where(failed, LOST, e).clamp(max=LOST)


def quantile(cdf: Float[Tensor, "... K"], values: Float[Tensor, " K"], share: float) -> Tensor:
    """The first of ``values`` at which the distribution function reaches ``share``.

    >>> quantile(torch.tensor([0.2, 0.5, 1.0]), torch.tensor([1.0, 2.0, 3.0]), 0.5)
    tensor(2.)
    """
    return values[(cdf < share - 1e-9).sum(-1).clamp(max=len(values) - 1)]


def cap(task: Task) -> float:
    """The longest time that is told apart: to the end, or as long as two right solvers agree on clean data."""
    end, agreement = task.test_steps * task.lead_time_step, task.system.known_climate().agreement_time
    return end if task.observation.noise or agreement is None else min(end, agreement)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Crossing times of 0.5 and 0.3, whether 0.5 is never crossed, and each case's step of the distribution."""
    e = error(forecast, truth)
    failed = (~torch.isfinite(forecast.flatten(3)).all(-1).all(0)).cumsum(1) > 0
    most = cap(truth.task)
    times = [crossing(e, t, failed) * truth.task.lead_time_step for t in (THRESHOLD, STRICT_THRESHOLD)]
    capped = [t.clamp(max=most) for t in times]
    never = (times[0] >= most).double()
    grid = torch.linspace(0, most, RESOLUTION + 1, dtype=torch.float64)
    reached = (capped[0][:, None] <= grid.to(e.device)).double()
    unit = truth.task.system.lead_time_unit

    def finish(mean: Tensor) -> Tensor:
        quantiles = [quantile(mean[..., 3:], grid, share) for share in QUANTILES.values()]
        return torch.cat([mean[..., :3], torch.stack(quantiles, dim=-1)], dim=-1)

    return Summary(
        cases=torch.cat([torch.stack([*capped, never], dim=1), reached], dim=1),
        rows=(
            Row("valid_prediction_time", None, unit, 1, (0.0, most)),
            Row("valid_prediction_time_strict", None, unit, 1, (0.0, most)),
            Row("never_crossed_fraction", None, "1", 1, SHARE, True),
            *(Row(name, None, unit, 1, (0.0, most)) for name in QUANTILES),
        ),
        finish=finish,
        headline={"valid_prediction_time": 0},
    )
