"""When a difference crosses a threshold for the first time, interpolated between samples."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.dynamics.spectrum import Estimate


@dataclass(frozen=True)
class FirstPassage:
    """Times at which a difference crossed a threshold; cases that never did count as the horizon."""

    times: Float[Tensor, " B"]
    never: float
    """Fraction of the cases that never crossed: where it is not small, the mean is a lower bound."""

    @property
    def mean(self) -> Estimate:
        """Mean over cases with its standard error."""
        return Estimate(float(self.times.mean()), float(self.times.std() / math.sqrt(len(self.times))))


def level_crossing(log: Float[Tensor, "B T"], level: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """First crossing of each case's own level, which may be under the start (then it is at time 0)."""
    return torch.where(level > 0, crossing(log / level[:, None].clamp(min=1e-9), 1.0), 0.0)


THRESHOLD, STRICT_THRESHOLD = 0.5, 0.3


def crossing(e: Float[Tensor, "B T"], threshold: float, failed: Tensor | None = None) -> Float[Tensor, " B"]:
    """First time at which ``e`` exceeds ``threshold``, in steps, with e = 0 at time 0; never: T.

    Where ``failed``, the crossing is at the last sound sample.

    >>> crossing(torch.tensor([[0.25, 0.75, 0.1], [0.1, 0.2, 0.3]]), 0.5).tolist()
    [1.5, 3.0]
    """
    n = e.shape[1]
    padded = torch.cat([torch.zeros_like(e[:, :1]), e], dim=1)
    above = padded > threshold
    first = torch.where(above.any(1), above.to(torch.int8).argmax(1), n)
    after = padded.gather(1, first[:, None])[:, 0]
    before = padded.gather(1, (first - 1).clamp(min=0)[:, None])[:, 0]
    share = (threshold - before) / (after - before)
    if failed is not None:
        share = torch.where(failed.gather(1, (first - 1).clamp(min=0)[:, None])[:, 0], 0.0, share)
    return torch.where(above.any(1), first - 1 + share, float(n))
