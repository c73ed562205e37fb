"""Plots of accuracy against throughput: of all entries of a track, and of those of a task beside the solver ladder."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emubench.data import tasks
from emubench.data.tasks import Task
from emubench.evaluation.throughput.ladder import RANKED_SKILL, label
from emubench.files.timing import RANKED, Bench, Rung
from emubench.leaderboard import ranking
from emubench.leaderboard.plots.style import Style, by_entry, finish, handle, label_level, point, title
from emubench.leaderboard.statistics import ends
from emubench.metrics._headline import headline
from emubench.runs.scored import ScoredRun

SOLVER = "0.35"
MARKERS = {"sample": ".", "small": "1", "filter": "+"}
STARTS = {"sample": "from the last sample", "small": "from a small filter", "filter": "from the oracle's filter"}


def throughput_plot(frame: pd.DataFrame, track: str, style: dict[str, Style]) -> Figure:
    """Accuracy against throughput, one facet per system, up and right is better; the Pareto front as a grey line."""
    names = ranking.names_of_tasks(frame, track)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.2 + 4.6 * columns, 0.7 + 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        _facet(ax, ranking.records(ranking.rows_of_task(frame, name)), style)
    handles = [
        handle(entry, color=style[entry].color, marker=style[entry].marker, markersize=8, linestyle="")
        for entry in ranking.rows_of_whole_track(frame, track)["entry"]
    ]
    handles.append(handle("Pareto front", color="0.6", linewidth=1))
    handles.append(handle("up: 95 % interval\nacross: range of seeds", color="0.6", marker="+", ms=12, ls=""))
    return finish(figure, f"{track} track: accuracy against throughput (up and right is better)", handles)


def _facet(ax: Axes, rows: list[dict[str, Any]], style: dict[str, Style]) -> None:
    task = tasks.get(rows[0]["task"])
    speed = "lyapunov_times_per_second"
    timed = sorted((row for row in rows if row[speed]), key=lambda row: row[speed])
    for row in timed:
        point(ax, style[row["entry"]], ends(row, speed), ends(row, "value"))
    front = [row for row in timed if row["pareto_front"]]
    ax.plot([r[speed] for r in front], [r["value"] for r in front], color="0.6", lw=1, drawstyle="steps-pre", zorder=1)
    shown = {row["entry"] for row in timed}  # an oracle that has its star needs no line besides
    scale = {name: rows[0][name] for name in ("floor", "oracle") if rows[0][name] is not None and name not in shown}
    for name, level in scale.items():
        label_level(ax, level, name, va="top" if name == "floor" else "bottom")
    ax.set_xscale("log")
    ax.margins(x=0.15)
    beyond = _accuracy_limits(ax, timed, list(scale.values()), headline(task).better)
    if beyond:
        ax.set_title("\n".join(wrap(f"below the axis: {', '.join(beyond)}", 50)), loc="right", fontsize=8)
    ax.set_xlabel(f"throughput [{'samples' if task.system.stochastic else 'Lyapunov times'} per second]")
    ax.set_ylabel(headline(task).label)
    ax.set_title(task.system.name, loc="left")


def _accuracy_limits(ax: Axes, rows: list[dict[str, Any]], scale: list[float], sign: float) -> list[str]:
    """From nothing valid upwards; an inverted CRPS axis leaves out what is four times the best: returns these."""
    if sign > 0:
        top = max([*(row["high"] for row in rows), *scale], default=1.0)
        ax.set_ylim(-0.04 * top, 1.1 * max(top, 1e-3))
        return []
    best = min([*(row["low"] for row in rows), *scale], default=0.0)
    inside = [row for row in rows if row["value"] <= 4 * max(best, 1e-3)]
    worst = max([*(row["high"] for row in inside), *scale], default=1.0)
    margin = 0.1 * max(worst - best, 1e-3)
    ax.set_ylim(worst + margin, best - margin)
    return [row["entry"] for row in rows if row not in inside]


def ladder_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Headline score against offline throughput, the start included, both with intervals; logarithmic throughput.

    Dots are solver settings; the line joins those that no other one beats in both. An emulator right of the line is
    faster than any solver measured that is as accurate. Emulators whose skill is under 0.25 are hollow; other modes
    than the plain one are small and named. ``None`` where nothing was timed by ``emubench bench``.
    """
    timed = [run for run in runs if run.timing is not None and run.timing.benches]
    ladder = next((run.timing.ladder for run in timed if run.timing is not None and run.timing.ladder), [])
    if not timed:
        return None
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    ax = figure.subplots()
    handles = _solvers(ax, task, ladder) if ladder else []
    benches = [bench for run in timed if run.timing for bench in run.timing.benches.values()]
    for entry, seeds in by_entry(timed, best):
        for run in seeds:
            assert run.timing is not None
            for mode, bench in run.timing.benches.items():
                _point(ax, style[entry], bench, mode)
        if seeds:
            handles.append(handle(entry, color=style[entry].color, marker=style[entry].marker, markersize=8, ls=""))
    percentiles = "up: 95 % interval\nacross: 10th to 90th percentile\nof repeated calls"
    handles.append(handle(percentiles, color="0.6", marker="+", ms=12, ls=""))
    ax.set_xscale("log")
    ax.margins(x=0.08)
    unit = "samples" if task.system.stochastic else "Lyapunov times"
    ax.set_xlabel(f"throughput, start from the context included [{unit} per second]")
    ax.set_ylabel(headline(task).label)
    if headline(task).better < 0:  # what is four times the best and worse lies below the axis
        found = [one.accuracy for one in (*ladder, *benches)]
        ax.set_ylim(1.1 * max(value for value in found if value <= 4 * min(found)), 0.9 * min(found))
    else:
        ax.set_ylim(bottom=0)
    return finish(figure, title(task, "accuracy against throughput, with solvers"), handles, ax)


