"""oracle: the perfect-model reference. The true system, started by an ensemble Kalman filter on the same context.

It knows the equation, its parameters and the noise; what it lacks is the exact state. On lorenz63 and lorenz96 the
filter's analysis 40 and 24 samples before the end is the prior of a trajectory that is fitted to the rest. On clean
tasks it starts from the last sample. It is a reference for skill, not a bound. Settings per system were chosen on
contexts of another seed (``python -m benchmarks.maintain.perfect_model tune``). Knowledge: equation.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.13 0.99 1.08 1.00; kuramoto_sivashinsky
1.00 0.99 1.01 0.99; lorenz63 1.00 1.00 1.02 1.03; lorenz96 1.00 0.97 0.97 0.99; no training. Intervals:
``baselines/expected.toml``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.core.random import stream
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.dynamics.simulate import simulate
from emubench.dynamics.solvers import TrueSolver
from emubench.learning.filters.ensemble import Advance, Filter, assimilate, flat_until_seen
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
    rotate: int = -1
    """1 turns the anomalies at random after every sample, 0 doesn't, −1 takes the system's own setting."""
    window: int = -1
    """Samples at the context's end that a trajectory is fitted to; 0: none, −1 takes the system's own setting."""

    def __post_init__(self) -> None:
        check_least(self, 0, "members", "inflation")
        check_least(self, -1, "radius", "rotate", "window")
        if self.members == 1:
            raise EmubenchError("members: 1 where at least 2 belong, or 0 for the system's own number")


SETTINGS = {
    "lorenz63": Filter(40, rotate=True),
    "lorenz96": Filter(200, 1.02, 12.0),
    "kuramoto_sivashinsky": Filter(40),
    "kpz": Filter(100, 1.0, 4.0, samples=16),
}
WINDOWS = {"lorenz63": 40, "lorenz96": 24}
"""Samples that a trajectory is fitted to; elsewhere a fit gained no more than two standard errors."""
GROWTH, LAST = 3, 3
"""Samples by which the window of a fit grows at every step, and steps on the whole of it."""
DIFFERENCE = 0.1
"""Finite differences of a fit, in standard deviations of its prior."""


class Oracle(nn.Module):
    """Filter, then integrate, both by ``solver``: the truth's own unless the solver ladder gives a cheaper one."""

    def __init__(self, task: Task, config: Config, solver: TrueSolver | None = None) -> None:
        super().__init__()
        own = SETTINGS.get(task.system.name, Filter(40, 1.02))
        self.solver = solver or TrueSolver(task.system)
        self.task, self.system = task, task.system
        radius = own.radius if config.radius < 0 else config.radius
        check_localisation(task, radius, "radius")
        members, inflation = config.members or own.members, config.inflation or own.inflation
        rotate = own.rotate if config.rotate < 0 else config.rotate > 0
        self.filter = Filter(members, inflation, radius, own.samples, rotate)
        spanned = members > math.prod(task.system.shape)  # else a fit would leave directions out
        own_window = WINDOWS.get(task.system.name, 0) if spanned else 0
        self.window = own_window if config.window < 0 else config.window
        if self.window and (task.system.stochastic or task.system.scored_in_law):
            raise EmubenchError(f"window: {self.window} on {task.name}, whose trajectories noise drives: 0 belongs")

    def advance(self, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
        """The true flow over one sample interval, for ensembles ``"M B *S"``."""

        def step(states: Tensor) -> Tensor:
            return self.run(states, 1, rng)[:, :, -1].to(states.dtype).reshape(states.shape)

        return step

    def run(self, states: Tensor, n_samples: int, rng: np.random.Generator) -> Tensor:
        """The next samples ``"M B T *S"``; each state has noise of its own, where there is any."""
        flat = states.flatten(0, 1)
        streams = list(rng.spawn(len(flat))) if self.system.stochastic else []
        return self.solver.run(flat, n_samples, streams).unflatten(0, states.shape[:2])

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
        """The solver's states as the system's; coarser ones go by way of the host."""
        if not self.solver.coarse:
            return states
        return sent(torch.from_numpy(self.solver.lift(states.cpu().numpy())), states.device)

    def start(self, context: Tensor, rng: np.random.Generator) -> Tensor:
        """Analysis ensemble of the solver's states at the last context sample; one where it is known, or fitted."""
        if self.task.observation.noise == 0 and self.task.full_state:
            return torch.from_numpy(self.solver.restrict(context[None, :, -1].cpu().numpy())).to(context.device)
        skipped = context.shape[1] - self.filter.samples if self.filter.samples else 0
        before = flat_until_seen(context, skipped) if "flat" in self.system.starts else None
        first, advance = self.initial(len(context), rng).to(context.device), self.advance(rng)
        shape = first.shape[2:]  # the filter knows vectors alone
        shown = list(self.task.observation.components or range(math.prod(context.shape[2:])))
        components = torch.tensor(shown, device=context.device)
        model = Model(
            lambda ensemble: advance(ensemble.unflatten(-1, shape)).flatten(2),
            lambda ensemble: self.lift(ensemble.unflatten(-1, shape)).flatten(2)[..., components],
            torch.from_numpy(self.task.observation.noise_std(self.system)).flatten().to(context.device),
        )
        samples = context[:, skipped:].flatten(2)
        end = max(1, samples.shape[1] - self.window)  # the filter's first analysis is of the first sample
        rotations = torch.Generator().manual_seed(int(rng.integers(2**62))) if self.filter.rotate else None
        settings = self.filter.inflation, self.filter.taper(self.system.shape[0], context.device), before
        parts = first.flatten(2), samples[:, :end], model.noise, model.observe
        analysis = assimilate(model.advance, *parts, *settings, rotations=rotations)
        if end < samples.shape[1]:
            analysis = fitted(model, analysis, samples[:, end:])
        return analysis.unflatten(-1, shape)

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Run the analysis mean (deterministic), or ``n_members`` analysis members with their own noise."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        ensemble = self.start(context, rng)
        if not self.system.scored_in_law:
            ensemble = ensemble.mean(0, keepdim=True)
        else:
            ensemble = ensemble[torch.arange(n_members) % len(ensemble)]
        run = self.lift(self.run(ensemble, n_steps, rng))
        return run if self.task.full_state else run[..., list(self.task.observation.components or ())]


class Model(NamedTuple):
    """What a filter and a fit know of the system and its observation; states are vectors ``"M B D"``."""

    advance: Advance
    observe: Advance
    noise: Float[Tensor, " C"]


class Fit(NamedTuple):
    """Trajectories through a window, one a case, and how the misfit follows the weights of their prior's directions."""

    cost: Float[Tensor, " B"]
    """Half the squared misfit of prior and observations, in their standard deviations."""
    weights: Float[Tensor, "B R"]
    last: Float[Tensor, "B D"]
    misfit: Float[Tensor, "B N"]
    slopes: Float[Tensor, "B R N"]

    def step(self, damping: Float[Tensor, " B"]) -> Float[Tensor, "B R"]:
        """The weights after a damped Gauss–Newton step."""
        eye = torch.eye(self.slopes.shape[1], dtype=self.slopes.dtype, device=self.slopes.device)
        hessian = self.slopes @ self.slopes.mT + eye
        hessian = hessian + torch.diag_embed(damping[:, None] * hessian.diagonal(dim1=-2, dim2=-1))
        descent = (self.slopes @ self.misfit[..., None])[..., 0] - self.weights
        return self.weights + torch.linalg.solve(hessian, descent)


def fitted(model: Model, prior: Float[Tensor, "M B D"], context: Float[Tensor, "B T C"]) -> Float[Tensor, "1 B D"]:
    """The last state of the trajectory that is likeliest, given ``prior`` a sample before ``context``, and ``context``.

    An iterative ensemble Kalman smoother (Bocquet & Sakov 2014, doi:10.1002/qj.2236): Gauss–Newton steps along the
    prior's principal directions, by finite differences. The window grows, so that errors never grow beyond what a step
    can mend (Pires et al. 1996, doi:10.1034/j.1600-0870.1996.00006.x).
    """
    mean, rank = prior.mean(0), min(len(prior) - 1, prior.shape[-1])
    _, sizes, vectors = torch.linalg.svd((prior - mean).movedim(0, 1) / (len(prior) - 1) ** 0.5, full_matrices=False)
    directions = (sizes[..., None] * vectors)[:, :rank]
    weights, best, damping, n = mean.new_zeros(directions.shape[:2]), None, mean.new_zeros(len(mean)), context.shape[1]
    lengths = [*range(GROWTH, n, GROWTH), *[n] * (LAST + 1)]
    for i, length in enumerate(lengths):
        new = _linearised(model, mean, directions, weights, context[:, :length])
        if best is None or length != lengths[i - 1]:
            best, damping = new, torch.zeros_like(damping)
        else:
            better = new.cost < best.cost
            damping = torch.where(better, damping / 10, (10 * damping).clamp(min=0.1))
            pairs = zip(new, best, strict=True)
            best = Fit(*(torch.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))
        weights = best.step(damping)
    assert best is not None
    return best.last[None]


def _linearised(model: Model, mean: Tensor, directions: Tensor, weights: Tensor, context: Tensor) -> Fit:
    """The trajectory from ``mean`` and ``weights`` times ``directions``, with one beside it for every direction."""
    start = mean + (weights[:, None] @ directions)[:, 0]
    states = torch.cat([start[None], start + DIFFERENCE * directions.movedim(1, 0)])
    seen, predicted = ~torch.isnan(context), []
    for _ in range(context.shape[1]):
        states = model.advance(states)
        predicted.append(model.observe(states))
    y = torch.stack(predicted, 2)
    misfit = torch.where(seen, (context - y[0]) / model.noise, 0.0).flatten(1)
    slopes = torch.where(seen, (y[1:] - y[0]) / DIFFERENCE / model.noise, 0.0).flatten(2).movedim(0, 1)
    return Fit((misfit.square().sum(1) + weights.square().sum(1)) / 2, weights, states[0], misfit, slopes)


def build(task: Task, config: Config) -> Oracle:
    """The emulator; there is nothing to train."""
    return Oracle(task, config)


def train(emulator: Oracle, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Nothing is learned."""
