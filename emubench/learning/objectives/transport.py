"""Entropic optimal transport as a loss: between point clouds (dense) and between densities on a ring (convolutional).

OT_ε(a, b) is the least ⟨P, c⟩ + ε KL(P | a ⊗ b) over couplings P of a and b, with half the squared distance as cost c;
the Sinkhorn divergence S_ε = OT_ε(a, b) − ½ OT_ε(a, a) − ½ OT_ε(b, b) is positive and zero only for a = b (Feydy et al.
2019, arXiv:1810.08278). It is found by Sinkhorn's iteration on the dual potentials f, g, in the log domain. On a ring
the Gibbs kernel exp(−c/ε) is a heat kernel, applied by Fourier transform without ever being a matrix (Solomon et al.
2015, doi:10.1145/2766963).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError

SoftMin = Callable[[Tensor], Tensor]
"""h ↦ −log ∑ⱼ exp(hⱼ − cᵢⱼ/ε): from one side to the other."""
MAX_RANGE = 24.0
"""Largest cost, in ε, that the heat kernel resolves: its smallest value is e^−24 of its largest, rounding e^−36."""


def potentials(
    log_a: Tensor, log_b: Tensor, to_a: SoftMin, to_b: SoftMin, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """f/ε and g/ε of the dual problem, by averaged steps of Sinkhorn's iteration; batched over leading axes.

    Each step is the mean of the old potential and the alternate's answer, which converges fast where both measures are
    the same; the last one is whole. It stops when no potential moves by more than ``tolerance``, in ε.
    """
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    for _ in range(max_iterations):
        new_f, new_g = (f + to_a(log_b + g)) / 2, (g + to_b(log_a + f)) / 2
        moved = max(float((new_f - f).abs().max()), float((new_g - g).abs().max()))
        f, g = new_f, new_g
        if moved < tolerance:
            break
    f = to_a(log_b + g)
    return f, to_b(log_a + f)


def dual_value(a: Tensor, b: Tensor, f: Tensor, g: Tensor, to_a: SoftMin, eps: float) -> Tensor:
    """⟨a, f⟩ + ⟨b, g⟩ − ε (⟨a ⊗ b, exp((f ⊕ g − c)/ε)⟩ − 1), with f and g given in ε.

    At the optimal potentials it is OT_ε; they are constants, for there its derivatives by them are zero.
    """
    f, g = f.detach(), g.detach()
    mass = (a * torch.exp(f - to_a(b.clamp(min=1e-300).log() + g))).sum(-1)
    return eps * ((a * f).sum(-1) + (b * g).sum(-1) - mass + 1)


# --- point clouds ---------------------------------------------------------------------------------------------------


def cloud_cost(x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
    """Half the squared distances."""
    products = x @ y.mT
    return 0.5 * x.square().sum(-1)[..., :, None] + 0.5 * y.square().sum(-1)[..., None, :] - products


def cloud_transport(
    x: Float[Tensor, "... n d"],
    y: Float[Tensor, "... m d"],
    eps: float,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> Float[Tensor, "..."]:
    """OT_ε between clouds of equally weighted points.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> round(float(cloud_transport(x, x + 3, 0.01)), 2)        # moved by 3: 3²/2, and ε log 2 for the entropy
    4.51
    """
    cost = cloud_cost(x, y) / eps
    a, b = (cost.new_full((*cost.shape[:-2], n), 1 / n) for n in cost.shape[-2:])

    def to_a(h: Tensor) -> Tensor:
        return -torch.logsumexp(h[..., None, :] - cost, dim=-1)

    with torch.no_grad():
        fixed = cost.detach()
        f, g = potentials(
            a.log(),
            b.log(),
            lambda h: -torch.logsumexp(h[..., None, :] - fixed, dim=-1),
            lambda h: -torch.logsumexp(h[..., :, None] - fixed, dim=-2),
            tolerance,
            max_iterations,
        )
    return dual_value(a, b, f, g, to_a, eps)


def cloud_divergence(
    x: Float[Tensor, "... n d"],
    y: Float[Tensor, "... m d"],
    eps: float,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
) -> Float[Tensor, "..."]:
    """The debiased Sinkhorn divergence between two clouds, 0 for equal ones; ε is in units of squared distance."""
    settings = eps, tolerance, max_iterations
    own = cloud_transport(x, x, *settings) + cloud_transport(y, y, *settings)
    return cloud_transport(x, y, *settings) - own / 2


# --- densities on a ring ----------------------------------------------------------------------------------------------


def heat_kernel(n_sites: int, eps: float) -> Float[Tensor, " K"]:
    """Fourier multiplier exp(−ε k²/2) of the periodic heat kernel on a ring of length 1, exp(−d²/2ε) near its middle.

    Raises :class:`EmubenchError` where ε is so small that rounding would drown the kernel's far side, or so small
    beside the squared distance of two sites that the grid doesn't resolve it.
    """
    least = max(0.125 / MAX_RANGE, 1 / n_sites**2)
    if not eps >= least:
        raise EmubenchError(
            f"eps: {eps:g} where at least {least:.3g} belongs, on a ring of {n_sites} sites and length 1"
        )
    k = 2 * math.pi * torch.arange(n_sites // 2 + 1, dtype=torch.float64)
    return torch.exp(-0.5 * eps * k**2)


def ring_softmin(multiplier: Tensor, n_sites: int) -> SoftMin:
    """−log of the heat kernel applied to exp h, with the largest of h taken out: memory is linear in the grid."""

    def apply(h: Tensor) -> Tensor:
        top = h.detach().amax(-1, keepdim=True)
        spread = torch.fft.irfft(multiplier * torch.fft.rfft(torch.exp(h - top)), n=n_sites)
        return -(spread.clamp(min=1e-300).log() + top)

    return apply


def ring_transport(
    a: Float[Tensor, "... N"],
    b: Float[Tensor, "... N"],
    eps: float,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> Float[Tensor, "..."]:
    """OT_ε between densities (positive, of sum 1) on a ring of length 1, its kernel the heat kernel; in float64.

    The cost that this kernel stands for is −ε log of it, half the squared distance but for a constant where ways
    around the ring compete.
    """
    n = a.shape[-1]
    soft = ring_softmin(heat_kernel(n, eps).to(a.device), n)
    a, b = a.double(), b.double()
    with torch.no_grad():
        log_a, log_b = (v.clamp(min=1e-300).log() for v in torch.broadcast_tensors(a.detach(), b.detach()))
        f, g = potentials(log_a, log_b, soft, soft, tolerance, max_iterations)
    return dual_value(a, b, f, g, soft, eps)


def ring_divergence(
    a: Float[Tensor, "... N"], b: Float[Tensor, "... N"], eps: float, tolerance: float = 1e-4, max_iterations: int = 50
) -> Float[Tensor, "..."]:
    """The debiased Sinkhorn divergence between densities on a ring: for narrow ones half their squared distance."""
    settings = eps, tolerance, max_iterations
    own = ring_transport(a, a, *settings) + ring_transport(b, b, *settings)
    return ring_transport(a, b, *settings) - own / 2


def densities(field: Float[Tensor, "... N"], sharpness: float = 1.0) -> Float[Tensor, "two ... N"]:
    """What a signed field is as masses: exp(± sharpness · u), each normalised, one for its crests, one for its troughs.

    >>> densities(torch.tensor([0.0, 0.0])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    return torch.stack([torch.softmax(sign * sharpness * field, dim=-1) for sign in (1, -1)])
