"""Innovations of a learned growth law, on linear laws whose climate is known mode by mode."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from emubench.data import tasks
from emubench.data.dataset import Observations
from emubench.learning.models.flow import FlowConfig, LearnedFlow
from emubench.learning.objectives.innovation import fit_innovation, slope_variance, smooth

TASK = tasks.get("kpz-clean", "tiny")
N = TASK.shape[0]
K = torch.arange(N // 2 + 1, dtype=torch.float64)
STEEPNESS = (2 * torch.sin(torch.pi * K / N)) ** 2
KEPT = torch.exp(-2 * STEEPNESS**0.75)
"""What of a mode is left one sample later: long waves live long, as in kpz."""
LOW = slice(1, 1 + N // 8)


class Decaying(LearnedFlow):
    """Multiplies every mode by a known factor."""

    factors = KEPT

    def advance(self, state):
        return torch.fft.irfft(self.factors.to(state.dtype) * torch.fft.rfft(state), n=self.n)


def white(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.fft.rfft(torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64))


def observed(noise: float = 0.0, fraction: float = 1.0) -> Observations:
    """A linear growth law with independent slopes of variance 1, from its climate, on a drifting mean height."""
    spectrum = 1 / STEEPNESS.clamp(min=1e-9).sqrt() * (K > 0)
    modes = spectrum * white((64, N))
    states = []
    for kick in white((400, 64, N)):
        modes = KEPT * modes + (1 - KEPT**2).sqrt() * spectrum * kick
        states.append(torch.fft.irfft(modes, n=N))
    h = torch.stack(states, 1) + torch.arange(400)[:, None]
    generator = torch.Generator().manual_seed(0)
    h += noise * torch.randn(h.shape, generator=generator, dtype=h.dtype)
    h[torch.rand(h.shape, generator=generator) > fraction] = torch.nan
    unit = torch.ones(N, dtype=torch.float64)
    return Observations(TASK, "0", "", h[:48], h[48:], {}, noise * unit, unit, 0 * unit)


def fit(data: Observations, factors: torch.Tensor) -> torch.Tensor:
    """Slope spectrum of the climate of a law that keeps ``factors`` of every mode, with innovations fitted to data."""
    flow = Decaying(TASK, FlowConfig(width=8))
    flow.factors = factors
    fit_innovation(flow, flow.pool(data.train, 2), data, torch.Generator().manual_seed(1))
    return STEEPNESS[1:] * flow.innovation.double()[1:] ** 2 / (1 - factors[1:] ** 2)


def test_the_true_law_gets_the_true_innovations():
    assert fit(observed(), KEPT)[: N // 8].numpy() == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("bias", [0.7, 1.4])
def test_a_law_that_damps_long_waves_wrongly_has_their_amplitude_all_the_same(bias):
    """Residuals alone give nearly the same innovations, and so a climate off by a factor of about 1/bias."""
    wrong = KEPT ** (1 + (bias - 1) * torch.exp(-K / 8))
    by_residuals = (1 - KEPT**2 + (KEPT - wrong) ** 2) / (1 - wrong**2)
    assert abs(float(by_residuals[1].log())) > 0.25
    assert fit(observed(), wrong)[: N // 8].numpy() == pytest.approx(1.0, abs=0.1)


def test_gaps_and_noise_do_not_matter():
    """Clean starts of a noisy law: what is observed differs, the climate asked for does not."""
    data = observed(0.3, 0.5)
    wrong = KEPT ** (1 + 0.4 * torch.exp(-K / 8))
    whole = dataclasses.replace(data, train=observed().train)
    flow = Decaying(TASK, FlowConfig(width=8))
    flow.factors = wrong
    flow.encode = lambda window: torch.nan_to_num(window[:, -1] - window[:, -1].nanmean(-1, keepdim=True))
    fit_innovation(flow, flow.pool(whole.train, 2), data, torch.Generator().manual_seed(1))
    found = STEEPNESS[1:] * flow.innovation.double()[1:] ** 2 / (1 - wrong[1:] ** 2)
    assert found[: N // 8].numpy() == pytest.approx(1.0, abs=0.15)


def test_a_law_that_diverges_keeps_what_its_residuals_say():
    data = observed()
    growing = 1.5 * torch.ones_like(K)
    flow = Decaying(TASK, FlowConfig(width=8))
    flow.factors = growing
    fit_innovation(flow, flow.pool(data.train, 2), data, torch.Generator().manual_seed(1))
    assert bool(torch.isfinite(flow.innovation).all())
    expected = ((1 - KEPT**2) + (KEPT - growing) ** 2) / STEEPNESS.clamp(min=1e-9)
    assert (flow.innovation.double() ** 2 / expected)[LOW].numpy() == pytest.approx(1.0, rel=0.4)


def test_the_variance_of_slopes_is_found_through_noise_and_gaps():
    """One run of 256 samples of which the same half of the sites is seen."""
    h = observed().train[:1, :256]
    gappy = torch.where(torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.5, h, torch.nan)
    gappy = gappy + 0.3 * torch.randn(h.shape, generator=torch.Generator().manual_seed(4), dtype=h.dtype)
    assert slope_variance(gappy, 0.09) == pytest.approx(slope_variance(h, 0.0), abs=0.1)
    assert slope_variance(observed().train, 0.0) == pytest.approx(1.0, abs=0.02)


def test_smooth_keeps_what_has_its_own_form():
    j = torch.arange(1, 17, dtype=torch.float64)
    assert smooth(0.3 - 0.1 * j.sqrt() + 0.002 * j).allclose(0.3 - 0.1 * j.sqrt() + 0.002 * j)
