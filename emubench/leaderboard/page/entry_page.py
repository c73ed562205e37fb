"""The page of one entry: its card, its charts per task, and what a judge found of it."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from emubench import baselines
from emubench.data import tasks
from emubench.evaluation.figures import context_of, stands_still
from emubench.files.run_files import Comparison, Figures
from emubench.files.timing import EntryTiming
from emubench.leaderboard import formats, ranking
from emubench.leaderboard.page import charts
from emubench.leaderboard.page.board import Board, Shown
from emubench.leaderboard.page.tracks import notes, rank, score_text, speedup
from emubench.leaderboard.statistics import ends
from emubench.metrics._headline import headline
from emubench.runs import scored

BESIDE = ("oracle", "persistence", "linear")
"""Entries whose scores over lead time stand beside each other's: the perfect model, and what makes the floor."""
CURVES = ("rms_error", "crps", "surviving_fraction", "anomaly_correlation")
MAX_SETTINGS = 2000
"""Characters of a task's settings that are shown."""


class Picture(NamedTuple):
    """A chart, or an image's data URI, with what stands below it."""

    caption: str
    chart: Markup = Markup("")
    image: str = ""


def entry_context(board: Board, one: Shown) -> dict[str, Any]:
    """What an entry's page shows."""
    claimed = ranking.records(board.self_reported[one.entry.division])
    rows = {r["task"]: r for r in claimed if r["entry"] == one.entry.name and r["task"]}
    figures = {task: found for (task, _), found in reversed(one.contents.figures().items())}  # of the first seed
    others = {name: _runs_of(board, name) for name in BESIDE if name != one.entry.name}
    shown = [_task_context(one, rows[name], figures.get(name), others) for name in tasks.in_order(set(rows))]
    return {"tasks": shown, "judged": _judged(board, one), "about": _about(one)}


def _runs_of(board: Board, name: str) -> tuple[scored.ScoredRun, ...]:
    """The runs of an entry, if the board has it."""
    return next((shown.runs for shown in board.shown if shown.entry.name == name), ())


def _about(one: Shown) -> str:
    """What its method says of itself, in one paragraph; nothing where there is none of that name."""
    if not one.is_model or one.entry.method not in baselines.names():
        return ""
    return " ".join((baselines.get(one.entry.method).__doc__ or "").split("\n\n")[0].split())


def _judged(board: Board, one: Shown) -> list[dict[str, str]]:
    """What judges found, per season and task."""
    found = [r for frame in board.verified.values() for r in ranking.records(frame)]
    return [
        {
            "season": r["season"],
            "task": r["task"],
            "rank": (place := rank(r, "rank")).text or place.why,
            "score": f"{r['metric']} {score_text(*ends(r, 'value'))}",
            "skill": score_text(*ends(r, "skill_accuracy")),
            "stability": score_text(*ends(r, "skill_stability")),
            "speed-up": (gained := speedup(one, r)).text or gained.why,
            "seeds": str(r["seeds"]),
            "notes": notes(one, r) or "none",
        }
        for r in found
        if r["entry"] == one.entry.name and r["task"]
    ]


def _task_context(
    one: Shown,
    row: dict[str, Any],
    figures: Figures | None,
    others: Mapping[str, Sequence[scored.ScoredRun]],
) -> dict[str, Any]:
    name = row["task"]
    runs = one.runs_of(name)
    unit = runs[0].task.system.lead_time_unit
    speed, gained = row["lyapunov_times_per_second"], speedup(one, row)
    headline = {
        row["metric"].replace("_", " "): f"{score_text(*ends(row, 'value'))} ({row['unit']})",
        "skill by accuracy": score_text(*ends(row, "skill_accuracy")),
        "skill by stability": score_text(*ends(row, "skill_stability")),
        "speed": "not timed" if speed is None else f"{formats.si(speed)} {unit}s per second",
        "speed-up at equal accuracy": gained.text or gained.why,
        "parameters": f"{row['n_parameters']:,}" if one.is_model else "not known: forecasts alone",
    }
    timing = one.contents.timing.get((name, runs[0].card.seed))
    settings = json.dumps(runs[0].card.config, sort_keys=True)
    return {
        "name": name,
        "headline": headline,
        "seeds": [run.card.seed for run in runs],
        "rows": [(r, score_text(r.value, r.low, r.high)) for r in runs[0].scores.rows if r.lead_time is None],
        "training": formats.si(row["train_seconds"], " s"),
        "pictures": _pictures(runs, timing, figures, others),
        "solvers": [
            (solver.name, formats.significant(solver.accuracy), formats.si(solver.lyapunov_times_per_second))
            for solver in sorted(timing.solvers if timing else [], key=lambda s: -s.lyapunov_times_per_second)
        ],
        "config": settings if len(settings) <= MAX_SETTINGS else f"{settings[:MAX_SETTINGS]}…",
    }


