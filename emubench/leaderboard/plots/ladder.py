"""Plot of accuracy against throughput with the solver ladder: what an emulator is worth beside a cheaper solver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emubench.data.tasks import Task
from emubench.evaluation.throughput.ladder import RANKED_SKILL, label
from emubench.files.timing import RANKED, Bench, Rung
from emubench.leaderboard.plots.style import Style, by_entry, finish, handle, point, title
from emubench.metrics._headline import headline
from emubench.runs.scored import Run

SOLVER = "0.35"
MARKERS = {"sample": ".", "small": "1", "filter": "+"}
STARTS = {"sample": "from the last sample", "small": "from a small filter", "filter": "from the oracle's filter"}


def ladder_plot(task: Task, runs: Sequence[Run], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
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
    for entry, seeds in by_entry(timed, best):
        for run in seeds:
            assert run.timing is not None
            for mode, bench in run.timing.benches.items():
                _point(ax, style[entry], bench, mode)
        if seeds:
            handles.append(handle(entry, color=style[entry].color, marker=style[entry].marker, markersize=8, ls=""))
    ax.set_xscale("log")
    ax.margins(x=0.08)
    unit = "samples" if task.system.stochastic else "Lyapunov times"
    ax.set_xlabel(f"throughput, start from the context included [{unit} per second]")
    ax.set_ylabel(headline(task).label)
    if headline(task).better < 0:
        ax.invert_yaxis()
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
