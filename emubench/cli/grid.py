"""Commands of whole grids: ``run`` and ``status``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from emubench.cli.options import DATA, RUNS, Data, Json, Out, Workers, print_json, progress
from emubench.core.errors import EmubenchError

app = typer.Typer()
GridFile = Annotated[Path, typer.Argument(metavar="GRID.toml", help="Tasks × baselines × seeds.")]
Scheduler = Annotated[str | None, typer.Option(help="A Dask scheduler: tcp://host:port or its file.")]
Cluster = Annotated[Path | None, typer.Option(help="A cluster file: workers in batch jobs.")]
Tls = Annotated[Path | None, typer.Option(help="Folder of ca.pem, cert.pem, key.pem for Dask.")]
JobThreads = Annotated[int | None, typer.Option("--threads", min=1, max=256, help="Of each job; default: the file's.")]


@app.command("run")
def run_(
    grid: GridFile,
    data: Data = DATA,
    out: Out = RUNS,
    workers: Workers = 1,
    threads: JobThreads = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job script of --cluster alone.")] = False,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Generate, train and score all that a grid asks for; what is there is kept, so the same command resumes.

    Example: emubench run grid.toml --workers 2
    """
    from emubench.runs.grid import clusters, plans, runner

    if dry_run and cluster is None:
        raise EmubenchError("--dry-run prints the job script of --cluster FILE: give one")
    debug = "--debug" in sys.argv
    data, out = data.absolute(), out.absolute()
    with progress(grid.name):  # recipes are measured
        plan = plans.expand(grid, data, threads)
    if dry_run and cluster is not None:
        print(clusters.job_script(cluster, tls))
        return
    with clusters.place(workers, scheduler, cluster, tls) as where, runner.live() as watch:
        run = runner.execute(plan, where, data, out, threads or plan.grid.threads, watch, debug)
    runs = sorted({str(job.folder(out)) for job in plan.jobs})
    if json:
        print_json({**runner.summary(run), "runs": [r for r in runs if Path(r, "scores.json").exists()]})
    runner.say_failures(run)
    if not json:
        print(f"{len(runs)} runs below {out}; rank them with: emubench compare {out}")


@app.command()
def status(grid: GridFile, data: Data = DATA, out: Out = RUNS, threads: JobThreads = None, json: Json = False) -> None:
    """How far a grid is, from its folders alone: from any terminal, while it runs or afterwards.

    Example: emubench status grid.toml
    """
    from emubench.runs.grid import plans, runner

    data, out = data.absolute(), out.absolute()
    run = runner.look(plans.expand(grid, data, threads), data, out)
    if json:
        print_json(runner.summary(run))
    else:
        runner.show(run)
