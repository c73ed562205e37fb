"""Innovations of a learned growth law: a spectrum from the residuals of one sample, then from the law's own climate.

Residuals leave the amplitude of long waves open: these live for hundreds of samples, and an error of the conditional
mean that no forecast of a few samples shows adds up in them. With innovations fitted to residuals alone W² came out at
0.8 of the truth's on kpz-noisy. That slopes a few sites apart look alike in the model and in the data settles it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.dataset import Observations
from emubench.flows import LearnedFlow
from emubench.networks import pair_spectrum

RUNS, RELAXATION = 128, (2.0, 1.5, 1.0, 0.5)
"""Runs of the model at a time; powers of the spectra's ratio by which its innovations are scaled, one after the other:
the nonlinear term adds noise of its own, so that a factor on the innovations moves the slow waves by its root only."""
LARGEST_GAIN, ASTRAY = 4.0, 100.0
"""Of one round; where the spectra differ by more than the latter, the flow has no climate to compare."""


@torch.no_grad()
def fit_innovation(flow: LearnedFlow, pool: Tensor, data: Observations, generator: torch.Generator) -> None:
    """Standard deviation of the innovation of each spatial mode, in σ.

    First from the one-step residuals over observed pairs of sites, less the observation noise; then the lowest eighth
    of the modes is scaled until the climate of the flow has the data's slope spectrum. A flow that diverges keeps
    what it has.
    """
    sample = pool[:: max(1, len(pool) // 4096)]
    residual = sample[:, flow.window] - flow.advance(flow.encode(sample[:, : flow.window]))
    noise = float((data.noise_std / data.std).square().mean())
    flow.innovation.copy_((pair_spectrum(residual) - noise).clamp(min=0).sqrt())
    low = slice(1, 1 + max(4, flow.n // 8))
    later = flow.normalised(data.train[:, data.train.shape[1] // 2 :]).double()
    target = fitted(height_spectrum(later, noise)[low], (0, 2), slopes=flow.n)
    for power in RELAXATION:
        ratio = target / climate_spectrum(flow, data, generator)[low]
        if not bool((ratio > 1 / ASTRAY).all() and (ratio < ASTRAY).all()):  # false for NaN
            return
        gain = fitted(ratio.log(), (0, 0.5, 1)).exp() ** power
        flow.innovation[low] *= gain.clamp(1 / LARGEST_GAIN, LARGEST_GAIN).sqrt().float()


def height_spectrum(heights: Float[Tensor, "... N"], noise: float = 0.0) -> Float[Tensor, " K"]:
    """Power spectrum (per site) of heights, from the squares of differences between the sites observed together.

    Differences don't know the mean height, and long waves, which dwarf all others, leak less through gaps into them
    than into products. Mode 0 is left at 0; ``noise`` is the variance of the observations' noise.
    """
    level = heights - heights.nanmean(-1, keepdim=True)
    seen = (~torch.isnan(level)).flatten(0, -2).to(level.dtype)
    values, n = torch.nan_to_num(level).flatten(0, -2), heights.shape[-1]
    v, s, square = (torch.fft.rfft(u) for u in (values, seen, values**2))
    pairs, products, squares = (
        torch.fft.irfft(u.sum(0), n=n) for u in (s.abs() ** 2, v.abs() ** 2, (square.conj() * s).real)
    )
    differences = 2 * (squares - products) / pairs.round().clamp(min=1) - 2 * noise
    differences[0] = 0
    spectrum = -torch.fft.rfft(differences).real / 2
    spectrum[0] = 0
    return spectrum


def fitted(values: Float[Tensor, " J"], powers: tuple[float, ...], slopes: int = 0) -> Float[Tensor, " J"]:
    """Least squares of modes 1 … J by the given powers of the mode, of a spectrum on ``slopes`` sites in its slopes.

    Weights are j^1.5: a wave lives for a time ∝ j^−1.5, so many independent ones a run has.
    """
    j = torch.arange(1, len(values) + 1, dtype=torch.float64)
    steepness = (2 * torch.sin(torch.pi * j / slopes)) ** 2 if slopes else torch.ones_like(j)
    root = j**0.75
    columns = torch.stack([j**p for p in powers], -1)
    weights = torch.linalg.lstsq(root[:, None] * columns, (root * values * steepness)[:, None]).solution
    return (columns @ weights)[:, 0] / steepness


def climate_spectrum(flow: LearnedFlow, data: Observations, generator: torch.Generator) -> Float[Tensor, " K"]:
    """Power spectrum of the heights in σ, of runs from the beginnings of the training data, over their later halves."""
    trajectories, length = data.train.shape[:2]
    copies = max(1, RUNS // trajectories)
    state = flow.start(data.train[:, : flow.window].repeat(copies, 1, 1), 1, generator)
    spectra = []
    for t in range(flow.window, length):
        state = flow.step(state, generator)
        if t >= length // 2 and t % 8 == 0:
            spectra.append(height_spectrum(state[0].double()))
    return torch.stack(spectra).mean(0)
