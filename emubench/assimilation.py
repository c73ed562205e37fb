"""Ensemble Kalman filters: the start of a forecast from a noisy, partly observed context, given a model.

Two batched filters over cases: the ensemble transform filter (symmetric square root; Bishop et al. 2001,
doi:10.1175/1520-0493(2001)129<0420:ASWTET>2.0.CO;2; Hunt et al. 2007, doi:10.1016/j.physd.2006.11.008) where the
ensemble outnumbers the unstable directions, and for long rings the deterministic filter of Sakov & Oke 2008
(doi:10.1111/j.1600-0870.2007.00299.x) with covariances localised by the Gaspari–Cohn function.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Advance = Callable[[Tensor], Tensor]
"""The model over one sample interval, ``"M B *S" → "M B *S"``."""


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    """Compactly supported correlation: 1 at 0, about exp(−1/2) at ``radius``, 0 beyond 3.5 times it.

    Gaspari & Cohn 1999, doi:10.1002/qj.49712555417, with half-width radius · √(10/3).
    """
    z = distance / (radius * (10 / 3) ** 0.5)
    near = 1 - 5 / 3 * z**2 + 5 / 8 * z**3 + z**4 / 2 - z**5 / 4
    far = 4 - 5 * z + 5 / 3 * z**2 + 5 / 8 * z**3 - z**4 / 2 + z**5 / 12 - 2 / (3 * z.clamp(min=0.5))
    return torch.where(z <= 1, near, torch.where(z < 2, far, 0.0)).clamp(min=0)


def ring_localisation(n_sites: int, radius: float) -> Float[Tensor, "N N"]:
    """Gaspari–Cohn weights between the sites of a ring.

    Where their support exceeds the ring, they are summed over all ways around it, and scaled to 1 at distance 0: the
    weight of the nearest way alone would be no correlation, and make covariances indefinite.
    """
    x = torch.arange(n_sites, dtype=torch.float64)
    x = torch.minimum(x, n_sites - x)
    turns = math.ceil(2 * radius * (10 / 3) ** 0.5 / n_sites)
    ways = n_sites * torch.arange(-turns, turns + 1, dtype=torch.float64)
    weights = gaspari_cohn((x[:, None] + ways).abs(), radius).sum(1)
    return torch.stack([weights.roll(i) for i in range(n_sites)]) / weights[0]


def transform_update(
    ensemble: Float[Tensor, "M B D"], predicted: Float[Tensor, "M B C"], observed: Float[Tensor, "B C"], noise: Tensor
) -> Float[Tensor, "M B D"]:
    """One ensemble-transform analysis; NaN observations are ignored; ``noise`` is their standard deviation "C"."""
    m = ensemble.shape[0]
    seen = ~torch.isnan(observed)
    mean = predicted.mean(0)
    innovation = torch.where(seen, (observed - mean) / noise, 0.0)
    y = (torch.where(seen, (predicted - mean) / noise, 0.0)).movedim(0, 1)  # B M C
    precision = (m - 1) * torch.eye(m, dtype=y.dtype) + y @ y.mT
    values, vectors = torch.linalg.eigh(precision)
    shift = (vectors / values[:, None]) @ (vectors.mT @ (y @ innovation[..., None]))  # B M 1
    spread = (vectors * ((m - 1) / values).sqrt()[:, None]) @ vectors.mT
    centre = ensemble.mean(0)
    anomalies = (ensemble - centre).movedim(0, 1)  # B M D
    return (centre[:, None] + (spread + shift.mT) @ anomalies).movedim(1, 0)


def localised_update(
    ensemble: Float[Tensor, "M B N"],
    observed: Float[Tensor, "B N"],
    noise: Tensor,
    taper: Float[Tensor, "N N"],
) -> Float[Tensor, "M B N"]:
    """One deterministic analysis with tapered covariance: mean moved by the gain K, anomalies by K/2."""
    m = ensemble.shape[0]
    mean = ensemble.mean(0)
    anomalies = (ensemble - mean).movedim(0, 1)  # B M N
    covariance = anomalies.mT @ anomalies / (m - 1) * taper
    # an unobserved site gets an error variance so large that it has no weight
    variance = torch.where(torch.isnan(observed), 1e8 * noise**2, noise**2)
    factor = torch.linalg.cholesky(covariance + torch.diag_embed(variance))
    innovation = torch.nan_to_num(observed - mean)
    right = torch.cat([innovation[:, None], -anomalies / 2], dim=1).mT
    moves = (covariance @ torch.cholesky_solve(right, factor)).mT
    return (mean[:, None] + moves[:, :1] + anomalies + moves[:, 1:]).movedim(1, 0)


def assimilate(
    advance: Advance,
    ensemble: Float[Tensor, "M B *S"],
    context: Float[Tensor, "B T C"],
    noise: Float[Tensor, " C"],
    components: list[int],
    inflation: float = 1.0,
    taper: Tensor | None = None,
    before: Callable[[int, Tensor], Tensor] | None = None,
) -> Float[Tensor, "M B *S"]:
    """Run ``ensemble`` through the whole context; the analysis at its last sample.

    ``components`` are the state's components that the context shows; ``inflation`` multiplies the forecast's anomalies
    before each analysis, in cases observed at all then; ``before(t, ensemble)`` may correct the forecast at sample t.
    """
    for t in range(context.shape[1]):
        if t:
            ensemble = advance(ensemble)
        if before is not None:
            ensemble = before(t, ensemble)
        observed = context[:, t]
        if torch.isnan(observed).all():
            continue
        if inflation != 1.0:
            mean = ensemble.mean(0)
            seen = ~torch.isnan(observed).flatten(1).all(1)
            factor = torch.where(seen, inflation, 1.0).reshape(-1, *[1] * (mean.ndim - 1))
            ensemble = mean + factor * (ensemble - mean)
        if taper is None:
            ensemble = transform_update(ensemble, ensemble[..., components], observed, noise)
        else:
            ensemble = localised_update(ensemble, observed, noise, taper)
    return ensemble
