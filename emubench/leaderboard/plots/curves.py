"""Plots of scores against lead time: error, and survival of the long runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emubench.data.tasks import Task
from emubench.dynamics.first_passage import THRESHOLD
from emubench.leaderboard.plots.style import MAX_LINES, Style, by_entry, finish, interval_handle, label_level, title
from emubench.metrics._headline import headline
from emubench.runs.scored import ScoredRun

UNSKILLED = 2**0.5
"""Error in σ between two independent states of the attractor."""
FLOORS = ("persistence", "linear")
WORST = 1e9
"""What a value that is null counts."""


def error_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure:
    """Error (RMS in σ, or CRPS) against lead time, mean over seeds, with the 95 % interval as a band.

    Where persistence, linear and oracle are among the runs, what lies between floor and oracle is hatched.
    """
    metric, highest = ("crps", 0.15 * headline(task).worst) if task.system.scored_in_law else ("rms_error", 2.5)
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    shown, ends, tops = list(best[:MAX_LINES]), [], [0.6]
    _reference_band(ax, runs, metric)
    for entry, seeds in by_entry(runs, shown):
        lead, value, low, high = mean_curve(seeds, metric)
        if not len(lead):
            continue
        note = "\n(leaves the axis)" if value.max() > highest else ""
        _curve(ax, style[entry], lead, value, low, high, label=entry + note)
        tops.append(min(float(high.max()), highest))
        unskilled = np.flatnonzero(value > 0.9)
        ends.append(lead[unskilled[0]] if len(unskilled) else lead[-1])
    ax.set_ylim(0, 1.05 * max(tops))
    if task.system.scored_in_law:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.set_ylabel("CRPS of h − mean(h) [height]" if task.system.growing else f"CRPS [{headline(task).unit}]")
    else:
        horizon = task.test_steps * task.lead_time_step
        ax.set_xlim(0, min(horizon, max(2.0, 1.6 * max(ends, default=horizon))))
        ax.set_ylabel("RMS error [climatological σ]")
        label_level(ax, THRESHOLD, "valid below")
        if max(tops) > UNSKILLED:
            label_level(ax, UNSKILLED, "independent\nstates")
    ax.set_xlabel(f"lead time [{task.system.lead_time_unit}s]")
    return finish(figure, title(task, "error of the forecast", len(shown), len(best)), [interval_handle()], ax)


def _curve(ax: Axes, look: Style, lead: np.ndarray, *value_low_high: np.ndarray, **kwargs: Any) -> None:
    value, low, high = value_low_high
    ax.plot(lead, value, linewidth=2, **look.line, **kwargs)
    ax.fill_between(lead, low, np.minimum(high, 1e3), color=look.color, alpha=0.18, linewidth=0)


def _reference_band(ax: Axes, runs: Sequence[ScoredRun], metric: str) -> None:
    """Hatched from the oracle's error up to that of the better floor: a fill would look like an interval."""
    known = {entry: mean_curve(seeds, metric) for entry, seeds in by_entry(runs, ("oracle", *FLOORS)) if seeds}
    if "oracle" in known and all(floor in known for floor in FLOORS):
        floor = np.minimum(*(known[name][1] for name in FLOORS))
        lead, oracle, *_ = known["oracle"]
        where = {"where": (oracle < floor).tolist(), "interpolate": True, "label": "between floor\nand oracle"}
        ax.fill_between(lead, oracle, floor, facecolor="none", edgecolor="0.8", hatch="///", lw=0, zorder=0, **where)


def survival_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Share of the long runs that are not yet lost, mean over seeds, with the 95 % interval as a band.

    Where no run of any entry is lost this is a line of text.
    """
    shown = list(best[:MAX_LINES])
    read = {entry: mean_curve(seeds, "surviving_fraction", worst=0.0) for entry, seeds in by_entry(runs, shown)}
    found = {entry: curve for entry, curve in read.items() if len(curve[0])}
    if not found:
        return None
    heading, unit = title(task, "survival of long runs", len(shown), len(best)), f"{task.system.lead_time_unit}s"
    end = max(lead[-1] for lead, *_ in found.values())
    if all(value.min() == 1 for _, value, *_ in found.values()):
        figure = Figure(figsize=(9, 0.9))
        figure.suptitle(heading, x=0.01, ha="left")
        figure.text(0.01, 0.15, f"No run is lost within {end:g} {unit}: {', '.join(found)}.", wrap=True)
        return figure
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    for entry, (lead, *curves) in found.items():
        note = " (none lost)" if curves[0].min() == 1 else ""
        whole = [np.append(1, curve) for curve in curves]
        _curve(ax, style[entry], np.append(0, lead), *whole, label=entry + note, clip_on=False)
    ax.set_xlim(0, end)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share of runs not lost")
    ax.set_xlabel(f"lead time [{unit}]")
    return finish(figure, heading, [interval_handle()], ax)


def mean_curve(seeds: Sequence[ScoredRun], metric: str, worst: float = WORST) -> tuple[np.ndarray, ...]:
    """Lead times, and values, lows and highs averaged over seeds; a value that is null has failed: ``worst``."""
    rows = [[row for row in run.scores.rows if row.metric == metric and row.lead_time is not None] for run in seeds]
    n = min(map(len, rows))
    lead = np.array([row.lead_time for row in rows[0][:n]], dtype=np.float64)
    ends = [[(row.value, row.low, row.high) for row in one[:n]] for one in rows]
    values = np.nan_to_num(np.array(ends, dtype=np.float64).reshape(len(rows), n, 3), nan=worst).mean(0)
    return lead, *values.T
