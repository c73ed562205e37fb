"""The error of short forecasts of noisy validation data, by which closed-form fits choose among their candidates."""

import torch

from emubench.data.dataset import Observations, windows
from emubench.emulator import Emulator

LARGEST = 4.0
"""What a forecast's squared error, in σ², counts at most: one that is lost says no more than that."""
SHORTEST = 3
"""Samples of a trajectory of which a third is a context of one."""


@torch.no_grad()
def forecast_error(emulator: Emulator, data: Observations, context: int, horizon: float, often: int = 8) -> float:
    """Mean squared error, in σ, of forecasts from ``context`` validation samples over ``horizon`` units of lead time.

    From every ``often``-th part of a trajectory on, of the first 4 × ``often`` contexts; less of both where data are
    short. Of a growing height the spatial mean is taken off. NaN counts :data:`LARGEST`.
    """
    length = data.validation.shape[1]
    context = min(context, length // 3)
    steps = max(1, min(round(horizon / data.task.lead_time_step), length - context))
    check = windows(data.validation, context + steps, stride=max(1, length // often))[: 4 * often]
    forecast = emulator.forecast(check[:, :context], steps, 1, torch.Generator().manual_seed(0))[0]
    truth = check[:, context:]
    seen = ~torch.isnan(truth)
    if data.task.system.growing:
        forecast = forecast - forecast.mean(-1, keepdim=True)
        truth = truth - truth.nanmean(-1, keepdim=True)
    error = torch.nan_to_num(((forecast - truth) / data.std).square()[seen], nan=LARGEST)
    return float(error.clamp(max=LARGEST).mean())
