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
from emubench.evaluation.figures import CLAMP
from emubench.files import schema
from emubench.files.run_files import Figures
from emubench.leaderboard.plots.style import REFERENCES, TRUTH, Style, by_entry, title
from emubench.runs.scored import ScoredRun

MAX_ROWS = 4
MAX_BYTES = 64 * 2**20
Pair = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Coordinates of the points of a curve, across and up."""


@dataclass(frozen=True)
class Example:
    """The example case of one entry on one task."""

    run: ScoredRun
    lead_time: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray


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
    for name, field in (("truth", figures.truth), ("forecast", figures.forecast)):
        lengths = {len(row) for row in field}
        if (len(field), lengths) != (shape[0], {shape[1]}):
            where, found = run.path / "figures.json", f"{len(field)} rows of {sorted(lengths)}"
            raise EmubenchError(f"{where}: {name}: {found} values where the shape {shape} belongs")
        values = np.array(field)
        failed = np.maximum.accumulate(~(np.abs(values) < CLAMP).all(1))  # an emulator that failed stays failed
        arrays[name] = np.where(failed[:, None], np.nan, values)
        if run.task.system.growing:  # scores look at the deviation from the ring's mean
            arrays[name] = arrays[name] - arrays[name].mean(1, keepdims=True)
    return Example(run, np.array(figures.lead_time), arrays["truth"], arrays["forecast"])


def chosen(best: Sequence[str]) -> list[str]:
    """The entries whose forecasts are shown, the best first: others before the references."""
    first = sorted(best, key=lambda e: (REFERENCES.index(e) if e in REFERENCES else -1, best.index(e)))
    return [entry for entry in best if entry in first[:MAX_ROWS]]


def forecast_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """The first test case: truth and forecast, one row per entry."""
    picked = [read_example(seeds[0]) for _, seeds in by_entry(runs, chosen(best))]
    examples = [example for example in picked if example is not None]
    if not examples:
        return None
    figure = (_ring_forecasts if task.system.grid else _trajectories)(task, examples, style)
    figure.suptitle(title(task, "one test case", len(examples), len(best)), x=0.01, ha="left")
    return figure


def _valid_until(ax: Axes, example: Example) -> None:
    """Mark the valid prediction time of the example (the first test case)."""
    task = example.run.task
    if not task.system.scored_in_law and example.run.cases[0] < example.lead_time[-1]:
        ax.axvline(example.run.cases[0], color="black", linewidth=1.2, linestyle="--")


def _ring_forecasts(task: Task, examples: list[Example], style: dict[str, Style]) -> Figure:
    """Space–time images: truth | forecast | difference on one colour scale."""
    figure = Figure(figsize=(12, 1.1 + 2.1 * len(examples)), layout="constrained")
    axes = figure.subplots(len(examples), 3, sharex=True, sharey=True, squeeze=False)
    top = float(np.quantile(np.abs(examples[0].truth), 0.998))
    look = {"cmap": mpl.colormaps["RdBu_r"].with_extremes(bad="0.55"), "vmin": -top, "vmax": top}
    for row, example in zip(axes, examples, strict=True):
        end = example.lead_time[-1]
        panels = (example.truth, example.forecast, example.forecast - example.truth)
        for ax, panel in zip(row, panels, strict=True):
            extent = (0, end, -0.5, panel.shape[1] - 0.5)
            ax.imshow(panel.T, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **look)
        for ax in row[1:]:
            _valid_until(ax, example)
        row[0].set_ylabel(f"{_wrapped(example.run.entry)}\n\nsite", color="black")
    for ax, name in zip(axes[0], ("truth", "forecast", "forecast − truth"), strict=True):
        ax.set_title(name, fontsize=11)
    for ax in axes[-1]:
        ax.set_xlabel(f"lead time [{task.system.lead_time_unit}s]")
    label = "h − mean(h) of one member" if task.system.growing else "u; dashed line: valid until here"
    if any(np.isnan(example.forecast).any() for example in examples):
        label += "; grey: failed"
    figure.colorbar(axes[-1, -1].images[0], ax=axes, label=label)
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
        row[-1].set_xlim(0, lead[-1])
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
