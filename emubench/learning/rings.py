"""Fields on rings with gaps: values around a site, filled gaps, power spectra from the pairs of sites observed."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.data.dataset import Observations
from emubench.data.tasks import Task


def on_ring(task: Task) -> bool:
    """Whether the sites of a task form a ring; else its state is a vector of components.

    Raises :class:`EmubenchError` for a field in several dimensions, of which nothing here knows anything.
    """
    if (n := len(task.system.grid)) > 1:
        raise EmubenchError(f"{task.name}: a field in {n} dimensions, where a ring or a vector of components belongs")
    return n == 1


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
    white = sent(torch.randn(tuple(shape), generator=generator, dtype=torch.float64), spectrum.device)
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
        joint = prior[seen][:, seen]
        joint = joint + (noise**2 + 1e-9 * row[0]) * torch.eye(len(joint), dtype=fields.dtype, device=fields.device)
        filled[b] = fields[b][:, seen] @ torch.linalg.solve(joint, prior[seen])
    return filled


PARTS, SEEN, NEGLIGIBLE = 16, 4.0, 1e-6
"""Parts of the data, standard errors and share of the peak's power that tell a signal in :func:`signal_band`."""


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
    modes = torch.arange(len(power), device=power.device)
    band = (modes <= last) & (power > NEGLIGIBLE * power[peak])
    band &= (modes >= peak) | (power > 0.01 * power[peak])
    decay = float((sums.mean(0)[peak] / sums.mean(0)[last]).log()) / max(1, last - peak)
    if hidden and len(under) and decay > 0:
        band |= (modes > last) & (modes <= peak - math.log(NEGLIGIBLE) / decay)
    return band.float()
