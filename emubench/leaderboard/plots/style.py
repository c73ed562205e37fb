"""What all plots share: an entry has the same colour, dash and marker in all plots of a comparison."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emubench.data.tasks import Task
from emubench.runs.scored import ScoredRun

MAX_LINES = 12
REFERENCES = ("oracle", "linear", "persistence", "climatology")
TRUTH = "black"
Interval = tuple[float, float | None, float | None]
"""A value with the ends of its interval, where these are known."""


class Style(NamedTuple):
    """How an entry is drawn."""

    color: str
    dash: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Colour and dash, as matplotlib names them."""
        return {"color": self.color, "linestyle": self.dash}


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


def by_entry(runs: Sequence[ScoredRun], entries: Sequence[str]) -> Iterator[tuple[str, list[ScoredRun]]]:
    """The runs of each of ``entries``, in that order."""
    for entry in entries:
        yield entry, [run for run in runs if run.entry == entry]


def label_level(ax: Axes, level: float, text: str, *, va: str = "center") -> None:
    """A thin horizontal line with its meaning written beyond its right end, where no curve is."""
    ax.axhline(level, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    at, transform = (1, level), ax.get_yaxis_transform()
    ax.annotate(text, at, (4, 0), transform, "offset points", va=va, color="0.35", fontsize=9, annotation_clip=False)


def point(ax: Axes, look: Style, x: Interval, y: Interval, *, hollow: bool = False, scale: float = 1.0) -> None:
    """An entry's marker at ``(x, y)`` with both intervals as bars; ``scale`` is that of its size."""
    across, up = (
        None if low is None or high is None else [[max(value - low, 0)], [max(high - value, 0)]]
        for value, low, high in (x, y)
    )
    inside, edge = ("white", look.color) if hollow else (look.color, "white")
    size = scale * (13 if look.marker == "*" else 9)
    drawn: dict[str, Any] = {"marker": look.marker, "markersize": size, "mfc": inside, "mec": edge}
    ax.errorbar(x[0], y[0], xerr=across, yerr=up, color=look.color, capsize=3, zorder=3, **drawn)


def handle(label: str, **look: Any) -> Line2D:
    """An item of a legend."""
    return Line2D([], [], label=label, **look)


def interval_handle() -> Line2D:
    """What the bands beside curves are."""
    return handle("95 % interval\nover cases", color="0.8", linewidth=8)


def finish(figure: Figure, heading: str, handles: Sequence[Artist] = (), ax: Axes | None = None) -> Figure:
    """Add title, legend and open frames; ``ax`` is the only panel, whose labels come before ``handles``."""
    if ax is None:
        figure.suptitle(heading, x=0.01, ha="left")
    else:
        ax.set_title(heading, loc="left")
        handles = [*ax.get_legend_handles_labels()[0], *handles]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    sns.despine(figure)
    return figure
