"""resnet_ode: residual blocks with tied weights, read as Euler steps of one stationary flow.

A sample interval is K blocks u ← u + f(u)/K with one and the same f: a residual network is the Euler scheme of
du/dt = f(u), and tying the blocks makes the flow stationary (He et al. 2016, doi:10.1109/CVPR.2016.90; Lu et al. 2018,
arXiv:1710.10121; Rousseau, Drumetz & Fablet 2019, doi:10.1007/s10851-019-00890-3). Started by a window encoder,
trained on masked, noisy windows by the error of short rollouts.

Differences from the papers: f is a small gated network (local and translation-equivariant on rings, where He used
convolutions for images), no batch normalisation, multi-step loss. kpz: the flow is the conditional mean, and spatially
coloured Gaussian innovations, fitted to the one-step residuals, make the ensemble.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63). Expected scores
and cost: ``baselines/README.md``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emubench.dataset import Observations, windows
from emubench.emulator import step_forecast
from emubench.networks import GatedMlp, GrowthField, RingField, WindowEncoder
from emubench.task import Task
from emubench.training import Log, check_loss, copy_state, cosine, masked_mse

knowledge = "structure"


@dataclass(frozen=True)
class Config:
    """Architecture and budget: ``steps`` optimiser steps on ``batch`` windows each."""

    substeps: int = 4
    width: int = 64
    radius: int = 2
    window: int = 1
    latent: int = 0
    training_noise: float = 0.0
    unroll: int = 4
    steps: int = 4000
    batch: int = 256
    learning_rate: float = 3e-3
    checks: int = 20


def default_config(task: Task) -> Config:
    """Settings per system, chosen on validation data; noisy contexts get a longer window and rollout."""
    config = {
        "lorenz63": Config(substeps=5, width=128, unroll=2, steps=12000, batch=512),
        "lorenz96": Config(substeps=4, width=64, radius=2, unroll=2, batch=64),
        "kuramoto_sivashinsky": Config(substeps=2, width=64, radius=16, unroll=2, batch=32, training_noise=0.02),
        "kpz": Config(substeps=2, width=32, radius=4, unroll=1, window=1, steps=1500, batch=16),
    }.get(task.system.name, Config())
    if task.observation.noise and not task.system.stochastic:
        config = dataclasses.replace(config, window=12, unroll=6, width=64)
        config = dataclasses.replace(
            config, **{"steps": 1200, "batch": 48} if task.system.ring else {"steps": 4000, "batch": 128}
        )
    elif task.observation.noise:
        config = dataclasses.replace(config, window=8)
    if not task.full_state:
        config = dataclasses.replace(config, latent=3, window=24)
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 4)
    return config


class ResnetOde(nn.Module):
    """Encoder, flow and innovations; inside, states are deviations from the mean in σ, float32."""

    mean: Tensor
    std: Tensor
    innovation: Tensor
    band: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        (n,) = task.shape
        ring, growth = task.system.ring, task.system.stochastic
        self.substeps, self.growth, self.n, self.window = config.substeps, growth, n, config.window
        self.flow_is_local = ring
        n_state = n + config.latent
        field = GrowthField if growth else RingField
        self.flow = field(config.radius, config.width) if ring else GatedMlp(n_state, n_state, config.width)
        encoder = WindowEncoder(config.window, n, config.width, ring, min(config.radius, 8), growth, config.latent)
        self.encoder = encoder if task.observation.noise else None
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        # spatial modes in which the data show any signal; the state is kept within them
        self.register_buffer("band", torch.ones(n // 2 + 1 if ring else 0))
        # standard deviation of the innovation of each spatial mode, in σ
        self.register_buffer("innovation", torch.zeros(n // 2 + 1 if growth else 0))

    def encode(self, window: Tensor) -> Tensor:
        """State ``"B D"`` at the end of a window in σ; without noise the last sample is the state."""
        return window[:, -1] if self.encoder is None else self.limit(self.encoder(window))

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval: K Euler steps of the flow."""
        for _ in range(self.substeps):
            state = state + self.flow(state) / self.substeps
        return self.limit(state)

    def limit(self, state: Tensor) -> Tensor:
        """Project a field on the modes of ``band``: outside them no data ever tell the flow how to damp an error."""
        if not len(self.band) or self.growth:
            return state
        return torch.fft.irfft(self.band * torch.fft.rfft(state), n=self.n)

    def unroll(self, state: Tensor, n_steps: int) -> Tensor:
        """The next ``n_steps`` observable states ``"B T S"``."""
        states = []
        for _ in range(n_steps):
            state = self.advance(state)
            states.append(state[..., : self.n])
        return torch.stack(states, dim=1)

    # --- the Stepper protocol, in physical units ---

    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """State ``"M B D"`` at the last context sample."""
        window = ((context[:, -self.window :] - self.mean) / self.std).float()
        members = n_members if self.growth else 1
        return self.encode(window).expand(members, -1, -1)

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """One sample interval; for kpz with a fresh innovation. A few rings at a time stay in the cache."""
        lanes = state.flatten(0, 1).split(16 if self.flow_is_local else 4096)
        state = torch.cat([self.advance(lane) for lane in lanes]).view(state.shape)
        if self.growth:
            white = torch.randn(state.shape, generator=generator, device=state.device)
            state = state + torch.fft.irfft(self.innovation * torch.fft.rfft(white), n=self.n)
        return state

    def read(self, state: Tensor) -> Tensor:
        """Scored components ``"M B S"``."""
        return state[..., : self.n] * self.std + self.mean

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Roll the stepper out."""
        return step_forecast(self, context, n_steps, n_members, generator)


def build(task: Task, config: Config) -> ResnetOde:
    """The emulator before training."""
    return ResnetOde(task, config)


def train(emulator: ResnetOde, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on the masked error of short rollouts from encoded windows; the best weights on noisy validation data."""
    generator = torch.Generator().manual_seed(seed)
    emulator.mean.copy_(data.mean)
    emulator.std.copy_(data.std)
    if len(emulator.band):
        emulator.band.copy_(signal_band(normalised(emulator, data.train), data))
    if isinstance(emulator.flow, GrowthField):
        emulator.flow.set_limit(normalised(emulator, data.train)[:, ::16])
    length = config.window + config.unroll
    pool, check = (windows(normalised(emulator, split), length) for split in (data.train, data.validation))
    pool, check = usable(pool, config), usable(check, config)[:: max(1, len(check) // 256)]
    parameters = [p for p in emulator.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = cosine(optimizer, config.steps)
    every, best, best_loss = max(1, config.steps // config.checks), copy_state(emulator), float("inf")
    for step in range(1, config.steps + 1):
        batch = pool[torch.randint(len(pool), (config.batch,), generator=generator)]
        loss = rollout_loss(emulator, batch, config)
        value = check_loss(loss, step, optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == config.steps:
            emulator.eval()
            with torch.no_grad():
                check_value = float(rollout_loss(emulator, check, config))
            emulator.train()
            if check_value < best_loss:
                best, best_loss = copy_state(emulator), check_value
            log(step, config.steps, loss=value, validation=check_value)
    emulator.load_state_dict(best)
    if emulator.growth:
        fit_innovation(emulator, pool, data, config)


def normalised(emulator: ResnetOde, observation: Tensor) -> Tensor:
    """Observations in σ, float32."""
    return ((observation - emulator.mean) / emulator.std).float()


def usable(pool: Tensor, config: Config) -> Tensor:
    """Windows whose last context sample and first target are observed somewhere."""
    seen = ~torch.isnan(pool[:, config.window - 1 : config.window + 1]).flatten(2).all(-1)
    return pool[seen.all(1)]


def rollout_loss(emulator: ResnetOde, batch: Tensor, config: Config) -> Tensor:
    """Masked mean squared error over the unrolled samples."""
    state = emulator.encode(batch[:, : config.window])
    if config.training_noise and emulator.training:
        state = state + config.training_noise * torch.randn_like(state)
    return masked_mse(emulator.unroll(state, config.unroll), batch[:, config.window :])


def pair_spectrum(fields: Tensor) -> Tensor:
    """Power spectrum (per site) of fields ``"... N"`` from the pairs of sites observed together."""
    values, seen = torch.nan_to_num(fields).flatten(0, -2), (~torch.isnan(fields)).flatten(0, -2).to(fields.dtype)
    products, pairs = ((torch.fft.rfft(v).abs() ** 2).sum(0) for v in (values, seen))
    n = fields.shape[-1]
    covariance = torch.fft.irfft(products, n=n) / torch.fft.irfft(pairs, n=n).round().clamp(min=1)
    return torch.fft.rfft(covariance).real


def signal_band(fields: Tensor, data: Observations) -> Tensor:
    """1 for modes whose power stands out of the noise (half as much again) and above 10⁻⁶ of the peak, else 0."""
    noise = float((data.noise_std / data.std).square().mean())
    power = pair_spectrum(fields.double())
    return (power > max(1.5 * noise, 1e-6 * float(power.max()))).float()


@torch.no_grad()
def fit_innovation(emulator: ResnetOde, pool: Tensor, data: Observations, config: Config) -> None:
    """Spectrum of the one-step residuals over observed pairs of sites, less the observation noise."""
    sample = pool[:: max(1, len(pool) // 4096)]
    residual = sample[:, config.window] - emulator.advance(emulator.encode(sample[:, : config.window]))
    noise = float((data.noise_std / data.std).square().mean())
    emulator.innovation.copy_((pair_spectrum(residual) - noise).clamp(min=0).sqrt())
