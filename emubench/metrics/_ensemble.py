"""What the scores of an ensemble share: deviations from the mean at the leads 1, 2, 4 … 128, and failures."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emubench.data.tasks import Task
from emubench.metrics import LOST, Bounds, Row, Truth, lead_rows

LEADS = (1, 2, 4, 8, 16, 32, 64, 128)


class Ensemble(NamedTuple):
    """A chunk at the leads scored; what has failed is 0 here, and true in ``failed``.

    Of a growing system the values are deviations from the spatial mean in units of height; of others they are in σ.
    """

    members: Float[Tensor, "M B K N"]
    """The values at all N sites or components."""
    truth: Float[Tensor, "B K N"]
    member_means: Float[Tensor, "M B K"]
    """The spatial means h̄ of what grows, else 0."""
    truth_means: Float[Tensor, "B K"]
    failed: Bool[Tensor, "B K"]
    """Whether a member was not finite, or further than 10 σ from the mean, at this time or before."""
    cap: float
    """10 σ: what a failed case counts, and the most that any case does."""

    def capped(self, scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Scores in the unit of the values, a failed one being the cap."""
        return torch.where(self.failed, self.cap, scores).clamp(max=self.cap)


def unit(task: Task) -> str:
    """The unit of an ensemble's values, and so of a score in law."""
    return "height" if task.system.growing else "climatological std"


def cap(task: Task) -> float:
    """10 σ in that unit."""
    return LOST * float(task.system.std.mean()) if task.system.growing else LOST


def at_leads(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Ensemble:
    """The forecast and the truth at :func:`leads`, in double precision."""
    index, task, most = torch.tensor(leads(truth), device=forecast.device) - 1, truth.task, cap(truth.task)
    members, values, mean, std = forecast.flatten(3), truth.values.flatten(2), truth.mean.flatten(), truth.std.flatten()
    sound = torch.ones(members.shape[1:3], dtype=torch.bool, device=members.device)
    for member in members:  # one by one, to need little memory
        off = member - member.mean(-1, keepdim=True) if task.system.growing else (member - mean) / std
        sound &= (off.abs() <= most).all(-1)
    failed = ((~sound).cumsum(1) > 0)[:, index]
    x, y = members[:, :, index].double(), values[:, index]
    if not task.system.growing:
        x, y = (x - mean) / std, (y - mean) / std
    x = torch.where(failed[..., None], 0.0, x)
    x_mean, y_mean = (v.mean(-1) if task.system.growing else torch.zeros_like(v[..., 0]) for v in (x, y))
    return Ensemble(x - x_mean[..., None], y - y_mean[..., None], x_mean, y_mean, failed, most)


def leads(truth: Truth) -> list[int]:
    """The leads, in samples, that the truth reaches."""
    return [lead for lead in LEADS if lead <= truth.values.shape[1]]


def rows(metric: str, truth: Truth, unit: str, better: int, bounds: Bounds) -> tuple[Row, ...]:
    """The row of the mean over leads, then one per lead."""
    return lead_rows(metric, truth.task, (None, *leads(truth)), unit, better, bounds)


def with_mean(by_lead: Tensor) -> Tensor:
    """Values ``"... K"`` by lead, their mean put first."""
    return torch.cat([by_lead.mean(-1, keepdim=True), by_lead], dim=-1)
