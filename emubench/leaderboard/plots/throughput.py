"""Plot of accuracy against throughput."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emubench.data import tasks
from emubench.leaderboard import ranking
from emubench.leaderboard.plots.style import Style, finish, handle, label_corner, label_level, point
from emubench.leaderboard.statistics import ends
from emubench.metrics._headline import headline


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
    return finish(figure, f"{track} track: accuracy against throughput (up and right is better)", handles)


def _facet(ax: Axes, rows: list[dict[str, Any]], style: dict[str, Style]) -> None:
    task = tasks.get(rows[0]["task"])
    speed = "lyapunov_times_per_second"
    timed = sorted((row for row in rows if row[speed]), key=lambda row: row[speed])
    for row in timed:
        point(ax, style[row["entry"]], ends(row, speed), ends(row, "value"))
    front = [row for row in timed if row["pareto_front"]]
    ax.plot([r[speed] for r in front], [r["value"] for r in front], color="0.6", lw=1, drawstyle="steps-pre", zorder=1)
    scale = {name: rows[0][name] for name in ("floor", "oracle") if rows[0][name] is not None}
    for name, level in scale.items():
        label_level(ax, level, name, below=name == "floor" and headline(task).better < 0)
    ax.set_xscale("log")
    ax.margins(x=0.15)
    beyond = _accuracy_limits(ax, timed, list(scale.values()), headline(task).better)
    label_corner(ax, [(f"↓ {entry} is below the axis", style[entry].color) for entry in beyond], below=True)
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
