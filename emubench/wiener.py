"""The start of a forecast in closed form: the linear estimate of least error from a window of noisy samples.

Wiener 1949 (doi:10.7551/mitpress/2946.001.0001): with the covariance C(τ) of the signal at lag τ and noise of variance
σ², the estimate of the last state is G y with G = c (C + σ²)⁻¹, c the covariance of that state with the window's. What
is estimated from data is C + σ² at lag 0 and C at the others; nothing is trained.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn


def lagged_covariances(series: Complex[Tensor, "K B T D"], length: int) -> list[Complex[Tensor, "K D D"]]:
    """Means of ``z(t + τ) z(t)ᴴ`` over times and cases, for τ = 0 … ``length`` − 1."""
    n = series.shape[2]
    return [
        torch.einsum("kbtd,kbte->kde", series[:, :, lag:], series[:, :, : n - lag].conj())
        / (series.shape[1] * (n - lag))
        for lag in range(length)
    ]


def gain(series: Complex[Tensor, "K B T D"], noise: float, length: int) -> Complex[Tensor, "K D L*D"]:
    """``G`` for each of K independent series of D components, of noise variance ``noise`` per component."""
    lags = lagged_covariances(series, length)

    def block(i: int, j: int) -> Tensor:
        return lags[i - j] if i >= j else lags[j - i].mH

    rows = [torch.cat([block(i, j) for j in range(length)], dim=-1) for i in range(length)]
    observed = torch.cat(rows, dim=-2)
    eye = torch.eye(observed.shape[-1], dtype=observed.dtype)
    cross = (observed - noise * eye)[:, -series.shape[-1] :]
    return torch.linalg.solve(observed + 1e-12 * eye, cross, left=False).resolve_conj()


class WienerStart(nn.Module):
    """The linear estimate of the last state of a window, fully observed; on rings Fourier mode by mode.

    Of a ring the modes are independent, for its statistics are the same everywhere; off rings all components are joint.
    """

    weights: Tensor

    def __init__(self, length: int, n: int, ring: bool) -> None:
        super().__init__()
        self.length, self.n, self.ring = length, n, ring
        shape = (n // 2 + 1, 1, length, 2) if ring else (1, n, length * n, 2)
        self.register_buffer("weights", torch.zeros(shape))

    def series(self, fields: Float[Tensor, "B T N"]) -> Complex[Tensor, "K B T D"]:
        """Independent series: the modes of a ring, or one of all components; of white noise all have its variance."""
        if self.ring:
            return torch.fft.rfft(fields, norm="ortho").movedim(-1, 0)[..., None]
        return torch.complex(fields, torch.zeros_like(fields))[None]

    def fit(self, fields: Float[Tensor, "B T N"], noise: float) -> None:
        """Take the covariances from noisy fields whose noise has the variance ``noise``."""
        self.weights.copy_(torch.view_as_real(gain(self.series(fields.double()), noise, self.length)))

    def forward(self, window: Float[Tensor, "B L N"]) -> Float[Tensor, "B N"]:
        """Estimate the state at the window's last sample; what is not observed counts as the mean."""
        series = self.series(torch.nan_to_num(window)).flatten(2)
        state = torch.einsum("kdl,kbl->kbd", torch.view_as_complex(self.weights).to(series), series)
        return torch.fft.irfft(state[..., 0].T, n=self.n, norm="ortho") if self.ring else state[0].real
