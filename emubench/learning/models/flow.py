"""What learned flows share: options, normalisation, the start from a window, the spatial band, innovations, rollouts.

A baseline subclasses :class:`LearnedFlow`, says how one sample interval is advanced, and keeps its own training loop.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import by_parts, sent
from emubench.data.dataset import Observations, windows
from emubench.data.tasks import Task
from emubench.emulator import step_forecast
from emubench.learning.filters.ensemble import Filter, filtered_start
from emubench.learning.gaps import masked_mse
from emubench.learning.models.networks import GatedMlp, GrowthField, RingField, WindowEncoder
from emubench.learning.rings import on_ring, signal_band
from emubench.learning.training.descent import Log
from emubench.learning.training.polish import polish
from emubench.learning.training.settings import check_least, check_localisation, check_positive

POLISHED = 4096
"""Windows that the last iterations see, all at once; on rings sites of windows, twice as many."""
LARGEST = 6.0
"""A filter keeps states within so many σ: one diverging member would make every covariance infinite."""


@dataclass(frozen=True)
class FlowConfig:
    """Architecture, budget (``steps`` optimiser steps on ``batch`` windows each), the options shared by all flows."""

    width: int = 64
    radius: int = 2
    window: int = 1
    """Samples that the encoder sees."""
    latent: int = 0
    """Components added to the state, never observed (off rings)."""
    training_noise: float = 0.0
    """Standard deviation, in σ, of what is added to every start during training."""
    unroll: int = 4
    """Samples forecast from each start during training."""
    steps: int = 4000
    batch: int = 256
    learning_rate: float = 3e-3
    clip: float = 1.0
    """Largest norm of a gradient."""
    average: float = 0.0
    """Decay per optimiser step of the exponential average of the weights (0: none)."""
    assimilated: bool = False
    """Start forecasts by an ensemble Kalman filter through the context, with the emulator as the model."""
    members: int = 40
    inflation: float = 1.05
    localisation: float = 0.0
    """Radius, in sites, within which the filter's covariances are kept (0: everywhere)."""
    checks: int = 20
    """Looks at the validation data."""

    def __post_init__(self) -> None:
        check_positive(self, "width", "window", "unroll", "steps", "batch", "learning_rate", "clip", "checks")
        check_positive(self, "inflation")
        check_least(self, 0, "radius", "latent", "training_noise", "localisation")
        check_least(self, 2, "members")
        if not 0 <= self.average < 1:
            raise EmubenchError(f"average: {self.average} where a decay of at least 0 and under 1 belongs")


