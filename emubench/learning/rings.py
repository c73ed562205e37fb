"""Second moments of gappy fields on rings, and the linear maps of each Fourier mode that they give.

They come from pairs of sites that were observed: gaps cost data and no bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.gaps import fill_gaps


def on_ring(task: Task) -> bool:
    """Whether the sites of a task form a ring; else its state is a vector of components.

    Raises :class:`EmubenchError` for a field in several dimensions, of which nothing here knows anything.
    """
    if (n := len(task.system.grid)) > 1:
        raise EmubenchError(f"{task.name}: a field in {n} dimensions, where a ring or a vector of components belongs")
    return n == 1


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


def neighbourhoods(x: Float[Tensor, "... N"], radius: int) -> Float[Tensor, "... N w"]:
    """For every site of a ring the values within ``radius`` of it, ``w = 2 radius + 1``.

    >>> neighbourhoods(torch.tensor([0.0, 1.0, 2.0, 3.0]), 1)[0].tolist()
    [3.0, 0.0, 1.0]
    """
    padded = torch.cat([x[..., x.shape[-1] - radius :], x, x[..., :radius]], dim=-1)
    return padded.unfold(-1, 2 * radius + 1, 1)


def correlate_ring(fields: Float[Tensor, "B C N"], kernels: Float[Tensor, "C w"]) -> Float[Tensor, "B N"]:
    """What :func:`neighbourhoods` times the kernels adds up to, without making them; w is odd.

    >>> correlate_ring(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), torch.tensor([[1.0, 10.0, 100.0]]))[0].tolist()
    [103.0, 210.0, 321.0, 32.0]
    """
    radius = kernels.shape[-1] // 2
    padded = torch.cat([fields[..., fields.shape[-1] - radius :], fields, fields[..., :radius]], dim=-1)
    return nn.functional.conv1d(padded, kernels[None])[:, 0]


def interpolate_ring(values: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
    """Fill NaN gaps linearly between the nearest observed sites of the ring; all NaN gives zeros.

    >>> interpolate_ring(torch.tensor([1.0, float("nan"), 3.0, float("nan")])).tolist()
    [1.0, 2.0, 3.0, 2.0]
    """
    n = values.shape[-1]
    seen = ~torch.isnan(values)
    index = torch.arange(3 * n, device=values.device)
    tripled = seen.repeat(*[1] * (values.ndim - 1), 3)
    before = torch.cummax(torch.where(tripled, index, -1), dim=-1).values
    after = torch.where(tripled, index, 4 * n).flip(-1).cummin(dim=-1).values.flip(-1)
    before, after = before[..., n : 2 * n], after[..., n : 2 * n]
    gap = (after - before).clamp(min=1)
    weight = (index[n : 2 * n] - before) / gap
    left, right = (torch.gather(values, -1, at % n) for at in (before, after))
    filled = torch.where(seen, values, left + weight.to(values.dtype) * (right - left))
    return torch.where(seen.any(-1, keepdim=True), filled, 0.0)


def pair_spectrum(fields: Float[Tensor, "... N"]) -> Float[Tensor, " K"]:
    """Power spectrum (per site) of fields ``"... N"`` from the pairs of sites observed together."""
    values, seen = torch.nan_to_num(fields).flatten(0, -2), (~torch.isnan(fields)).flatten(0, -2).to(fields.dtype)
    products, pairs = ((torch.fft.rfft(v).abs() ** 2).sum(0) for v in (values, seen))
    n = fields.shape[-1]
    covariance = torch.fft.irfft(products, n=n) / torch.fft.irfft(pairs, n=n).round().clamp(min=1)
    return torch.fft.rfft(covariance).real


def coloured(spectrum: Float[Tensor, " K"], shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "... N"]:
    """Gaussian fields of ``shape`` on a ring with a power spectrum (per site), as of :func:`pair_spectrum`; float64."""
    white = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    return torch.fft.irfft(spectrum.sqrt() * torch.fft.rfft(white), n=shape[-1])


def gaussian_fill(fields: Float[Tensor, "B T N"], noise: float) -> Float[Tensor, "B T N"]:
    """Gaussian conditional mean at all sites of smooth noisy fields; gaps (NaN) stay in place within a trajectory.

    Sample by sample, with the covariance of :func:`pair_spectrum` less the noise.
    """
    n, spectrum = fields.shape[-1], (pair_spectrum(fields) - noise**2).clamp(min=0)
    row = torch.fft.irfft(spectrum, n=n)
    prior = torch.stack([row.roll(i) for i in range(n)])
    filled = torch.empty_like(fields)
    for b, seen in enumerate(~torch.isnan(fields[:, 0])):
        joint = prior[seen][:, seen] + (noise**2 + 1e-9 * row[0]) * torch.eye(int(seen.sum()), dtype=fields.dtype)
        filled[b] = fields[b][:, seen] @ torch.linalg.solve(joint, prior[seen])
    return filled


PARTS, SEEN, NEGLIGIBLE = 16, 4.0, 1e-6
"""See :func:`signal_band`."""


def signal_band(fields: Float[Tensor, "B T N"], data: Observations, hidden: bool = True) -> Float[Tensor, " K"]:
    """1 for the spatial modes of a field: those with a signal, and the ``hidden`` ones that follow from its decay.

    A signal is a power above the noise's, of a mode and the three after it, by ``SEEN`` standard errors over parts of
    the data, and above 10⁻⁶ of the peak. What the noise hides goes on to decay, for smooth fields exponentially, and
    the seen modes drive it: Kuramoto–Sivashinsky itself (L = 22) is right for 3.7 Lyapunov times if it is cut off after
    8 modes, for over 7 after 11.
    """
    noise = float((data.noise_std / data.std).square().mean())
    parts = fields.chunk(PARTS) if len(fields) >= PARTS else fields.flatten(0, 1)[:, None].chunk(PARTS)
    excess = torch.stack([pair_spectrum(part.double()) for part in parts]) - noise
    power, peak = excess.mean(0), int(excess.mean(0).argmax())
    sums = nn.functional.pad(excess, (0, 3)).unfold(1, 4, 1).sum(-1)
    seen = sums.mean(0) > SEEN * sums.std(0) / len(parts) ** 0.5
    under = (~seen[peak + 1 :]).nonzero()
    last = peak + int(under[0]) if len(under) else len(power) - 1
    modes = torch.arange(len(power))
    band = (modes <= last) & (power > NEGLIGIBLE * power[peak])
    band &= (modes >= peak) | (power > 0.01 * power[peak])
    decay = float((sums.mean(0)[peak] / sums.mean(0)[last]).log()) / max(1, last - peak)
    if hidden and len(under) and decay > 0:
        band |= (modes > last) & (modes <= peak - math.log(NEGLIGIBLE) / decay)
    return band.float()
