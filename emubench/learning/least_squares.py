"""Ridge regression without loss of digits, block by block; and smoothing by local cubics."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError


def triangular_factor(blocks: Iterable[Float[Tensor, "R Q"]]) -> Float[Tensor, "P Q"]:
    """Triangular factor of rows [features, what follows], given block by block, divided by √(number of rows).

    Its columns give the same least squares as the rows themselves; normal equations would lose half of the digits.
    """
    factor, count = torch.zeros(0), 0
    for rows in blocks:
        factor = torch.linalg.qr(torch.cat([factor, rows]) if count else rows, mode="r").R
        count += len(rows)
    if not count:
        raise EmubenchError("nothing to fit: no place is observed all over")
    return factor / count**0.5


def solve_factor(factor: Float[Tensor, "P Q"], prior: Float[Tensor, "F K"], ridge: float) -> Float[Tensor, "F K"]:
    """Least squares with the penalty ridge · Σ (mean square of a feature) · (weight − prior)²."""
    size = len(prior)
    left, right = factor[:, :size], factor[:, size:] - factor[:, :size] @ prior
    scale = left.norm(dim=0).clamp(min=1e-300)
    left = torch.cat([left / scale, ridge**0.5 * torch.eye(size, dtype=factor.dtype, device=factor.device)])
    right = torch.cat([right, right.new_zeros(size, right.shape[1])])
    q, r = torch.linalg.qr(left)
    return prior + torch.linalg.solve_triangular(r, q.T @ right, upper=True) / scale[:, None]


def solve_moments(
    gram: Float[Tensor, "F F"], moment: Float[Tensor, "F K"], prior: Float[Tensor, "F K"], ridge: float
) -> Float[Tensor, "F K"]:
    """Least squares as in :func:`solve_factor`, from the means of f fᵀ and f yᵀ.

    Noise may have made the first slightly indefinite.
    """
    scale = gram.diagonal().clamp(min=1e-12 * float(gram.diagonal().max())).sqrt()
    shrunk = gram / scale / scale[:, None] + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return prior + torch.linalg.solve(shrunk, (moment - gram @ prior) / scale[:, None]) / scale[:, None]


def cubic_weights(half_width: int) -> Float[Tensor, " L"]:
    """Weights of the middle of a cubic fitted to 2 ``half_width`` + 1 samples (Savitzky–Golay smoothing)."""
    t = torch.arange(-half_width, half_width + 1, dtype=torch.float64)
    return torch.linalg.pinv(torch.stack([t**k for k in range(4)], dim=1))[0]


def local_cubic(series: Float[Tensor, "B T N"], half_width: int) -> Float[Tensor, "B T2 N"]:
    """The middle of a cubic fitted to every stretch of 2 ``half_width`` + 1 samples."""
    weights = cubic_weights(half_width).to(series.device)
    return torch.einsum("btnl,l->btn", series.unfold(1, 2 * half_width + 1, 1), weights)
