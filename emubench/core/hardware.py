"""The device that is timed: what it is, waiting for it, the memory that a call takes."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from emubench.core.errors import EmubenchError, reason

CLEAR_REFS = Path("/proc/self/clear_refs")
SHORTER = {"Expected one of": "torch knows no such device", "Could not run": "this torch was built without it"}
"""Lists of torch's, by how they begin, and what they come to."""


def devices() -> list[str]:
    """The devices of this machine by name, the fastest kind first, the CPU last.

    >>> devices()[-1]
    'cpu'
    """
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*names, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def check_device(device: str, dtype: torch.dtype = torch.float32) -> torch.device:
    """The device called so, ``auto`` being the first of :func:`devices` that computes in ``dtype``.

    Raises :class:`EmubenchError`, in one line that names the devices there are, where torch can't on this one.
    """
    if device == "auto":
        return next(torch.device(name) for name in devices() if _reason_against(name, dtype) is None)
    if (why := _reason_against(device, dtype)) is not None:
        raise EmubenchError(f"--device {device}: cannot be used here ({why}); this machine has {', '.join(devices())}")
    return torch.device(device)


def _reason_against(device: str, dtype: torch.dtype) -> str | None:
    """Why torch can't compute in ``dtype`` on a device, if so."""
    try:
        torch.zeros(1, dtype=dtype, device=torch.device(device)).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:  # a CPU build asserts, MPS has no float64
        said = reason(error)
        return next((short for begin, short in SHORTER.items() if said.startswith(begin)), said)
    return None


def described(device: torch.device) -> str:
    """What a card says of a device: torch's name for it, of a GPU also its own, its driver, and how it multiplies.

    >>> described(torch.device("cpu"))
    'cpu'
    """
    if device.type != "cuda":
        return str(device)
    products = "TF32" if torch.backends.cuda.matmul.allow_tf32 else "full precision"
    return f"{device} ({torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, {products})"


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the host, such as random numbers drawn there, on ``device``; the host waits for nothing.

    >>> sent(torch.zeros(2), torch.device("cpu"))
    tensor([0., 0.])
    """
    return values.to(device, non_blocking=device.type != "mps")  # which does not copy them at once


def in_parts(states: Tensor, size: int) -> Sequence[Tensor]:
    """``states`` in parts of ``size``, which stay in a processor's cache; anything but a CPU takes them all at once."""
    return states.split(size) if states.device.type == "cpu" else (states,)


def by_parts(advance: Callable[[Tensor], Tensor], states: Tensor, size: int) -> Tensor:
    """``advance`` of states ``"... N"``, ``size`` at a time (:func:`in_parts`), in their shape.

    >>> by_parts(lambda part: part + len(part), torch.zeros(1, 3, 1), 2).flatten().tolist()
    [2.0, 2.0, 1.0]
    """
    flat = states.reshape(-1, states.shape[-1])
    return torch.cat([advance(part) for part in in_parts(flat, size)]).view(states.shape)


def surely(flag: Tensor) -> bool:
    """Whether a flag is known to be true; without waiting a device other than the CPU never says so."""
    return flag.device.type == "cpu" and bool(flag)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name of the processor, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0][:200] if names else sys.platform


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``call`` takes at most beyond what was held before it.

    On a CPU the growth of the resident set, to a page; where the system can't start its peak anew (Linux can), only a
    call that takes more than any before it shows.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronise(device)
        return max(torch.cuda.max_memory_allocated(device) - before, 0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # of the GNU C library: what was freed is given back, and counts again
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0)


def _status(key: str) -> int:
    """A size from the kernel's view of this process, in bytes."""
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
