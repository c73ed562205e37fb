"""Weak-form regression of an equation's coefficients on noisy samples, which are never differentiated.

With a test function φ of compact support, u' = Θ(u) w becomes −∫ φ' u dt = ∫ φ Θ(u) dt · w, linear in w. Noise in Θ
would bias its regression; here powers of noisy values are replaced by Hermite polynomials, whose expectations are the
powers of the noise-free ones, both in Θ and, by moments of twice its degree, in the normal equations. After Messenger &
Bortz 2021, doi:10.1016/j.jcp.2021.110525, who select terms but don't correct this bias.
"""

import math
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.hardware import sent

Exponents = tuple[int, ...]


def bump(half_width: int, power: int, order: int = 0) -> Float[Tensor, " L"]:
    """The derivative of ``order`` of (1 − (j/m)²)^p at j = −m … m, in units of the sample interval.

    >>> bump(2, 1).tolist(), bump(2, 1, 1).tolist()
    ([0.0, 0.75, 1.0, 0.75, 0.0], [1.0, 0.5, 0.0, -0.5, -1.0])
    """
    shape = np.polynomial.Polynomial([1.0, 0.0, -1.0]) ** power
    for _ in range(order):
        shape = shape.deriv()
    at = np.arange(-half_width, half_width + 1) / half_width
    return torch.from_numpy(shape(at) / half_width**order + 0.0)


def monomials(n_variables: int, degree: int) -> list[Exponents]:
    """Exponents of all monomials up to ``degree``, the constant first.

    >>> monomials(2, 2)
    [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    """
    variables = range(n_variables)
    products = [chosen for d in range(degree + 1) for chosen in combinations_with_replacement(variables, d)]
    return [tuple(chosen.count(i) for i in variables) for chosen in products]


def unbiased_powers(values: Tensor, variance: float | Tensor, degree: int) -> Float[Tensor, "P ..."]:
    """Powers 0 … ``degree`` of what ``values`` are noisy observations of, unbiased: Heₙ scaled by the noise.

    With Gaussian noise of ``variance`` the expectation of Heₙ(v) is the n-th power of the noise-free value.

    >>> unbiased_powers(torch.tensor([3.0]), 1.0, 3)[:, 0].tolist()
    [1.0, 3.0, 8.0, 18.0]
    """
    powers = [torch.ones_like(values), values]
    for n in range(1, degree):
        powers.append(values * powers[n] - n * variance * powers[n - 1])
    return torch.stack(powers[: degree + 1])


def evaluate(powers: Float[Tensor, "P ... V"], exponents: list[Exponents]) -> Float[Tensor, "... F"]:
    """Monomials from the powers of their variables (the last axis)."""
    one, features = powers[0, ..., 0], []
    for chosen in exponents:
        factors = (powers[exponent, ..., variable] for variable, exponent in enumerate(chosen) if exponent)
        features.append(math.prod(factors, start=one))
    return torch.stack(features, dim=-1)


def smooth(values: Float[Tensor, "R T ..."], weights: Float[Tensor, " L"]) -> Float[Tensor, "R T2 ..."]:
    """∑ⱼ weightsⱼ valuesₜ₊ⱼ for all t at which the whole stretch fits in."""
    span = values.shape[1] - len(weights) + 1
    total = torch.zeros_like(values[:, :span])
    for j, weight in enumerate(weights.tolist()):
        total += weight * values[:, j : j + span]
    return total


def noise_covariance(
    values: Float[Tensor, "R T X V"], variance: float | Tensor, exponents: list[Exponents]
) -> Float[Tensor, "R F F"]:
    """Mean covariance that the noise gives to the (unbiased) monomials of one sample, estimated from the samples."""
    degree = max(map(sum, exponents))
    powers = unbiased_powers(values, variance, 2 * degree)
    features = evaluate(powers, exponents)
    products = torch.einsum("rtxf,rtxg->rfg", features, features) / values[0, ..., 0].numel()
    doubled = monomials(values.shape[-1], 2 * degree)
    place = {e: i for i, e in enumerate(doubled)}
    table = torch.tensor([[place[tuple(map(sum, zip(a, b, strict=True)))] for b in exponents] for a in exponents])
    clean = torch.stack([evaluate(powers, [e])[..., 0].mean((1, 2)) for e in doubled], dim=-1)
    return products - clean[:, table]


