"""The device that is timed: what it is, waiting for it, the memory that a call takes."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from emubench.core.errors import EmubenchError, reason

CLEAR_REFS = Path("/proc/self/clear_refs")


def check_device(device: str, dtype: torch.dtype = torch.float32) -> torch.device:
    """The device called so; :class:`EmubenchError`, in one line, where torch can't compute in ``dtype`` on it."""
    try:
        found = torch.device(device)
        torch.zeros(1, dtype=dtype, device=found).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:  # a CPU build asserts, MPS has no float64
        raise EmubenchError(f"--device {device}: cannot be used here ({reason(error)}); cpu always can") from None
    return found


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
