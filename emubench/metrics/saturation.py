"""The saturated interface: width, slope spectrum, skewness and kurtosis of 512 runs from stationary states.

The stationary measure is exact: independent Gaussian slopes of variance A = D/(ν dx), constrained to sum to zero. So
W² = ⟨(h − h̄)²⟩ is (D/ν)(N² − 1)dx/(12 N), the power of the slopes is A N in every Fourier mode 1 … N/2, and h − h̄ is
Gaussian. Averaged over 256, 512, 768 and 1024 samples after the context; ``width_ratio`` also at each of them:

- ``width_ratio``: W² over its exact value, 1 at best; its standard error is 1.4 % with 512 cases;
- ``slope_spectrum_distance``: mean |ln(power/(A N))| over octaves of modes (1, 2–3, 4–7 …), 0 at best;
- ``width_skewness``, ``width_excess_kurtosis`` of h − h̄, 0 and 0 at best.

A case that has failed (not finite, or further than 10 W from the ring's mean) counts as h − h̄ = ±10 W, white in space.
Not ranked: an ensemble too narrow and one too wide are both wrong. It can't see time, nor sites together beyond pairs.
Kardar, Parisi & Zhang 1986, doi:10.1103/PhysRevLett.56.889.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.tasks import WIDTH_LEADS, Task
from emubench.metrics import LOST, POSITIVE, Bounds, Row, Summary, Truth, lead_rows

split = "widths"
WIDTHS: Bounds = (0.0, LOST**2)


def applies(task: Task) -> bool:
    """Growing interfaces that know their stationary width."""
    return "widths" in task.splits


def octaves(power: Float[Tensor, "... K"]) -> Float[Tensor, "... O"]:
    """Mean over the modes 1, 2–3, 4–7 …, the last one up to the end."""
    edges = [2**i - 1 for i in range((power.shape[-1] + 1).bit_length() - 1)] + [power.shape[-1]]
    if len(edges) > 2 and edges[-1] - edges[-2] < edges[-2] - edges[-3]:
        del edges[-2]  # the rest of an octave joins the one before
    return torch.stack([power[..., a:b].mean(-1) for a, b in zip(edges[:-1], edges[1:], strict=True)], dim=-1)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Moments of h − h̄ and the power of the slopes, in units of their exact values."""
    system = truth.task.system
    width, n = system.saturated_width_squared, truth.task.shape[0]  # type: ignore[attr-defined]
    h = forecast[0].double()
    x = (h - h.mean(-1, keepdim=True)) / width**0.5
    failed = (~(x.abs() <= LOST).all(-1)).cumsum(1) > 0
    x, worst = torch.where(failed[..., None], 0.0, x), {2: LOST**2, 3: 0.0, 4: LOST**4}
    square, cube, fourth = (torch.where(failed, w, (x**p).mean(-1)) for p, w in worst.items())
    sound = torch.where(failed[..., None], 0.0, h)
    slopes = torch.fft.rfft(sound.roll(-1, -1) - sound).abs() ** 2
    slopes /= n * system.slope_variance * system.dx**2  # type: ignore[attr-defined]
    power = torch.where(failed[..., None], LOST**2, octaves(slopes[..., 1:])).mean(1)

    def finish(mean: Tensor) -> Tensor:
        k = square.shape[1]
        m2, m3, m4 = mean[..., :k].mean(-1).clamp(min=1e-12), mean[..., k], mean[..., k + 1]
        spectrum = mean[..., k + 2 :].clamp(min=1e-12).log().abs().mean(-1)
        whole = torch.stack([m2, spectrum, m3 / m2**1.5, m4 / m2**2 - 3], dim=-1)
        return torch.cat([whole, mean[..., :k]], dim=-1)

    ratios = lead_rows("width_ratio", truth.task, (None, *WIDTH_LEADS), "1", 0, WIDTHS)
    shapes = Row("width_skewness", None, "1"), Row("width_excess_kurtosis", None, "1", 0, (-3.0, math.inf))
    rows = ratios[0], Row("slope_spectrum_distance", None, "1", 0, POSITIVE), *shapes, *ratios[1:]
    columns = [square, cube.mean(1, keepdim=True), fourth.mean(1, keepdim=True), power]
    return Summary(torch.cat(columns, dim=1), rows, finish)
