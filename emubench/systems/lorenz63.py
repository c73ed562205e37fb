"""Lorenz-63: three ordinary differential equations, the smallest chaotic flow of note."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.dynamics.schemes import EXPLICIT
from emubench.dynamics.system import Climate, Fact, Step, System

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
    schemes = ("rk4", "heun", "euler")
    reference_climate = Climate(mean=(0.0, 0.0, 23.55), std=(7.92, 9.01, 8.62), time_unit=1.104, agreement_time=21.7)

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
        """Identities of the attractor, one or more for each coefficient; one-point statistics; exponents.

        The one-point statistics are those of 12 × 256 trajectories of 4000 samples, RK4 with step 0.0025; their
        standard errors are 0.001 (⟨z⟩ and std z) and 0.0003.
        """
        return (
            Fact("<xy> / (beta <z>)", 1.0, 0.004, "exact: d<z>/dt = 0", _xy_ratio),
            Fact("<x^2> / <xy>", 1.0, 0.0016, "exact: d<x^2>/dt = 0", lambda s, u: (u[..., 0] ** 2).mean() / _xy(u)),
            Fact("<xy (rho - z)> / <y^2>", 1.0, 0.02, "exact: d<y^2>/dt = 0", _y_balance),
            Fact("<x (x (rho - z) - y)> / (sigma <y (x - y)>)", 1.0, 0.013, "exact: d<xy>/dt = 0", _xy_balance),
            Fact("<z>", 23.549, 0.09, OWN, lambda s, u: u[..., 2].mean()),
            Fact("std x", 7.924, 0.02, OWN, lambda s, u: u[..., 0].std()),
            Fact("std y", 9.011, 0.035, OWN, lambda s, u: u[..., 1].std()),
            Fact("std z", 8.623, 0.09, OWN, lambda s, u: u[..., 2].std()),
            Fact("lyapunov exponent 1", 0.9057, 0.0006, OWN + "; literature 0.9056"),
            Fact("sum of lyapunov exponents", -41 / 3, 1e-6, "exact: trace of the Jacobian"),
            Fact("kaplan-yorke dimension", 2.062, 0.001, OWN),
            Fact("agreement time", 21.7, 0.8, OWN + ", mean of 64 cases against a step of a tenth or a quarter"),
        )


def _xy(u: Tensor) -> Tensor:
    return (u[..., 0] * u[..., 1]).mean()


def _xy_ratio(system: Lorenz63, u: Tensor) -> Tensor:
    return _xy(u) / (system.beta * u[..., 2].mean())


def _y_balance(system: Lorenz63, u: Tensor) -> Tensor:
    x, y, z = u.unbind(-1)
    return (x * y * (system.rho - z)).mean() / (y**2).mean()


def _xy_balance(system: Lorenz63, u: Tensor) -> Tensor:
    x, y, z = u.unbind(-1)
    return (x * (x * (system.rho - z) - y)).mean() / (system.sigma * (y * (x - y)).mean())
