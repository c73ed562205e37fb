"""Finite-size growth of the difference between twin forecasts of an emulator."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.dynamics.first_passage import FirstPassage, level_crossing
from emubench.emulator import Emulator, checked_forecast


def twin_growth(
    emulator: Emulator,
    context: Float[Tensor, "B C *S"],
    std: Float[Tensor, " *S"],
    n_steps: int,
    *,
    perturbation: float = 1e-3,
    lower: float = 0.01,
    upper: float = 0.1,
    seed: int = 0,
) -> FirstPassage:
    """Time, in samples, that twin forecasts take to separate from ``lower`` to ``upper`` (in σ): finite-size growth.

    Twin contexts differ by ``perturbation`` σ times one normal vector, the same at all their samples. With the
    separation e(t) = √(mean over components of (difference/σ)²), its logarithm interpolated between samples, the time
    is that from the first crossing of ``lower`` to that of ``upper``. ln(upper/lower) over the mean is the finite-size
    Lyapunov exponent of Aurell et al. 1997, doi:10.1088/0305-4470/30/1/003; λ₁ times the mean should be about
    ln(upper/lower) while the difference is small. A forecast that is lost is a crossing of both.
    """
    if not 0 < perturbation < lower < upper:
        raise EmubenchError(
            f"growth between twins: 0 < {perturbation} < {lower} < {upper} must hold (perturbation, lower, upper)"
        )
    name = type(emulator).__name__
    noise = torch.randn(len(context), 1, *context.shape[2:], generator=torch_stream(seed), dtype=context.dtype)
    scale = std.to(context.dtype)

    def run(given: Tensor, draw: int) -> Tensor:
        forecast = checked_forecast(emulator, given, n_steps, 1, torch_stream(seed, "twins", draw))
        return forecast[0].double() / std

    first, again = run(context, 0), run(context, 1)
    if not torch.allclose(first, again, rtol=0, atol=0, equal_nan=True):
        raise EmubenchError(f"{name}: growth between twins: not available, as it is stochastic")
    difference = run(context + perturbation * scale * noise, 0) - first
    e = difference.flatten(2).square().mean(-1).sqrt()
    e = torch.where(e.isnan(), torch.inf, e).clamp(min=1e-300)
    start = perturbation * noise.double().flatten(1).square().mean(-1, keepdim=True).sqrt()
    log = (e / start).log()
    passed = [level_crossing(log, (level / start[:, 0]).log()) for level in (lower, upper)]
    never = (e <= upper).all(1)
    return FirstPassage(torch.where(never, float(n_steps), passed[1] - passed[0]), float(never.double().mean()))
