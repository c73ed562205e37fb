"""The terms that an equation may have, and its flow: u' = Θ(u) w with the coefficients w that a regression found."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.dynamics.schemes import etdrk4, rk4
from emubench.learning.objectives.weak_form import Exponents, monomials

FASTEST = 1.0
"""Growth per sample at most of a mode: none grows faster than the fastest that the data resolve."""


class TermLibrary:
    """Θ, at most quadratic: monomials of all components; on rings of the values within ``radius``, alike at every site.

    With ``orders`` instead, on rings: 1, ∂ʲu for j = 0 … ``orders``, and ∂ʲ(u²) for j = 0, 1, 2. Term i is monomial
    ``exponents[i]``, differentiated ``orders[i]`` times; the first is not.
    """

    def __init__(self, n: int, ring: bool, radius: int, orders: int = 0) -> None:
        self.n, self.ring, self.radius, self.spatial = n, ring, radius, ring and orders > 0
        if self.spatial:
            terms = [(0, 0), *((1, j) for j in range(orders + 1)), *((2, j) for j in range(3))]
            self.exponents: list[Exponents] = [(power,) for power, _ in terms]
            self.orders = [order for _, order in terms]
        else:
            self.exponents = monomials(2 * radius + 1 if ring else n, 2)
            self.orders = [0] * len(self.exponents)
        variables = [[j + 1 for j, times in enumerate(e) for _ in range(times)] for e in self.exponents]
        self.factors = [[(v + [0, 0])[k] for v in variables] for k in range(2)]  # of each term; 0 stands for 1

    def __len__(self) -> int:
        """How many terms."""
        return len(self.orders)

    def tendency(self, u: Float[Tensor, "... S"], weight: Float[Tensor, "F K"]) -> Float[Tensor, "... S"]:
        """Θ(u) w for terms without derivatives; on rings (K = 1) only those are evaluated whose weight is not zero."""
        if not self.ring:
            padded = nn.functional.pad(u, (1, 0), value=1.0)
            return (padded[..., self.factors[0]] * padded[..., self.factors[1]]) @ weight
        padded = [torch.ones_like(u), *(u.roll(self.radius - j, -1) for j in range(2 * self.radius + 1))]
        kept = torch.nonzero(weight[:, 0])[:, 0].tolist()
        terms = ((weight[i, 0], padded[self.factors[0][i]] * padded[self.factors[1][i]]) for i in kept)
        return sum((w * product for w, product in terms), torch.zeros_like(u))

    def flow(self, weight: Float[Tensor, "F K"], substeps: int) -> Callable[[Tensor], Tensor]:
        """One unit of time in ``substeps`` Runge–Kutta steps, of Fourier modes exponential where there are derivatives.

        Modes above two thirds of the band are dropped from products, which alias there.
        """
        if not self.spatial:
            step = rk4(lambda u: self.tendency(u, weight), 1 / substeps)
        else:
            step = self._exponential(weight[:, 0], 1 / substeps)

        def advance(state: Tensor) -> Tensor:
            v = torch.fft.rfft(state) if self.spatial else state
            for _ in range(substeps):
                v = step(v, None)
            return torch.fft.irfft(v, n=self.n) if self.spatial else v

        return advance

    def _exponential(self, weight: Float[Tensor, " F"], h: float) -> Callable[[Tensor, None], Tensor]:
        k = 2j * torch.pi / self.n * torch.arange(self.n // 2 + 1)
        symbol, parts = torch.zeros(len(k), dtype=torch.float64), torch.zeros(3, len(k), dtype=torch.complex128)
        for (exponent,), order, w in zip(self.exponents, self.orders, weight, strict=True):
            if exponent == 1 and order % 2 == 0:
                symbol = symbol + w * (k**order).real
            else:
                parts[exponent] = parts[exponent] + w * k**order
        kept = torch.arange(len(k)) < self.n / 3
        parts[0, 1:] = 0
        parts[0, 0] *= self.n

        def nonlinear(v: Tensor) -> Tensor:
            return kept * (parts[0] + parts[1] * v + parts[2] * torch.fft.rfft(torch.fft.irfft(v, n=self.n) ** 2))

        # half the band is noise to the regression
        return etdrk4(symbol.clamp(min=-700, max=FASTEST).numpy(), nonlinear, h, torch.float64, "cpu")
