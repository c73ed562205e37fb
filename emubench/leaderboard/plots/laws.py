"""Plots of laws: densities and spectra of long runs, ranks among the members, heights of growth, exponents."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from emubench.data.tasks import Task
from emubench.evaluation.figures import stands_still
from emubench.files.run_files import Comparison, Figures
from emubench.leaderboard.plots import tracy_widom
from emubench.leaderboard.plots.examples import read_figures
from emubench.leaderboard.plots.style import MAX_LINES, TRUTH, Style, by_entry, finish, handle, label_level, title
from emubench.metrics._spectra import CAP
from emubench.runs import stages
from emubench.runs.scored import ScoredRun

RANK_LEADS = (1.0, 8.0, 64.0)
MAX_PANELS = 3
LAW: dict[str, Any] = {"color": "0.35", "linewidth": 1.4, "linestyle": (0, (2, 2))}
"""How the Tracy–Widom law is drawn."""
Found = list[tuple[str, Figures]]
Spectrum = tuple[np.ndarray, np.ndarray]
"""Exponents and their standard errors."""


def found_figures(runs: Sequence[ScoredRun], best: Sequence[str]) -> Found:
    """The figures of the first seed of each of the best entries that has any."""
    read = [(entry, read_figures(seeds[0])) for entry, seeds in by_entry(runs, best[:MAX_LINES])]
    return [(entry, figures) for entry, figures in read if figures is not None]


def _panels(n: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9 if n == 1 else 2.2 + 3.6 * n, height), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _truth(ax: Axes, curve: Comparison, least: float = 0.0) -> None:
    ax.fill_between(curve.x, np.maximum(curve.low, least), curve.high, color="0.8", linewidth=0, zorder=0)
    ax.plot(curve.x, np.maximum(curve.truth, least), color=TRUTH, linewidth=2.2, zorder=1)


def _handles(
    found: Found, style: dict[str, Style], truth: str = "truth", note: Callable[[Figures], str] = lambda figures: ""
) -> list[Line2D]:
    """The legend: the truth with its band, then the entries with what is noted of them."""
    band = handle("another sample\nof the truth (99 %)", color="0.8", linewidth=8)
    notes = {entry: note(figures) for entry, figures in found}
    entries = (handle(entry + note, linewidth=1.8, **style[entry].line) for entry, note in notes.items())
    return [handle(truth, color=TRUTH, linewidth=2.2), band, *entries]


def _note(figures: Figures) -> str:
    """Whether long runs are lost or stand still."""
    if figures.lost:
        return f"\n({max(0.01, figures.lost):.0%} of runs lost)"
    return "\n(stands still)" if stands_still(figures) else ""


def density_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Marginal densities of the long runs, per component or of all sites of a ring; what stands still has none."""
    found = [(entry, figures) for entry, figures in found_figures(runs, best) if figures.density]
    if not found:
        return None
    n = min(MAX_PANELS, len(found[0][1].density))
    figure, axes = _panels(n)
    for c, ax in enumerate(axes):
        truth = found[0][1].density[c]
        _truth(ax, truth)
        for entry, curve in _curves([(e, f) for e, f in found if not stands_still(f)], "density", c):
            ax.plot(curve.x, curve.run or [], linewidth=1.6, **style[entry].line)
        inside = np.flatnonzero(np.array(truth.truth) > 0)
        ax.set_xlim(truth.x[inside[0]] - 0.7, truth.x[inside[-1]] + 0.7)
        ax.set_ylim(0, 2 * max(truth.truth))
        ax.set_xlabel(_component(task, c, "(h − mean(h))/σ" if task.system.growing else "(u − ⟨u⟩)/σ"))
    axes[0].set_ylabel("density")
    return finish(figure, title(task, "values of long runs", len(found), len(best)), _handles(found, style, note=_note))


def _component(task: Task, c: int, ring: str) -> str:
    if task.system.grid:
        return ring
    component = (task.observation.components or range(task.system.shape[0]))[c]
    name = "xyz"[component] if task.system.shape[0] <= 3 else f"component {component + 1}"
    return f"({name} − ⟨{name}⟩)/σ" if ring else name


def _curves(found: Found, name: str, c: int) -> list[tuple[str, Comparison]]:
    """Curve ``c`` of every entry that has one."""
    pairs = [(entry, getattr(figures, name)) for entry, figures in found]
    return [(entry, curves[c]) for entry, curves in pairs if len(curves) > c and curves[c].run is not None]


