"""Estimates of the states behind noisy, gappy trajectories: what a vector field is fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.dataset import Observations
from emubench.learning.filters.climate_filter import SPIN_UP, ClimateFilter
from emubench.learning.filters.wiener import smoothed
from emubench.learning.models.field_flow import FieldFlow
from emubench.learning.rings import neighbourhoods


@dataclass(frozen=True)
class Estimates:
    """Estimated states û and what takes the derivative's place, u; ``weight`` 1 where the residual counts, else 0."""

    states: Float[Tensor, "B T D"]
    observed: Float[Tensor, "B T D"]
    weight: Float[Tensor, "B D"]

    def draw(self, n: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """û, u and weights of ``n`` stretches of ``length`` samples, or of as many as there are."""
        length = min(length, self.states.shape[1])
        b = torch.randint(len(self.states), (n,), generator=generator)
        t = torch.randint(self.states.shape[1] - length + 1, (n, 1), generator=generator) + torch.arange(length)
        return self.states[b[:, None], t], self.observed[b[:, None], t], self.weight[b][:, None]


def by_wiener(flow: FieldFlow, observation: Tensor, data: Observations, half_width: int, trusted: float) -> Estimates:
    """Linear estimates from ``half_width`` samples on both sides (0: the data themselves).

    Gaps of u are filled by them, and count where all neighbours are known to ``trusted`` σ; everywhere if nowhere.
    """
    u, w = flow.normalised(observation).double(), half_width
    if not w:
        u = flow.lifted(u).float()
        return Estimates(u, u, torch.ones_like(u[:, 0]))
    states, variance = smoothed(u, data.noise_std / data.std, w, flow.ring)
    u, weight = u[:, w:-w], torch.ones_like(u[:, 0]).float()
    if torch.isnan(u).any():
        known = neighbourhoods(variance.sqrt(), flow.config.radius).amax(-1) < trusted
        weight = known.float() if known.any() else weight
        u = torch.where(torch.isnan(u), states, u)
    lifted = flow.limit(flow.lifted(states).float())
    return Estimates(lifted, flow.lifted(u).float(), weight.repeat(1, flow.n_state // flow.n))


@torch.no_grad()
def by_model(flow: FieldFlow, observation: Tensor, filtered: tuple[int, ...], lag: int) -> Estimates:
    """What the fixed-lag smoother makes of a part (trajectories, samples) of the data, with the flow as its model.

    Residuals count where data were observed.
    """
    n, length = filtered
    climate = cast(ClimateFilter, flow.climate)
    u = flow.normalised(observation[:n, :length]).double()
    skip = min(max(SPIN_UP, flow.reach), u.shape[1] // 4)
    states = climate.smoothed(flow.model(), u, lag)[:, skip:]
    observed = flow.lifted(u)[:, -states.shape[1] - lag : -lag]
    seen = ~torch.isnan(observed)
    observed = torch.where(seen, observed, states).float()
    return Estimates(flow.limit(states.float()), observed, seen[:, 0].float())
