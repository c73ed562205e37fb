"""Plots of a comparison: error and survival against lead time, forecasts beside the truth, densities and spectra of
long runs, ranks and heights of ensembles, accuracy against throughput, and beside the solver ladder.

Drawn with Agg on figures of their own: no display is needed, and no global state of matplotlib is touched.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from emubench.core.errors import EmubenchError, unknown
from emubench.data import tasks
from emubench.data.tasks import TRACKS
from emubench.files import store
from emubench.leaderboard import ranking
from emubench.leaderboard.plots.curves import error_plot, survival_plot
from emubench.leaderboard.plots.examples import forecast_plot
from emubench.leaderboard.plots.laws import density_plot, exponent_plot, height_plot, rank_plot, spectrum_plot
from emubench.leaderboard.plots.speed import ladder_plot, throughput_plot
from emubench.leaderboard.plots.style import styles
from emubench.runs.scored import Scored, ScoredRun, runs_of

DPI = 120
OF_TASK = {
    "error": error_plot,
    "forecast": forecast_plot,
    "survival": survival_plot,
    "density": density_plot,
    "spectrum": spectrum_plot,
    "ranks": rank_plot,
    "heights": height_plot,
    "exponents": exponent_plot,
    "ladder": ladder_plot,
}
"""Plots of one task, by the end of their names; one that does not apply is left out."""


def plot(scored: Scored, kind: str = "error", task: str | None = None) -> Figure:
    """One figure of what was scored on a task, with all entries in it; for all of them see ``emubench compare --plot``.

    ``scored`` is what :func:`emubench.compare` takes: a dictionary from names to results, or folders of scored runs.
    ``kind`` is one of "error", "forecast", "survival", "density", "spectrum", "ranks", "heights", "exponents" and
    "ladder"; ``task`` names one where several were scored. A notebook shows the figure, ``savefig(path)`` writes it.

    Raises :class:`EmubenchError` where the kind does not exist, or does not apply to what was scored.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> result = emubench.evaluate(emubench.train("persistence", task), task)
    >>> emubench.plot({"persistence": result}, "error").axes[0].get_xlabel()
    'lead time [Lyapunov times]'
    """
    if kind not in OF_TASK:
        raise unknown("kind of plot", kind, OF_TASK)
    runs = runs_of(scored)
    found = tasks.in_order({run.task.name for run in runs})
    if task is None and len(found) > 1:
        raise EmubenchError(f"scored on {', '.join(found)}: give one of them as task=")
    if task is not None and task not in found:
        raise unknown("scored task", task, found)
    chosen = [run for run in runs if run.task.name == (task or found[0])]
    best = list(ranking.rows_of_task(ranking.table(chosen), chosen[0].task.name)["entry"])
    with mpl.rc_context(theme()):
        figure = OF_TASK[kind](chosen[0].task, chosen, best, styles(best))
    if figure is None:
        raise EmubenchError(f"{chosen[0].task.name}: there is nothing to draw a plot {kind!r} of")
    return figure


def theme() -> Any:
    """How all plots look."""
    return {**sns.axes_style("ticks"), **sns.plotting_context("notebook", font_scale=0.9)}


def draw(
    runs: Sequence[ScoredRun],
    frame: pd.DataFrame,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    faults: list[str] | None = None,
) -> list[Path]:
    """Draw all plots of a comparison into ``folder``; return their paths.

    What keeps a plot from being drawn, such as a damaged file of a run, is added to ``faults``, if given, else raised.
    """
    style = styles([run.entry for run in runs])
    todo: dict[str, Callable[[], Figure | None]] = {}
    for name in tasks.in_order({run.task.name for run in runs}):
        of_task = [run for run in runs if run.task.name == name]
        best = list(ranking.rows_of_task(frame, name)["entry"])
        for kind, draw_one in OF_TASK.items():
            todo[f"{name}-{kind}"] = partial(draw_one, of_task[0].task, of_task, best, style)
    for track in TRACKS:
        if ranking.names_of_tasks(frame, track):
            todo[f"{track}-throughput"] = partial(throughput_plot, frame, track, style)
    written = []
    for done, (name, make) in enumerate(todo.items(), 1):
        with mpl.rc_context(theme()):
            try:
                figure = make()
            except EmubenchError as error:
                if faults is None:
                    raise
                faults += [str(error)] * (str(error) not in faults)
                continue
            if figure:
                written.append(folder / f"{name}.png")
                _save(figure, written[-1])
        if progress:
            progress(done, len(todo))
    return written


def _save(figure: Figure, path: Path) -> None:
    layout = figure.get_layout_engine()
    if layout is not None:  # once is enough; left to savefig it is made twice, with all images
        layout.execute(figure)
        figure.set_layout_engine("none")
    try:
        with store.atomic(path) as temporary:
            # No version of the library in the file: the same runs give the same bytes.
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    except OSError as error:
        raise EmubenchError(f"{path}: cannot be written ({error.strerror})") from None
