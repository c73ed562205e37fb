"""What the plots of a run show beyond its scores, collected while it is scored: ``figures.json``.

One test case; densities and spectra of the long runs beside the truth's, with the band in which another sample of the
truth would lie; for stochastic systems the ranks of the truth among the members, and the heights of flat interfaces.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.tasks import Task
from emubench.data.trajectories import FLAT_BLANK
from emubench.files.run_files import Figures
from emubench.metrics import Pool, Truth, _ensemble, deviation, rank_histogram
from emubench.metrics._spectra import CAP, spatial_power, temporal_power
from emubench.metrics.stability import lost_cases
from emubench.systems.kpz import KPZ

CLAMP = 1e9
"""The size at which what is not finite, or larger, is kept: JSON knows numbers alone."""
BINS, REACH = 96, 6.0
"""Bins of a density, between −6 σ and 6 σ."""
HEIGHT_BINS, HEIGHT_RANGE = 60, (-5.0, 7.0)
"""Bins of the densities of heights, and their range in units of (Γt)^(1/3)."""
HEIGHT_LEADS = (9, 57, 121)
"""Samples ahead at which a flat interface has grown for 16, 64 and 128 samples."""
BAND = 2.576 * math.sqrt(2)
"""Standard errors between two samples of one law that 99 % of differences stay within."""


def stands_still(figures: Figures) -> bool:
    """Whether long runs have no power at any frequency: their densities are spikes where they happened to stop."""
    pairs = [(max(curve.run), max(curve.truth)) for curve in figures.temporal_spectrum if curve.run]
    return bool(pairs) and all(own < CAP * known for own, known in pairs)


def context_of(figures: Figures, task: Task) -> Float[np.ndarray, "T N"]:
    """The context that is shown, NaN where nothing was observed; of what grows less the mean of what was."""
    context = np.array(figures.context, dtype=np.float64).reshape(-1, task.shape[-1])
    if not task.system.growing:
        return context
    seen = ~np.isnan(context)
    return context - np.where(seen, context, 0).sum(1, keepdims=True) / seen.sum(1, keepdims=True).clip(1)


class Collector:
    """Takes the chunks of a scoring one by one; :meth:`content` is what ``figures.json`` holds."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._example: dict[str, Any] = {}
        self._ranks: list[Tensor] = []
        self._heights: list[tuple[Tensor, Tensor]] = []
        self._pool: Pool | None = None
        self._sums: dict[str, Tensor] = {}
        self._cases, self._sound = 0, 0

    def add(self, split: str, forecast: Float[Tensor, "M B T *S"], truth: Truth, context: Tensor | None = None) -> None:
        """Take a chunk of cases of ``"test"`` or ``"climate"``, in order; ``context`` is that of its first case."""
        if split == "climate":
            self._add_climate(forecast[0], truth)
            return
        if not self._example:
            self._example = _example(forecast[:, 0], truth, context)
        if self.task.system.scored_in_law:
            self._ranks.append(rank_histogram.frequencies(forecast, truth)[0].sum(0))
        starts = self.task.system.starts
        flat = truth.start == (starts.index("flat") if "flat" in starts else -1)
        if growth_times(self.task) and flat.any():
            leads = [lead - 1 for lead in HEIGHT_LEADS]
            values = (forecast[:, flat][:, :, leads].float(), truth.values[flat][:, leads].float())
            self._heights.append(values)

    def _add_climate(self, run: Float[Tensor, "B T *S"], truth: Truth) -> None:
        self._pool = truth.pool
        for case in run[truth.start == 0]:
            self._cases += 1
            if not lost_cases(case[None].double(), truth):
                self._sound += 1
                for name, values in _statistics(case[None], self.task).items():
                    self._sums[name] = self._sums.get(name, 0) + values[0]

    def content(self) -> dict[str, Any]:
        """Numbers, lists and dictionaries only, all finite."""
        content = dict(self._example)
        if self._ranks:
            total = torch.stack(self._ranks).sum(0)
            frequency = total / total.sum(-1, keepdim=True).clamp(min=1e-300)
            leads = _ensemble.LEADS[: len(frequency)]
            content["rank_histogram"] = [
                {"lead_time": float(lead), "frequency": _digits(f)} for lead, f in zip(leads, frequency, strict=True)
            ]
        if self._heights:
            content["heights"] = self._height_densities()
        if self._pool is not None and self._cases:
            content["lost"] = 1 - self._sound / self._cases
            content |= self._climate(self._pool)
        Figures.model_validate(content)
        return content

    def _climate(self, pool: Pool) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        cases = [_statistics(case[None], self.task) for case in pool.values]
        for name in cases[0]:
            truth = torch.cat([case[name] for case in cases])
            x = _abscissa(name, truth.shape[1], self.task)
            total = self._sums.get(name)
            run = None if total is None else total / self._sound
            found[name] = [
                _compare(x, None if run is None else run[:, c], truth[:, :, c], relative=name != "density")
                for c in range(truth.shape[2])
            ]
        spatial = found.pop("spatial_spectrum", None)
        return found | ({"spatial_spectrum": spatial[0]} if spatial else {})

    def _height_densities(self) -> list[dict[str, Any]]:
        densities = []
        for k, (time, scale) in enumerate(growth_times(self.task)):
            members = torch.cat([forecast[:, :, k].flatten(0, 1) for forecast, _ in self._heights]).double()
            truth = torch.cat([values[:, k] for _, values in self._heights]).double()
            mean = truth.mean()
            low, high = HEIGHT_RANGE
            x, run = _histogram((members - mean)[..., None] / scale, low, high, HEIGHT_BINS)
            _, known = _histogram((truth - mean)[..., None] / scale, low, high, HEIGHT_BINS)
            densities.append({"time": time, **_compare(x, run.mean(0)[:, 0], known[:, :, 0], relative=False)})
        return densities