# --- pictures ---------------------------------------------------------------------------------------------------------


def _pictures(
    runs: list[scored.ScoredRun],
    timing: EntryTiming | None,
    figures: Figures | None,
    others: Mapping[str, Sequence[scored.ScoredRun]] = MappingProxyType({}),
) -> list[Picture]:
    """Scores over lead time beside those of ``others``, this entry among solvers, a forecast, climate and law."""
    made = [_over_lead_time(runs, metric, others) for metric in CURVES]
    if timing and timing.solvers:
        made.append(_ladder(runs[0], timing))
    if figures:
        made += [*_forecast(runs[0], figures), *_climate(runs[0], figures), *_law(runs[0], figures)]
    return [picture for picture in made if picture.chart or picture.image]


def _over_lead_time(
    runs: list[scored.ScoredRun], metric: str, others: Mapping[str, Sequence[scored.ScoredRun]] = MappingProxyType({})
) -> Picture:
    series = [_curve(f"seed {run.card.seed}", run, metric) for run in runs]
    name, unit = metric.replace("_", " "), runs[0].task.system.lead_time_unit
    caption = f"{name} over lead time"
    if metric == "surviving_fraction" and all(set(values) == {1.0} for _, _, values in series):
        return Picture(caption, Markup(f"<p>No long run is lost within {series[0][1][-1]:g} {unit}s.</p>"))
    for other, of_other in others.items():
        series += [_curve(other, run, metric) for run in of_other if run.task.name == runs[0].task.name][:1]
    return Picture(caption, charts.curves(f"{runs[0].task.name}: {caption}", f"lead time ({unit})", name, series))


def _curve(name: str, run: scored.ScoredRun, metric: str) -> charts.Series:
    found = [(r.lead_time, r.value) for r in run.scores.rows if r.metric == metric and r.lead_time is not None]
    lead, values = np.array(found, dtype=np.float64).reshape(-1, 2).T  # a null becomes NaN
    return name, lead.tolist(), values.tolist()


def _ladder(run: scored.ScoredRun, timing: EntryTiming) -> Picture:
    """Accuracy over throughput of this entry and of the solvers that were timed in the same run."""
    sign, name = headline(run.task).better, headline(run.task).metric.replace("_", " ")
    points = [("", s.lyapunov_times_per_second, sign * s.accuracy, False) for s in timing.solvers]
    points.append((run.entry, timing.lyapunov_times_per_second, sign * float(run.cases.mean()), True))
    label = name if sign > 0 else f"−{name}"
    title = f"{run.task.name}: {name} over throughput"
    chart = charts.scatter(title, f"{run.task.system.lead_time_unit}s per second", label, points)
    return Picture("filled: this entry; hollow: solver settings on the same machine; up and right is better", chart)


