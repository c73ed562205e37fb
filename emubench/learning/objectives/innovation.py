"""Innovations of a learned growth law: a spectrum from the residuals of one sample, then from the law's own climate.

Residuals leave the amplitude of long waves open: these live for hundreds of samples, and an error of the conditional
mean that no forecast of a few samples shows adds up in them. With innovations fitted to residuals alone W² came out at
0.8 of the truth's on kpz-noisy. What settles it is that slopes far apart are independent, in the data and in the model:
then height differences grow like a random walk's, and their variance over a few sites, which any data show well, is
also that of long waves.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.dataset import Observations
from emubench.learning.models.flow import LearnedFlow
from emubench.learning.rings import pair_spectrum

APART = 8
"""Sites between heights whose differences are a random walk's; waves at least as long are calibrated."""
RUNS, RELAXATION = 128, (2.0, 1.5, 1.0, 0.5)
"""Runs of the model at a time; powers of the spectra's ratio by which its innovations are scaled, one after the other:
the nonlinear term adds noise of its own, so that a factor on the innovations moves the slow waves by its root only."""
LARGEST_FACTOR, ASTRAY = 4.0, 100.0
"""Largest factor of one round; where the spectra differ by more than the latter, the flow has no climate to compare."""


@torch.no_grad()
def fit_innovation(
    flow: LearnedFlow, pool: Tensor, data: Observations, generator: torch.Generator, fewer: int = 1
) -> None:
    """Standard deviation of the innovation of each spatial mode, in σ, from ``RUNS / fewer`` runs at a time.

    First from the one-step residuals over observed pairs of sites, less the observation noise; then that of long waves
    is scaled until the climate of the flow has the data's slope spectrum. A flow that diverges keeps what it has.
    """
    sample = pool[:: max(1, len(pool) // 4096)]
    residual = sample[:, flow.window] - flow.advance(flow.encode(sample[:, : flow.window]))
    noise = float((data.noise_std / data.std).square().mean())
    flow.innovation.copy_((pair_spectrum(residual) - noise).clamp(min=0).sqrt())
    later = flow.normalised(data.train[:, data.train.shape[1] // 2 :])
    target = slope_variance(later, noise)
    for power in RELAXATION:
        slopes = slope_spectrum(flow, data, generator, RUNS // fewer)[1 : 1 + max(4, flow.n // APART)]
        ratio = target / slopes
        if not bool((ratio > 1 / ASTRAY).all() and (ratio < ASTRAY).all()):  # false for NaN
            return
        factor = smooth(ratio.log()).exp() ** power
        flow.innovation[1 : 1 + len(factor)] *= factor.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR).sqrt().float()


def slope_variance(heights: Float[Tensor, "... N"], noise: float) -> float:
    """Variance of independent slopes on a ring that makes the height differences observed ``APART`` sites apart.

    Their variance is then A r (1 − r/N), to which observation noise of variance ``noise`` adds twice that. Differences
    neither know the mean height nor let long waves, which dwarf all others, leak through gaps.
    """
    n = heights.shape[-1]
    differences = (heights.roll(-APART, -1) - heights).double()
    return float((differences.square().nanmean() - 2 * noise) / (APART * (1 - APART / n)))


def slope_spectrum(flow: LearnedFlow, data: Observations, generator: torch.Generator, runs: int) -> Float[Tensor, " K"]:
    """Power spectrum of the slopes of runs from the beginnings of the training data, over their later halves."""
    trajectories, length = data.train.shape[:2]
    copies = max(1, runs // trajectories)
    state = flow.start(data.train[:, : flow.window].repeat(copies, 1, 1), 1, generator)
    spectra = []
    for t in range(flow.window, length):
        state = flow.step(state, generator)
        if (t >= length // 2 and t % 8 == 0) or (t == length - 1 and not spectra):
            spectra.append(pair_spectrum((state[0].roll(-1, -1) - state[0]).double()))
    return torch.stack(spectra).mean(0)


def smooth(values: Float[Tensor, " J"]) -> Float[Tensor, " J"]:
    """Least squares of modes 1 … J by a + b √j + c j, weighted by j^1.5.

    A wave lives for a time ∝ j^−1.5, so many independent ones a run has.
    """
    j = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    columns, root = torch.stack([torch.ones_like(j), j.sqrt(), j], -1), j**0.75
    return columns @ torch.linalg.lstsq(root[:, None] * columns, (root * values)[:, None]).solution[:, 0]