def spectrum_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Mean power of the long runs: over spatial modes (rings), and over frequencies."""
    found = [(entry, figures) for entry, figures in found_figures(runs, best) if figures.temporal_spectrum]
    if not found:
        return None
    spatial = [(entry, figures.spatial_spectrum) for entry, figures in found if figures.spatial_spectrum]
    components = min(MAX_PANELS, len(found[0][1].temporal_spectrum))
    figure, axes = _panels(bool(spatial) + components)
    if spatial:
        _spectrum(axes[0], [(e, curve) for e, curve in spatial if curve.run], spatial[0][1], style)
        axes[0].set_xlabel("spatial wavenumber [waves per ring]")
        if len(spatial[0][1].x) <= 64:
            axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for c in range(components):
        ax = axes[bool(spatial) + c]
        _spectrum(ax, _curves(found, "temporal_spectrum", c), found[0][1].temporal_spectrum[c], style)
        name = "" if task.system.grid else f" of {_component(task, c, '')}"
        ax.set_xlabel(f"frequency{name} [1/{task.system.lead_time_unit}]")
        _frequencies(ax)
    axes[0].set_ylabel("mean power [squared units of the field]")
    return finish(
        figure, title(task, "spectra of long runs", len(found), len(best)), _handles(found, style, note=_note)
    )


def _frequencies(ax: Axes) -> None:
    """A logarithmic axis with plain numbers, of which few fit below a narrow panel."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _spectrum(ax: Axes, curves: list[tuple[str, Comparison]], truth: Comparison, style: dict[str, Style]) -> None:
    peak = max(truth.truth)
    bottom, top = max(min(truth.truth), CAP * peak) / 30, 10 * peak
    _truth(ax, truth, bottom / 10)
    for entry, curve in curves:
        power = np.clip(np.array(curve.run), bottom / 10, 10 * top)  # what has no power lies below the axis
        ax.plot(curve.x, power, linewidth=1.6, **style[entry].line)
    ax.set_yscale("log")
    ax.set_xscale("log" if len(truth.x) > 64 else "linear")
    ax.set_xlim(truth.x[0] * 0.95, truth.x[-1] * 1.02)
    ax.set_ylim(bottom, top)
    if bottom < CAP * peak:
        label_level(ax, CAP * peak, "scored\nabove")


def rank_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Rank histograms at three leads, relative to the uniform one; ranks are put on 0 … 1 for any number of members.

    A single member has but two ranks, which are equal for any forecast without a bias: it is not drawn.
    """
    found = [(entry, figures) for entry, figures in found_figures(runs, best) if figures.rank_histogram]
    leads = [lead for lead in RANK_LEADS if any(r.lead_time == lead for _, f in found for r in f.rank_histogram)]
    if not leads:
        return None
    figure, axes = _panels(len(leads))
    top = 1.0
    for ax, lead in zip(axes, leads, strict=True):
        ax.axhline(1, color=TRUTH, linewidth=2.2, zorder=1)
        for entry, figures in found:
            for ranks in figures.rank_histogram:
                if ranks.lead_time == lead and sum(ranks.frequency) > 0 and len(ranks.frequency) > 2:
                    relative = len(ranks.frequency) * np.array(ranks.frequency)
                    edges, top = np.linspace(0, 1, len(relative) + 1), max(top, float(relative.max()))
                    ax.stairs(relative, edges, baseline=None, linewidth=1.6, **style[entry].line)
        ax.set_xlim(0, 1)
        ax.set_xlabel("rank of the truth / members")
        ax.set_title(f"lead {lead:g} sample{'s' if lead > 1 else ''}", loc="left", fontsize=11)
    for ax in axes:
        ax.set_ylim(0, min(max(2.0, 1.1 * top), 6.0))
    axes[0].set_ylabel("frequency relative to the uniform")
    truth, _, *entries = _handles(found, style, "members and truth\nof one law", _members)
    return finish(figure, title(task, "rank histogram", len(found), len(best)), [truth, *entries])


def _members(figures: Figures) -> str:
    return "\n(one member: no ranks)" if len(figures.rank_histogram[0].frequency) == 2 else ""


def height_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
    """Heights grown from flat, on a logarithmic scale, against the exact solver's and the Tracy–Widom law."""
    found = [(entry, figures) for entry, figures in found_figures(runs, best) if figures.heights]
    if not found:
        return None
    shown = found[0][1].heights[:MAX_PANELS]
    figure, axes = _panels(len(shown), 4.6)
    u = np.linspace(-4, 5, 91)
    law = tracy_widom.flat_density(np.sign(task.system.parameters()["lam"]) * u)  # growth downwards mirrors the law
    for c, (ax, truth) in enumerate(zip(axes, shown, strict=True)):
        _truth(ax, truth, 1e-9)
        ax.plot(u, law, **LAW, zorder=1)
        for entry, curve in _curves(found, "heights", c):
            ax.plot(curve.x, np.maximum(np.array(curve.run), 1e-9), linewidth=1.6, **style[entry].line)
        ax.set_yscale("log")
        ax.set_ylim(1e-5, 2)
        ax.set_xlim(-4, 5)
        ax.set_xlabel("(h − ⟨h⟩ of the truth) / (Γt)$^{1/3}$")
        ax.set_title(f"t = {truth.time:g}", loc="left", fontsize=11)
    axes[0].set_ylabel("density")
    solver, *others = _handles(found, style, f"exact solver, N = {task.system.shape[0]}")
    handles = [solver, handle("Tracy–Widom, orthogonal\n(infinite ring and time)", **LAW), *others]
    return finish(figure, title(task, "heights grown from flat", len(found), len(best)), handles)


def read_spectra(run: ScoredRun) -> tuple[Spectrum, Spectrum] | None:
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


def exponent_plot(task: Task, runs: Sequence[ScoredRun], best: Sequence[str], style: dict[str, Style]) -> Figure | None:
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
    ax.set_ylabel("Lyapunov exponent ± 2 standard errors [1/time]")
    return finish(figure, title(task, "Lyapunov spectrum", len(found), len(best)), ax=ax)
