"""Weak forms of a vector field on windows of samples, and their closed form where the field is linear in coefficients.

With φ of compact support in time and ψ in space, du/dt = f(u) becomes r = ∑ ψ (φ′ u + φ f(û)) = 0, summed over the
samples and sites of a window: the data u are not differentiated, and f takes an estimate û of the state. A family of
smooth bumps gives residuals rₖ.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.learning.models.field_flow import FieldFlow
from emubench.learning.objectives.weak_form import bump


@dataclass(frozen=True)
class Family:
    """Bumps and their derivatives at the 2m + 1 samples of a window ``"K L"``, and in space ``"J X"`` (none: 1 site).

    ``gram`` is the covariance "F F" of the residuals (F = K J) under white noise of the data and of the tendency.
    """

    values: Tensor
    slopes: Tensor
    space: Tensor
    gram: Tensor

    def to(self, device: torch.device) -> "Family":
        """The same on ``device``."""
        return Family(*(values.to(device) for values in vars(self).values()))

    @property
    def half_width(self) -> int:
        """The half-width m of the window, in samples."""
        return self.values.shape[1] // 2

    def fixed_loss(self, residual: Float[Tensor, "B T D F"], weight: Tensor) -> Tensor:
        """Mean of rₖ² / Gₖₖ over functions and windows; windows of ``weight`` 0 don't count."""
        return _mean((residual.square() / self.gram.diagonal()).mean(-1), weight)

    def combined_loss(self, residual: Float[Tensor, "B T D F"], combined: Tensor, weight: Tensor) -> Tensor:
        """Mean of (c · r)² / c·Gc: what descends in the model and ascends in the adversary."""
        norm = ((combined @ self.gram) * combined).sum(-1)
        return _mean((residual * combined).sum(-1).square() / norm.clamp(min=1e-12), weight)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


DIFFERENCE = Family(*(torch.tensor([row]) for row in ([0.0, 1.0, 0.0], [0.5, 0.0, -0.5], [1.0], [1.0])))
"""Central differences, as if they were test functions: what one_step starts from."""


def bump_family(
    half_widths: tuple[int, ...], power: int, space: tuple[int, ...], data_noise: float, rate_noise: float
) -> Family:
    """(1 − τ²)^p and τ (1 − τ²)^p of every half-width, times bumps in ``space`` (half-widths in sites, 0: one site).

    ``data_noise`` is the standard deviation of the noise of u, ``rate_noise`` that of the errors of f per sample.
    Without half-widths the functions are those of space alone, of one sample.
    """
    longest, values, slopes = max(half_widths, default=0), [], []
    for m in half_widths:
        tau = torch.arange(-m, m + 1, dtype=torch.float64) / m
        even, slope = bump(m, power), bump(m, power, 1)
        for value, change in ((even, slope), (tau * even, even / m + tau * slope)):
            values.append(_centred(value, longest))
            slopes.append(_centred(change, longest))
    one = torch.ones(1, dtype=torch.float64)
    phi, slope = (torch.stack(v) for v in (values or [one], slopes or [0 * one]))
    reach = max(space, default=0)
    rows = torch.stack([_centred(bump(m, power) if m else one, reach) for m in space] or [one])
    gram = torch.kron(data_noise**2 * slope @ slope.T + rate_noise**2 * phi @ phi.T, rows @ rows.T)
    return Family(phi.float(), slope.float(), rows.float(), gram.float())


