"""Metrics, one file each: per-case summaries here, averaging and bootstrap in :mod:`emubench.evaluation.scoring` alone.

``emubench/metrics/<name>.py`` defines ``split`` ("test" or "climate"), ``applies(task) -> bool`` and
``summarise(forecast "M B T *S", truth) -> Summary`` for a chunk of cases.

>>> import emubench
>>> "crps" in emubench.metrics.names()
True
>>> emubench.metrics.get("crps").applies(emubench.tasks.get("kpz-noisy"))
True
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core import registry
from emubench.data.tasks import Task
from emubench.metrics._features import (
    POOL_FEATURES,
    Map,
    directions,
    in_order,
    one_point,
    patches,
    scored_symmetries,
    whitening,
)
from emubench.metrics._spectra import spatial_power, temporal_power

LOST = 10.0
"""Beyond this many σ from the mean a run is lost; errors are capped here, so that failing is never cheaper."""


Bounds = tuple[float, float]
"""The least and the greatest value that a score can have."""
SHARE: Bounds = (0.0, 1.0)
POSITIVE: Bounds = (0.0, math.inf)


class Row(NamedTuple):
    """Name, lead time and unit of one output of a metric, which way it is better, and its range."""

    metric: str
    lead_time: float | None
    unit: str
    better: int = 0
    """+1 where higher is better, −1 where lower is, 0 where a value in between is best."""
    bounds: Bounds = (-math.inf, math.inf)
    """The range of the score, its ends included: what lies outside was not made by the metric."""
    counts_cases: bool = False
    """Whether every case is 0 or 1 and the score their share: its interval is Wilson's."""


def lead_rows(
    metric: str, task: Task, leads: Iterable[int | None], unit: str, better: int, bounds: Bounds
) -> tuple[Row, ...]:
    """One row per lead, given in samples; ``None`` stands for the whole forecast."""
    step = task.lead_time_step
    return tuple(Row(metric, n if n is None else round(n * step, 6), unit, better, bounds) for n in leads)


@dataclass(frozen=True)
class Summary:
    """Per-case summaries ``"B K"``, where the forecast is; ``finish`` turns means of them into outputs.

    These are weighted means ``"... K"``, on the CPU, and outputs ``"... R"``.
    """

    cases: Float[Tensor, "B K"]
    rows: tuple[Row, ...]
    finish: Callable[[Tensor], Tensor] = field(default=lambda mean: mean)
    headline: dict[str, int] = field(default_factory=dict)
    """Columns of ``cases`` that are kept per case under a metric's name, for paired comparisons."""


@dataclass(frozen=True)
class Truth:
    """A chunk of the truth with what the scorer knows of the whole: never shown to an emulator."""

    task: Task
    values: Float[Tensor, "B T *S"]
    start: Tensor
    """Index into ``system.starts`` of each case."""
    pool: "Pool | None" = None
    reference: dict[str, Any] = field(default_factory=dict)
    """The frozen reference values of the task: see :mod:`emubench.data.reference`."""

    def to(self, device: torch.device, pool: "Pool | None") -> "Truth":
        """The same on ``device``, with a ``pool`` that is there."""
        return replace(self, values=self.values.to(device), start=self.start.to(device), pool=pool)

    @property
    def std(self) -> Tensor:
        """Climatological σ of the scored components."""
        return torch.from_numpy(self.task.observation.select(self.task.system.std)).to(self.values.device)

    @property
    def mean(self) -> Tensor:
        """Climatological mean of the scored components."""
        return torch.from_numpy(self.task.observation.select(self.task.system.mean)).to(self.values.device)


@dataclass(frozen=True)
class Pool:
    """Statistics of the pooled truth of a climate split (stationary cases only)."""

    task: Task
    values: Float[Tensor, "B T *S"]

    def to(self, device: torch.device) -> "Pool":
        """The same on ``device``: itself, with what it has computed, if it is there."""
        return self if device == self.values.device else replace(self, values=self.values.to(device))

    @cached_property
    def anomalies(self) -> Tensor:
        """What the statistics are of: see :func:`deviation`."""
        return deviation(self.values, self.task)

    @cached_property
    def sorted(self) -> Float[Tensor, "C n"]:
        """All values in order: per component, or of all sites of a ring together."""
        return in_order(one_point(self.anomalies, self.task.system.grid))

    @cached_property
    def spatial_power(self) -> Tensor:
        """Mean power of each spatial Fourier mode."""
        return spatial_power(self.anomalies, self.task.system.grid).mean(0)

    @cached_property
    def temporal_power(self) -> Float[Tensor, "K C"]:
        """Mean power at each frequency."""
        return temporal_power(self.anomalies, self.task.system.grid).mean(0)

    @cached_property
    def projection(self) -> Float[Tensor, "P F"]:
        """Fixed directions in the space of whitened patches, in which these are scored."""
        features = patches(self.anomalies, self.task.system.grid, POOL_FEATURES)
        scale = float(np.square(self.task.observation.select(self.task.system.std)).mean())
        return directions(len(features)).to(features.device) @ whitening(features, scale)

    @cached_property
    def sorted_projections(self) -> Float[Tensor, "P n"]:
        """Patches along every direction, in order."""
        return in_order(self.projection @ patches(self.anomalies, self.task.system.grid, POOL_FEATURES))

    @cached_property
    def images(self) -> list[Map]:
        """The identity, and the system's symmetries that move one-point values or patches (a translation does not).

        Distances are averaged over them, so that a run and its mirror image score the same.
        """
        probe = self.values[:1, :64]
        maps: list[Map] = [lambda values: values]
        before = self._features(probe)
        for symmetry in scored_symmetries(self.task):
            if not torch.allclose(self._features(symmetry(probe)), before, rtol=0, atol=1e-6):
                maps.append(symmetry)
        return maps

    def _features(self, values: Tensor) -> Tensor:
        """The sorted values that one-point and patch distances are made of, of few samples."""
        anomalies, grid = deviation(values, self.task), self.task.system.grid
        projected = self.projection @ patches(anomalies, grid, anomalies.numel())
        return torch.cat([in_order(one_point(anomalies, grid)).flatten(), in_order(projected).flatten()])

    @cached_property
    def end_variance(self) -> float:
        """Mean temporal variance over the last part of a case (see :func:`end_variance`)."""
        return float(end_variance(self.values, self.task).mean())


def deviation(values: Tensor, task: Task) -> Tensor:
    """What climate scores look at: values ``"... *S"`` themselves; of what grows, less their mean over all sites."""
    return values - values.mean(task.site_axes, keepdim=True) if task.system.growing else values


def end_variance(values: Float[Tensor, "B T *S"], task: Task) -> Float[Tensor, " B"]:
    """Temporal variance of each component over the last 20 Lyapunov times (256 samples), averaged, in σ²."""
    n = 256 if task.system.stochastic else task.test_steps
    std = torch.from_numpy(task.observation.select(task.system.std)).to(values.device)
    last = deviation(values, task)[:, -n:] / std
    return last.var(dim=1).flatten(1).mean(1)


def names() -> list[str]:
    """Names of all metrics."""
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """The metric's module."""
    return registry.load(__name__, name, "metric")
