"""A vector field integrated by torchdiffeq: adaptive steps, and gradients by the adjoint equation."""

from __future__ import annotations

from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor, nn


class Settings(Protocol):
    """Solver, its tolerance or steps per unit of time, and the kind of gradient."""

    @property
    def solver(self) -> str: ...
    @property
    def substeps(self) -> int: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def adjoint(self) -> bool: ...


class Field(Protocol):
    """A field with the parameters of ``field`` and the rates ``tendency``."""

    field: nn.Module

    @property
    def config(self) -> Settings: ...
    def tendency(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """f(u)."""
        ...


class _Autonomous(nn.Module):
    """The tendency as torchdiffeq wants it, f(t, u); a module, whose parameters the adjoint finds."""

    def __init__(self, flow: Field) -> None:
        super().__init__()
        self.field, self.tendency = flow.field, flow.tendency

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return self.tendency(state)


def by_torchdiffeq(flow: Field, state: Float[Tensor, "B D"], times: Float[Tensor, " T"]) -> Float[Tensor, "T B D"]:
    """The solution at ``times`` by torchdiffeq, with the flow's solver, tolerance and kind of gradient."""
    import torchdiffeq

    config = flow.config
    solve = torchdiffeq.odeint_adjoint if config.adjoint else torchdiffeq.odeint
    options = {"step_size": 1 / config.substeps} if config.solver == "rk4" else None
    accuracy = {"rtol": config.tolerance, "atol": config.tolerance}
    solution = solve(_Autonomous(flow), state, times.to(state), method=config.solver, options=options, **accuracy)
    return cast(Tensor, solution)
