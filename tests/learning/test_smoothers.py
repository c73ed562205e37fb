"""States estimated from both sides, by the Wiener filter and by an ensemble: against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emubench.core.random import stream
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.filters.wiener import lag_covariances, smoothed


def waves(noise: float, gaps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Travelling random waves on a ring of 24 sites, and noisy, gappy observations of them."""
    rng = stream(3, "waves")
    x, t = torch.arange(24) / 24 * 2 * torch.pi, 0.2 * torch.arange(160)
    phases = torch.from_numpy(rng.uniform(0, 2 * np.pi, (64, 4, 1, 1)))
    truth = sum(torch.cos(k * x - k * t[:, None] + phases[:, k]) for k in range(1, 4))
    observed = truth + noise * torch.from_numpy(rng.standard_normal(truth.shape))
    if gaps:
        hidden = torch.from_numpy(rng.uniform(size=(64, 1, 24)) < 0.5).expand_as(observed)
        observed = torch.where(hidden, torch.nan, observed)
    return truth, observed


@pytest.mark.parametrize("gaps", [False, True])
def test_the_linear_smoother_knows_its_error_and_beats_the_data(gaps):
    truth, observed = waves(0.3, gaps)
    states, variance = smoothed(observed, torch.full((24,), 0.3, dtype=torch.float64), 3, ring=True)
    assert states.shape == (64, 154, 24)
    error = (states - truth[:, 3:-3]).square().mean(1)
    assert float(error.mean().sqrt()) < 0.15
    ratio = float(variance.mean() / error.mean())  # few pairs make the covariances, and so the variance, too large
    assert 0.8 < ratio < (2.0 if gaps else 1.4)


def test_the_linear_smoother_is_the_gaussian_conditional_mean():
    """Of an autoregressive process, whose covariances are known, against the conditional mean by the joint matrix."""
    rng, a, noise = stream(0, "ar"), 0.9, 0.5
    x = np.zeros((64, 2000))
    x[:, 0] = rng.standard_normal(64)
    for t in range(1, 2000):
        x[:, t] = a * x[:, t - 1] + math.sqrt(1 - a**2) * rng.standard_normal(64)
    truth = torch.from_numpy(x)[..., None]
    observed = truth + noise * torch.from_numpy(rng.standard_normal(truth.shape))
    covariance = torch.tensor([[a ** abs(i - j) for j in range(5)] for i in range(5)], dtype=torch.float64)
    gain = torch.linalg.solve(covariance + noise**2 * torch.eye(5, dtype=torch.float64), covariance[:, 2])
    states, variance = smoothed(observed, torch.tensor([noise], dtype=torch.float64), 2, ring=False)
    assert torch.allclose(states[..., 0], observed[..., 0].unfold(1, 5, 1) @ gain, atol=0.05)
    assert float(variance[0]) == pytest.approx(float(1 - covariance[2] @ gain), abs=0.02)


def test_lag_covariances_use_observed_pairs_only():
    _, observed = waves(0.0, True)
    truth, _ = waves(0.0, False)
    found, exact = lag_covariances(observed, 3, True), lag_covariances(truth, 3, True)
    assert float((found - exact).abs().max()) < 0.15 * float(exact[0, 0, 0])
    assert torch.allclose(exact[1, 0], exact[1, 5].roll(-5), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.0, 3.0])
def test_a_fixed_lag_smoother_is_better_than_the_filter(radius):
    """Shifted waves on a ring, a known model: later observations help; without lag it is the filter itself."""
    truth, observed = waves(0.3, False)
    components = 8 if radius else 24
    truth, observed = truth[..., :: 24 // components], observed[..., :: 24 // components]

    def advance(ensemble: torch.Tensor) -> torch.Tensor:
        hat = torch.fft.rfft(ensemble)
        return torch.fft.irfft(hat * torch.exp(-0.2j * torch.arange(hat.shape[-1])), n=ensemble.shape[-1])

    smoother = ClimateFilter(components, list(range(components)), 40, 1.02, radius)
    smoother.noise.fill_(0.3)
    smoother.set_first(truth[:, ::4].flatten(0, 1), torch.Generator().manual_seed(0))
    errors = []
    for lag in (0, 6):
        states = smoother.smoothed(advance, observed, lag)
        assert states.shape == (64, 160 - lag, components)
        errors.append(float((states - truth[:, : 160 - lag])[:, 4:40].square().mean().sqrt()))
    assert errors[1] < 0.9 * errors[0]
    plain = ClimateFilter(components, list(range(components)), 40, 1.0, radius)
    plain.noise.fill_(0.3)
    plain.first.copy_(smoother.first)
    assert torch.allclose(plain.smoothed(advance, observed, 0), plain.analyses(advance, observed), atol=1e-8)
