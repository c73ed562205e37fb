"""Commands of single runs: ``train`` and ``score``."""

import json as jsonlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from emubench.cli.options import (
    DATA,
    RUNS,
    Data,
    Device,
    Json,
    Out,
    Seed,
    SizeOption,
    answer,
    each,
    leave,
    print_rows,
    progress,
    resolved,
)
from emubench.core.errors import EmubenchError

app = typer.Typer()


@app.command()
def train(
    baseline: Annotated[str, typer.Argument(help="A name of `list baselines`, or a file of yours: ./my_model.py.")],
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task, or a recipe file.")],
    data: Data = DATA,
    out: Out = RUNS,
    size: SizeOption = "standard",
    seed: Seed = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of torch.")] = 1,
    device: Device = "cpu",
    compile: Annotated[bool, typer.Option("--compile", help="Compile what training steps repeat.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override a setting: key=value.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the log for TensorBoard.")] = False,
    json: Json = False,
) -> None:
    """Train a baseline on a task; a finished run of the same job is kept. Its log is log.jsonl in the run's folder.

    A run that was trained with --compile is another than one without: rounding differs.

    Example: emubench train resnet_ode lorenz96-noisy --size tiny --set steps=500
    """
    from emubench import baselines
    from emubench.core import hardware
    from emubench.data import recipes
    from emubench.runs import jobs, stages

    where = str(hardware.check_device(device, stages.DTYPE))
    mine = Path(baseline).resolve().parent if baseline.endswith(".py") else None
    baseline = baselines.of_file(Path(baseline)) if mine else baseline
    task = resolved(name, size, data)
    overrides = dict(map(_setting, settings or []))
    job = jobs.Job(baseline, task.name, size, seed, threads, overrides, recipes.to_json(task), where, compile)
    with progress(f"{baseline} {name}") as show:
        folder = stages.train(job, data, out, show, tensorboard)
    more = f"; the file is found again with: export {baselines.OWN}={shlex.quote(str(mine))}" if mine else ""
    answer(json, str(folder), f"run {folder}{more}")


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
    device: Device = "cpu",
    again: Annotated[bool, typer.Option("--again", help="Score even if there are scores.")] = False,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Also exponents, growth, noise, Jacobians, symmetry: never ranked.")
    ] = False,
    json: Json = False,
) -> None:
    """Score runs, or a forecast made elsewhere; runs that can't be scored are named at the end, with exit status 1.

    Runs are loaded wherever they were trained; diagnostics, and a forecast made elsewhere, are computed on the CPU.

    Example: emubench score runs/resnet_ode --data data --diagnostics
    """
    from emubench.core import hardware
    from emubench.evaluation import scoring
    from emubench.runs import folders, stages

    where = str(hardware.check_device(device, stages.DTYPE))
    if (forecast is None) == (not runs):
        raise EmubenchError("give either RUN folders, or --forecast FILE with --task TASK")
    scored, diagnosed = {}, {}
    if forecast is not None:
        if name is None:
            raise EmubenchError("--forecast needs --task TASK")
        if diagnostics:
            raise EmubenchError("--diagnostics needs RUN folders: a forecast file can't be asked for another forecast")
        task = resolved(name, size, data)
        with progress(name) as show:
            found = scoring.score_forecast(forecast, task, data, show)
            scored[forecast] = found.scores

    def one(run: Path) -> None:
        with progress(str(run)) as show:
            scored[run] = stages.score(run, data, show, again, where)
        if diagnostics:
            with progress(f"{run} diagnostics") as show:
                diagnosed[run] = stages.diagnose(run, data, show, again)

    faults = each(folders.find_runs(runs) if runs else [], one)
    if json:
        more = {run: found.rows() for run, found in diagnosed.items()}
        print_rows((run, (*file.rows, *more.get(run, ()))) for run, file in scored.items())
    else:
        from emubench.cli import tables

        for run, file in scored.items():
            tables.show_scores(str(run), file.rows, size=file.size)
        for run, found in diagnosed.items():
            tables.show_diagnostics(run, found)
    leave(faults)