def _centred(row: Tensor, half_width: int) -> Tensor:
    """``row`` in the middle of 2 ``half_width`` + 1 zeros."""
    return nn.functional.pad(row, (half_width - len(row) // 2,) * 2)


def residuals(
    family: Family, observed: Float[Tensor, "B T S"], rate: Float[Tensor, "B T S"], stride: int = 1, sites: int = 1
) -> Float[Tensor, "B T2 S2 F"]:
    """∑ ψ (φ′ u + φ f) of all functions: u′ = f makes them 0.

    Around every ``stride``-th sample whose window fits in, and every ``sites``-th site.
    """
    if (shown := observed.shape[1]) < (needed := family.values.shape[1]):
        raise EmubenchError(f"half_widths: windows of {needed} samples do not fit into stretches of {shown}")
    centres = range(0, shown - needed + 1, stride)
    parts = _windowed(family.slopes, observed, centres) + _windowed(family.values, rate, centres)
    reach = family.space.shape[1] // 2
    if not reach:
        return parts[:, :, ::sites]
    padded = torch.cat([parts[:, :, -reach:], parts, parts[:, :, :reach]], dim=2)
    return (padded.unfold(2, 2 * reach + 1, sites) @ family.space.T).flatten(3)


def _windowed(functions: Float[Tensor, "K L"], values: Float[Tensor, "B T S"], centres: range) -> Tensor:
    """Sums of ``values`` with every function around every centre "B T2 S K", as one product of matrices."""
    span = values.shape[1] - functions.shape[1]
    operator = torch.stack([nn.functional.pad(functions, (first, span - first)) for first in centres])
    return torch.einsum("ckt,bts->bcsk", operator, values)


def normal_equations(
    family: Family, copies: list[tuple[Tensor, Tensor]], weight: Tensor, sites: int = 1
) -> tuple[Float[Tensor, "F F"], Float[Tensor, " F"]]:
    """Gram matrix and moments of the linear combination of features whose weak residuals are least, in float64.

    A weak form that is linear in its coefficients is solved at once; windows of ``weight`` 0 don't count. ``copies``
    are (u "B T S", its features "B T S F"), once, or of twins with independent noise: products of the one's features
    with the other's are free of the bias that the noise gives to squares.
    """
    scale, parts = weight[..., ::sites, None] / family.gram.diagonal().sqrt(), []
    for observed, features in copies:
        target = -(residuals(family, observed, 0 * observed, 4, sites) * scale).double().flatten()
        columns = [residuals(family, 0 * observed, f, 4, sites) * scale for f in features.unbind(-1)]
        parts.append((torch.stack([c.double().flatten() for c in columns], dim=-1), target))
    (one, one_target), (other, other_target) = parts[0], parts[-1]
    gram = one.T @ other
    return (gram + gram.T) / 2, (one.T @ other_target + other.T @ one_target) / 2


def solved(equations: list[tuple[Tensor, Tensor]], ridge: float) -> Float[Tensor, " F"]:
    """Solution of the sum of normal equations, its features' squares raised by the share ``ridge``."""
    gram, moment = (torch.stack(parts).sum(0) for parts in zip(*equations, strict=True))
    least = (1e-12 * gram.trace()).clamp(min=1e-30) * torch.eye(len(gram)).to(gram)  # nothing seen: zeros
    return torch.linalg.solve(gram + ridge * gram.diagonal().abs().diag() + least, moment)


@torch.no_grad()
def fit_linear(
    flow: FieldFlow,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    family: Family,
    ridge: float,
    sites: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """What the field is linear in, its quadratic part and on stiff rings a term per mode, by weak ridge regression.

    Over ``batches`` (states, u, weights); with ``noise``, in σ, these are data instead of estimates, and are split into
    twins of twice its variance. From the second time on it goes half the way there (see ``flow.set_linear``): estimates
    lean on the model, and whole steps overshoot.
    """
    rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(1 if flow.ring else flow.n_state)]
    for states, observed, weight in batches:
        if noise is None:
            copies = [(observed, flow.library(states))]
        else:
            added = noise * sent(torch.randn(observed.shape, generator=generator), observed.device)
            copies = [(u, flow.library(flow.in_band(u), 2**0.5 * noise)) for u in (observed + added, observed - added)]
        for i, equations in enumerate(rows):
            part = slice(None) if flow.ring else slice(i, i + 1)
            own = [(u[..., part], library) for u, library in copies]
            equations.append(normal_equations(family, own, weight[..., part], sites))
    flow.set_linear(torch.stack([solved(equations, ridge) for equations in rows], dim=-1).float())