def speed(rung: Rung) -> float:
    """Median offline throughput of a setting."""
    return rung.scenarios[RANKED].lyapunov_times_per_second.median


def envelope(task: Task, ladder: Sequence[Rung]) -> list[Rung]:
    """The settings that no other one beats in both accuracy and throughput, the fastest first."""
    found: list[Rung] = []
    for rung in sorted(ladder, key=speed, reverse=True):
        if not found or headline(task).better * rung.accuracy > headline(task).better * found[-1].accuracy:
            found.append(rung)
    return found


def _solvers(ax: Axes, task: Task, ladder: Sequence[Rung]) -> list[Line2D]:
    """All settings, and the line; its ends and its largest gains are named."""
    handles = []
    for start, marker in MARKERS.items():
        rungs = [rung for rung in ladder if rung.start == start]
        if rungs:
            ax.plot([speed(r) for r in rungs], [r.accuracy for r in rungs], marker, color=SOLVER, zorder=1)
            handles.append(handle(f"solver, {STARTS[start]}", color=SOLVER, marker=marker, linestyle=""))
    line = envelope(task, ladder)
    steps = {"drawstyle": "steps-post", "zorder": 1}  # between two settings there is none
    ax.plot([speed(r) for r in line], [r.accuracy for r in line], color=SOLVER, lw=1.2, **steps)
    handles.append(handle("no solver is better in both", color=SOLVER, lw=1.2))
    height = np.ptp([r.accuracy for r in line]) or 1.0
    last = np.inf
    for rung in line:
        if abs(rung.accuracy - last) > 0.06 * height or last == np.inf:
            text = label(task, rung).replace(" per sample", "").replace(", filter", "").replace(", small filter", "")
            at = (speed(rung), rung.accuracy)
            ax.annotate(text, at, (5, 2), textcoords="offset points", fontsize=8, color=SOLVER)
            last = rung.accuracy
    return handles


def _point(ax: Axes, look: Style, bench: Bench, mode: str) -> None:
    rate, plain = bench.scenarios[RANKED].lyapunov_times_per_second, mode == "eager"
    speed, accuracy = (rate.median, rate.low, rate.high), (bench.accuracy, bench.accuracy_low, bench.accuracy_high)
    hollow = bench.skill is None or bench.skill < RANKED_SKILL
    point(ax, look, speed, accuracy, hollow=hollow, scale=1 if plain else 0.6)
    if not plain:
        at = (rate.median, bench.accuracy)
        ax.annotate(mode, at, (6, -12), textcoords="offset points", fontsize=8, color=look.color, zorder=4)
