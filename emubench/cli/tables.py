"""What ``emubench list`` and ``emubench score`` print."""

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from emubench import baselines, systems
from emubench.core.errors import unknown
from emubench.data import tasks
from emubench.files.run_files import DiagnosticsFile, ScoreRow
from emubench.leaderboard.formats import UNKNOWN

WIDTH = 120
"""Columns of what is printed to no terminal."""
STANDARD_SCALE = "floor and oracle are those of the standard size, with more data: no more than a hint"
TRUE = "true_"
"""How the names of the true system's diagnostics begin."""


def console() -> Console:
    """The terminal, or :data:`WIDTH` columns where there is none; text is text, whatever brackets and colons it has."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def add_columns(table: Table, names: Iterable[str], folding: Collection[str], **justify: Any) -> None:
    """Add columns: those that are ``folding`` become narrower where they must, of the others all but a mark is cut."""
    for name in names:
        folds = name in folding
        width = min(len(name) + 6, 11) if folds else None
        overflow = "fold" if folds else "ellipsis"
        table.add_column(name, justify=justify.get(name, "left"), overflow=overflow, no_wrap=not folds, min_width=width)


def needed(terminal: Console, table: Table) -> int:
    """Columns of the terminal that a table takes at least, if nothing is cut."""
    for column in table.columns:
        column.max_width = column.min_width
    found = Measurement.get(terminal, terminal.options.update(max_width=10**4), table).maximum
    for column in table.columns:
        column.max_width = None
    return found


def _task_row(name: str, size: str) -> dict[str, Any]:
    t = tasks.get(name, size)
    share = f"{t.observation.fraction:.0%} of sites" if t.observation.fraction < 1 else "all"
    observed = ", ".join("xyz"[i] for i in t.observation.components) if t.observation.components else share
    return {
        "task": t.name,
        "observed": observed,
        "noise": f"{t.observation.noise:.0%}",
        "train": f"{t.train.trajectories}×{t.train.length}",
        "validation": f"{t.validation.trajectories}×{t.validation.length}",
        "test": f"{t.n_test}×{t.test_steps}",
        "climate": f"{t.n_climate}×{t.climate_steps}",
        "ranked": "yes" if t.track in tasks.RANKED_TRACKS else "no",
    }


def _system_row(name: str) -> dict[str, Any]:
    s = systems.get(name)
    unit = f"{s.time_unit:g}" + (" (sample interval)" if s.stochastic else "")
    return {
        "system": name,
        "equation": s.equation,
        "state": " × ".join(map(str, s.shape)),
        "sample_interval": s.sample_interval,
        "unit_of_lead_time": unit,
        "parameters": s.parameters(),
    }


def _baseline_row(name: str) -> dict[str, Any]:
    module = baselines.get(name)
    idea = (module.__doc__ or "").split("\n\n")[0].partition(":")[2].replace("\n", " ").strip()
    return {"baseline": name, "knowledge": module.knowledge, "idea": idea}


def listing(what: str, size: str) -> tuple[list[str], Callable[[str], dict[str, Any]]]:
    """The names of all systems, tasks or baselines, and what makes a row of one."""
    known: dict[str, tuple[Callable[[], list[str]], Callable[[str], dict[str, Any]]]] = {
        "systems": (systems.names, _system_row),
        "tasks": (tasks.names, lambda name: _task_row(name, size)),
        "baselines": (baselines.names, _baseline_row),
    }
    if what not in known:
        raise unknown("listing", what, known)
    tasks.size_of(size)
    names, row = known[what]
    return names(), row


def show(title: str, table_rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    note = "train, validation: trajectories×samples; test, climate: cases×samples ahead" if title == "tasks" else None
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1), caption=note)
    first, *others = (column.replace("_", " ") for column in table_rows[0])
    add_columns(table, (first, *others), others)
    for row in table_rows:
        table.add_row(*map(_cell, row.values()))
    console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_cell(one)}" for key, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_scores(
    run: str, scores: list[ScoreRow], title: str = "95 % interval over cases", size: str = "standard"
) -> None:
    """Print whole-forecast scores of a run with their intervals; curves are in the files."""
    columns = ("task", "metric", "value", "low", "high", "cases", "unit")
    note = None if size.startswith("standard") else f"skills of size {size}: {STANDARD_SCALE}"
    table = Table(title=f"{run} ({title})", box=box.SIMPLE, caption=note)
    add_columns(table, columns, ("task", "metric", "unit"))
    for row in scores:
        if row.lead_time is None:
            numbers = map(number, (row.value, row.low, row.high))
            table.add_row(row.task, row.metric, *numbers, str(row.n_cases), row.unit)
    console().print(table)


def number(value: float | None) -> str:
    """Three significant digits.

    >>> number(0.90571), number(-14.5), number(123.4), number(None), number(3e-7)
    ('0.906', '-14.5', '123', '–', '3e-07')
    """
    return UNKNOWN if value is None else f"{value:.3g}"


def with_interval(row: ScoreRow | None) -> str:
    """``value [low, high]``; a value that was not finite, or is not there, is a dash."""
    if row is None or row.low is None or row.high is None:
        return UNKNOWN if row is None else number(row.value)
    return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"


def table_of(run: Path, file: DiagnosticsFile) -> Table:
    """Every diagnostic of a run, the true system's figure beside it."""
    table = Table(title=f"{run}: diagnostics (reported, never ranked)", box=box.SIMPLE, padding=(0, 1, 0, 0))
    columns = ("diagnostic", "lead", "emulator [95 %]", "true system [95 %]", "n", "unit")
    add_columns(table, columns, ("diagnostic", "unit"))
    rows = file.rows()
    true = {row.metric: row for row in rows if row.metric.startswith(TRUE)}
    for row in rows:
        if row.metric not in true:
            other = with_interval(true.get(TRUE + row.metric))
            lead = "" if row.lead_time is None else number(row.lead_time)
            table.add_row(row.metric, lead, with_interval(row), other, str(row.n_cases), row.unit)
    return table


