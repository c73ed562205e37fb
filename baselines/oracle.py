"""oracle: the perfect-model reference. The true system, started by an ensemble Kalman filter on the same context.

It knows the equation, its parameters and the noise; what it lacks is the exact state. On clean tasks it starts from
the last sample. It is a reference for skill, not a bound. Settings per system were chosen on contexts of another seed
(``python -m benchmarks.maintain.perfect_model tune``). Knowledge: equation.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.13 0.99 1.08 1.00; kuramoto_sivashinsky
1.00 0.99 1.01 0.99; lorenz63 1.00 0.99 0.99 0.99; lorenz96 1.00 0.98 0.98 0.98; no training. Intervals:
``baselines/expected.toml``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.dynamics.simulate import simulate
from emubench.dynamics.solvers import TrueSolver
from emubench.learning.filters.ensemble import Filter, assimilate, flat_until_seen
from emubench.learning.training.descent import Log
from emubench.learning.training.settings import check_least, check_localisation

knowledge = "equation"


@dataclass(frozen=True)
class Config:
    """Ensemble size and multiplicative inflation of the filter; 0 takes the system's own setting."""

    members: int = 0
    inflation: float = 0.0
    radius: float = -1.0
    """Localisation of its covariances, in sites; 0 leaves them as they are, −1 takes the system's own setting."""

    def __post_init__(self) -> None:
        check_least(self, 0, "members", "inflation")
        check_least(self, -1, "radius")
        if self.members == 1:
            raise EmubenchError("members: 1 where at least 2 belong, or 0 for the system's own number")


SETTINGS = {
    "lorenz63": Filter(40),
    "lorenz96": Filter(200, 1.02, 12.0),
    "kuramoto_sivashinsky": Filter(40),
    "kpz": Filter(100, 1.0, 4.0, samples=16),
}


class Oracle(nn.Module):
    """Filter, then integrate, both by ``solver``: the truth's own unless the solver ladder gives a cheaper one."""

    def __init__(self, task: Task, config: Config, solver: TrueSolver | None = None) -> None:
        super().__init__()
        own = SETTINGS.get(task.system.name, Filter(40, 1.02))
        self.solver = solver or TrueSolver(task.system)
        self.task, self.system = task, task.system
        radius = own.radius if config.radius < 0 else config.radius
        check_localisation(task, radius, "radius")
        self.filter = Filter(config.members or own.members, config.inflation or own.inflation, radius, own.samples)

    def advance(self, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
        """The true flow over one sample interval, for ensembles ``"M B *S"``."""

        def step(states: Tensor) -> Tensor:
            flat = states.flatten(0, 1).numpy()
            streams = list(rng.spawn(len(flat))) if self.system.stochastic else []
            return torch.from_numpy(self.solver.solve(flat, 1, streams)[:, -1]).to(states.dtype).reshape(states.shape)

        return step

    @cached_property
    def library(self) -> np.ndarray:
        """States on the attractor ``"512 *S"``, drawn once."""
        rngs = [stream(0, "oracle", self.system.name, i) for i in range(512)]
        states = np.stack([self.system.draw(rng, self.system.starts[0]) for rng in rngs])
        n = self.system.spin_up_samples
        return simulate(self.system, states, n, rngs)[:, -1] if n else states

    def initial(self, n_cases: int, rng: np.random.Generator) -> Tensor:
        """A climatological ensemble of the solver's states, drawn from the library with replacement."""
        drawn = self.library[rng.integers(len(self.library), size=(self.filter.members, n_cases))]
        return torch.from_numpy(self.solver.restrict(drawn))

    def lift(self, states: Tensor) -> Tensor:
        """The solver's states as the system's."""
        return torch.from_numpy(self.solver.lift(states.numpy()))

    def start(self, context: Tensor, rng: np.random.Generator) -> Tensor:
        """Analysis ensemble of the solver's states at the last context sample; one member where it is known exactly."""
        if self.task.observation.noise == 0 and self.task.full_state:
            return torch.from_numpy(self.solver.restrict(context[None, :, -1].numpy()))
        skipped = context.shape[1] - self.filter.samples if self.filter.samples else 0
        before = flat_until_seen(context, skipped) if "flat" in self.system.starts else None
        first, advance = self.initial(len(context), rng), self.advance(rng)
        shape = first.shape[2:]  # the filter knows vectors alone
        components = list(self.task.observation.components or range(math.prod(context.shape[2:])))
        analysis = assimilate(
            lambda ensemble: advance(ensemble.unflatten(-1, shape)).flatten(2),
            first.flatten(2),
            context[:, skipped:].flatten(2),
            torch.from_numpy(self.task.observation.noise_std(self.system)).flatten(),
            lambda ensemble: self.lift(ensemble.unflatten(-1, shape)).flatten(2)[..., components],
            self.filter.inflation,
            self.filter.taper(self.system.shape[0]),
            before,
        )
        return analysis.unflatten(-1, shape)

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Run the analysis mean (deterministic), or ``n_members`` analysis members with their own noise."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        ensemble = self.start(context, rng)
        if not self.system.scored_in_law:
            ensemble = ensemble.mean(0, keepdim=True)
        else:
            ensemble = ensemble[torch.arange(n_members) % len(ensemble)]
        flat = ensemble.flatten(0, 1).numpy()
        streams = list(rng.spawn(len(flat))) if self.system.stochastic else []
        run = self.lift(torch.from_numpy(self.solver.solve(flat, n_steps, streams)))
        run = run.reshape(*ensemble.shape[:2], n_steps, *self.system.shape)
        return run if self.task.full_state else run[..., list(self.task.observation.components or ())]


def build(task: Task, config: Config) -> Oracle:
    """The emulator; there is nothing to train."""
    return Oracle(task, config)


def train(emulator: Oracle, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Nothing is learned."""