class LearnedFlow(nn.Module):
    """Field, window encoder and innovations; inside, states are deviations from the mean in σ, float32.

    A deterministic :class:`~emubench.emulator.Stepper` (kpz: with coloured Gaussian innovations). Subclasses define
    :meth:`advance`.
    """

    mean: Tensor
    std: Tensor
    innovation: Tensor
    band: Tensor
    noise: Tensor

    def __init__(self, task: Task, config: FlowConfig) -> None:
        super().__init__()
        (n,) = task.shape
        ring, growing = on_ring(task), task.system.growing
        self.n, self.window, self.ring, self.growing = n, config.window, ring, growing
        n_state = n if ring else n + config.latent
        if ring and 2 * config.radius >= n:
            raise EmubenchError(f"radius: {config.radius} where at most {(n - 1) // 2} belongs, on a ring of {n} sites")
        if ring and config.latent:
            raise EmubenchError(f"latent: {config.latent} on {task.name}, a ring of sites: 0 belongs")
        check_localisation(task, config.localisation)
        if config.assimilated and not task.observation.noise:
            raise EmubenchError(f"assimilated: true on {task.name}, whose samples have no noise: false belongs")
        if config.assimilated and growing:
            raise EmubenchError(f"assimilated: true on {task.name}, where an encoder gives the start: false belongs")
        self.n_state = n_state
        self.field = self.new_field(config)
        self.at_once = (256 if isinstance(self.field, RingField) else 16) if ring else 4096
        encoder = WindowEncoder(config.window, n, config.width, ring, min(config.radius, 8), growing, config.latent)
        self.encoder: nn.Module | None = encoder if task.observation.noise else None
        self.filter = Filter(config.members, config.inflation, config.localisation) if config.assimilated else None
        noise = torch.from_numpy(task.observation.noise_std(task.system))
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        # spatial modes in which the data show any signal; the state is kept within them
        self.register_buffer("band", torch.ones(n // 2 + 1 if ring else 0))
        # standard deviation of the innovation of each spatial mode, in σ
        self.register_buffer("innovation", torch.zeros(n // 2 + 1 if growing else 0))
        self.has_band = False
        self.register_load_state_dict_post_hook(lambda flow, _: flow.set_band(flow.band))

    @property
    def repeated(self) -> str:
        """The method that a training step repeats, for ``--compile``."""
        return "advance"

    def new_field(self, config: FlowConfig) -> nn.Module:
        """A gated perceptron; on rings the same around every site."""
        if not self.ring:
            return GatedMlp(self.n_state, self.n_state, config.width)
        return (GrowthField if self.growing else RingField)(config.radius, config.width)

    def advance(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The state one sample interval later."""
        raise NotImplementedError

    def prepare(self, data: Observations) -> None:
        """Take over from the training data what is not trained: mean, σ, band, largest slopes."""
        self.mean.copy_(data.mean)
        self.std.copy_(data.std)
        fields = self.normalised(data.train)
        if len(self.band):
            self.set_band(signal_band(fields, data))
        for field in self.modules():
            if isinstance(field, GrowthField):
                field.set_limit(fields[:, ::16])

    def normalised(self, observation: Tensor) -> Tensor:
        """Observations in σ, float32."""
        return ((observation - self.mean) / self.std).float()

    def pool(self, observation: Tensor, length: int) -> Tensor:
        """All windows of ``length`` samples, in σ, whose last encoded sample and first target are seen somewhere."""
        pool = windows(self.normalised(observation), length)
        seen = ~torch.isnan(pool[:, self.window - 1 : self.window + 1]).flatten(2).all(-1)
        if not seen.all(1).any():
            where = f"the last sample encoded and the first to forecast, {self.window} and {self.window + 1}"
            raise EmubenchError(f"too little is observed: no window of {length} samples has a value in both {where}")
        return pool[seen.all(1)]

    def encode(self, window: Float[Tensor, "B L S"]) -> Float[Tensor, "B D"]:
        """State at the end of a window in σ; without noise the last sample, and zeros for what is latent."""
        if self.encoder is None:
            return nn.functional.pad(window[:, -1], (0, self.n_state - self.n))
        return self.in_band(self.encoder(window))

    def set_band(self, band: Tensor) -> None:
        """Keep the state within the modes where ``band`` is 1 (not of a growing height)."""
        self.band.copy_(band)
        # known once, not looked up at every step: a compiled step has no branch on data
        self.has_band = not self.growing and not bool(self.band.all())

    def in_band(self, state: Tensor) -> Tensor:
        """Project a field on the modes of ``band``: outside them no data ever tell the flow how to damp an error."""
        if not self.has_band:
            return state
        return torch.fft.irfft(self.band * torch.fft.rfft(state), n=self.n)

    def unroll(self, state: Tensor, n_steps: int) -> Float[Tensor, "B T D"]:
        """The next ``n_steps`` states."""
        states = []
        for _ in range(n_steps):
            state = self.advance(state)
            states.append(state)
        return torch.stack(states, dim=1)

    # --- the Stepper protocol, in physical units ---

    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """State ``"M B D"`` at the last context sample: the filter's mean, or what the encoder says."""
        first = max(16, self.window)
        if self.filter is None or context.shape[1] <= first:
            state = self.encode(self.normalised(context[:, -self.window :]))
            return state.expand(n_members if self.growing else 1, -1, -1)
        ensemble = filtered_start(_Bounded(self), context, self.noise, self.filter, generator, first)
        return ensemble.mean(0, keepdim=True)

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """One sample interval; for kpz with a fresh innovation. Some states at a time stay in the cache."""
        state = by_parts(self.advance, state, self.at_once)
        if self.growing:
            white = sent(torch.randn(state.shape, generator=generator), state.device)
            state = state + torch.fft.irfft(self.innovation * torch.fft.rfft(white), n=self.n)
        return state

    def read(self, state: Tensor) -> Tensor:
        """Scored components ``"M B S"``."""
        return state[..., : self.n] * self.std + self.mean

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Roll the stepper out."""
        return step_forecast(self, context, n_steps, n_members, generator)


class _Bounded:
    """A flow as the model of a filter: started by its encoder, states within ``LARGEST`` σ."""

    def __init__(self, flow: LearnedFlow) -> None:
        self.flow, self.start, self.read = flow, flow.start, flow.read

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        return torch.nan_to_num(self.flow.step(state, generator)).clamp(-LARGEST, LARGEST)


def rollout_loss(flow: LearnedFlow, batch: Tensor, n_steps: int, training_noise: float = 0.0) -> Tensor:
    """Masked mean squared error of forecasts of ``n_steps`` samples from the encoded start of windows ``"B L S"``."""
    state = flow.encode(batch[:, : flow.window])
    if training_noise and flow.training:
        state = state + training_noise * sent(torch.randn(state.shape), state.device)
    return masked_mse(flow.unroll(state, n_steps)[..., : flow.n], batch[:, flow.window : flow.window + n_steps])


def one_step_loss(flow: LearnedFlow, states: Float[Tensor, "B T D"], observed: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of the next sample of ``observed``; components of ``weight`` "B 1 D" 0 don't count."""
    error = flow.advance(states[:, :-1].flatten(0, 1)).view_as(observed[:, 1:]) - observed[:, 1:]
    return (error.square() * weight).sum() / weight.expand_as(error).sum().clamp(min=1)


def jittered(states: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """The states with training noise of so many σ."""
    return states + noise * sent(torch.randn(states.shape, generator=generator), states.device) if noise else states


def check_polish(n_iterations: int) -> None:
    """Raise :class:`EmubenchError` unless :func:`polish_one_step` takes so many iterations."""
    if n_iterations < 0 or n_iterations % 50:
        raise EmubenchError(f"polish: {n_iterations} where a multiple of 50 belongs")


def polish_one_step(
    flow: LearnedFlow, pool: Tensor, check: Tensor, n_iterations: int, generator: torch.Generator, log: Log
) -> None:
    """Finish a fit to clean data by L-BFGS on the error of the next sample, over ``POLISHED`` windows of the pool."""
    n_windows, length = 2 * POLISHED // flow.n if flow.ring else POLISHED, flow.window + 1
    chosen = pool[torch.randperm(len(pool), generator=generator)[:n_windows], :length]
    losses = (lambda: rollout_loss(flow, chosen, 1), lambda: rollout_loss(flow, check[:, :length], 1))
    polish(flow, *losses, n_iterations, log)
