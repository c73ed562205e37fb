"""persistence: every component keeps its last observed value; one never observed gets the climatological mean
(kpz, whose height drifts: the mean of the sites observed).

The floor below which a forecast is worth nothing. Knowledge: none. Nothing is trained.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -23.29 -19.12 -13.10 -8.04;
kuramoto_sivashinsky 0.00 -0.01 -0.05 -0.05; lorenz63 0.00 0.00 0.00 0.00; lorenz96 -0.01 -0.03 -0.01 0.00; no training.
Intervals: ``baselines/expected.toml``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.gaps import last_observed
from emubench.learning.training.descent import Log

knowledge = "none"
comes_to_rest = True


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


class Persistence(nn.Module):
    """Forecast(t) = last observation."""

    mean: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.growing = task.system.growing
        self.register_buffer("mean", torch.zeros(task.shape, dtype=torch.float64))

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """One member, constant in time."""
        fill = self.mean
        if self.growing:
            level = last_observed(context.nanmean(-1, keepdim=True), context.new_zeros(1))
            fill = level.expand_as(context[:, -1])
        return last_observed(context, fill)[None, :, None].repeat(1, 1, n_steps, *[1] * (context.ndim - 2))


def build(task: Task, config: Config) -> Persistence:
    """The emulator before training."""
    return Persistence(task)


def train(emulator: Persistence, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Takes the climatological mean, which the data file states."""
    emulator.mean.copy_(data.mean)
