"""climatology: the same forecast always, the mean of the training observations (kpz: random draws from its climate).

The floor for long lead times: its error is 1 σ, where an unskilled run of the right climate has √2. Knowledge: none.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -22.44 -17.82 -8.56 -15.89;
kuramoto_sivashinsky -0.02 -0.05 -0.06 -0.05; lorenz63 -0.01 -0.05 -0.07 -0.08; lorenz96 -0.02 -0.07 -0.01 -0.01; no
training. Intervals: ``baselines/expected.toml``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emubench.core.hardware import sent
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.rings import interpolate_ring, on_ring
from emubench.learning.training.descent import Log
from emubench.learning.training.settings import check_positive

knowledge = "none"
comes_to_rest = True


@dataclass(frozen=True)
class Config:
    """``pool``: how many observed snapshots a stochastic system's ensemble is drawn from."""

    pool: int = 512

    def __post_init__(self) -> None:
        check_positive(self, "pool")


class Climatology(nn.Module):
    """Forecast(t) = mean; where it is scored in law, states of the training data (growing: their deviation from the
    spatial mean, added to the context's)."""

    mean: Tensor
    fields: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.in_law, self.growing = task.system.scored_in_law, task.system.growing
        n_fields = config.pool if self.in_law else 0
        self.register_buffer("mean", torch.zeros(task.shape, dtype=torch.float64))
        self.register_buffer("fields", torch.zeros(n_fields, *task.shape, dtype=torch.float64))

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """One member where deterministic, else ``n_members`` random draws per lead time."""
        if not self.in_law:
            return self.mean.expand(1, len(context), n_steps, *self.mean.shape).clone()
        pick = torch.randint(len(self.fields), (n_members, len(context), n_steps), generator=generator)
        fields = self.fields[sent(pick, self.fields.device)]
        return fields + context[:, -1].nanmean(-1)[:, None, None] if self.growing else fields


def build(task: Task, config: Config) -> Climatology:
    """The emulator before training."""
    return Climatology(task, config)


def train(emulator: Climatology, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Mean over all observed values; for the pool, observed states (growing: less their mean), gaps interpolated."""
    observed = data.train.reshape(-1, *data.train.shape[2:])
    if not emulator.in_law:
        mean = observed.nanmean(0)
        ring_mean = observed.nanmean()
        emulator.mean.copy_(torch.where(torch.isnan(mean), ring_mean, mean))
        if data.task.system.grid:  # all sites are alike
            emulator.mean.fill_(ring_mean)
        return
    every = torch.linspace(0, len(observed) - 1, config.pool).long()
    states = observed[every]
    if emulator.growing:
        states = states - states.nanmean(-1, keepdim=True)
    if on_ring(data.task):
        states = interpolate_ring(states)
    emulator.fields.copy_(torch.where(torch.isnan(states), states.nanmean(0), states))
