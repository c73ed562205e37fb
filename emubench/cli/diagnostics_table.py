"""What is printed of diagnostics: all of a run's, and one line per run for a comparison."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from emubench.cli.tables import console
from emubench.files.run_files import DiagnosticsFile, ScoreRow

UNKNOWN = "–"
TRUE = "true_"


def number(value: float | None) -> str:
    """Three significant digits.

    >>> number(0.90571), number(-14.5), number(123.4), number(None), number(3e-7)
    ('0.906', '-14.5', '123', '–', '3e-07')
    """
    return UNKNOWN if value is None else f"{value:.3g}"


def with_interval(row: ScoreRow | None) -> str:
    """``value [low, high]``; a value that was not finite, or is not there, is a dash."""
    if row is None:
        return UNKNOWN
    if row.low is None or row.high is None:
        return number(row.value)
    return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"


def table_of(run: Path, file: DiagnosticsFile) -> Table:
    """Every diagnostic of a run, the true system's figure beside it."""
    table = Table(title=f"{run}: diagnostics (reported, never ranked)", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("diagnostic", "lead", "emulator [95 %]", "true system [95 %]", "n", "unit"):
        table.add_column(column, no_wrap=column not in ("diagnostic", "unit"), overflow="fold")
    rows = file.rows()
    true = {row.metric: row for row in rows if row.metric.startswith(TRUE)}
    for row in rows:
        if row.metric not in true:
            other = with_interval(true.get(TRUE + row.metric))
            lead = "" if row.lead_time is None else number(row.lead_time)
            table.add_row(row.metric, lead, with_interval(row), other, str(row.n_cases), row.unit)
    return table


def show(run: Path, file: DiagnosticsFile) -> None:
    """Print a run's diagnostics, and one line for each that is not available."""
    terminal = console()
    terminal.print(table_of(run, file))
    for name, diagnostic in file.diagnostics.items():
        if diagnostic.note:
            terminal.print(f"{name}: {diagnostic.note}", highlight=False, markup=False)


SUMMARY = {
    "λ₁ (true)": ("lyapunov_exponent_1", TRUE + "lyapunov_exponent_1"),
    "KY dim. (true)": ("kaplan_yorke_dimension", TRUE + "kaplan_yorke_dimension"),
    "apart (true)": ("twin_separation_time", TRUE + "twin_separation_time"),
    "2× noise": ("noise_doubling_change",),
    "gain (true)": ("gain_max", TRUE + "gain_max"),
    "outside (true)": ("gain_outside_max", TRUE + "gain_outside_max"),
}


def summary(entries: list[tuple[str, DiagnosticsFile]]) -> Table:
    """One line per run, named by its entry: what :mod:`emubench.cli.compare` shows below the rankings."""
    caption = (
        "never ranked. λ₁ per unit of time; apart: Lyapunov times for twins to part from 0.01 to 0.1 σ; 2× noise:\n"
        "change of the accuracy score; gain: largest one-sample growth, on the attractor and 2 σ outside (lower\n"
        "bounds); symmetry: worst violation in σ"
    )
    table = Table(title="diagnostics", caption=caption, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in ("task", "entry", *SUMMARY, "symmetry"):
        table.add_column(column, justify="left" if column in ("task", "entry") else "right")
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
