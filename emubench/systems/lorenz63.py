"""Lorenz-63: three ordinary differential equations, the smallest chaotic flow of note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.integrate import EXPLICIT
from emubench.system import Climate, Fact, Step, System

OWN = "emubench, float64 simulation"


@dataclass(frozen=True, kw_only=True)
class Lorenz63(System):
    """x′ = σ(y − x), y′ = x(ρ − z) − y, z′ = xy − βz, on the state (x, y, z); dimensionless units.

    Lorenz 1963, doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2. Good values: σ = 10, ρ = 28, β = 8/3.

    >>> Lorenz63().rhs(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[10.0, 23.0, -6.0]]
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    sample_interval: float = 0.05
    solver_step: float = 0.001

    name = "lorenz63"
    equation = "x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z"
    ring = False
    schemes = ("rk4", "heun", "euler")
    reference_climate = Climate(mean=(0.0, 0.0, 23.55), std=(7.92, 9.01, 8.62), time_unit=1.104)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3,): x, y, z."""
        return (3,)

    def rhs(self, state: Tensor) -> Tensor:
        """Tendency of states ``"... 3"``."""
        x, y, z = state.unbind(-1)
        return torch.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z], dim=-1)

    def step(self, step: float, scheme: str, dtype: torch.dtype, device: str | torch.device) -> Step:
        """An explicit Runge–Kutta step; dtype and device are the state's."""
        return EXPLICIT[scheme](self.rhs, step)

    def draw(self, rng: np.random.Generator, start: str) -> np.ndarray:
        """Mean + σ × normal, of the attractor's own scale at the default parameters."""
        climate = self.reference_climate
        return np.array(climate.mean) + np.array(climate.std) * rng.standard_normal(3)

    def symmetries(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """(x, y, z) → (−x, −y, z)."""
        return {"rotation by 180° about z": lambda u: u * u.new_tensor([-1.0, -1.0, 1.0])}

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Identities of the attractor (d⟨x²⟩/dt = 0 and d⟨z⟩/dt = 0), one-point statistics, exponents."""
        return (
            Fact("<xy> / (beta <z>)", 1.0, 0.005, "exact: d<z>/dt = 0", _xy_ratio),
            Fact("<x^2> / <xy>", 1.0, 0.005, "exact: d<x^2>/dt = 0", lambda s, u: (u[..., 0] ** 2).mean() / _xy(u)),
            Fact("<z>", 23.55, 0.15, OWN, lambda s, u: u[..., 2].mean()),
            Fact("std x", 7.92, 0.08, OWN, lambda s, u: u[..., 0].std()),
            Fact("std y", 9.01, 0.08, OWN, lambda s, u: u[..., 1].std()),
            Fact("std z", 8.62, 0.12, OWN, lambda s, u: u[..., 2].std()),
            Fact("lyapunov exponent 1", 0.9057, 0.0006, OWN + "; literature 0.9056"),
            Fact("sum of lyapunov exponents", -41 / 3, 1e-6, "exact: trace of the Jacobian"),
            Fact("kaplan-yorke dimension", 2.062, 0.001, OWN),
        )


def _xy(u: Tensor) -> Tensor:
    return (u[..., 0] * u[..., 1]).mean()


def _xy_ratio(system: Lorenz63, u: Tensor) -> Tensor:
    return _xy(u) / (system.beta * u[..., 2].mean())
