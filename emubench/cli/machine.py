"""``emubench doctor``: what this machine can do, and what to do where something is missing."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from emubench import __version__
from emubench.cli.options import DATA, RUNS, Json, print_json
from emubench.core.errors import one_line, reason

app = typer.Typer()
LIBRARIES = ("torch", "numpy", "scipy", "h5py", "numba", "xarray")
SPEED, TRAJECTORIES = 2.0, 64
"""A kernel is so many times as fast as the reference solver, for so many trajectories, or something is amiss."""


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    state: str
    """``ok``, ``note`` (something is slower or less safe than it could be) or ``fault`` (something can't work)."""
    found: str
    remedy: str = ""


@app.command()
def doctor(
    data: Annotated[Path, typer.Option("--data", help="Folder of the datasets.")] = DATA,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the runs.")] = RUNS,
    json: Json = False,
) -> None:
    """Say what this machine can do: libraries, devices, compiler, speed of the solvers, folders. A minute at most.

    Ends with status 1 where something can't work at all.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [versions, processor, devices, compiler, cage]
    checks += [lambda: folder(data), lambda: folder(runs), kernels]
    found = []
    for check in checks:
        for finding in check():
            found.append(finding)
            if not json:
                print(line(finding), flush=True)
    if json:
        print_json([finding._asdict() for finding in found])
    if any(finding.state == "fault" for finding in found):
        raise typer.Exit(1)


def line(finding: Finding) -> str:
    """What is printed of a finding: its remedy on a line of its own.

    >>> print(line(Finding("compiler", "note", "none", "install g++")))
    note   compiler              none
                                 -> install g++
    """
    remedy = f"\n{'':29}-> {finding.remedy}" if finding.remedy else ""
    return f"{finding.state:6} {finding.what:21} {finding.found}{remedy}"


def versions() -> Iterator[Finding]:
    """The interpreter, this package and what it stands on."""
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.platform()}")
    yield Finding("emubench", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("libraries", "ok", ", ".join(f"{name} {version(name)}" for name in LIBRARIES))


def processor() -> Iterator[Finding]:
    """Cores, and whether they are busy: speeds measured beside other work are too low."""
    from emubench.core import hardware

    cores = hardware.usable_cores()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    text = f"{hardware.processor()}, {cores} usable, load {busy:.1f}"
    if busy > 0.5 * cores:
        yield Finding("processor", "note", text, "wait for other work to end before you bench: speeds would be too low")
    else:
        yield Finding("processor", "ok", text)


def devices() -> Iterator[Finding]:
    """Where torch can compute."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    remedy = "" if names else "a GPU is optional; torch sees none, or is a build without"
    yield Finding("devices", "ok", ", ".join(["cpu", *names]), remedy)


def compiler() -> Iterator[Finding]:
    """The compiler that ``train --compile`` and ``bench --compile`` call."""
    from emubench.evaluation.throughput import modes

    if found := modes.compiler():
        yield Finding("compiler", "ok", found)
    else:
        yield Finding("compiler", "note", "none", "install g++ or clang++, or name one in CXX, for --compile")


def cage() -> Iterator[Finding]:
    """What confines an emulator that a stranger wrote."""
    from emubench.runs.sandbox import landlock

    if landlock.version():
        yield Finding("sandbox", "ok", f"Landlock, version {landlock.version()}")
    else:
        yield Finding("sandbox", "note", "this kernel has no Landlock", "judge submissions on Linux 5.13 or later")


def folder(path: Path) -> Iterator[Finding]:
    """Whether a folder, or the one that it would be made in, can be written and HDF5 can lock files there."""
    import h5py

    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as made:
            with h5py.File(Path(made) / "file.h5", "w", libver="latest") as file:
                file.attrs["value"] = 1.0
            with h5py.File(Path(made) / "file.h5", "r") as file:
                sound = file.attrs["value"] == 1.0
    except OSError as error:
        remedy = "give another folder, or set HDF5_USE_FILE_LOCKING=FALSE where the storage has no locks"
        yield Finding(str(path), "fault", f"{place}: {one_line(reason(error))}", remedy)
        return
    yield Finding(str(path), "ok" if sound else "fault", f"{place} can be written, HDF5 can lock files")


def kernels() -> Iterator[Finding]:
    """The compiled solver of every system beside the reference solver, side by side, and whether they agree."""
    from emubench import systems
    from emubench.dynamics import kernels

    for name in systems.names():
        try:
            if kernels.find(systems.get(name)) is None:
                yield Finding(name, "ok", "has the reference solver alone")
            else:
                yield kernel(name)
        except Exception as error:
            yield Finding(name, "fault", one_line(f"{type(error).__name__}: {error}"), "emubench --debug doctor")


def kernel(name: str) -> Finding:
    """The compiled solver of one system."""
    import numpy as np

    from emubench import systems
    from emubench.core.random import stream
    from emubench.dynamics.simulate import simulate

    system = systems.get(name)
    draws = [stream(0, name, "doctor", i) for i in range(TRAJECTORIES)]
    start = np.stack([system.draw(rng, system.starts[0]) for rng in draws])

    def timed(reference: bool) -> tuple[float, np.ndarray]:
        rngs = [stream(1, name, "doctor", i) for i in range(TRAJECTORIES)]
        before = time.perf_counter()
        made = simulate(system, start, 2, rngs, reference=reference)
        return time.perf_counter() - before, made

    first, made = timed(False)
    fast = min(timed(False)[0] for _ in range(3))
    slow, known = min((timed(True) for _ in range(2)), key=lambda pair: pair[0])
    text = f"{slow / fast:.0f} times the reference solver, {first:.1f} s to load or compile"
    if not np.allclose(made, known, rtol=1e-6, atol=1e-8):
        return Finding(name, "fault", f"{text}; it differs from it", "report it, with this machine's processor")
    if slow < SPEED * fast:
        return Finding(name, "note", text, "see that numba's cache can be written, and that nothing else is running")
    return Finding(name, "ok", text)
