"""Lorenz-96: a ring of sites with advection, damping and forcing, a toy of weather along a latitude."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.dynamics.schemes import EXPLICIT
from emubench.dynamics.system import Climate, Fact, Step, System

OWN = "emubench, float64 simulation"


@dataclass(frozen=True, kw_only=True)
class Lorenz96(System):
    """x_i′ = (x_{i+1} − x_{i−2}) x_{i−1} − x_i + F on a ring of N sites; one time unit ≈ five days of weather.

    Lorenz 1996, in doi:10.1017/CBO9780511617652.004. Good values: N = 40, F = 8 (N = 4 is periodic, not chaotic).

    >>> bool((Lorenz96().rhs(torch.full((1, 40), 8.0)) == 0).all())   # the unstable rest state
    True
    """

    n_sites: int = 40
    forcing: float = 8.0
    sample_interval: float = 0.05
    solver_step: float = 0.00125

    name = "lorenz96"
    equation = "x_i' = (x_(i+1) - x_(i-2)) x_(i-1) - x_i + F"
    schemes = ("rk4", "heun", "euler")
    letters = {"F": "forcing", "N": "n_sites"}
    positive = ("n_sites",)
    reference_climate = Climate(mean=(2.339,), std=(3.639,), time_unit=0.592, agreement_time=22.0)

    @property
    def grid(self) -> tuple[int, ...]:
        """(N,): one value per site."""
        return (self.n_sites,)

    def rhs(self, state: Tensor) -> Tensor:
        """Tendency of states ``"... N"``."""
        ahead, behind, behind2 = state.roll(-1, -1), state.roll(1, -1), state.roll(2, -1)
        return (ahead - behind2) * behind - state + self.forcing

    def step(self, step: float, scheme: str, dtype: torch.dtype, device: str | torch.device) -> Step:
        """An explicit Runge–Kutta step; dtype and device are the state's."""
        return EXPLICIT[scheme](self.rhs, step)

    def draw(self, rng: np.random.Generator, start: str) -> np.ndarray:
        """Mean + σ × normal at every site, of the attractor's own scale at the default parameters."""
        climate = self.reference_climate
        return climate.mean[0] + climate.std[0] * rng.standard_normal(self.n_sites)

    def symmetries(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Cyclic translation."""
        return {"translation by 7 sites": lambda u: u.roll(7, -1)}

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Balances of energy and of momentum (exact), one-point statistics, exponents.

        The one-point statistics are those of 16 × 256 trajectories of 4000 samples; their standard errors are 0.0003
        and 0.0002.
        """
        return (
            Fact("<x^2> / (F <x>)", 1.0, 0.0014, "exact: energy balance", _balance),
            Fact("<x_i (x_(i+1) - x_(i+2))> / (F - <x>)", 1.0, 0.0016, "exact: d<x>/dt = 0", _momentum),
            Fact("<x>", 2.3414, 0.02, OWN, lambda s, u: u.mean()),
            Fact("std", 3.640, 0.01, OWN, lambda s, u: u.std()),
            Fact("lyapunov exponent 1", 1.689, 0.024, OWN + "; literature 1.68"),
            Fact("sum of lyapunov exponents", -40.0, 1e-6, "exact: trace of the Jacobian, -N"),
            Fact("kaplan-yorke dimension", 27.04, 0.1, OWN + "; literature 27.1"),
            Fact("agreement time", 22.0, 1.3, OWN + ", mean of 64 cases against a step of a tenth or a quarter"),
        )


def _balance(system: Lorenz96, u: Tensor) -> Tensor:
    return (u**2).mean() / (system.forcing * u.mean())


def _momentum(system: Lorenz96, u: Tensor) -> Tensor:
    return (u * (u.roll(-1, -1) - u.roll(-2, -1))).mean() / (system.forcing - u.mean())
