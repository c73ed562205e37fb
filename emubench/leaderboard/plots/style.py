"""What all plots share: an entry has the same colour, dash and marker in all plots of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from emubench.data.tasks import Task
from emubench.runs.scored import Run

MAX_LINES = 12
REFERENCES = ("oracle", "linear", "persistence", "climatology")
TRUTH = "black"


class Style(NamedTuple):
    """How an entry is drawn."""

    color: str
    dash: Any
    marker: str


_REFERENCE_STYLES = {
    "persistence": Style("#949494", ":", "v"),
    "climatology": Style("#ca9161", ":", "^"),
    "linear": Style("#56b4e9", "--", "s"),
    "oracle": Style("#cc78bc", "--", "*"),
}
_COLORS = ("#0173b2", "#de8f05", "#029e73", "#d55e00")  # seaborn's "colorblind", less what the references take
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ("o", "D", "P", "X", "h", "<", ">")


def styles(entries: Sequence[str]) -> dict[str, Style]:
    """Colour, dash and marker of every entry; those of the references are fixed."""
    others = sorted(set(entries) - set(_REFERENCE_STYLES))
    return _REFERENCE_STYLES | {
        name: Style(_COLORS[i % 4], _DASHES[i // 4 % 4], _MARKERS[i % 7]) for i, name in enumerate(others)
    }


def title(task: Task, what: str, shown: int = 0, of: int = 0) -> str:
    """Title of a plot; it says so where not all entries are shown."""
    cut = f", {shown} of {of} entries" if shown < of else ""
    return f"{task.name} ({task.size}): {what}{cut}"


def by_entry(runs: Sequence[Run], entries: Sequence[str]) -> Iterator[tuple[str, list[Run]]]:
    """The runs of each of ``entries``, in that order."""
    for entry in entries:
        yield entry, [run for run in runs if run.entry == entry]


def lead_time_unit(task: Task) -> str:
    """Unit of lead time, in the plural."""
    return f"{task.system.lead_time_unit}s"


def label_corner(ax: Axes, texts: Sequence[tuple[str, str]], *, below: bool = False) -> None:
    """Coloured remarks ``(text, colour)`` in a left corner, such as what lies beyond the axis."""
    for i, (text, color) in enumerate(texts[:4]):
        ax.annotate(
            text,
            (0.01, 0.01 if below else 0.99),
            (0, 13 * i if below else -13 * i),
            "axes fraction",
            "offset points",
            va="bottom" if below else "top",
            fontsize=9,
            color=color,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
            zorder=4,
        )


def label_level(ax: Axes, level: float, text: str, *, left: bool = False, below: bool = False) -> None:
    """A thin horizontal line with its meaning written at its end, readable across curves."""
    ax.axhline(level, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.annotate(
        text,
        (0 if left else 1, level),
        (4 if left else -4, -3 if below else 3),
        ax.get_yaxis_transform(),
        "offset points",
        ha="left" if left else "right",
        va="top" if below else "bottom",
        fontsize=9,
        color="0.35",
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        zorder=4,
    )
