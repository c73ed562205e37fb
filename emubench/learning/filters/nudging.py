"""Nudging: a model with a memory follows noisy, gappy observations, its forecasts moved towards them by a fixed gain.

The cheapest assimilation there is: no ensemble, no covariances (Hoke & Anthes 1976,
doi:10.1175/1520-0493(1976)104<1551:TIONMB>2.0.CO;2, in continuous time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.learning.rings import interpolate_ring, pair_spectrum

Model = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Memory and values ``"B N"`` to both, one sample later."""


def nudged(
    model: Model, memory: Tensor, seen: Float[Tensor, "B T N"], gain: float | Tensor, ring: bool, growing: bool
) -> Iterator[tuple[Tensor, Float[Tensor, "B N"]]]:
    """Memory and values at every sample: v = forecast + ``gain`` · (seen − forecast), the forecast where NaN is seen.

    Before anything of a case was seen its values are zero: the mean, or the flat start of a ``growing`` height. The
    first sample that is seen is taken as it is, its gaps filled by :func:`first_guess`.
    """
    forecast = torch.zeros_like(seen[:, 0])
    begun = torch.zeros_like(forecast[:, :1], dtype=torch.bool)
    for now in seen.unbind(1):
        sight = ~torch.isnan(now)
        values = forecast + gain * torch.where(sight, now - forecast, 0.0)
        if not begun.all():
            values = torch.where(begun, values, first_guess(now, ring, growing))
            begun = begun | sight.any(-1, keepdim=True)
        yield memory, values
        memory, forecast = model(memory, values)


def first_guess(sample: Float[Tensor, "B N"], ring: bool, growing: bool) -> Float[Tensor, "B N"]:
    """``sample`` with its gaps filled: on rings linearly between neighbours, else by zero; nothing seen gives zeros.

    Of a ``growing`` height the gaps are filled about its own level.

    >>> nan = float("nan")
    >>> first_guess(torch.tensor([[1.0, nan, 3.0, nan], [nan] * 4]), ring=True, growing=False).tolist()
    [[1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    """
    level = sample.nanmean(-1, keepdim=True) if growing else torch.zeros_like(sample[:, :1])
    filled = interpolate_ring(sample - level) if ring else torch.nan_to_num(sample)
    return filled + torch.nan_to_num(level)


def missed_spectrum(
    model: Model, driven: Iterable[tuple[tuple[Tensor, Tensor], Tensor]], noise: float
) -> Float[Tensor, " K"]:
    """Power spectrum of what forecasts of one sample miss of the next observation, less that of its white ``noise``.

    ``driven`` has memory and values at a sample, as :func:`nudged` gives them, and the observation after it.
    """
    missed = torch.stack([after - model(*now)[1] for now, after in driven])
    return (pair_spectrum(missed) - noise**2).clamp(min=0)
