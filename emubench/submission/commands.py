"""``emubench submit …``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emubench.errors import EmubenchError
from emubench.options import DATA, Data, Json, SizeOption, print_json, progress
from emubench.submission.entry import ENTRIES

app = typer.Typer(help="Submit a model to the leaderboard: new, check, run.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An entry, such as leaderboard/entries/NAME.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the entry: lower-case letters, digits, - and _.")],
    runs: Annotated[list[Path] | None, typer.Option("--from", help="Run folders, or folders that hold some.")] = None,
    forecasts: Annotated[
        list[str] | None, typer.Option("--forecast", metavar="TASK=FILE", help="A forecast made elsewhere.")
    ] = None,
    data: Data = DATA,
    size: SizeOption = "standard",
    out: Annotated[Path, typer.Option("--out", help="Folder of the entries.")] = ENTRIES,
    division: Annotated[str | None, typer.Option("--division", help="standard or open.")] = None,
    author: Annotated[list[str] | None, typer.Option("--author", help="May be given several times.")] = None,
    contact: Annotated[str | None, typer.Option("--contact")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of weights and forecasts, such as MIT.")] = None,
    paper: Annotated[str | None, typer.Option("--paper", help="https://…")] = None,
    code: Annotated[str | None, typer.Option("--code", help="https://…")] = None,
    knowledge: Annotated[str | None, typer.Option("--knowledge", help="Of --forecast: what the method knows.")] = None,
    notes: Annotated[str | None, typer.Option("--notes")] = None,
    json: Json = False,
) -> None:
    """Make an entry from scored runs of one method, or from forecasts of the public contexts.

    Example: emubench submit new my-model --from runs/resnet_ode --author "A. Name" --contact a@b.org --licence MIT
    """
    from emubench.submission import new as making

    if bool(runs) == bool(forecasts):
        raise EmubenchError("give either --from RUN folders or --forecast TASK=FILE")
    given = {"division": division, "contact": contact, "licence": licence, "paper": paper, "code": code}
    given |= {"notes": notes, "knowledge": knowledge if forecasts else None, "authors": author}
    stated: dict[str, Any] = {key: value for key, value in given.items() if value}
    if runs:
        from emubench import jobs

        folder = making.from_runs(name, jobs.find_runs(runs), out, stated)
    else:
        pairs = dict(_pair(text) for text in forecasts or [])
        folder = making.from_forecasts(name, pairs, data, size, out, stated)
    if json:
        print_json(str(folder))
    else:
        print(f"entry {folder}; complete {folder}/entry.toml, then: emubench submit check {folder}")


def _pair(text: str) -> tuple[str, Path]:
    task, equals, file = text.partition("=")
    if not equals:
        raise EmubenchError(f"--forecast {text}: TASK=FILE belongs here, such as lorenz63-noisy=forecast.npz")
    return task, Path(file)


@app.command()
def check(folder: Folder, json: Json = False) -> None:
    """Validate an entry without executing anything of it; every fault is one line, and the exit status 1.

    Example: emubench submit check leaderboard/entries/my-model
    """
    from emubench.submission import check as checks

    items = checks.check(folder)
    found = checks.faults(items)
    if json:
        print_json({"entry": str(folder), "checks": [{"what": i.what, "faults": i.faults} for i in items]})
    else:
        print("\n".join(f"{'FAULT' if item.faults else 'ok':5} {item.what}" for item in items))
    _leave(found)


@app.command()
def run(
    folder: Folder,
    data: Data = DATA,
    call_seconds: Annotated[float, typer.Option("--call-seconds", min=1, help="Limit of one call.")] = 1800.0,
    memory_gb: Annotated[float, typer.Option("--memory-gb", min=0.1, help="Limit of a judged emulator.")] = 8.0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256)] = 1,
    json: Json = False,
) -> None:
    """Check an entry, then score and time it anew in a child process; a score that is not as claimed is named.

    Example: emubench submit run leaderboard/entries/my-model --data data
    """
    from emubench.submission import judge, rescore

    limits = judge.Limits(call_seconds=call_seconds, memory_bytes=int(memory_gb * 2**30), threads=threads)
    with progress(folder.name) as show:
        found = rescore.rescore(folder, data, limits, show)
    if json:
        print_json([outcome.as_json() for outcome in found])
    else:
        print("\n".join(outcome.line() for outcome in found))
    _leave([fault for outcome in found for fault in outcome.faults])


def _leave(faults: list[str]) -> None:
    """Print one line per fault and end with status 1, if there are any."""
    for fault in faults:
        typer.echo(f"emubench: {fault}", err=True)
    if faults:
        raise typer.Exit(1)
