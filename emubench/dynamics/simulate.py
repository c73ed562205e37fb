"""Reference integrators in torch: any device, any dtype, batched, differentiable. Read these to know what is solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.dynamics import noise
from emubench.dynamics.system import Step, System


class SimulationError(EmubenchError):
    """A solution that can't be trusted: of which trajectory, from what time on, and why."""

    def __init__(self, system: str, trajectory: int, time: float, cause: str, split: str = "") -> None:
        super().__init__(system, trajectory, time, cause, split)  # all of it, so that it comes home from a worker
        self.system, self.trajectory, self.time, self.cause, self.split = system, trajectory, time, cause, split

    def __str__(self) -> str:
        """The one line."""
        trajectory = f"{self.split} trajectory" if self.split else "trajectory"
        return f"{self.system}: {trajectory} {self.trajectory} at time {self.time:g}: {self.cause}"


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
    phi = np.where(np.abs(z) < 1e-12, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
    e = torch.as_tensor(np.exp(z), dtype=dtype, device=device)
    p = torch.as_tensor(h * phi, dtype=dtype, device=device)
    return lambda v, _=None: e * v + p * nonlinear(v)


def ornstein_uhlenbeck(
    symbol: np.ndarray, intensity: float, h: float, dtype: torch.dtype, device: str | torch.device
) -> Step:
    """Exact step of ``dv_k = L_k v_k dt + √intensity dW_k`` on a ring with even, real ``symbol`` L_k ≤ 0 (rfft modes).

    The mean decays as e^{hL}; the noise gets the variance ``intensity (e^{2hL} − 1)/2L`` (``intensity h`` at L = 0).
    """
    z = 2 * h * np.asarray(symbol)
    growth = np.where(np.abs(z) < 1e-12, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
    decay = torch.as_tensor(np.exp(z / 2), dtype=dtype, device=device)
    amplitude = torch.as_tensor(np.sqrt(intensity * h * growth), dtype=dtype, device=device)

    def step(u: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            raise ValueError("a stochastic step needs noise")
        hat = decay * torch.fft.rfft(u) + amplitude * torch.fft.rfft(noise)
        return torch.fft.irfft(hat, n=u.shape[-1])

    return step


def rollout(
    step: Step,
    state: Float[Tensor, " B *S"],
    n_samples: int,
    steps_per_sample: int = 1,
    noise: Callable[[], Tensor] | None = None,
) -> Float[Tensor, "B T *S"]:
    """The ``n_samples`` states that follow ``state``, one every ``steps_per_sample`` steps."""
    samples = []
    for _ in range(n_samples):
        for _ in range(steps_per_sample):
            state = step(state, noise() if noise is not None else None)
        samples.append(state)
    return torch.stack(samples, dim=1)


def reference_rollout(
    system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator], device: str = "cpu"
) -> np.ndarray:
    """The truth by the reference solver: states ``"B *S"`` to the next ``n_samples`` samples ``"B T *S"``, float64.

    Trajectory b takes its noise from ``rngs[b]`` alone, by way of :mod:`emubench.dynamics.noise`.
    """
    step, k = system.solver(device=device), system.steps_per_sample
    current, samples = torch.as_tensor(state, dtype=torch.float64, device=device), []
    for _ in range(n_samples):
        noises: list[Tensor | None] = [None] * k
        if system.stochastic:
            drawn = noise.normals(noise.seeds(rngs, k), math.prod(system.shape)).reshape(-1, k, *system.shape)
            noises = list(torch.from_numpy(drawn).to(device).unbind(1))
        for xi in noises:
            current = step(current, xi)
        samples.append(current)
    return torch.stack(samples, dim=1).cpu().numpy()


def simulate(
    system: System,
    state: Float[np.ndarray, " B *S"],
    n_samples: int,
    rngs: list[np.random.Generator] | None = None,
    *,
    reference: bool = False,
    device: str = "cpu",
) -> Float[np.ndarray, "B T *S"]:
    """The ``n_samples`` samples that follow ``state``, checked: by the fast kernel where there is one.

    Kernels are for "cpu". On any other torch ``device`` ("cuda", and for tests "cpu:0") the reference integrators do
    it, from the same draws and the same noise, equal up to rounding: for batches of thousands of trajectories.

    Raises :class:`SimulationError` with trajectory, time and likely cause where the solution can't be trusted.
    """
    from emubench.dynamics import kernels  # a fast path imports numba, which not every caller needs

    if system.stochastic and (rngs is None or len(rngs) != len(state)):
        raise ValueError("a stochastic system needs one generator per trajectory")
    fast = kernels.find(system) if device == "cpu" and not reference else None
    begun = np.ascontiguousarray(state, dtype=np.float64)
    if fast:
        samples = fast(system, begun, n_samples, rngs or [])
    else:
        samples = reference_rollout(system, begun, n_samples, rngs or [], device)
    if cause := system.fault(samples):
        trajectory, sample = _first_fault(system, samples)
        time = (sample + 1) * system.sample_interval
        raise SimulationError(system.name, trajectory, time, cause)
    return samples


def _first_fault(system: System, samples: np.ndarray) -> tuple[int, int]:
    """Index of the first faulty trajectory and of the sample at which its fault shows."""
    b = next(b for b in range(len(samples)) if system.fault(samples[b : b + 1]))
    return b, next(t for t in range(samples.shape[1]) if system.fault(samples[b : b + 1, : t + 1]))
