"""``emubench submit …``: parse, call, print."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emubench.cli.grid import Cluster, Scheduler, Tls
from emubench.cli.options import DATA, Data, Device, Json, SizeOption, Workers, answer, leave, print_json, progress
from emubench.core.errors import EmubenchError
from emubench.leaderboard.submission.entries import ENTRIES

if TYPE_CHECKING:
    from emubench.runs.sandbox.judged import Limits

app = typer.Typer(help="Submit a model to the leaderboard: new, check, run, verify.", no_args_is_help=True)
season_app = typer.Typer(
    help="Seasons on sealed data, by commit and reveal: new, verify, status, close.", no_args_is_help=True
)
Board = Annotated[Path, typer.Option("--board", help="The folder leaderboard/ of the repository.")]
BOARD = Path("leaderboard")
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=16, help="Fewer than three are a checkpoint.")]
Only = Annotated[list[str] | None, typer.Option("--task", help="Of the season's tasks, these alone.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256)]
TrainSeconds = Annotated[float, typer.Option("--train-seconds", min=1, help="Limit of one training.")]
Ladder = Annotated[float, typer.Option("--ladder", min=0, help="Seconds for the solvers of a task; 0: no speed-up.")]
LADDER = 30.0
Season = Annotated[str, typer.Argument(metavar="NAME", help="Of the season, in seasons.toml of the board.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[ENTRY]…", help="Default: all standard entries.")]
PlaceOption = Annotated[
    Path | None,
    typer.Option("--place", help="Folder of sealed data and results, which all workers see; default: a temporary one."),
]
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
    weights: Annotated[
        bool, typer.Option("--weights", help="Keep a standard entry's weights; an open one's are kept always.")
    ] = False,
    json: Json = False,
) -> None:
    """Make an entry from scored runs of one method, or from forecasts of the public contexts.

    Example: emubench submit new my-model --from runs/resnet_ode --author "A. Name" --contact a@b.org --licence MIT
    """
    from emubench.leaderboard.submission import making

    if bool(runs) == bool(forecasts):
        raise EmubenchError("give either --from RUN folders or --forecast TASK=FILE")
    given = {"division": division, "contact": contact, "licence": licence, "paper": paper, "code": code}
    given |= {"notes": notes, "knowledge": knowledge if forecasts else None, "authors": author}
    stated: dict[str, Any] = {key: value for key, value in given.items() if value}
    if runs:
        from emubench.runs import folders

        folder = making.from_runs(name, folders.find_runs(runs), out, stated, weights)
    else:
        pairs = dict(map(_pair, forecasts or []))
        folder = making.from_forecasts(name, pairs, data, size, out, stated)
    answer(json, str(folder), f"entry {folder}; complete {folder}/entry.toml, then: emubench submit check {folder}")


def _pair(text: str) -> tuple[str, Path]:
    task, equals, file = text.partition("=")
    if not equals:
        raise EmubenchError(f"--forecast {text}: TASK=FILE belongs here, such as lorenz63-noisy=forecast.npz")
    return task, Path(file)


@app.command()
def check(folder: Folder, json: Json = False) -> None:
    """Validate an entry without executing anything of it; every fault is one line, and the exit status 1.

    A table says what it has, what it lacks to be ranked, and what a judge's run would cost.

    Example: emubench submit check leaderboard/entries/my-model
    """
    from emubench.leaderboard.submission import checks
    from emubench.leaderboard.submission.standing import standing

    items, contents = checks.look(folder)
    lines = [f"{'FAULT' if item.faults else 'ok':5} {item.what}" for item in items]
    listed = [{"what": item.what, "faults": item.faults} for item in items]
    found = standing(contents) if contents else []
    lines += [f"{one.what:13} {one.found:16} {one.missing}".rstrip() for one in found]
    content = {"entry": str(folder), "checks": listed, "standing": [one._asdict() for one in found]}
    answer(json, content, "\n".join(lines))
    leave(checks.faults(items))


@app.command()
def run(
    folder: Folder,
    data: Data = DATA,
    call_seconds: Annotated[float, typer.Option("--call-seconds", min=1, help="Limit of one call.")] = 1800.0,
    memory_gb: Annotated[float, typer.Option("--memory-gb", min=0.1, help="Limit of a judged emulator.")] = 8.0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256)] = 1,
    device: Device = "cpu",
    bench_seconds: Annotated[
        float, typer.Option("--bench-seconds", min=0, help="Of each timing, beside solvers; 0: none.")
    ] = 2.0,
    json: Json = False,
) -> None:
    """Check an entry, then score and time it anew; a score that is not as claimed is named.

    Forecasts to be scored are made in a child process with limits; then the first seed of each task is timed beside a
    ladder of solvers (a minute each). The entry keeps that timing, and the page shows it.

    Example: emubench submit run leaderboard/entries/my-model --data data
    """
    from emubench.leaderboard.submission import judge

    limits = _limits(device, call_seconds=call_seconds, memory_bytes=int(memory_gb * 2**30), threads=threads)
    with progress(folder.name) as show:
        found = judge.rescore(folder, data, limits, show, bench_seconds)
    answer(json, [outcome.as_json() for outcome in found], "\n".join(outcome.line() for outcome in found))
    leave(fault for outcome in found for fault in outcome.faults)


def _limits(device: str, **given: Any) -> "Limits":
    """What a judged emulator may take, on a device that is tried before anything is judged."""
    from emubench.runs.sandbox import judged

    limits = judged.Limits(**given)
    return dataclasses.replace(limits, device=judged.usable(device, limits))


@app.command()
def verify(
    folder: Folder,
    name: Annotated[str, typer.Option("--season", help="Name of the season, in seasons.toml of the board.")],
    board: Board = BOARD,
    seeds: Seeds = 3,
    only: Only = None,
    threads: Threads = 1,
    train_seconds: TrainSeconds = 3600.0,
    device: Device = "cpu",
    ladder: Ladder = LADDER,
    again: Annotated[bool, typer.Option("--again", help="Replace rows that are there already.")] = False,
    json: Json = False,
) -> None:
    """For maintainers: retrain an entry on a season's sealed data, score it on its sealed contexts, keep the rows.

    While the season is open, its secret is read from the file that EMUBENCH_SEASON_SECRET names, or asked for; of a
    closed one it is published, and anyone can do this: rows that are there already are compared, not replaced.

    Example: EMUBENCH_SEASON_SECRET=~/season.txt emubench submit verify leaderboard/entries/linear --season 2026a
    """
    from emubench.leaderboard.submission import verifying
    from emubench.runs.grid import runner

    limits = _limits(device, threads=threads, train_seconds=train_seconds)
    with runner.live() as watch:
        found = verifying.verify(folder, board, name, seeds, only or [], limits, again, watch, ladder)
    answer(json, found.as_json(), "\n".join(found.lines()))
    leave(found.faults)


@season_app.command("new")
def season_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as 2026a.")],
    board: Board = BOARD,
    size: SizeOption = "standard",
    only: Annotated[list[str] | None, typer.Option("--task", help="A task of the season; default: all ranked.")] = None,
    json: Json = False,
) -> None:
    """Open a season: draw its secret into the file that EMUBENCH_SEASON_SECRET names, and commit to it.

    Example: EMUBENCH_SEASON_SECRET=~/season.txt emubench season new 2026a
    """
    from emubench.leaderboard.submission import season

    made = season.open_season(board, name, size, only)
    text = f"season {name}: commitment {made.commitment}\ncommit {board}/seasons.toml; keep the secret's file safe"
    answer(json, made.model_dump(), text)


@season_app.command("verify")
def season_verify(
    name: Season,
    names: Names = None,
    board: Board = BOARD,
    seeds: Seeds = 3,
    only: Only = None,
    threads: Threads = 1,
    train_seconds: TrainSeconds = 3600.0,
    device: Device = "cpu",
    ladder: Ladder = LADDER,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    tls: Tls = None,
    place: PlaceOption = None,
    json: Json = False,
) -> None:
    """For maintainers: retrain, score and time all entries of a season; each row is kept as soon as it is judged.

    What is there is kept, so the same command goes on after a kill. The secret is read as by submit verify, by this
    process alone: workers see the sealed data in --place.

    Example: EMUBENCH_SEASON_SECRET=~/season.txt emubench season verify 2026a --workers 8
    """
    from emubench.leaderboard.submission import verifying
    from emubench.runs.grid import clusters, runner

    where = clusters.place(workers, scheduler, cluster, tls)
    limits = _limits(device, threads=threads, train_seconds=train_seconds)
    with runner.live() as watch:
        found = verifying.verify_season(
            board, name, names or [], seeds, only or [], limits, place, where, watch, ladder
        )
    answer(json, found.as_json(), "\n".join(found.lines()))
    leave(found.faults)


@season_app.command("status")
def season_status(
    name: Season,
    names: Names = None,
    board: Board = BOARD,
    seeds: Seeds = 3,
    only: Only = None,
    threads: Threads = 1,
    train_seconds: TrainSeconds = 3600.0,
    device: Device = "cpu",
    ladder: Ladder = LADDER,
    place: PlaceOption = None,
    json: Json = False,
) -> None:
    """How far season verify is that was given the same options, from its folders alone; needs no secret.

    Example: emubench season status 2026a
    """
    from emubench.leaderboard.submission import verifying
    from emubench.runs.grid import runner
    from emubench.runs.sandbox.judged import Limits

    limits = Limits(threads=threads, train_seconds=train_seconds, device=device)
    found = verifying.look(board, name, names or [], seeds, only or [], limits, place, ladder)
    if json:
        print_json(found.as_json())
    else:
        runner.show(found.ended)
        print("\n".join(found.lines()))


@season_app.command("close")
def season_close(
    name: Annotated[str, typer.Argument(metavar="NAME")], board: Board = BOARD, json: Json = False
) -> None:
    """Close a season: publish its secret, so that anyone can redo every verified row.

    Example: EMUBENCH_SEASON_SECRET=~/season.txt emubench season close 2026a
    """
    from emubench.leaderboard.submission import season

    closed = season.close_season(board, name)
    answer(json, closed.model_dump(), f"season {name} is closed and its secret published in {board}/seasons.toml")
