"""Ensemble Kalman filters: the start of a forecast from a noisy, partly observed context, given a model.

Two square-root filters, batched over cases: the ensemble transform filter (Bishop et al. 2001,
doi:10.1175/1520-0493(2001)129<0420:ASWTET>2.0.CO;2; Hunt et al. 2007, doi:10.1016/j.physd.2006.11.008) where the
ensemble outnumbers the unstable directions, and for long rings one whose covariances are localised by the Gaspari–Cohn
function (Whitaker & Hamill 2002, doi:10.1175/1520-0493(2002)130<1913:EDAWPO>2.0.CO;2, all observations at once).
:func:`filtered_start` starts any :class:`~emubench.emulator.Stepper` this way, with the emulator itself as the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.hardware import sent
from emubench.data.trajectories import FLAT_BLANK
from emubench.emulator import Stepper

Advance = Callable[[Tensor], Tensor]
"""The model over one sample interval, ``"M B *S" → "M B *S"``."""
CACHED = 2**18
"""Numbers of covariances that a processor takes at a time: several such matrices stay in its cache."""


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
    precision = (m - 1) * torch.eye(m, dtype=y.dtype, device=y.device) + y @ y.mT
    values, vectors = torch.linalg.eigh(precision)
    shift = (vectors / values[:, None]) @ (vectors.mT @ (y @ innovation[..., None]))  # B M 1
    spread = (vectors * ((m - 1) / values).sqrt()[:, None]) @ vectors.mT
    centre = ensemble.mean(0)
    anomalies = (ensemble - centre).movedim(0, 1)  # B M D
    return (centre[:, None] + (spread + shift.mT) @ anomalies).movedim(1, 0)


def localised_update(
    ensemble: Float[Tensor, "M B D"],
    predicted: Float[Tensor, "M B C"],
    observed: Float[Tensor, "B C"],
    noise: Tensor,
    taper: Float[Tensor, "C C"],
) -> Float[Tensor, "M B D"]:
    """One analysis with tapered covariances of the state x and its prediction y at all sites of a ring.

    With S = taper ∘ cov(y, y) + R = L Lᵀ (Cholesky), V = √R and G = taper ∘ cov(x, y), the mean moves by G S⁻¹ times
    the innovation, the anomalies by −G L⁻ᵀ (L + V)⁻¹ times theirs, which for y = Hx gives the exact analysis covariance
    (1 − KH) P (Andrews 1968, doi:10.2514/3.4665). A state of D = k C values is k fields on the ring, one by one.
    """
    size = ensemble.shape[-1] * predicted.shape[-1]
    split = max(1, CACHED // size) if ensemble.device.type == "cpu" else len(observed)
    states = ensemble.split(split, dim=1)
    predictions = states if ensemble is predicted else predicted.split(split, dim=1)
    parts = zip(states, predictions, observed.split(split), strict=True)
    return torch.cat([_localised_update(*part, noise, taper) for part in parts], dim=1)


def _localised_update(ensemble: Tensor, predicted: Tensor, observed: Tensor, noise: Tensor, taper: Tensor) -> Tensor:
    m, copies = ensemble.shape[0], ensemble.shape[-1] // predicted.shape[-1]
    mean, centre = predicted.mean(0), ensemble.mean(0)
    y, x = (predicted - mean).movedim(0, 1), (ensemble - centre).movedim(0, 1)  # B M C, B M D
    covariance = (y.mT @ y).div_(m - 1).mul_(taper)
    cross = covariance if ensemble is predicted else (x.mT @ y).div_(m - 1).mul_(taper.repeat(copies, 1))
    # an unobserved site gets an error so large that it has no weight
    error = torch.where(torch.isnan(observed), 1e6 * noise, noise)
    factor = torch.linalg.cholesky(_add_diagonal(covariance, error**2))
    innovation = torch.nan_to_num(observed - mean)[:, :, None]
    whole = torch.linalg.solve_triangular(factor, innovation, upper=False)
    reduced = torch.linalg.solve_triangular(_add_diagonal(factor, error), y.mT, upper=False)
    back = torch.linalg.solve_triangular(factor.mT, torch.cat([whole, -reduced], dim=-1), upper=True)
    moves = (cross @ back).mT
    return (centre[:, None] + moves[:, :1] + x + moves[:, 1:]).movedim(1, 0)


def _add_diagonal(matrices: Tensor, values: Tensor) -> Tensor:
    total = matrices.clone()
    total.diagonal(dim1=-2, dim2=-1).add_(values)
    return total


def rotation(members: int, generator: torch.Generator) -> Float[Tensor, "M M"]:
    """A random orthogonal matrix of rows that sum to 1: it turns anomalies, and leaves their mean and covariance.

    Square-root filters let anomalies grow skewed where the model is not linear; turning them undoes that (Sakov & Oke
    2008, doi:10.1175/2007MWR2021.1). All cases share it, so that none depends on how many others there are.
    """
    normal = torch.randn(members, 2 * members - 2, generator=generator, dtype=torch.float64)
    ones = torch.ones(members, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, normal[:, : members - 1]], dim=1)).Q[:, 1:]
    return basis @ torch.linalg.qr(normal[1:, members - 1 :]).Q @ basis.T + 1 / members


def assimilate(
    advance: Advance,
    ensemble: Float[Tensor, "M B *S"],
    context: Float[Tensor, "B T C"],
    noise: Float[Tensor, " C"],
    observe: Advance,
    inflation: float = 1.0,
    taper: Tensor | None = None,
    before: Callable[[int, Tensor], Tensor] | None = None,
    record: Callable[[Tensor], None] | None = None,
    rotations: torch.Generator | None = None,
) -> Float[Tensor, "M B *S"]:
    """Run ``ensemble`` through the whole context; the analysis at its last sample.

    ``observe`` reads from states what the context shows, ``"M B *S" → "M B C"``; ``inflation`` multiplies the
    forecast's anomalies before each analysis, in cases observed at all then; ``before(t, ensemble)`` may correct the
    forecast at sample t. With a ``taper`` covariances are localised. ``record`` is shown the ensemble
    after every sample. With ``rotations`` anomalies are turned at random after every sample, see :func:`rotation`.
    """
    seen = ~torch.isnan(context).flatten(2).all(2)
    anything = seen.any(0).tolist()  # looked at once: no sample waits for it
    for t in range(context.shape[1]):
        if t:
            ensemble = advance(ensemble)
        if before is not None:
            ensemble = before(t, ensemble)
        observed = context[:, t]
        if anything[t] and inflation != 1.0:
            mean = ensemble.mean(0)
            factor = torch.where(seen[:, t], inflation, 1.0).reshape(-1, *[1] * (mean.ndim - 1))
            ensemble = mean + factor * (ensemble - mean)
        if anything[t]:
            parts = ensemble, observe(ensemble), observed, noise
            ensemble = transform_update(*parts) if taper is None else localised_update(*parts, taper)
        if rotations is not None:
            mean = ensemble.mean(0)
            turn = sent(rotation(len(ensemble), rotations).to(ensemble.dtype), ensemble.device)
            ensemble = mean + torch.tensordot(turn, ensemble - mean, 1)
        if record is not None:
            record(ensemble)
    return ensemble


def flat_until_seen(context: Float[Tensor, "B T C"], first: int = 0) -> Callable[[int, Tensor], Tensor]:
    """The correction that keeps cases with an unobserved beginning flat until then, as the task defines it.

    It is for a filter that :func:`assimilate` runs from sample ``first`` of ``context`` on.
    """
    flat = torch.isnan(context[:, :FLAT_BLANK]).flatten(1).all(1)

    def before(t: int, ensemble: Tensor) -> Tensor:
        if first + t <= FLAT_BLANK:
            ensemble = torch.where(flat.reshape(-1, *[1] * (ensemble.ndim - 2)), 0.0, ensemble)
        return ensemble

    return before


@dataclass(frozen=True)
class Filter:
    """Settings of a filter: ensemble size, multiplicative inflation, localisation radius in sites (0: none), samples.

    ``samples`` at the context's end are used (0: all): where noise drives the system, older ones say nothing more.
    ``rotate`` turns the anomalies at random after every sample.
    """

    members: int = 40
    inflation: float = 1.0
    radius: float = 0.0
    samples: int = 0
    rotate: bool = False

    def taper(self, n_sites: int, device: torch.device) -> Tensor | None:
        """The localisation on a ring of ``n_sites``."""
        return ring_localisation(n_sites, self.radius).to(device) if self.radius else None


def filtered_start(
    stepper: Stepper,
    context: Float[Tensor, "B T C"],
    noise: Float[Tensor, " C"],
    settings: Filter,
    generator: torch.Generator,
    first: int = 16,
) -> Tensor:
    """Analysis ensemble ``"M B ..."`` of the stepper's states at the last context sample, by its own dynamics.

    Members start after the ``first`` samples, each from its own draw of the observation noise on them, and are run
    through the rest. Its mean is the start of a deterministic forecast. Cases must be observed within ``first``.
    """
    members, n_cases, context = settings.members, len(context), context[:, -settings.samples :]
    head = context[:, :first].repeat(members, 1, 1)
    head = head + noise * sent(torch.randn(head.shape, generator=generator, dtype=context.dtype), context.device)
    state = stepper.start(head, 1, generator)[0]
    shape, dtype = state.shape[1:], state.dtype

    def own(flat: Tensor) -> Tensor:
        return flat.reshape(members, n_cases, *shape).to(dtype)

    def advance(flat: Tensor) -> Tensor:
        return stepper.step(own(flat), generator).double().flatten(2)

    def observe(flat: Tensor) -> Tensor:
        return stepper.read(own(flat)).double().flatten(2)

    ensemble = advance(state.reshape(members, n_cases, -1))
    taper = settings.taper(context.shape[-1], context.device)
    parts = context[:, first:].double(), noise.double(), observe, settings.inflation, taper
    return own(assimilate(advance, ensemble, *parts, rotations=generator if settings.rotate else None))