def growth_times(task: Task) -> list[tuple[float, float]]:
    """Times t since a flat start at :data:`HEIGHT_LEADS`, and (Γt)^(1/3) with Γ = |λ| (D/ν)²/2; none if not KPZ."""
    system = task.system
    if not isinstance(system, KPZ) or system.lam == 0 or task.test_steps < HEIGHT_LEADS[-1]:
        return []
    gamma = abs(system.lam) * (system.noise / system.nu) ** 2 / 2
    times = [(task.context - 1 - FLAT_BLANK + lead) * system.sample_interval for lead in HEIGHT_LEADS]
    return [(time, (gamma * time) ** (1 / 3)) for time in times]


def _example(forecast: Float[Tensor, "M T *S"], truth: Truth, context: Tensor | None) -> dict[str, Any]:
    """The first test case over eight units of lead time, or every second of 128 samples where these are the unit.

    Of a field in several dimensions, the line of sites along the last one that is first along the others. A context
    is kept for a quarter of that time.
    """
    task, every = truth.task, 2 if truth.task.system.stochastic else 1
    n = min(forecast.shape[1], max(24, round(8 / task.lead_time_step)) if not task.system.stochastic else 128)
    line = (slice(every - 1, n, every), *[0] * (len(task.shape) - 1))
    leads = (np.arange(1, n + 1) * task.lead_time_step).round(5)[line[0]]
    found = {
        "lead_time": leads.tolist(),
        "truth": _rounded(truth.values[0][line]),
        "forecast": _rounded(forecast[0][line]),
    }
    if task.system.scored_in_law:
        members = deviation(forecast.double(), task)
        moments = {"mean": members.mean(0), "spread": members.std(0, correction=0)}
        found |= {name: _rounded(values[line]) for name, values in moments.items()}
    if context is not None:
        last = context.flip(0)[::every][: len(leads) // 4].flip(0)[(slice(None), *line[1:])]
        shown = zip(_rounded(last), last.isnan().tolist(), strict=True)
        found["context"] = [[None if n else v for v, n in zip(*row, strict=True)] for row in shown]
    return found


def _rounded(values: Tensor) -> list[Any]:
    return torch.nan_to_num(values.double(), nan=CLAMP).clamp(-CLAMP, CLAMP).numpy().round(3).tolist()


def _digits(values: Tensor) -> list[float]:
    """Six significant digits are enough for a plot."""
    return [float(f"{v:.6g}") for v in values.tolist()]


def _statistics(values: Float[Tensor, "B T *S"], task: Task) -> dict[str, Float[Tensor, "B K C"]]:
    """Densities and spectra per case; C counts components, or is 1 on a grid."""
    grid, values = task.system.grid, deviation(values.double(), task)
    anomalies = (values - _select(task, task.system.mean)) / _select(task, task.system.std)
    columns = anomalies.flatten(1)[..., None] if grid else anomalies
    found = {"density": _histogram(columns, -REACH, REACH, BINS)[1], "temporal_spectrum": temporal_power(values, grid)}
    return found | ({"spatial_spectrum": spatial_power(values, grid)[..., None]} if grid else {})


def _select(task: Task, values: np.ndarray) -> Tensor:
    return torch.from_numpy(task.observation.select(values))


def _abscissa(name: str, n: int, task: Task) -> Tensor:
    if name == "density":
        return (torch.arange(n) + 0.5) * (2 * REACH / n) - REACH
    if name == "spatial_spectrum":
        return torch.arange(1.0, n + 1)
    return torch.arange(1, n + 1) / (2 * n * task.lead_time_step)


def _histogram(values: Float[Tensor, "B n C"], low: float, high: float, n_bins: int) -> tuple[Tensor, Tensor]:
    """Bin centres, and densities per case ``"B K C"`` of all values; those outside or not finite have no bin."""
    width = (high - low) / n_bins
    density = torch.zeros(len(values), n_bins, values.shape[2], dtype=torch.float64)
    for case, row in zip(density, values, strict=True):
        for c in range(values.shape[2]):
            place = (row[:, c] - low) / width
            inside = place[(place >= 0) & (place < n_bins)].long()
            case[:, c] = torch.bincount(inside, minlength=n_bins) / (len(row) * width)
    return low + (torch.arange(n_bins) + 0.5) * width, density


def _compare(x: Tensor, run: Tensor | None, truth: Float[Tensor, "B K"], *, relative: bool) -> dict[str, Any]:
    """A :class:`Comparison`; the band is around the truth, or where ``relative`` around its logarithm."""
    mean = truth.mean(0)
    error = BAND * truth.std(0) / len(truth) ** 0.5 if len(truth) > 1 else torch.zeros_like(mean)
    if relative:
        factor = (error / mean.clamp(min=1e-300)).clamp(max=50).exp()
        low, high = mean / factor, mean * factor
    else:
        low, high = (mean - error).clamp(min=0), mean + error
    curves = {"x": x, "truth": mean, "low": low, "high": high} | ({} if run is None else {"run": run})
    return {name: _digits(values) for name, values in curves.items()}
