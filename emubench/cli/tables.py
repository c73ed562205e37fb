"""What ``emubench list`` and ``emubench score`` print."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from emubench import systems
from emubench.core.errors import unknown
from emubench.data import tasks
from emubench.files.run_files import ScoreRow
from emubench.runs import jobs


def console() -> Console:
    """The terminal, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120)


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
    }


def _baseline_row(name: str) -> dict[str, Any]:
    module = jobs.baseline(name)
    idea = (module.__doc__ or "").split("\n\n")[0].partition(":")[2].replace("\n", " ").strip()
    return {"baseline": name, "knowledge": module.knowledge, "idea": idea}


def rows(what: str, size: str) -> list[dict[str, Any]]:
    """One dictionary per system, task or baseline."""
    makers = {
        "systems": lambda: [_system_row(n) for n in systems.names()],
        "tasks": lambda: [_task_row(n, size) for n in tasks.names()],
        "baselines": lambda: [_baseline_row(n) for n in jobs.baseline_names()],
    }
    if what not in makers:
        raise unknown("listing", what, makers)
    return makers[what]()


def show(title: str, table_rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    note = "train, validation: trajectories×samples; test, climate: cases×samples ahead" if title == "tasks" else None
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1), caption=note)
    for i, column in enumerate(table_rows[0]):
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=i == 0)
    for row in table_rows:
        table.add_row(*map(str, row.values()))
    console().print(table)


def show_scores(run: str, scores: list[ScoreRow], title: str = "95 % interval over cases") -> None:
    """Print whole-forecast scores of a run with their intervals; curves are in the files."""
    table = Table(title=f"{run} ({title})", box=box.SIMPLE)
    for column in ("task", "metric", "value", "low", "high", "cases", "unit"):
        table.add_column(column)
    for row in scores:
        if row.lead_time is None:
            numbers = ("–" if v is None else f"{v:.3g}" for v in (row.value, row.low, row.high))
            table.add_row(row.task, row.metric, *numbers, str(row.n_cases), row.unit)
    console().print(table)
