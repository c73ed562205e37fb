"""The process of a judged emulator: ``python -m emubench.runs.sandbox.child FOLDER BYTES SECONDS THREADS DEVICE``.

It holds neither truth nor metrics nor clock. It limits its own memory, processor time and files before it reads
anything of the entry, checks the architecture's shapes on the meta device, loads the weights, and then answers
contexts with forecasts over its standard input and output (:mod:`emubench.runs.sandbox.pipe`) until these are closed.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emubench.core import registry
from emubench.core.errors import EmubenchError
from emubench.dynamics import kernels
from emubench.files.safetensors_header import read_header
from emubench.runs import folders
from emubench.runs.sandbox import landlock, namespaces, pipe

HOUR = 3600.0
MAX_CASES = 4096
"""Contexts that may be asked for at once, where a split has fewer: the largest batch that is timed."""


def check_architecture(folder: Path) -> None:
    """Compare the shapes of the entry's architecture with its weights, before anything of either is allocated.

    An architecture that can't be built on the meta device is left to the memory limit.
    """
    tensors = read_header(folder / "model.safetensors")
    try:
        with torch.device("meta"):
            emulator = folders.build(folder).emulator
        shapes = {name: tuple(tensor.shape) for name, tensor in emulator.state_dict().items()}
    except EmubenchError as error:
        if error.__cause__ is None:  # the settings themselves are wrong
            raise
        return
    card = folder / "card.json"
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in shapes or name not in tensors:
            kind = "needs" if name in shapes else "has no"
            raise EmubenchError(f"{card}: config: this architecture {kind} tensor {name[:80]}, unlike the weights")
        if shapes[name] != tensors[name].shape:
            found = f"shape {shapes[name]} in this architecture, {tensors[name].shape} in the weights"
            raise EmubenchError(f"{card}: config: tensor {name[:80]}: {found}")


def limit(n_bytes: int, seconds: int, file_bytes: int = 0, device: str = "cpu") -> None:
    """Bound what this process may take from now on: memory beyond what it has, processor time, files, dumps.

    A GPU's driver reserves addresses without end, so that beside it only what can be written to is bounded.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    most = pages * resource.getpagesize() + n_bytes
    bounds = {
        "RLIMIT_DATA" if device.startswith("cuda") else "RLIMIT_AS": most,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_CORE": 0,
    }
    bounds["RLIMIT_NOFILE"] = 256
    for name, value in bounds.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _answer(
    emulator: Any, header: dict[str, Any], context: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    generator = torch.Generator().manual_seed(header["seed"])
    given = torch.from_numpy(context.astype("f8")).to(device)
    with torch.no_grad():
        forecast = emulator.forecast(given, header["n_steps"], header["n_members"], generator)
    if not isinstance(forecast, torch.Tensor) or forecast.dtype not in (torch.float32, torch.float64):
        found = forecast.dtype if isinstance(forecast, torch.Tensor) else type(forecast).__name__
        raise EmubenchError(f"forecast: {found} where a tensor of float32 or float64 belongs")
    return forecast.detach().cpu().numpy()


def serve(folder: Path, source: int, sink: int, device: str) -> None:
    """Load the emulator of ``folder`` onto ``device`` and answer every context; a failure is told in one line."""
    end = time.monotonic() + 1000 * HOUR  # the judge keeps the clock, and ends it long before
    try:
        check_architecture(folder)
        opened = folders.load(folder)
        emulator, task = opened.emulator.to(device), opened.task
        pipe.send(sink, pipe.READY, {}, None, end)
        while True:
            most = max(task.n_test, task.n_climate, MAX_CASES)
            shapes = tuple((n, task.context, *task.shape) for n in range(1, 1 + most))
            try:
                _, header, context = pipe.receive(source, pipe.CONTEXT, shapes, end)
            except pipe.PipeError:
                return  # the judge has all it wants
            assert context is not None
            pipe.send(sink, pipe.FORECAST, {}, _answer(emulator, header, context, device), end)
    except Exception as error:  # whatever it is, the judge hears of it
        tell(sink, error)


def tell(sink: int, error: Exception) -> None:
    """Send what went wrong to the judge, in one line."""
    reason = str(error).splitlines()[0] if str(error) else ""
    line = reason if isinstance(error, EmubenchError) else f"{type(error).__name__}: {reason}"
    pipe.send(sink, pipe.FAULT, {"reason": line[:500]}, None, time.monotonic() + HOUR)


def confine(
    folder: Path, n_bytes: int, seconds: int, threads: int, file_bytes: int = 0, device: str = "cpu"
) -> tuple[int, int]:
    """Take standard input and output for the judge alone, and limit this process; return the two descriptors.

    It can read libraries and ``folder``, and write into its own folder, and into ``folder`` if it has ``file_bytes``.
    What goes on is a child of the process that the judge started: see :func:`emubench.runs.sandbox.namespaces.enter`.
    """
    source, sink, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what a method prints goes nowhere
        os.dup2(nowhere, descriptor)
    tempfile.gettempdir()  # known from here on; looking for it later would write a file, and torch looks for it
    for name in registry.names(kernels.__name__):  # numba looks for its machine code while it may write beside it
        registry.load(kernels.__name__, name, "kernel")
    opened = landlock.of_device(device)
    namespaces.enter([*landlock.needed(), folder, *opened])
    torch.set_num_threads(threads)
    landlock.shut([folder], [Path.cwd(), *([folder] if file_bytes else []), *opened])
    limit(n_bytes, seconds, file_bytes, device)
    return source, sink


def main() -> None:
    """Confine this process, then serve."""
    folder, device = Path(sys.argv[1]).absolute(), sys.argv[5]
    serve(folder, *confine(folder, *map(int, sys.argv[2:5]), device=device), device)


if __name__ == "__main__":
    main()
