"""Survival: the share of long runs that are not yet lost, against lead time, and the mean time to escape.

A run is lost from its first sample on that is not finite or more than 10 σ from the mean (of what grows: from the mean
of all sites); it does not come back. The time to escape is that of this sample, or the horizon if there is none: a
*restricted* mean, which is at most the horizon (Royston & Parmar 2013, doi:10.1186/1471-2288-13-152). Higher is better.
It can't see where a surviving run is, not even whether it moves.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import SHARE, Row, Summary, Truth, lead_rows
from emubench.metrics.stability import applies as applies
from emubench.metrics.stability import lost_samples

split = "climate"
N_LEADS = 20


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Time of escape, and whether a case still lives at twenty lead times, the last one the horizon."""
    lost = lost_samples(forecast[0].double(), truth)
    n, step, unit = lost.shape[1], truth.task.lead_time_step, truth.task.system.lead_time_unit
    escape = torch.where(lost.any(1), lost.to(torch.int8).argmax(1), n)  # samples that were sound
    leads = torch.linspace(n / N_LEADS, n, N_LEADS).round().long().unique()
    whole = Row("time_to_escape", None, unit, 1, (0.0, n * step))
    by_lead = lead_rows("surviving_fraction", truth.task, leads.tolist(), "1", 1, SHARE)
    rows = whole, *(row._replace(counts_cases=True) for row in by_lead)
    living = (escape[:, None] >= leads.to(escape.device)).double()
    return Summary(torch.cat([(escape * step)[:, None].double(), living], dim=1), rows)
