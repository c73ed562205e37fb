"""The command line: parse, call, print. Everything else is importable; torch is imported only when it is needed."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from emubench import __version__
from emubench.cli import board
from emubench.cli import submit as submission
from emubench.cli.options import DATA, RUNS, Data, Json, Out, Runs, Seed, SizeOption, Workers, print_json, print_rows
from emubench.cli.options import progress as show_progress
from emubench.core.errors import EmubenchError, one_line

app = typer.Typer(
    name="emubench",
    help="Benchmark learned emulators of chaotic ODEs and PDEs: generate data, train, score, rank.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(submission.app, name="submit")
app.add_typer(submission.season_app, name="season")
app.add_typer(board.app, name="leaderboard")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="systems, tasks or baselines.")] = "tasks",
    size: SizeOption = "standard",
    json: Json = False,
) -> None:
    """List what there is.

    Example: emubench list tasks --size tiny
    """
    from emubench.cli import tables

    rows = tables.rows(what, size)
    if json:
        print_json(rows)
    else:
        tables.show(what, rows)


@app.command()
def generate(
    names: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="Tasks or recipe files; 'all' for the sixteen.")
    ],
    out: Annotated[Path, typer.Option("--out", "--data", help="Folder of the datasets.")] = DATA,
    size: SizeOption = "standard",
    seed: Seed = 0,
    trajectories: Annotated[int | None, typer.Option("--trajectories", help="Of the train split instead.")] = None,
    length: Annotated[int | None, typer.Option("--length", help="Samples of each of them.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, max=256, help="Default: as many as help.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda: equal up to rounding.")] = "cpu",
    json: Json = False,
) -> None:
    """Simulate datasets into HDF5, in constant memory; files that are there are kept, interrupted ones are resumed.

    A train split of N trajectories of T samples makes the size standard-NxT: train and score with --size standard-NxT.

    Example: emubench generate lorenz96-noisy --trajectories 20000 --length 1024 --workers 2
    """
    from emubench.data import generation, recipes, tasks

    sized = tasks.size_with(size, trajectories, length)
    if sized != size and any(n.endswith(".toml") for n in names):
        raise EmubenchError("--trajectories and --length are for the benchmark's tasks; a recipe has [amounts] for it")
    wanted = [recipes.resolve(n, sized, out) for n in (tasks.names() if names == ["all"] else names)]
    files: list[str] = []
    for task in wanted:
        with show_progress(task.name) as progress:
            files += map(str, generation.generate(task, out, seed, workers, progress, device))
    if json:
        print_json(files)
    else:
        print("\n".join(f"wrote {f}" for f in files) or "everything is there already")


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Dataset files.")],
    json: Json = False,
) -> None:
    """Check dataset files: own hashes and schema, then against the published fingerprint.

    Says "identical bytes", "faithful rebuild" (of another machine) or, where none is published, "whole".

    Example: emubench verify data/tiny/lorenz96-noisy.h5
    """
    from emubench.data import fingerprints

    verdicts = {}
    for path in files:
        verdicts[str(path)] = fingerprints.judge(path)
        if not json:
            print(f"{path}: {verdicts[str(path)]}")
    if json:
        print_json(verdicts)


@app.command()
def contexts(
    name: Annotated[str, typer.Argument(metavar="TASK")],
    data: Data = DATA,
    size: SizeOption = "standard",
    file: Annotated[Path | None, typer.Option("--file", help="Where to write; default TASK.contexts.h5.")] = None,
    json: Json = False,
) -> None:
    """Write a task's contexts and the lead times asked for, for forecasts made in any framework.

    Example: emubench contexts lorenz96-noisy --size tiny --file contexts.h5
    """
    from emubench.data import dataset, recipes

    path = file or Path(f"{name}.contexts.h5")
    dataset.write_context_file(recipes.resolve(name, size, data), data, path)
    if json:
        print_json(str(path))
    else:
        print(f"wrote {path}; score a forecast of it with: emubench score --forecast FILE --task {name} --size {size}")


@app.command()
def train(
    baseline: Annotated[str, typer.Argument(help="A file of baselines/.")],
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task, or a recipe file.")],
    data: Data = DATA,
    out: Out = RUNS,
    size: SizeOption = "standard",
    seed: Seed = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of torch.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override a setting: key=value.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the log for TensorBoard.")] = False,
    json: Json = False,
) -> None:
    """Train a baseline on a task; a finished run of the same job is kept. Its log is log.jsonl in the run's folder.

    Example: emubench train resnet_ode lorenz96-noisy --size tiny --set steps=500
    """
    from emubench.data import recipes
    from emubench.runs import jobs, stages

    task = recipes.resolve(name, size, data)
    overrides = dict(map(_setting, settings or []))
    job = jobs.Job(baseline, task.name, size, seed, threads, overrides, recipes.to_json(task))
    with show_progress(f"{baseline} {name}") as progress:
        folder = stages.train(job, data, out, progress, tensorboard)
    if json:
        print_json(str(folder))
    else:
        print(f"run {folder}")


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise EmubenchError(f"--set {text}: key=value belongs here, such as --set steps=500")
    try:
        return key, jsonlib.loads(value)
    except ValueError:
        return key, value


@app.command()
def score(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders, or folders that hold some.")] = None,
    forecast: Annotated[Path | None, typer.Option("--forecast", help="A forecast file: HDF5 or npz.")] = None,
    name: Annotated[str | None, typer.Option("--task", help="The task of --forecast.")] = None,
    data: Data = DATA,
    size: SizeOption = "standard",
    again: Annotated[bool, typer.Option("--again", help="Score even if there are scores.")] = False,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Also exponents, growth, noise, Jacobians, symmetry: never ranked.")
    ] = False,
    json: Json = False,
) -> None:
    """Score runs, or a forecast made elsewhere.

    Example: emubench score runs/resnet_ode --data data --diagnostics
    """
    from emubench.data import recipes
    from emubench.evaluation import scoring
    from emubench.runs import folders, stages

    if (forecast is None) == (not runs):
        raise EmubenchError("give either RUN folders, or --forecast FILE with --task TASK")
    scored, diagnosed = {}, {}
    if forecast is not None:
        if name is None:
            raise EmubenchError("--forecast needs --task TASK")
        if diagnostics:
            raise EmubenchError("--diagnostics needs RUN folders: a forecast file can't be asked for another forecast")
        with show_progress(name) as progress:
            found = scoring.score_forecast(forecast, recipes.resolve(name, size, data), data, progress)
            scored[forecast] = found.scores.rows
    for run in folders.find_runs(runs) if runs else []:
        with show_progress(str(run)) as progress:
            scored[run] = stages.score(run, data, progress, again).rows
        if diagnostics:
            with show_progress(f"{run} diagnostics") as progress:
                diagnosed[run] = stages.diagnose(run, data, progress, again)
    if json:
        print_rows((run, (*rows, *(diagnosed[run].rows() if run in diagnosed else ()))) for run, rows in scored.items())
    else:
        from emubench.cli import tables

        for run, rows in scored.items():
            tables.show_scores(str(run), rows)
        for run, found in diagnosed.items():
            tables.show_diagnostics(run, found)


GridFile = Annotated[Path, typer.Argument(metavar="GRID.toml", help="Tasks × baselines × seeds.")]
JobThreads = Annotated[int | None, typer.Option("--threads", min=1, max=256, help="Of each job; default: the file's.")]


@app.command("run")
def run_(
    grid: GridFile,
    data: Data = DATA,
    out: Out = RUNS,
    workers: Workers = 1,
    threads: JobThreads = None,
    scheduler: Annotated[str | None, typer.Option(help="A Dask scheduler: tcp://host:port or its file.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="A cluster file: workers in batch jobs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job script of --cluster alone.")] = False,
    tls: Annotated[Path | None, typer.Option(help="Folder of ca.pem, cert.pem, key.pem for Dask.")] = None,
    json: Json = False,
) -> None:
    """Generate, train and score all that a grid asks for; what is there is kept, so the same command resumes.

    Example: emubench run grid.toml --workers 2
    """
    from emubench.runs.grid import cluster as clusters
    from emubench.runs.grid import executors, runner
    from emubench.runs.grid import plan as grids

    if (scheduler is not None) + (cluster is not None) + (workers > 1) > 1:
        raise EmubenchError("give one of --workers, --scheduler and --cluster")
    if dry_run and cluster is None:
        raise EmubenchError("--dry-run prints the job script of --cluster FILE: give one")
    debug = "--debug" in sys.argv
    data, out = data.absolute(), out.absolute()
    plan = grids.expand(grid, data, threads)
    if dry_run and cluster is not None:
        print(clusters.job_script(cluster, tls))
        return
    if cluster is not None:
        place = clusters.batch(cluster, tls)
    elif scheduler is not None:
        place = clusters.scheduler(scheduler, tls)
    else:
        place = executors.processes(workers) if workers > 1 else executors.in_process()
    with place as where, runner.live() as watch:
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
    from emubench.runs.grid import plan as grids
    from emubench.runs.grid import runner

    data, out = data.absolute(), out.absolute()
    run = runner.look(grids.expand(grid, data, threads), data, out)
    if json:
        print_json(runner.summary(run))
    else:
        runner.show(run)


@app.command()
def bench(
    runs: Runs,
    data: Data = DATA,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="For which each scenario is repeated.")] = 10.0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Of emulators and solvers alike.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
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
    from emubench.runs import bench as benches
    from emubench.runs import folders

    mode = modes.Mode(compile_, precision)
    session = benches.Session(data, benches.Options(mode, device, threads, seconds, int(memory * 2**30), ladder))
    timed, faults = {}, []
    for run in folders.find_runs(runs):
        try:
            with show_progress(str(run)) as progress:
                timed[run] = benches.rows(folders.task_of(run, folders.read_card(run)), session.bench(run, progress))
        except EmubenchError as error:  # the others are measured all the same
            if "--debug" in sys.argv:
                raise
            faults.append(str(error))
    if json:
        print_rows(timed.items())
    else:
        for run, rows in timed.items():
            tables.show_scores(str(run), rows, "10th and 90th percentile of repeated calls")
    for fault in faults:
        print(f"emubench: {fault}", file=sys.stderr)
    if faults:
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Runs,
    plot: Annotated[Path | None, typer.Option("--plot", help="Folder for plots and tables.")] = None,
    json: Json = False,
) -> None:
    """Rank scored runs, per track: accuracy, stability, throughput with intervals, floor and oracle.

    Example: emubench compare runs --plot plots
    """
    from emubench.cli import compare as report
    from emubench.runs import folders

    report.compare(folders.find_runs(runs), plot, json)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for data, runs and plots.")] = Path("demo"),
    workers: Workers = 2,
    json: Json = False,
) -> None:
    """The whole path at tiny size on all four systems: generate, train, score, rank, plot (minutes).

    Example: emubench demo --out demo
    """
    from emubench.cli import demo as demos

    demos.run(folder, workers, json)


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark learned emulators of chaotic ODEs and PDEs."""


def main() -> None:
    """Entry point: what the caller can put right becomes one line and exit status 1, an interrupt 130."""
    try:
        app()
    except (EmubenchError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"emubench: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as leaving:  # which is what typer makes of a KeyboardInterrupt
        if leaving.code == 130:
            print("emubench: interrupted; run the same command again to go on", file=sys.stderr)
        raise