def show_diagnostics(run: Path, file: DiagnosticsFile) -> None:
    """Print a run's diagnostics, and one line for each that is not available."""
    terminal = console()
    terminal.print(table_of(run, file))
    for name, diagnostic in file.diagnostics.items():
        if diagnostic.note:
            terminal.print(f"{name}: {diagnostic.note}")


SUMMARY = {
    "λ₁ (true)": ("lyapunov_exponent_1", TRUE + "lyapunov_exponent_1"),
    "KY dim. (true)": ("kaplan_yorke_dimension", TRUE + "kaplan_yorke_dimension"),
    "apart (true)": ("twin_separation_time", TRUE + "twin_separation_time"),
    "2× noise": ("noise_doubling_change",),
    "gain (true)": ("gain_max", TRUE + "gain_max"),
    "outside (true)": ("gain_outside_max", TRUE + "gain_outside_max"),
}


def summary(entries: list[tuple[str, DiagnosticsFile]]) -> Table:
    """One line per run, named by its entry: what :mod:`emubench.cli.report` shows below the rankings."""
    caption = (
        "never ranked. λ₁ per unit of time; apart: Lyapunov times for twins to part from 0.01 to 0.1 σ; 2× noise:\n"
        "change of the accuracy score; gain: largest one-sample growth, on the attractor and 2 σ outside (lower\n"
        "bounds); symmetry: worst violation in σ"
    )
    table = Table(title="diagnostics", caption=caption, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    add_columns(table, ("task", "entry", *SUMMARY, "symmetry"), ("task", "entry"), **dict.fromkeys(SUMMARY, "right"))
    for entry, file in entries:
        rows = file.rows()
        values = {row.metric: row.value for row in rows}
        cells = []
        for names in SUMMARY.values():
            own, *true = (number(values.get(name)) for name in names)
            cells.append(own + "".join(f" ({value})" for value in true))
        worst = [row.value for row in rows if row.metric.startswith("symmetry_violation")]
        known = [value for value in worst if value is not None]
        cells.append(number(max(known)) if known and len(known) == len(worst) else UNKNOWN)
        table.add_row(file.task, entry, *cells)
    return table
