"""Coefficients of a fitted equation, refined on short forecasts that a filter with the same equation starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.learning.filters.climate_filter import SPIN_UP, ClimateFilter
from emubench.learning.filters.ensemble import Advance

RELATIVE = 1e-4
"""By so much a coefficient is changed to see what it does."""
LOST = 4
"""Forecasts whose squared error is so many times the median's say nothing about the equation."""


def gauss_newton(
    coefficients: Float[Tensor, "P S"],
    active: list[tuple[int, int]],
    model: Callable[[], Advance],
    climate: ClimateFilter,
    observed: Float[Tensor, "B T C"],
    ahead: int,
    share: float,
) -> None:
    """A ``share`` of a Gauss–Newton step, in place, of the ``active`` coefficients that ``model()`` reads.

    What is fitted are forecasts of ``ahead`` samples from the filter's analyses, against what was observed (not NaN). A
    share, because the analyses lean towards the observations and make up for a part of the model's error: whole steps
    overshoot to the other side. Forecasts of trajectories that the filter lost are left out.
    """
    if not active:
        return
    begun = torch.arange(min(SPIN_UP, observed.shape[1] // 4), observed.shape[1] - ahead, max(1, ahead // 2))
    first = climate.analyses(model(), observed)[:, begun].flatten(0, 1)
    target = torch.stack([observed[:, begun + k].flatten(0, 1) for k in range(1, ahead + 1)], dim=1)

    def run() -> Tensor:
        advance, state, states = model(), first, []
        for _ in range(ahead):
            state = advance(state)
            states.append(state[:, : target.shape[-1]])
        return torch.stack(states, dim=1)

    base = run()
    residual = (target - base) / climate.noise
    size = residual.square().flatten(1).nanmean(1)
    kept = ~torch.isnan(residual) & (size < LOST * size.median()).reshape(-1, 1, 1)
    columns = []
    for i, k in active:
        weight = float(coefficients[i, k])
        coefficients[i, k] = weight * (1 + RELATIVE)
        columns.append(((run() - base) / climate.noise)[kept] / (RELATIVE * weight))
        coefficients[i, k] = weight
    step = torch.linalg.lstsq(torch.stack(columns, dim=1), residual[kept][:, None]).solution[:, 0]
    for (i, k), change in zip(active, step.tolist(), strict=True):
        coefficients[i, k] += share * change
