"""What a run keeps in ``figures.json``, checked; and the plot of one test case beside its truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.evaluation.figures import CLAMP, context_of
from emubench.files import schema
from emubench.files.run_files import Figures
from emubench.leaderboard.plots.style import REFERENCES, TRUTH, Style, by_entry, title
from emubench.runs.scored import ScoredRun

MAX_ROWS = 4
MAX_BYTES = 64 * 2**20
_WITH_ERROR = ["forecast", "forecast − truth"]
Pair = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Coordinates of the points of a curve, across and up."""


@dataclass(frozen=True)
class Example:
    """The example case of one entry on one task."""

    run: ScoredRun
    lead_time: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    """Of the members: empty where forecasts are not scored in law."""
    context: np.ndarray
    """The last observations, at the same interval and up to lead time 0; NaN where there is none."""

    @property
    def context_time(self) -> np.ndarray:
        """The lead times of the context, up to 0."""
        return (np.arange(len(self.context)) + 1 - len(self.context)) * np.diff(self.lead_time[:2], prepend=0)[-1]


def read_figures(run: ScoredRun) -> Figures | None:
    """The checked ``figures.json`` of a run; ``None`` if it has none."""
    if run.result is not None:
        return Figures.model_validate(run.result.figures)
    path = run.path / "figures.json"
    return schema.read_json(Figures, path, MAX_BYTES) if path.exists() else None


def read_example(run: ScoredRun) -> Example | None:
    """The example of a run; ``None`` if it has none."""
    figures = read_figures(run)
    if figures is None:
        return None
    shape = (len(figures.lead_time), *run.task.shape)
    arrays = {}
    for name in ("truth", "forecast", "mean", "spread"):
        field = getattr(figures, name)
        lengths = {len(row) for row in field}
        if (len(field), lengths) != (shape[0], {shape[1]}) and (field or name in ("truth", "forecast")):
            where, found = run.path / "figures.json", f"{len(field)} rows of {sorted(lengths)}"
            raise EmubenchError(f"{where}: {name}: {found} values where the shape {shape} belongs")
        values = np.array(field).reshape(-1, shape[1])
        failed = np.maximum.accumulate(~(np.abs(values) < CLAMP).all(1))  # an emulator that failed stays failed
        arrays[name] = np.where(failed[:, None], np.nan, values)
        if run.task.system.growing and name != "spread":  # scores look at the deviation from the ring's mean
            arrays[name] = arrays[name] - arrays[name].mean(1, keepdims=True)
    return Example(run, np.array(figures.lead_time), **arrays, context=context_of(figures, run.task))


def chosen(best: Sequence[str]) -> list[str]:
    """The entries whose forecasts are shown, the best first: others before the references."""
    first = sorted(best, key=lambda e: (REFERENCES.index(e) if e in REFERENCES else -1, best.index(e)))
    return [entry for entry in best if entry in first[:MAX_ROWS]]


def forecast_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """The first test case: the context and the truth, and the forecast of each entry."""
    picked = [read_example(seeds[0]) for _, seeds in by_entry(runs, chosen(best))]
    examples = [example for example in picked if example is not None]
    if not examples:
        return None
    figure = (_ring_forecasts if task.system.grid else _trajectories)(task, examples, style)
    figure.suptitle(title(task, "one test case", len(examples), len(best)), x=0.01, ha="left")
    return figure


def _valid_until(ax: Axes, example: Example) -> None:
    """Mark the valid prediction time of the example (the first test case), or say that it lies beyond the frame."""
    if example.run.task.system.scored_in_law:
        return
    if (until := example.run.cases[0]) < example.lead_time[-1]:
        ax.axvline(until, color="black", linewidth=1.2, linestyle="--")
    else:
        ax.set_title(f"valid until {until:.3g} →", loc="right", fontsize=8)


