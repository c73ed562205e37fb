"""What the expected scores of the baselines say together: accuracy against cost, and stability against accuracy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.maintain.plots.labels import Label, label_points
from emubench.data import tasks
from emubench.data.tasks import TRACKS
from emubench.leaderboard.plots.style import REFERENCES, Style, label_level, styles

Expected = dict[str, dict[str, dict[str, Any]]]
ACCURACY = (-0.2, 1.2)
"""Limits of skill_accuracy: what lies beyond is drawn at the edge."""
SECONDS, LEAST_SECONDS = (0.07, 500.0), 0.1
"""Limits of the seconds, and where what takes fewer is drawn."""
NETWORKS = ("fourier_operator", "neural_ode", "ot_regularized", "resnet_ode")
"""Trained by gradient descent from the first step on."""
MIXED = ("weak_adversarial",)
"""Least squares first, then gradient descent."""
TRACK_MARKERS: dict[str, str] = dict(zip(TRACKS, ("o", "s", "^", "X"), strict=True))
REMARKS = (
    ("oracle", 1.0, 1.05, "center"),
    ("climatology, linear, persistence", -0.19, -0.14, "left"),
    ("accurate, the climate wrong", 1.19, 0.0, "right"),
    ("the climate right, soon inaccurate", -0.19, 1.15, "left"),
)
"""Where models are in a panel of stability."""


class Point(NamedTuple):
    """A baseline in a panel."""

    baseline: str
    x: float
    y: float


def deterministic() -> list[str]:
    """The systems whose accuracy is a valid prediction time."""
    found = [tasks.get(name).system for name in tasks.names()]
    return list(dict.fromkeys(system.name for system in found if not system.scored_in_law))


def cost_points(expected: Expected, track: str) -> list[Point]:
    """Geometric mean of the seconds of training and mean accuracy over the deterministic systems, where none lacks."""
    names = [f"{system}-{track}" for system in deterministic()]
    found = []
    for baseline, of in expected.items():
        if all(name in of for name in names):
            seconds = np.maximum([of[name]["cost"]["seconds"] for name in names], LEAST_SECONDS)
            skill = np.mean([of[name]["skill_accuracy"]["value"] for name in names])
            found.append(Point(baseline, float(np.exp(np.log(seconds).mean())), float(np.clip(skill, *ACCURACY))))
    return found


def cost_plot(expected: Expected) -> Figure:
    """Accuracy against seconds of training, a panel per track; a grey line joins what no baseline beats in both."""
    style = styles(list(expected))
    figure, axes = _panels(
        f"accuracy against training time, means over {', '.join(deterministic())} (up and left is better)"
    )
    panels = [(ax, cost_points(expected, track)) for ax, track in zip(axes, TRACKS, strict=True)]
    for (ax, points), track in zip(panels, TRACKS, strict=True):
        for name in ("floor", "oracle"):
            label_level(ax, float(name == "oracle"), "floor" if name == "floor" else "oracle's skill")
        ax.plot(*_front(points).T, color="0.75", lw=1.2, label="_front")
        for point in points:
            _mark(ax, point, style[point.baseline].color, style[point.baseline].marker, _filling(point.baseline))
        ax.set_xscale("log")
        ax.set_xlim(*SECONDS)
        ax.set_xticks([0.1, 1, 10, 100], ["≤ 0.1", "1", "10", "100"])
        ax.set_ylim(*ACCURACY)
        ax.set_title(track, loc="left", fontsize=11)
    _axis_labels(axes, "training [s on one thread], geometric mean", "skill_accuracy, mean (0 floor, 1 oracle)")
    figure.legend(handles=_cost_handles(panels[0][1], style), loc="outside right upper", frameon=False, fontsize=9)
    _freeze(figure)
    for ax, points in panels:
        labels = [Label(p.x, p.y, p.baseline, "0.15") for p in sorted(points, key=lambda p: -p.y)]
        levels = [(x, level) for x in np.geomspace(*SECONDS, 200) for level in (0.0, 1.0)]
        label_points(ax, labels, curve=[*_front(points).tolist(), *levels])
    return figure


def stability_points(expected: Expected, system: str) -> dict[str, list[Point]]:
    """By track: accuracy and stability of every baseline that has both."""
    return {
        track: [
            Point(baseline, float(np.clip(of[name]["skill_accuracy"]["value"], *ACCURACY)), stability)
            for baseline, of in expected.items()
            if (name := f"{system}-{track}") in of and np.isfinite(stability := of[name]["skill_stability"]["value"])
        ]
        for track in TRACKS
    }


def stability_plot(expected: Expected) -> Figure:
    """Stability against accuracy, a panel per deterministic system, a marker per track; hollow is lost or dead.

    The references are not named point by point: they lie together.
    """
    style = styles(list(expected))
    figure, axes = _panels("stability against accuracy: a model may be accurate and its climate wrong, lost or dead")
    axes[3].set_axis_off()
    panels = list(zip(axes, deterministic(), strict=False))
    for ax, system in panels:
        for track, points in stability_points(expected, system).items():
            for point in points:
                filling = "none" if _ended(expected[point.baseline][f"{system}-{track}"]) else "full"
                _mark(ax, point, style[point.baseline].color, TRACK_MARKERS[track], filling)
        ax.set_xlim(*ACCURACY)
        ax.set_ylim(-0.18, 1.18)
        ax.set_yticks(np.arange(0, 1.1, 0.2))
        ax.set_title(system, loc="left", fontsize=11)
        for text, x, y, side in REMARKS:
            ax.text(x, y, text, ha=side, va="center", fontsize=8, color="0.35", style="italic")
    _axis_labels(axes, "skill_accuracy (0 floor, 1 oracle)", "skill_stability (1 as the truth itself)")
    axes[3].legend(handles=_stability_handles(style), loc="center", frameon=False, fontsize=10, ncols=2)
    _freeze(figure)
    for ax, system in panels:
        found = [p for points in stability_points(expected, system).values() for p in points]
        named = [p for p in found if p.baseline not in REFERENCES]
        labels = [
            Label(p.x, p.y, p.baseline, style[p.baseline].color) for p in sorted(named, key=lambda p: _crowd(p, found))
        ]
        label_points(ax, labels, [(p.x, p.y) for p in found if p.baseline in REFERENCES])
    return figure


def _crowd(point: Point, points: list[Point]) -> float:
    """Less where more points are close by, the names of which are placed first."""
    return -sum(np.exp(-np.hypot(point.x - p.x, point.y - p.y) / 0.1) for p in points)


def _ended(scores: dict[str, Any]) -> bool:
    """Whether half of the long runs or more are lost or dead."""
    return scores["surviving_fraction"]["value"] - scores["dead_fraction"]["value"] <= 0.5


def _panels(heading: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(15, 10.5), dpi=110, layout="constrained")
    axes = list(figure.subplots(2, 2).flat)
    figure.suptitle(heading, x=0.01, ha="left")
    sns.despine(figure)
    return figure, axes


def _axis_labels(axes: list[Axes], x: str, y: str) -> None:
    for ax in axes:
        ax.set_xlabel(x)
        ax.set_ylabel(y)


def _freeze(figure: Figure) -> None:
    """Make the layout, once: names are placed on it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _front(points: list[Point]) -> np.ndarray:
    """Close points ``(n, 2)`` of the steps along the baselines that no cheaper one equals, the oracle aside."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if point.baseline != "oracle" and (not best or point.y > best[-1].y):
            best.append(point)
    parts = [np.array([[p.x, p.y] for p in best[:1]]).reshape(-1, 2)]
    for a, b in pairwise(best):
        parts.append(np.stack([np.geomspace(a.x, b.x, 50), np.full(50, a.y)], axis=1))
        parts.append(np.stack([np.full(50, b.x), np.linspace(a.y, b.y, 50)], axis=1))
    return np.concatenate(parts)


def _filling(baseline: str) -> str:
    return "none" if baseline in NETWORKS else "left" if baseline in MIXED else "full"


def _look(color: str, marker: str, filling: str) -> dict[str, Any]:
    return {
        "marker": marker,
        "markersize": (12 if marker == "*" else 8) + (filling == "full"),
        "linestyle": "",
        "color": color,
        "fillstyle": "full" if filling == "none" else filling,
        "markerfacecolor": "white" if filling == "none" else color,
        "markerfacecoloralt": "white",
        "markeredgecolor": "white" if filling == "full" else color,
        "markeredgewidth": 0.7 if filling == "full" else 1.4,
    }


def _mark(ax: Axes, point: Point, color: str, marker: str, filling: str) -> None:
    ax.plot(point.x, point.y, label=point.baseline, zorder=3, clip_on=False, **_look(color, marker, filling))


def _cost_handles(points: list[Point], style: dict[str, Style]) -> list[Line2D]:
    names = [p.baseline for p in sorted(points, key=lambda p: -p.y)]
    handles = [Line2D([], [], label=n, **_look(style[n].color, style[n].marker, _filling(n))) for n in names]
    kinds = {
        "full": "closed form, or no training",
        "left": "closed form, then\ngradient descent",
        "none": "gradient descent",
    }
    handles += [Line2D([], [], label=text, **_look("0.35", "o", filling)) for filling, text in kinds.items()]
    return [*handles, Line2D([], [], color="0.75", lw=1.2, label="none is better in both,\nthe oracle aside")]


def _stability_handles(style: dict[str, Style]) -> list[Line2D]:
    handles = [Line2D([], [], label=t, **_look("0.35", marker, "full")) for t, marker in TRACK_MARKERS.items()]
    handles.append(
        Line2D([], [], label="hollow: half of the long\nruns or more lost or dead", **_look("0.35", "o", "none"))
    )
    return handles + [Line2D([], [], color=style[n].color, lw=5, label=n) for n in sorted(REFERENCES)]
