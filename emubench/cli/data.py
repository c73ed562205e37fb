"""Commands of tasks and datasets: ``list``, ``generate``, ``verify`` and ``contexts``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from emubench.cli.options import DATA, Data, Json, Seed, SizeOption, answer, each, leave, print_json, progress, resolved
from emubench.core.errors import EmubenchError

app = typer.Typer()


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

    names, row = tables.listing(what, size)
    rows: list[dict[str, Any]] = []
    faults = each(names, lambda name: rows.append(row(name)))
    if json:
        print_json(rows)
    elif rows:
        tables.show(what, rows)
    leave(faults)


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
    from emubench.data import generation, tasks

    sized = tasks.size_with(size, trajectories, length)
    if sized != size and any(n.endswith(".toml") for n in names):
        raise EmubenchError("--trajectories and --length are for the benchmark's tasks; a recipe has [amounts] for it")
    files: list[str] = []

    def one(name: str) -> None:
        task = resolved(name, sized, out)
        with progress(name) as show:
            files.extend(map(str, generation.generate(task, out, seed, workers, show, device)))

    faults = each(tasks.names() if names == ["all"] else names, one)
    answer(json, files, "\n".join(f"wrote {f}" for f in files) or ("" if faults else "everything is there already"))
    leave(faults)


@app.command()
def verify(files: Annotated[list[Path], typer.Argument(help="Dataset files.")], json: Json = False) -> None:
    """Check dataset files: own hashes and schema, then against the published fingerprint.

    Says "identical bytes", "faithful rebuild" (of another machine) or, where none is published, "whole".

    Example: emubench verify data/tiny/lorenz96-noisy.h5
    """
    from emubench.data import fingerprints

    verdicts = {}

    def one(path: Path) -> None:
        verdicts[str(path)] = fingerprints.judge(path)
        if not json:
            print(f"{path}: {verdicts[str(path)]}")

    faults = each(files, one)
    if json:
        print_json(verdicts)
    leave(faults)


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
    from emubench.data import generation

    path = file or Path(f"{name}.contexts.h5")
    generation.write_context_file(resolved(name, size, data), data, path)
    again = f"emubench score --forecast FILE --task {name} --size {size}"
    answer(json, str(path), f"wrote {path}; score a forecast of it with: {again}")
