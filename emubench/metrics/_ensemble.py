"""What the scores of an ensemble share: deviations from the ring's mean at the leads 1, 2, 4 … 128, and failures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emubench.metrics import LOST, Row, Truth

LEADS = (1, 2, 4, 8, 16, 32, 64, 128)


class Ensemble(NamedTuple):
    """A chunk at the leads scored; what has failed is 0 here, and true in ``failed``."""

    members: Float[Tensor, "M B K N"]
    """h − h̄, the deviation from the ring's mean."""
    truth: Float[Tensor, "B K N"]
    member_heights: Float[Tensor, "M B K"]
    """The mean heights h̄."""
    truth_heights: Float[Tensor, "B K"]
    failed: Bool[Tensor, "B K"]
    """From the first time on at which a member is not finite or further than ``cap`` from the ring's mean."""
    cap: float
    """10 σ: what a failed case counts, and the most that any case does."""

    def capped(self, scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Scores in units of height, a failed one being the cap."""
        return torch.where(self.failed, self.cap, scores).clamp(max=self.cap)


def at_leads(forecast: Float[Tensor, "M B T N"], truth: Truth) -> Ensemble:
    """The forecast and the truth at :func:`leads`, in double precision."""
    index = torch.tensor(leads(truth)) - 1
    cap = LOST * float(truth.std.mean())
    sound = torch.ones(forecast.shape[1:3], dtype=torch.bool)
    for member in forecast:  # one by one, to need little memory
        sound &= ((member - member.mean(-1, keepdim=True)).abs() <= cap).all(-1)
    failed = torch.cummax((~sound).to(torch.int8), dim=1).values.bool()[:, index]
    x, y = forecast[:, :, index].double(), truth.values[:, index]
    x = torch.where(failed[..., None], 0.0, x)
    x_mean, y_mean = x.mean(-1), y.mean(-1)
    return Ensemble(x - x_mean[..., None], y - y_mean[..., None], x_mean, y_mean, failed, cap)


def leads(truth: Truth) -> list[int]:
    """The leads, in samples, that the truth reaches."""
    return [lead for lead in LEADS if lead <= truth.values.shape[1]]


def rows(metric: str, truth: Truth, unit: str) -> tuple[Row, ...]:
    """The row of the mean over leads, then one per lead."""
    return (Row(metric, None, unit), *(Row(metric, float(lead), unit) for lead in leads(truth)))


def with_mean(by_lead: Tensor) -> Tensor:
    """Values ``"... K"`` by lead, their mean put first."""
    return torch.cat([by_lead.mean(-1, keepdim=True), by_lead], dim=-1)
