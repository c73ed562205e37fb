"""Options that mean the same in every command, and how commands show progress and print JSON."""

import json as jsonlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emubench.core.errors import EmubenchError, one_line, reason

if TYPE_CHECKING:
    from emubench.data.tasks import Task
    from emubench.files.run_files import ScoreRow

Data = Annotated[Path, typer.Option("--data", help="Folder of the datasets.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
SizeOption = Annotated[str, typer.Option("--size", help="Amount of data: tiny or standard.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of everything random.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes to use.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N, mps, or auto: the fastest there is.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")]
DATA, RUNS = Path("data"), Path("runs")


@contextmanager
def progress(label: str, lines: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, in a terminal; elsewhere, with ``lines``, a line per quarter of the work.

    What the package logs meanwhile is shown with it: a stage beside the bar or as a line, a warning as a line.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    bar = Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    told = 0

    def show(done: int, total: int) -> None:
        nonlocal told
        bar.update(job, completed=done, total=total)
        if lines and bar.disable and (now := 4 * done // max(total, 1)) > told:
            told = now
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)

    if lines and bar.disable:
        print(f"{label} ...", file=sys.stderr, flush=True)
    with bar:
        job = bar.add_task(label, total=None)

        def tell(record: logging.LogRecord) -> None:
            text = f"{label}: {record.getMessage()}"
            if bar.disable or record.levelno >= logging.WARNING:
                print(one_line(text), file=sys.stderr, flush=True)
            else:
                bar.update(job, description=one_line(text))

        with _heard(tell):
            yield show


@contextmanager
def _heard(tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Hand on what the package logs, from its stages (level INFO) on."""
    logger, handler = logging.getLogger("emubench"), logging.Handler()
    level, handler.emit = logger.level, tell  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def resolved(name: str, size: str, data: Path) -> "Task":
    """The task called so, or of the recipe file: what is measured of a recipe is shown meanwhile."""
    from emubench.data import recipes

    with progress(name):
        return recipes.resolve(name, size, data)


def answer(json: bool, value: Any, text: str) -> None:
    """Print a result: ``value`` for machines if ``json`` is asked for, else ``text`` for people."""
    if json:
        print_json(value)
    elif text:
        print(text)


def print_json(value: Any) -> None:
    """Print a result for machines."""
    print(jsonlib.dumps(value, indent=1))


def print_rows(rows_of: "Iterable[tuple[Path, Iterable[ScoreRow]]]") -> None:
    """Print the scores of several runs for machines, each row with the ``run`` that it is of."""
    print_json([{"run": str(run), **row.model_dump()} for run, rows in rows_of for row in rows])


def each(items: Iterable[Any], do: Callable[[Any], object]) -> list[str]:
    """Do every item; one that fails leaves the others to be done. Return the faults, each with its item's name."""
    faults = []
    for item in items:
        try:
            do(item)
        except Exception as error:
            if "--debug" in sys.argv:
                raise
            known = isinstance(error, EmubenchError | OSError)
            text = str(error) if known else f"{type(error).__name__}: {reason(error)} (--debug shows where)"
            faults.append(text if str(item) in text else f"{item}: {text}")
    return faults


def leave(faults: Iterable[str]) -> None:
    """Print one line per fault on standard error and end with status 1, if there are any."""
    lines = [f"emubench: {one_line(fault)}" for fault in faults]
    if lines:
        typer.echo("\n".join(lines), err=True)
        raise typer.Exit(1)
