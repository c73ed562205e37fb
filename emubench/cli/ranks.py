"""Commands of many runs together: ``bench``, ``compare`` and ``demo``."""

from pathlib import Path
from typing import Annotated

import typer

from emubench.cli.options import DATA, Data, Device, Json, Runs, Workers, each, leave, print_rows, progress

app = typer.Typer()


@app.command()
def bench(
    runs: Runs,
    data: Data = DATA,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="For which each scenario is repeated.")] = 10.0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Of emulators and solvers alike.")] = 1,
    device: Device = "cpu",
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the emulator's steps.")] = False,
    precision: Annotated[str, typer.Option("--precision", help="full, bfloat16 or tf32: scored anew.")] = "full",
    memory: Annotated[float, typer.Option("--memory", min=0, help="GiB that a call may take.")] = 2.0,
    ladder: Annotated[float, typer.Option("--ladder", min=0, help="Seconds per task for solvers; 0: none.")] = 60.0,
    json: Json = False,
) -> None:
    """Time scored runs, and solvers of the same accuracy beside them: the speed-up at equal accuracy.

    Example: emubench bench runs/resnet_ode --seconds 2
    """
    from emubench.cli import tables
    from emubench.evaluation.throughput import modes
    from emubench.runs import benches, folders

    mode = modes.Mode(compile_, precision)
    session = benches.Session(data, benches.Options(mode, device, threads, seconds, int(memory * 2**30), ladder))
    timed = {}

    def one(run: Path) -> None:
        with progress(str(run)) as show:
            timed[run] = benches.rows(folders.task_of(run, folders.read_card(run)), session.bench(run, show))

    faults = each(folders.find_runs(runs), one)
    if json:
        print_rows(timed.items())
    else:
        for run, rows in timed.items():
            tables.show_scores(str(run), rows, "10th and 90th percentile of repeated calls")
    leave(faults)


@app.command()
def compare(
    runs: Runs,
    plot: Annotated[Path | None, typer.Option("--plot", help="Folder for plots and tables.")] = None,
    json: Json = False,
) -> None:
    """Rank scored runs, per track: accuracy, stability, throughput with intervals, floor and oracle.

    Runs that can't be compared with most are left out and named at the end, with exit status 1.

    Example: emubench compare runs --plot plots
    """
    from emubench.cli import report

    leave(report.compare(runs, plot, json))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for data, runs and plots.")] = Path("demo"),
    workers: Workers = 2,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """The whole path at tiny size on all four systems: generate, train, score, rank, plot (minutes).

    Example: emubench demo --out demo
    """
    from emubench.cli import demo as demos

    demos.run(folder, workers, json, device)
