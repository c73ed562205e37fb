"""What the plots of a run show, collected while it is scored: ``figures.json``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench import metrics
from emubench.metrics import Truth
from emubench.task import Task

CLAMP = 1e9
"""Where what is not finite, or beyond, is kept: JSON knows numbers alone."""


class Collector:
    """Takes the chunks of a scoring one by one; :meth:`content` is what ``figures.json`` holds."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._content: dict[str, Any] = {}
        self._seen: set[str] = set()

    def add(self, split: str, forecast: Float[Tensor, "M B T *S"], truth: Truth) -> None:
        """Take a chunk of cases of ``"test"`` or ``"climate"``, in order."""
        first = split not in self._seen
        self._seen.add(split)
        if first:
            self._content |= _example(forecast, truth) if split == "test" else _spectra(forecast, truth)

    def content(self) -> dict[str, Any]:
        """Numbers, lists and dictionaries only, all finite."""
        return self._content


def _rounded(values: Tensor) -> list[Any]:
    return torch.nan_to_num(values.double(), nan=CLAMP).clamp(-CLAMP, CLAMP).numpy().round(3).tolist()


def _example(forecast: Tensor, truth: Truth) -> dict[str, Any]:
    """The first test case, over the first eight units of lead time (128 samples where it is the sample interval)."""
    task = truth.task
    n = min(forecast.shape[2], max(24, round(8 / task.lead_time_step)) if not task.system.stochastic else 128)
    leads = (np.arange(1, n + 1) * task.lead_time_step).round(5).tolist()
    return {"lead_time": leads, "truth": _rounded(truth.values[0, :n]), "forecast": _rounded(forecast[0, 0, :n])}


def _spectra(forecast: Tensor, truth: Truth) -> dict[str, Any]:
    """Mean spatial power of the long runs, and of the truth."""
    if not truth.task.system.ring or truth.pool is None:
        return {}
    run = metrics.deviation(forecast[0].double(), truth.task)
    power = metrics.spatial_power(torch.nan_to_num(run, nan=0.0, posinf=0.0, neginf=0.0)).mean(0)
    return {"spatial_power": power.tolist(), "truth_spatial_power": truth.pool.spatial_power.tolist()}
