"""A Lyapunov spectrum with its errors, and what follows from it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError


class Estimate(NamedTuple):
    """A measured figure and its standard error."""

    value: float
    error: float

    def agrees(self, value: float, error: float = 0.0, n_errors: float = 3.0) -> bool:
        """Whether ``value ± error`` is within ``n_errors`` standard errors (false for NaN)."""
        return abs(self.value - value) <= n_errors * math.hypot(self.error, error)


@dataclass(frozen=True)
class Spectrum:
    """Exponents per unit of time, largest first, from the growth rates of every replica in every block of time."""

    rates: Float[Tensor, "R K E"]
    """Mean growth rates of R replicas in K consecutive blocks."""
    n_dimensions: int
    """How many exponents there are in all."""

    @property
    def exponents(self) -> Float[Tensor, " E"]:
        """Means over replicas and blocks."""
        return self.rates.mean((0, 1))

    @property
    def standard_error(self) -> Float[Tensor, " E"]:
        """Standard errors from the spread between replicas, or where there is but one, between blocks."""
        return _standard_error(self._samples())

    @property
    def block_standard_error(self) -> Float[Tensor, " E"]:
        """Standard errors from the spread between blocks: equal to the others if blocks are long enough to forget."""
        return _standard_error(self.rates.flatten(0, 1))

    @property
    def sum(self) -> Estimate:
        """Sum of the exponents: of all of them, the mean divergence of the flow."""
        samples = self._samples().sum(-1, keepdim=True)
        return Estimate(float(samples.mean()), float(_standard_error(samples)))

    @property
    def n_positive(self) -> int:
        """How many exponents are above zero by more than three standard errors.

        One that vanishes exactly reads up to ln T / T over a run of T, by algebraic growth, however small its error.
        """
        return int((self.exponents > 3 * self.standard_error).sum())

    @property
    def kaplan_yorke_dimension(self) -> Estimate:
        """The :func:`kaplan_yorke_dimension` with its standard error by the jackknife."""
        samples = self._samples()
        n = len(samples)
        others = (samples.sum(0) - samples) / (n - 1)
        dimensions = [kaplan_yorke_dimension(row, self.n_dimensions) for row in others]
        error = math.sqrt((n - 1) ** 2 / n) * float(np.std(dimensions, ddof=1))
        return Estimate(kaplan_yorke_dimension(self.exponents, self.n_dimensions), error)

    def __getitem__(self, i: int) -> Estimate:
        """Exponent number ``i``, counted from 0."""
        return Estimate(float(self.exponents[i]), float(self.standard_error[i]))

    def _samples(self) -> Tensor:
        return self.rates.mean(1) if len(self.rates) > 1 else self.rates[0]


def _standard_error(samples: Tensor) -> Tensor:
    return samples.std(0) / math.sqrt(len(samples))


def kaplan_yorke_dimension(exponents: Float[Tensor, " E"], n_dimensions: int | None = None) -> float:
    """D = j + (λ₁ + … + λ_j) / |λ_{j+1}|, j the largest number of exponents whose sum is not negative.

    Kaplan & Yorke 1979, doi:10.1007/BFb0064319. All negative: 0, a point. No j + 1 left, as the whole sum is not
    negative: the number of dimensions, as volumes do not shrink; but an error if ``n_dimensions`` says that the
    exponents given are not all.

    >>> round(kaplan_yorke_dimension(torch.tensor([0.9, 0.0, -14.5])), 3)
    2.062
    """
    ordered = exponents.double().sort(descending=True).values
    sums = ordered.cumsum(0)
    j = int((sums >= 0).to(torch.int8).cumprod(0).sum())
    if j < len(ordered):
        return j + float(sums[j - 1] / ordered[j].abs()) if j else 0.0
    if n_dimensions is not None and j < n_dimensions:
        raise EmubenchError(
            f"Kaplan-Yorke dimension: not available from {j} of {n_dimensions} exponents: ask for more, "
            "as their sum is not negative"
        )
    return float(j)
