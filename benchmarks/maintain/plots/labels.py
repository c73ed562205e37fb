"""Names beside points, where they collide with nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

RINGS = (7, 9, 13, 18, 24, 31, 39, 48, 58, 70, 84, 100)
"""Distances between a point and its name that are tried, in points; from the third on a line joins the two."""
ANGLES = (0, 180, *(s * a for a in (30, 150, 60, 120, 90, 15, 165, 45, 135, 75, 105, 22, 158, 7, 173) for s in (1, -1)))
"""Directions that are tried at every distance, in degrees."""
MARKER = 4.5
"""Half the width of what a point takes up, in points."""


class Label(NamedTuple):
    """A point of the data and the name to write beside it."""

    x: float
    y: float
    text: str
    color: str


def label_points(
    ax: Axes,
    labels: Sequence[Label],
    taken: Sequence[tuple[float, float]] = (),
    curve: Sequence[tuple[float, float]] = (),
) -> list[Label]:
    """Name points, the first ones first, each as near as there is room; return those without room, which stay bare.

    ``taken`` are other points to keep clear of, ``curve`` close points of lines that no name may cover; texts that the
    axes already have are kept clear of too. Call it when limits and layout are final: room is measured in pixels.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    scale = figure.dpi / 72
    points = ax.transData.transform([(p.x, p.y) for p in labels] + list(taken)) / scale
    frame = Bbox(ax.get_window_extent().get_points() / scale)
    boxes = [Bbox(text.get_window_extent().get_points() / scale) for text in ax.texts if text.get_text()]
    lines = [ax.transData.transform(curve) / scale] if len(curve) else []
    bare = []
    for point, label in zip(points, labels, strict=False):
        note = ax.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", va="center", ha="center",
            fontsize=8, color=label.color, zorder=2.5,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        size = np.array(note.get_window_extent().size) / scale
        place = next(
            (
                (shift, box, line)
                for shift, line in _places(point, size)
                if _free(box := _around(point + shift, size), line, frame, points, boxes, lines)
            ),
            None,
        )
        if place is None:
            note.remove()
            bare.append(label)
            continue
        shift, box, line = place
        note.set_position(tuple(shift))
        note.set_in_layout(False)
        boxes.append(box)
        if np.hypot(*(line[-1] - point)) > RINGS[1] + 0.5:
            lines.append(line)
            ax.plot(
                *ax.transData.inverted().transform(line[[0, -1]] * scale).T,
                color="0.5",
                lw=0.6,
                zorder=2,
                label="_leader",
            )
    return bare


def _places(point: np.ndarray, size: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Centre of the name relative to the point, and points of the line between; the nearest first."""
    for reach in RINGS:
        for angle in np.deg2rad(ANGLES):
            way = np.array([np.cos(angle), np.sin(angle)])
            end = reach * way
            yield end + way * size / 2, point + np.linspace(0, 1, 12)[:, None] * end


def _free(
    box: Bbox,
    line: np.ndarray,
    frame: Bbox,
    points: np.ndarray,
    boxes: Sequence[Bbox],
    lines: Sequence[np.ndarray],
) -> bool:
    """Whether a name in ``box`` is inside the frame, and it and its line are clear of points, names and other lines."""
    if not (frame.contains(*box.min) and frame.contains(*box.max)):
        return False
    beyond = line[np.hypot(*(line - line[0]).T) > MARKER]  # the rest is under the marker
    if _inside(box.padded(MARKER - 1), points) or any(box.padded(1).overlaps(other) for other in boxes):
        return False
    if any(_inside(box, other) for other in lines) or any(_inside(other, line) for other in boxes):
        return False
    return not len(beyond) or bool(np.hypot(*(beyond[:, None] - points).T).min() > MARKER - 1)


def _around(centre: np.ndarray, size: np.ndarray) -> Bbox:
    return Bbox.from_bounds(*(centre - size / 2), *size)


def _inside(box: Bbox, points: np.ndarray) -> bool:
    return bool(((points > box.min) & (points < box.max)).all(axis=1).any())