def _ring_forecasts(task: Task, examples: list[Example], style: dict[str, Style]) -> Figure:
    """Space–time images on one colour scale: the context and the truth, and below it each forecast with its error.

    Where forecasts are scored in law there is no error of one member: beside it stand the members' mean and spread.
    """
    kinds = ["one member", "mean of the members", "their spread"] if task.system.scored_in_law else _WITH_ERROR
    rows, first = len(examples) + 1, examples[0]
    figure = Figure(figsize=(12, 1.1 + 1.8 * rows), layout="constrained")
    axes = figure.subplots(rows, len(kinds), sharex=True, sharey=True, squeeze=False)
    top = float(np.quantile(np.abs(first.truth), 0.998))
    look = {"cmap": mpl.colormaps["RdBu_r"].with_extremes(bad="0.55"), "vmin": -top, "vmax": top}

    def draw(ax: Axes, panel: np.ndarray, start: float, end: float) -> None:
        extent = (start, end, -0.5, first.truth.shape[1] - 0.5)
        ax.imshow(panel.T, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **look)

    before, end = 0.0, first.lead_time[-1]
    draw(axes[0, 0], first.truth, 0, end)
    if len(first.context):
        before = first.context_time[0] - (end / len(first.lead_time))
        draw(axes[0, 0], first.context, before, 0)
        axes[0, 0].axvline(0, color="black", linewidth=1.2)
    axes[0, 0].set_title("observed context | truth" if before else "truth", fontsize=11)
    axes[0, 0].set_ylabel("site")
    for ax in axes[0, 1:]:
        ax.set_visible(False)
    for row, example in zip(axes[1:], examples, strict=True):
        panels = (example.mean, example.spread) if task.system.scored_in_law else (example.forecast - example.truth,)
        for ax, panel in zip(row, (example.forecast, *panels), strict=True):
            if len(panel):
                draw(ax, panel, 0, end)
            _valid_until(ax, example)
        row[0].set_ylabel(f"{_wrapped(example.run.entry)}\n\nsite")
    for ax, name in zip(axes[1], kinds, strict=True):
        ax.set_title(name, fontsize=11)
    axes[0, 0].set_xlim(before, end)
    for ax in axes[-1]:
        ax.set_xlabel(f"lead time [{task.system.lead_time_unit}s]")
    label = "h − mean(h)" if task.system.growing else "u; dashed line: valid until here"
    shown = [first.context, *(example.forecast for example in examples)]
    if any(np.isnan(field).any() for field in shown):
        label += "; grey: failed, or not observed"
    figure.colorbar(axes[0, 0].images[0], ax=axes, label=label)
    return figure


def _wrapped(entry: str) -> str:
    return entry.replace(" (", "\n(").replace(", ", ",\n")


def _trajectories(task: Task, examples: list[Example], style: dict[str, Style]) -> Figure:
    """The attractor in the plane of its first and last components (if there are several), and the first over time."""
    components = task.observation.components or range(task.system.shape[0])
    names = ["xyz"[c] if task.system.shape[0] <= 3 else f"component {c + 1}" for c in components]
    plane = len(names) > 1
    figure = Figure(figsize=(12 if plane else 10, 0.8 + 2.4 * len(examples)), layout="constrained")
    ratios = {"width_ratios": [1, 2.2]} if plane else {}
    axes = figure.subplots(len(examples), 1 + plane, squeeze=False, sharex="col", sharey="col", gridspec_kw=ratios)
    for row, example in zip(axes, examples, strict=True):
        look = style[example.run.entry]
        if plane:
            truth, forecast = (field[:, [0, -1]].T for field in (example.truth, example.forecast))
            _pair(row[0], truth, forecast, look, "")
            row[0].plot(*forecast[:, 0], color=look.color, marker="o", markersize=5)  # a constant forecast is a point
            _limits(row[0].set_xlim, truth[0])
            row[0].set_ylabel(names[-1])
        lead = example.lead_time
        _pair(row[-1], (lead, example.truth[:, 0]), (lead, example.forecast[:, 0]), look, example.run.entry)
        row[-1].set_ylabel(names[0])
        if len(example.context):
            row[-1].plot(example.context_time, example.context[:, 0], ".", color="0.5", markersize=3, label="observed")
        row[-1].set_xlim(example.context_time[0] if len(example.context) else 0, lead[-1])
        _valid_until(row[-1], example)
        row[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    if plane:
        axes[-1, 0].set_xlabel(names[0])
    axes[-1, -1].set_xlabel(f"lead time [{task.system.lead_time_unit}s]; dashed line: valid until here")
    sns.despine(figure)
    return figure


def _pair(ax: Axes, truth: Pair, forecast: Pair, style: Style, name: str) -> None:
    ax.plot(*truth, color=TRUTH, linewidth=1.1, label="truth")
    ax.plot(*forecast, color=style.color, linewidth=1.6, label=_wrapped(name))
    _limits(ax.set_ylim, truth[1])


def _limits(setter: Callable[..., Any], truth: np.ndarray) -> None:
    """Axis limits from the truth alone: a failed forecast may stand at 1e9."""
    low, high = float(truth.min()), float(truth.max())
    margin = 0.2 * max(high - low, 1e-9)
    setter(low - margin, high + margin)
