"""Integration schemes in torch: any device, any dtype, batched, differentiable. Read these to know what is solved."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emubench.dynamics.system import Step

RightHandSide = Callable[[Tensor], Tensor]


def euler(rhs: RightHandSide, h: float) -> Step:
    """The explicit Euler step ``u + h f(u)``, of order 1."""
    return lambda u, _=None: u + h * rhs(u)


def heun(rhs: RightHandSide, h: float) -> Step:
    """Heun's step (explicit trapezoidal rule), of order 2."""

    def step(u: Tensor, _: Tensor | None = None) -> Tensor:
        k1 = rhs(u)
        return u + h / 2 * (k1 + rhs(u + h * k1))

    return step


def rk4(rhs: RightHandSide, h: float) -> Step:
    """The classical Runge–Kutta step, of order 4."""

    def step(u: Tensor, _: Tensor | None = None) -> Tensor:
        k1 = rhs(u)
        k2 = rhs(u + h / 2 * k1)
        k3 = rhs(u + h / 2 * k2)
        k4 = rhs(u + h * k3)
        return u + h / 6 * (k1 + 2 * (k2 + k3) + k4)

    return step


def three_eighths(rhs: RightHandSide, h: float) -> Step:
    """Kutta's 3/8 rule, of order 4: what torchdiffeq calls rk4."""

    def step(u: Tensor, _: Tensor | None = None) -> Tensor:
        k1 = rhs(u)
        k2 = rhs(torch.add(u, k1, alpha=h / 3))
        k3 = rhs(torch.add(u, k2 - k1 / 3, alpha=h))
        k4 = rhs(torch.add(u, k1 - k2 + k3, alpha=h))
        return torch.add(u, k1 + 3 * (k2 + k3) + k4, alpha=h / 8)

    return step


EXPLICIT: dict[str, Callable[[RightHandSide, float], Step]] = {"rk4": rk4, "heun": heun, "euler": euler}


def phi1(z: np.ndarray) -> np.ndarray:
    """φ₁(z) = (e^z − 1)/z, 1 at z = 0."""
    return np.where(np.abs(z) < 1e-12, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))


class Etdrk4Coefficients(NamedTuple):
    """Coefficients of :func:`etdrk4` for a diagonal linear part, one per Fourier mode, float64."""

    exp: np.ndarray
    exp_half: np.ndarray
    q: np.ndarray
    f1: np.ndarray
    f2: np.ndarray
    f3: np.ndarray


def etdrk4_coefficients(symbol: np.ndarray, h: float, n_points: int = 64) -> Etdrk4Coefficients:
    """φ-functions of ``h * symbol`` as means over a circle around it, which avoids their cancellation near zero.

    Kassam & Trefethen 2005, doi:10.1137/S1064827502410633.
    """
    z = h * symbol
    circle = z[:, None] + np.exp(1j * np.pi * (np.arange(1, n_points + 1) - 0.5) / n_points)
    e = np.exp(circle)

    def mean(values: np.ndarray) -> np.ndarray:
        return h * values.mean(axis=1).real

    return Etdrk4Coefficients(
        exp=np.exp(z),
        exp_half=np.exp(z / 2),
        q=mean((np.exp(circle / 2) - 1) / circle),
        f1=mean((-4 - circle + e * (4 - 3 * circle + circle**2)) / circle**3),
        f2=mean((2 + circle + e * (circle - 2)) / circle**3),
        f3=mean((-4 - 3 * circle - circle**2 + e * (4 - circle)) / circle**3),
    )


def etdrk4(
    symbol: np.ndarray, nonlinear: RightHandSide, h: float, dtype: torch.dtype, device: str | torch.device
) -> Step:
    """Fourth-order exponential time differencing on Fourier coefficients.

    Cox & Matthews 2002, doi:10.1006/jcph.2002.6995.
    ``symbol`` is the linear part, one real number per mode; ``nonlinear`` maps coefficients to coefficients.
    """
    c = [torch.as_tensor(v, dtype=dtype, device=device) for v in etdrk4_coefficients(symbol, h)]
    return lambda v, _=None: etdrk4_step(c, nonlinear, v)


def etdrk4_step(coefficients: Iterable[Tensor], nonlinear: RightHandSide, v: Tensor) -> Tensor:
    """One step of :func:`etdrk4` with the tensors of :class:`Etdrk4Coefficients`, in their order."""
    e, e2, q, f1, f2, f3 = coefficients
    nv = nonlinear(v)
    a = e2 * v + q * nv
    na = nonlinear(a)
    b = e2 * v + q * na
    nb = nonlinear(b)
    nc = nonlinear(e2 * a + q * (2 * nb - nv))
    return e * v + f1 * nv + 2 * f2 * (na + nb) + f3 * nc


def etd1(
    symbol: np.ndarray, nonlinear: RightHandSide, h: float, dtype: torch.dtype, device: str | torch.device
) -> Step:
    """Exponential Euler ``e^{hL} v + h φ₁(hL) N(v)``, of order 1: the cheap end of the solver ladder."""
    z = h * np.asarray(symbol)
    e, p = (torch.as_tensor(v, dtype=dtype, device=device) for v in (np.exp(z), h * phi1(z)))
    return lambda v, _=None: e * v + p * nonlinear(v)


def ornstein_uhlenbeck(
    symbol: np.ndarray, intensity: float, h: float, dtype: torch.dtype, device: str | torch.device
) -> Step:
    """Exact step of ``dv_k = L_k v_k dt + √intensity dW_k`` on a ring with even, real ``symbol`` L_k ≤ 0 (rfft modes).

    The mean decays as e^{hL}; the noise gets the variance ``intensity (e^{2hL} − 1)/2L`` (``intensity h`` at L = 0).
    """
    z = 2 * h * np.asarray(symbol)
    factors = np.exp(z / 2), np.sqrt(intensity * h * phi1(z))
    decay, amplitude = (torch.as_tensor(v, dtype=dtype, device=device) for v in factors)

    def step(u: Tensor, noise: Tensor | None = None) -> Tensor:
        hat = decay * torch.fft.rfft(u) + amplitude * torch.fft.rfft(given(noise))
        return torch.fft.irfft(hat, n=u.shape[-1])

    return step


def given(noise: Tensor | None) -> Tensor:
    """``noise`` itself; :class:`ValueError` where a stochastic step gets none."""
    if noise is None:
        raise ValueError("a stochastic step needs noise")
    return noise
