"""The best linear estimate of the states behind noisy, gappy trajectories, from their own second moments.

A Wiener filter: the Gaussian conditional mean of the state at a sample given the observations within a few samples
before and after it, with covariances C(Δt) averaged over the pairs that were observed, on rings also over all sites
(Wiener 1949; Rybicki & Press 1992, doi:10.1086/171845). No model of the dynamics, and no derivative of noise.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.learning.gaps import fill_gaps

NOISE_FLOOR = 1e-4
"""Standard deviation that even noise-free data are taken to have, in their units: keeps the covariances invertible."""


def lag_covariances(values: Float[Tensor, "B T S"], n_lags: int, ring: bool) -> Float[Tensor, "L S S"]:
    """C(τ)ᵢⱼ, the mean of uᵢ(t) uⱼ(t + τ) over the observed pairs (NaN = not observed), τ = 0 … n_lags − 1.

    On rings it depends on j − i alone, and is averaged over i.
    """
    n, length = values.shape[-1], values.shape[1]
    (filled, seen), covariances = fill_gaps(values), []
    for lag in range(n_lags):
        early, late = slice(0, length - lag), slice(lag, length)
        if ring:
            sums, pairs = (
                torch.fft.irfft((torch.fft.rfft(v[:, early]).conj() * torch.fft.rfft(v[:, late])).sum((0, 1)), n=n)
                for v in (filled, seen)
            )
            row = sums / pairs.round().clamp(min=1)
            covariances.append(torch.stack([row.roll(i) for i in range(n)]))
        else:
            sums, pairs = (torch.einsum("bti,btj->ij", v[:, early], v[:, late]) for v in (filled, seen))
            covariances.append(sums / pairs.clamp(min=1))
    return torch.stack(covariances)


def window_covariance(covariances: Float[Tensor, "L S S"], noise: Float[Tensor, " S"]) -> Float[Tensor, "D D"]:
    """Covariance of L noise-free samples on end, oldest first, from that of noisy ones.

    Gaps in the data make the estimate slightly indefinite: the nearest positive semidefinite matrix is taken.
    """
    n = len(covariances)
    rows = [[covariances[j - i] if j >= i else covariances[i - j].T for j in range(n)] for i in range(n)]
    joint = torch.cat([torch.cat(row, dim=1) for row in rows]) - noise.square().repeat(n).diag()
    values, vectors = torch.linalg.eigh((joint + joint.T) / 2)
    return (vectors * values.clamp(min=0)) @ vectors.T


def wiener_gain(
    joint: Float[Tensor, "D D"], noise: Float[Tensor, " S"], seen: Tensor
) -> tuple[Float[Tensor, "C S"], Float[Tensor, " S"]]:
    """Weights of the observed components of a window for the state at its middle, and the variance that stays.

    ``joint`` is the window's covariance; ``seen`` says which components are observed, in all samples alike.
    """
    n, n_samples = len(noise), len(joint) // len(noise)
    observed, middle = seen.repeat(n_samples), slice(n_samples // 2 * n, (n_samples // 2 + 1) * n)
    cross = joint[observed, middle]
    variance = noise.square().clamp(min=NOISE_FLOOR**2).repeat(n_samples)[observed]
    gain = torch.linalg.solve(joint[observed][:, observed] + variance.diag(), cross)
    return gain, (joint.diagonal()[middle] - (cross * gain).sum(0)).clamp(min=0)


def smoothed(
    values: Float[Tensor, "B T S"], noise: Float[Tensor, " S"], half_width: int, ring: bool
) -> tuple[Float[Tensor, "B T2 S"], Float[Tensor, "B S"]]:
    """Conditional means of the states, ``half_width`` samples shorter at both ends, and their variances.

    ``values`` are deviations from the mean; what is observed (not NaN) stays the same within a trajectory.
    """
    joint = window_covariance(lag_covariances(values, 2 * half_width + 1, ring), noise)
    span = values.shape[1] - 2 * half_width
    means, variances, gains = values.new_empty(len(values), span, values.shape[-1]), [], {}
    sights = ~torch.isnan(values[:, 0])
    for mean, trajectory, seen, sight in zip(means, values, sights, sights.tolist(), strict=True):
        if (key := tuple(sight)) not in gains:
            gains[key] = wiener_gain(joint, noise, seen)
        gain, left = gains[key]
        stretches = trajectory[:, seen].unfold(0, 2 * half_width + 1, 1).transpose(1, 2)
        mean[:] = stretches.flatten(1) @ gain
        variances.append(left)
    return means, torch.stack(variances)
