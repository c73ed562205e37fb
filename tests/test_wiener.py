"""The linear estimate of least error: closed forms, least squares on the truth, and what it may not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emubench.random import stream
from emubench.wiener import WienerStart, gain, lagged_covariances


def autoregressive(n_cases: int, n_samples: int, memory: float, n: int = 1) -> torch.Tensor:
    """Stationary series ``"B T n"`` of variance 1 whose correlation at lag τ is ``memory**τ``."""
    draws = stream(1, "autoregressive", n).standard_normal((n_cases, n_samples, n))
    values = [draws[:, 0]]
    for t in range(1, n_samples):
        values.append(memory * values[-1] + math.sqrt(1 - memory**2) * draws[:, t])
    return torch.from_numpy(np.stack(values, axis=1))


def noisy(truth: torch.Tensor, noise: float) -> torch.Tensor:
    return truth + noise * torch.from_numpy(stream(2, "noise").standard_normal(truth.shape))


def test_covariances_of_an_autoregression_are_powers_of_its_memory():
    series = autoregressive(400, 200, 0.8)
    found = lagged_covariances(series.to(torch.complex128)[None], 5)
    assert [float(c.real) for c in found] == pytest.approx([0.8**lag for lag in range(5)], abs=0.03)


def test_one_sample_is_shrunk_by_its_share_of_signal():
    """G = C/(C + σ²): the closed form of a window of one sample."""
    observed = noisy(autoregressive(500, 100, 0.5), 0.7)
    found = gain(observed.to(torch.complex128)[None], 0.49, 1)
    variance = float(observed.square().mean())
    assert complex(found).real == pytest.approx((variance - 0.49) / variance, abs=1e-6)
    assert complex(found).real == pytest.approx(1 / 1.49, abs=0.02)


def test_a_long_window_has_the_error_of_the_stationary_kalman_filter():
    """Of an autoregression the Kalman filter is known: its variance P solves a scalar Riccati equation."""
    memory, noise = 0.9, 0.5
    variance = 1.0
    for _ in range(200):
        forecast = memory**2 * variance + 1 - memory**2
        variance = forecast * noise**2 / (forecast + noise**2)
    truth = autoregressive(600, 120, memory, 2)
    observed = noisy(truth, noise)
    start = WienerStart(20, 2, ring=False).double()
    start.fit(observed, noise**2)
    error = (start(observed[:, -20:]) - truth[:, -1]).square().mean()
    assert float(error) == pytest.approx(variance, rel=0.1)
    assert float((observed[:, -1] - truth[:, -1]).square().mean()) > 1.5 * float(error)


def test_joint_components_are_as_good_as_least_squares_on_the_truth():
    """Two components of which the second repeats the first a sample later: regression that sees the truth finds no
    better weights, though these see noisy data alone."""
    driver = autoregressive(800, 61, 0.7)
    truth = torch.cat([driver[:, 1:], driver[:, :-1]], dim=-1)
    observed, length = noisy(truth, 0.4), 6
    start = WienerStart(length, 2, ring=False).double()
    start.fit(observed, 0.16)
    windows = observed.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)
    target = truth[:, length - 1 :].flatten(0, 1)
    best = torch.linalg.lstsq(windows.flatten(1), target).solution
    errors = [float((e - target).square().mean()) for e in (windows.flatten(1) @ best, start(windows))]
    assert errors[0] <= errors[1] < 1.01 * errors[0]


def ring(n: int, n_cases: int = 300, n_samples: int = 20) -> torch.Tensor:
    """Waves of the first modes that travel around a ring, each at its own pace."""
    rng = stream(3, "ring")
    x, t = 2 * math.pi * np.arange(n) / n, np.arange(n_samples)
    fields = np.zeros((n_cases, n_samples, n))
    for k in (1, 2, 3):
        phase = rng.uniform(0, 2 * math.pi, (n_cases, 1, 1))
        fields += np.cos(k * x + phase - 0.3 * k**2 * t[:, None]) / k
    return torch.from_numpy(fields)


def test_travelling_waves_are_followed_not_averaged():
    """Each mode's lagged covariance is complex: a wave of known pace is seen as often as there are samples."""
    truth = ring(32)
    observed = noisy(truth, 0.5)
    errors = []
    for length in (1, 16):
        start = WienerStart(length, 32, ring=True).double()
        start.fit(observed, 0.25)
        errors.append(float((start(observed[:, -length:]) - truth[:, -1]).square().mean()))
    assert errors[0] < 0.25 * 0.35  # of 32 modes few hold signal
    assert errors[1] < errors[0] / 6


def test_the_estimate_moves_with_the_ring():
    observed = noisy(ring(32), 0.5)
    start = WienerStart(5, 32, ring=True).double()
    start.fit(observed, 0.25)
    window = observed[:4, :5]
    assert torch.allclose(start(window.roll(9, -1)), start(window).roll(9, -1), atol=1e-12)
    assert start(window.float()).dtype == torch.float32


def test_without_noise_the_last_sample_is_the_state():
    for truth, is_ring in ((ring(16), True), (autoregressive(300, 30, 0.6, 3), False)):
        start = WienerStart(3, truth.shape[-1], is_ring).double()
        start.fit(truth + 1e-3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)), 1e-6)
        assert torch.allclose(start(truth[:, :3]), truth[:, 2], atol=2e-2)


def test_what_is_not_observed_counts_as_the_mean():
    observed = noisy(autoregressive(100, 30, 0.6, 3), 0.3)
    start = WienerStart(4, 3, ring=False).double()
    start.fit(observed, 0.09)
    window = observed[:5, :4].clone()
    window[:, 1, 2] = math.nan
    filled = torch.nan_to_num(window)
    assert torch.equal(start(window), start(filled))
    assert torch.isfinite(start(torch.full((2, 4, 3), math.nan))).all()