def normal_equations(
    values: Float[Tensor, "R T X V"],
    targets: Float[Tensor, "R T X K"],
    noise: float | Tensor,
    exponents: list[Exponents],
    filters: Float[Tensor, "F X"],
    half_width: int,
    power: int,
    n_blocks: int = 8,
) -> tuple[Float[Tensor, "G F F"], Float[Tensor, "G F K"]]:
    """Gram matrices and moments of ∫ φ ψ u' = ∫ φ ψ Θ(u) w, less the noise's share, one of each per block of time.

    ``values`` of V variables along R series on X sites, their noise's standard deviation ``noise``; term f is monomial
    ``exponents[f]`` summed over the sites with ``filters[f]``. Time is in samples.
    """
    phi, slope = (bump(half_width, power, order).to(values.device) for order in (0, 1))
    hat = torch.fft.rfft(filters).conj()
    test = torch.fft.rfft(filters[0]).conj()  # the first term has no derivative
    kinds = sorted(set(exponents))
    kind = torch.tensor([kinds.index(e) for e in exponents], device=values.device)
    overlap = phi.square().sum() * (filters @ filters.T)
    length, n = max(1, values.shape[1] // n_blocks), values.shape[2]
    grams, moments = [], []
    for rows, goal in zip(values.split(64), targets.split(64), strict=True):
        for first in range(0, values.shape[1] - 2 * half_width, length):
            part, aim = (v[:, first : first + length + 2 * half_width] for v in (rows, goal))
            features = evaluate(unbiased_powers(part, noise**2, max(map(sum, kinds))), kinds)
            left, right = smooth(features, phi)[..., kind], -smooth(aim, slope)
            if n > 1:
                left = torch.fft.irfft(torch.fft.rfft(left, dim=2) * hat.T, n=n, dim=2)
                right = torch.fft.irfft(torch.fft.rfft(right, dim=2) * test[:, None], n=n, dim=2)
            gram = torch.einsum("rtxf,rtxg->rfg", left, left)
            if float(torch.as_tensor(noise).max()) > 0:
                excess = noise_covariance(part, noise**2, kinds)[:, kind][:, :, kind]
                gram -= overlap * excess * left.shape[1] * n
            grams.append(gram)
            moments.append(torch.einsum("rtxf,rtxk->rfk", left, right))
    return torch.cat(grams), torch.cat(moments)


def hidden_equation(
    x: Float[Tensor, "R T"], noise: float, half_width: int, power: int, twins: int, generator: torch.Generator
) -> tuple[float, float, float, float, float]:
    """(a, b, c, d, e) of x′ = v, v′ = −a v + b x + x w, w′ = −c x² + d x v − e w from noisy samples of x alone.

    Eliminating v and w leaves x x‴ = x′ x″ − (a+e) x x″ + a x′² − a e x x′ + b e x² − c x⁴ + d x³ x′. All but x′² is a
    derivative of x², x⁴ or x′², which goes to the test function; x′ itself is a five-point slope. Twins x ± ε with ε
    as large as the noise have independent errors, so products of one's features with the other's are free of bias
    (Leiner et al. 2023, doi:10.1080/01621459.2023.2270748); ``twins`` of them are averaged. Time is in samples.
    """
    tests = [bump(half_width, power, k) * (-1) ** k for k in range(4)]
    slope = torch.tensor([1.0, -8.0, 0.0, 8.0, -1.0], dtype=torch.float64, device=x.device) / 12
    variance = 2 * noise**2

    def equation(y: Tensor) -> tuple[Tensor, Tensor]:
        v2 = (y.unfold(1, 5, 1) @ slope) ** 2 - variance * slope.square().sum()
        powers = unbiased_powers(y[:, 2:-2], variance, 4)
        x2, x4, v2_mean = powers[2], powers[4], smooth(v2, tests[0])
        left = smooth(x2, tests[3]) / 2 - 2 * smooth(v2, tests[1])
        right = [smooth(x2, tests[2]) / 2 - v2_mean, v2_mean, smooth(x2, tests[1]) / 2, smooth(x2, tests[0])]
        right += [smooth(x4, tests[0]), smooth(x4, tests[1]) / 4]
        return torch.stack(right, dim=-1).flatten(0, 1), left.flatten()

    gram, moment = x.new_zeros(6, 6), x.new_zeros(6)
    for _ in range(twins):
        added = noise * sent(torch.randn(x.shape, generator=generator, dtype=torch.float64), x.device)
        (first, first_left), (second, second_left) = equation(x + added), equation(x - added)
        gram += first.T @ second + second.T @ first
        moment += first.T @ second_left + second.T @ first_left
    scale = gram.diagonal().abs().sqrt()
    xx2, v2, _, x2, x4, x3v = (torch.linalg.solve(gram / scale / scale[:, None], moment / scale) / scale).tolist()
    e = max(-xx2 - v2, 1e-3)
    return v2, x2 / e, -x4, x3v, e
