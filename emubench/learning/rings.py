"""Second moments of gappy fields on rings, and the linear maps of each Fourier mode that they give.

They come from pairs of sites that were observed: gaps cost data and no bias.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emubench.learning.training.descent import fill_gaps


def pair_covariances(fields: Tensor, n_lags: int, smooth: Tensor, max_snapshots: int = 8192) -> Tensor:
    """C_τ(Δx), the mean of u(x, t) u(x + Δx, t + τ) over observed pairs: fields ``"B T N"``, NaN gaps → ``"τ N"``.

    Mean square − half the mean squared difference of the pairs (a variogram, as in geostatistics), smoothed over Δx by
    the matrix ``smooth``: without gaps and smoothing this is the mean product. All lags share their first times t.
    """
    values, seen = fill_gaps(fields)
    span = fields.shape[1] - n_lags + 1
    first = torch.arange(0, span, max(1, len(fields) * span // max_snapshots))
    modes, square_modes, seen_modes = (torch.fft.rfft(v) for v in (values, values**2, seen))
    mean_squares = (values**2).sum((0, 2)) / seen.sum((0, 2)).clamp(min=1)

    def correlate(u: Tensor, v: Tensor, lag: int) -> Tensor:
        return torch.fft.irfft((u[:, first].conj() * v[:, first + lag]).sum((0, 1)), n=fields.shape[-1])

    covariances = []
    for lag in range(n_lags):
        pairs = correlate(seen_modes, seen_modes, lag).round().clamp(min=1)
        squares = correlate(square_modes, seen_modes, lag) + correlate(seen_modes, square_modes, lag)
        half_squared_difference = (squares / 2 - correlate(modes, modes, lag)) / pairs
        mean_square = (mean_squares[first].mean() + mean_squares[first + lag].mean()) / 2
        covariances.append(mean_square - smooth @ half_squared_difference)
    return torch.stack(covariances)


def smoothing(n_sites: int, share: float) -> Tensor:
    """Gaussian averages over distances Δx of width ``share`` · |Δx| on the ring; the identity for ``share`` = 0.

    Each distance is met by other pairs of sites, so that with gaps the large scales of a rough interface would leak
    into its small ones.
    """
    if share == 0:
        return torch.eye(n_sites, dtype=torch.float64)
    x = torch.arange(n_sites, dtype=torch.float64)
    distance = torch.minimum(x, n_sites - x)
    apart = (x[:, None] - x).abs()
    apart = torch.minimum(apart, n_sites - apart)
    weights = torch.exp(-0.5 * (apart / (share * distance + 0.05)[:, None]) ** 2)
    return weights / weights.sum(1, keepdim=True)


def window_gram(lags: Tensor) -> Tensor:
    """Covariance of the window's modes ``"K d d"`` (oldest first) from lag covariances ``"d N"``, made semi-definite.

    Entry (i, j) is the mean of conj(x_i) x_j; gaps in the data can leave the raw estimate slightly indefinite.
    """
    hat, d = torch.fft.rfft(lags), len(lags)
    rows = [torch.stack([hat[j - i] if j >= i else hat[i - j].conj() for j in range(d)]) for i in range(d)]
    values, vectors = torch.linalg.eigh(torch.stack(rows).movedim(-1, 0))
    return (vectors * values.clamp(min=0)[:, None]) @ vectors.mH


def regress(gram: Tensor, moment: Tensor, ridge: float, noise: Tensor) -> Tensor:
    """Coefficients a with (G + ridge · (power + noise²) · I) a = c per mode: ``"K d d", "K d" → "d K"``."""
    power = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    # a mode without power gets no forecast; the ring's peak power keeps its matrix invertible
    strength = ridge * (power + noise**2) + 1e-14 * power.max()
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype) * strength[:, None, None]
    return torch.linalg.solve(gram + eye, moment[..., None])[..., 0].T


def stabilised(coefficients: Tensor) -> Tensor:
    """Per-mode maps ``"d K"`` (oldest first), those with a growing root scaled back to the unit circle."""
    d, n_modes = coefficients.shape
    companion = torch.zeros(n_modes, d, d, dtype=coefficients.dtype)
    companion[:, :-1, 1:] = torch.eye(d - 1, dtype=coefficients.dtype)
    companion[:, -1] = coefficients.T
    radius = torch.linalg.eigvals(companion).abs().amax(-1).clamp(min=1.0)
    return coefficients / radius ** torch.arange(d, 0, -1)[:, None]