def _forecast(run: scored.ScoredRun, figures: Figures) -> list[Picture]:
    """A forecast beside its truth: space–time images on a ring, else a curve of the first component."""
    member = "one member" if figures.mean else "forecast"
    pair = {"truth": figures.truth, member: figures.forecast}
    if run.task.system.grid:
        pair |= {"mean of the members": figures.mean} if figures.mean else {}
        fields = {kind: np.asarray(field, dtype=float) for kind, field in pair.items()}
        seen = context_of(figures, run.task)
        if run.task.system.growing:  # it grows, and is scored from its spatial mean on
            fields = {kind: field - field.mean(1, keepdims=True) for kind, field in fields.items()}
        if not figures.mean:
            fields["forecast − truth, on the same scale"] = fields[member] - fields["truth"] + fields["truth"].mean()
        if figures.spread:
            fields["spread of the members"] = np.asarray(figures.spread)
        middle, scale = fields["truth"].mean(), 2 * fields["truth"].std()
        said = "sites across, time upwards" + (", spatial mean removed" if run.task.system.growing else "")
        made = [Picture(f"{kind}: {said}", image=charts.image(f, scale, middle)) for kind, f in fields.items()]
        if len(seen):
            both = charts.image(np.concatenate([seen, fields["truth"]]), scale, middle, before=len(seen))
            made[0] = Picture(f"below the line what was observed, above it the truth: {said}", image=both)
        return made
    series = [(kind, figures.lead_time, [values[0] for values in field]) for kind, field in pair.items()]
    if seen := [np.nan if values[0] is None else values[0] for values in figures.context]:
        series.append(("observed", np.arange(1.0 - len(seen), 1.0) * np.diff(figures.lead_time[-2:]).sum(), seen))
    caption, unit = "first component of the first case", run.task.system.lead_time_unit
    return [Picture(caption, charts.curves(f"{run.task.name}: {caption}", f"lead time ({unit})", "x", series))]


def _climate(run: scored.ScoredRun, figures: Figures) -> list[Picture]:
    """Spectra and densities of the long runs; off grids those of the first component."""
    unit = run.task.system.lead_time_unit
    which = "all sites" if run.task.system.grid else "the first component"
    lost = f"; {formats.percent(figures.lost)} of the runs are lost and left out" if figures.lost else ""
    found = [(f"temporal spectrum of {which}", f"frequency (1/{unit})", "power", figures.temporal_spectrum[:1], True)]
    if figures.spatial_spectrum:
        found.insert(0, ("spatial spectrum", "wavenumber", "power", [figures.spatial_spectrum], True))
    found.append((f"density of {which}", "deviation from the mean (σ)", "density", figures.density[:1], False))
    made = [
        Picture(f"{what} of the long runs; band: 99 % of truths{lost}", _comparison(run, what, x, y, curve, log))
        for what, x, y, curves, log in found
        for curve in curves
    ]
    if stands_still(figures):  # spikes where the runs happened to stop would flatten the truth's density
        made[-1] = made[-1]._replace(chart=Markup("<p>The long runs stand still: they have no density.</p>"))
    return made


def _law(run: scored.ScoredRun, figures: Figures) -> list[Picture]:
    """The ranks of the truth among an ensemble's members, and the heights of an interface grown from flat."""
    made = []
    if found := figures.rank_histogram:
        leads = {one.lead_time: one for one in (found[0], found[len(found) // 2], found[-1])}
        series = [
            (f"lead {lead:g}", range(len(one.frequency)), [f * len(one.frequency) for f in one.frequency])
            for lead, one in leads.items()
        ]
        what = "ranks of the truth among the members"
        chart = charts.curves(f"{run.task.name}: {what}", "rank", "frequency", series)
        if len(found[0].frequency) == 2:  # equal for any forecast without a bias
            chart = Markup("<p>A single member has no ranks to speak of.</p>")
        made.append(Picture(f"{what}, relative to equal ones; flat is right, a bowl too sure", chart))
    for grown in figures.heights[-1:]:
        what = f"heights after growth for {grown.time:g}"
        chart = _comparison(run, what, "(h − ⟨h⟩)/(Γt)^(1/3)", "density", grown, log=False)
        made.append(Picture(f"{what} from flat; band: 99 % of truths", chart))
    return made


def _comparison(run: scored.ScoredRun, what: str, xlabel: str, ylabel: str, curve: Comparison, log: bool) -> Markup:
    """A curve of the entry on that of the truth with its band."""
    known = {"truth": curve.truth, "forecast": curve.run}
    series = [(name, curve.x, y) for name, y in known.items() if y is not None]
    return charts.curves(f"{run.task.name}: {what}", xlabel, ylabel, series, log, (curve.x, curve.low, curve.high))
