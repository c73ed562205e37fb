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
from torch import Tensor

from emubench.dataset import Observations
from emubench.flows import FlowConfig, LearnedFlow, fit_innovation, rollout_loss
from emubench.task import Task
from emubench.training import Descent, Log

knowledge = "structure"


@dataclass(frozen=True)
class Config(FlowConfig):
    """A flow of ``substeps`` tied residual blocks per sample interval."""

    substeps: int = 4


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


class ResnetOde(LearnedFlow):
    """Encoder, tied residual blocks and innovations."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.substeps = config.substeps

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval: K Euler steps of the flow."""
        for _ in range(self.substeps):
            state = state + self.field(state) / self.substeps
        return self.limit(state)


def build(task: Task, config: Config) -> ResnetOde:
    """The emulator before training."""
    return ResnetOde(task, config)


def train(emulator: ResnetOde, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on the masked error of short rollouts from encoded windows; the best weights on noisy validation data."""
    generator = torch.Generator().manual_seed(seed)
    emulator.prepare(data)
    pool, check = (emulator.pool(part, config.window + config.unroll) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    descent = Descent(emulator, config, log, lambda: rollout_loss(emulator, check, config.unroll))
    for _ in descent:
        batch = pool[torch.randint(len(pool), (config.batch,), generator=generator)]
        descent(rollout_loss(emulator, batch, config.unroll, config.training_noise))
    if emulator.growth:
        fit_innovation(emulator, pool, data)
