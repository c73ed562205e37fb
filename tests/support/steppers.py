"""Emulators with a state, as small as can be, for tests of diagnostics."""

from __future__ import annotations

import numpy as np
import torch

from emubench.core.random import stream
from emubench.dynamics.simulate import simulate
from emubench.dynamics.system import System
from emubench.emulator import step_forecast


class MapStepper:
    """A deterministic Stepper from a function of states ``"... D"``; its context is the last sample."""

    def __init__(self, function, dtype=torch.float64):
        self.function, self.dtype = function, dtype

    def start(self, context, n_members, generator):
        return context[:, -1].to(self.dtype)[None]

    def step(self, state, generator):
        return self.function(state)

    def read(self, state):
        return state

    def forecast(self, context, n_steps, n_members, generator):
        return step_forecast(self, context, n_steps, n_members, generator)


def true_stepper(system: System, step: float | None = None) -> MapStepper:
    """The system itself as an emulator."""
    solver = system.solver(step)
    n = round(system.sample_interval / (step or system.solver_step))

    def advance(state):
        for _ in range(n):
            state = solver(state, None)
        return state

    return MapStepper(advance)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test_diagnostics").standard_normal(shape))


def attractor(system: System, n: int, n_samples: int | None = None) -> torch.Tensor:
    """Contexts ``"B 1 *S"`` on the attractor."""
    start = np.stack([system.draw(stream(0, "context", i), system.starts[0]) for i in range(n)])
    return torch.from_numpy(simulate(system, start, n_samples or system.spin_up_samples)[:, -1:].copy())


class Noisy(MapStepper):
    def step(self, state, generator):
        return state + torch.randn(state.shape, generator=generator, dtype=state.dtype)


def known(system: System, name: str) -> float:
    """The value of one of the system's own facts."""
    return next(fact.value for fact in system.facts if fact.name == name)
