"""Plot of the Lyapunov spectra of emulators beside the true system's, where runs have been diagnosed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emubench.data.tasks import Task
from emubench.leaderboard.plots.style import MAX_LINES, TRUTH, Style, by_entry, finish, title
from emubench.runs import stages
from emubench.runs.scored import Run

Spectrum = tuple[np.ndarray, np.ndarray]


def read_spectra(run: Run) -> tuple[Spectrum, Spectrum] | None:
    """Exponents and standard errors of a run's emulator and of the true system; ``None`` if they were not measured."""
    stored = stages.read_diagnostics(run.path)
    found = stored.diagnostics.get("lyapunov_spectrum") if stored else None
    if found is None:
        return None
    names = ("exponents", "standard_errors", "true_exponents", "true_standard_errors")
    own, own_error, true, true_error = (np.array(found.series.get(name, ())) for name in names)
    if not len(own) or not len(true) or (len(own), len(true)) != (len(own_error), len(true_error)):
        return None
    return (own, own_error), (true, true_error)


def exponent_plot(task: Task, runs: Sequence[Run], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Exponents in descending order, per unit of time, with two standard errors; the true system's in black."""
    read = [(entry, read_spectra(seeds[0])) for entry, seeds in by_entry(runs, best[:MAX_LINES])]
    found = [(entry, spectra) for entry, spectra in read if spectra is not None]
    if not found:
        return None
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    (value, error), n_shown = found[0][1][1], max(len(one[1][0]) for _, one in found)
    ax.axhline(0, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    looks = {"truth": Style(TRUTH, "-", "o"), **style}
    for entry, (mean, deviation) in [("truth", (value, error)), *((entry, spectra[0]) for entry, spectra in found)]:
        look, index = looks[entry], np.arange(1, len(mean) + 1)
        drawn = {**look.line, "marker": look.marker, "markersize": 7 if entry == "truth" else 4}
        ax.errorbar(index, mean, 2 * deviation, linewidth=1.2, capsize=2, label=entry, **drawn)
    ax.set_xlim(0.5, n_shown + 0.5)
    margin = 0.1 * float(np.ptp(value)) + 1e-9
    ax.set_ylim(float(value.min()) - 3 * margin, float(value.max()) + 3 * margin)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("index")
    ax.set_ylabel("Lyapunov exponent [1/time]")
    return finish(figure, title(task, "Lyapunov spectrum", len(found), len(best)), ax=ax)
