"""Growth of an interface from flat: the law of its height h, fluctuating mean included, against the exact solver's.

``growth_ratio`` is the variance of h over cases, members and sites at the leads 1, 2, 4 … 128, over that of the exact
solver at the same number of sites and the same time (frozen in ``reference.json``: a finite ring is narrower than the
infinite one); as a whole-forecast score the geometric mean over leads. 1 at best. ``growth_skewness`` and
``growth_excess_kurtosis`` are those of h at the last lead and at each; the solver's stand in ``reference.json``. Of a
long ring from flat they are 0.2935 and 0.1652, the Gaussian orthogonal ensemble's (Prähofer & Spohn 2000,
doi:10.1103/PhysRevLett.84.4882), and the variance 0.638 (Γt)^⅔ with Γ = |λ|A²/2.

A failed case (see ``crps``) counts as h 10 σ off. Not ranked: too much variance and too little are both wrong. It can't
see whether a forecast follows its case. Needs frozen values: a custom task has none.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data import reference
from emubench.data.tasks import Task
from emubench.metrics import LOST, POSITIVE, Row, Summary, Truth, _ensemble

split = "test"
SHAPES = ("skewness", "excess_kurtosis")


def applies(task: Task) -> bool:
    """Systems that grow from flat, where the exact solver's growth is frozen."""
    return "flat" in task.system.starts and "growth" in reference.get(task.name) and not task.custom


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Moments of h of the flat cases about the solver's mean, in units of its standard deviation."""
    exact = reference.get(truth.task.name)["growth"]
    leads = _ensemble.leads(truth)
    failed = _ensemble.at_leads(forecast, truth).failed
    known = torch.tensor([exact[key] for key in ("mean", "variance")], dtype=torch.float64, device=forecast.device)
    mean, variance = known[:, : len(leads)]
    h = forecast[:, :, torch.tensor(leads, device=forecast.device) - 1].double()
    x = torch.where(failed[..., None], 0.0, (h - mean[:, None]) / variance.sqrt()[:, None])
    moments = [(x**p).mean((0, -1)) for p in (1, 2, 3, 4)]
    worst = (0.0, LOST**2, 0.0, LOST**4)
    flat = (truth.start == truth.task.system.starts.index("flat")).double()[:, None]
    columns = [flat * torch.where(failed, w, m) for m, w in zip(moments, worst, strict=True)]
    k = len(leads)

    def finish(mean: Tensor) -> Tensor:
        raw = mean[..., 1:] / mean[..., :1]
        m1, m2, m3, m4 = (raw[..., i * k : (i + 1) * k] for i in range(4))
        ratio = (m2 - m1**2).clamp(min=1e-12)
        skewness = (m3 - 3 * m1 * m2 + 2 * m1**3) / ratio**1.5
        kurtosis = (m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / ratio**2 - 3
        whole = torch.stack([ratio.log().mean(-1).exp(), skewness[..., -1], kurtosis[..., -1]], dim=-1)
        return torch.cat([whole, ratio, skewness, kurtosis], dim=-1)

    plain = Row("growth_ratio", None, "1", 0, POSITIVE), *(Row(f"growth_{name}", None, "1") for name in SHAPES)
    rows = *plain, *(row._replace(lead_time=float(lead)) for row in plain for lead in leads)
    return Summary(torch.cat([flat, *columns], dim=1), rows, finish)
