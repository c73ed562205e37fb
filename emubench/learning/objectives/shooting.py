"""Segments of multiple shooting: how long they may be, and the end of a fit to noisy data.

An encoder or a filter knows the past alone, and errors of the start bias the field: L-BFGS finishes on segments whose
starts are estimated from both sides. At first a Wiener filter estimates the states, which needs no model; then, in
turns with the fit, a fixed-lag ensemble smoother with the flow as its model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.dataset import Observations, windows
from emubench.data.tasks import Task
from emubench.learning.filters.climate_filter import SPIN_UP, ClimateFilter
from emubench.learning.filters.wiener import smoothed
from emubench.learning.gaps import masked_mse
from emubench.learning.models.flow import LARGEST, POLISHED, LearnedFlow
from emubench.learning.training.descent import Log
from emubench.learning.training.polish import polish

LONGEST = 0.3
"""Lyapunov times that a segment may last: over longer ones gradients explode and minima are many."""
HALF_WIDTH = 4
"""Samples on both sides of one that the Wiener filter sees."""
LAG = 6
"""Samples after one that the smoother sees."""
MEMBERS, INFLATION = 32, 1.2
"""Of the smoother; with less inflation it trusts a model that is not yet right, and confirms it."""
Estimate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""States of trajectories ``"B T D"`` and the observations of the same samples, in σ."""


def longest_segment(task: Task) -> int:
    """Samples in 0.3 Lyapunov times, at least 1 (systems without a Lyapunov time: 1)."""
    return 1 if task.system.growing else max(1, int(LONGEST / task.lead_time_step))


def by_wiener(flow: LearnedFlow, noise: Float[Tensor, " D"]) -> Estimate:
    """Linear estimates from the data's own second moments."""

    def estimate(observed: Tensor) -> tuple[Tensor, Tensor]:
        return smoothed(observed, noise, HALF_WIDTH, flow.ring)[0], observed[:, HALF_WIDTH:-HALF_WIDTH]

    return estimate


def by_flow(flow: LearnedFlow, noise: Float[Tensor, " D"], generator: torch.Generator) -> Estimate:
    """Estimates of a fixed-lag smoother; its first members are drawn from Wiener estimates."""

    def advance(ensemble: Float[Tensor, "M B D"]) -> Tensor:
        states = flow.unroll(flow.limit(ensemble.flatten(0, 1).float()), 1)[:, 0]
        return torch.nan_to_num(states).clamp(-LARGEST, LARGEST).double().view(ensemble.shape)

    def estimate(observed: Tensor) -> tuple[Tensor, Tensor]:
        climate = ClimateFilter(flow.n, list(range(flow.n)), MEMBERS, INFLATION)
        climate.noise.copy_(noise)
        climate.set_first(by_wiener(flow, noise)(observed)[0].flatten(0, 1), generator)
        first = min(SPIN_UP, observed.shape[1] // 4)
        states = climate.smoothed(advance, observed, LAG)[:, first:]
        return states, observed[:, first : first + states.shape[1]]

    return estimate


def polish_segments(
    flow: LearnedFlow, data: Observations, horizon: int, n_iterations: int, generator: torch.Generator, log: Log,
    rounds: int = 0,
) -> None:  # fmt: skip
    """Finish the field's fit on segments of ``horizon`` samples from Wiener estimates, then ``rounds`` times from the
    smoother's; ``n_iterations`` each.
    """
    noise = (data.noise_std / data.std).double()
    if flow.encoder is not None:
        flow.encoder.requires_grad_(False)
    for i in range(1 + rounds):
        estimate = by_flow(flow, noise, generator) if i else by_wiener(flow, noise)
        pools = [segments(flow, part, estimate, horizon, generator) for part in (data.train, data.validation)]

        def loss(pool: Tensor) -> Tensor:
            start, targets = flow.limit(pool[:, 0, : flow.n]), pool[:, 1:, flow.n :]
            return masked_mse(flow.unroll(start, horizon), targets)

        polish(flow, lambda: loss(pools[0]), lambda: loss(pools[1]), n_iterations, log)  # noqa: B023


@torch.no_grad()
def segments(
    flow: LearnedFlow, part: Tensor, estimate: Estimate, horizon: int, generator: torch.Generator
) -> Float[Tensor, "P L E"]:
    """A draw of segments, states beside observations: ``POLISHED`` of them, on rings 16 sites for each of these.

    Of no more trajectories than hold so many end to end: estimates cost more than the draw.
    """
    n = 16 * POLISHED // flow.n if flow.ring else POLISHED
    few = math.ceil(n / max(1, part.shape[1] // (1 + horizon)))
    part = part[torch.randperm(len(part), generator=generator)[:few]]
    pool = windows(torch.cat(estimate(flow.normalised(part).double()), -1).float(), 1 + horizon)
    return pool[torch.randperm(len(pool), generator=generator)[:n]]
