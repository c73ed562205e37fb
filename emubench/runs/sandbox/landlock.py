"""What a judged child may open, by Landlock: Linux (5.13 and later) lets any process give up its own rights.

Only libraries, a few files of the system and what is named stay readable; where the kernel knows how, TCP and signals
to other processes are shut off as well. See https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import emubench
from emubench import baselines

CREATE_RULESET, ADD_RULE, RESTRICT_SELF, NO_NEW_PRIVILEGES = 444, 445, 446, 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15
"""What can be allowed of a path that is no folder; 1 << 14 is to cut it, 1 << 15 to control a device."""
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")
SYSTEM += ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system")
"""Where interpreters and libraries look, none of it of a person's or of this package's data."""


def _libraries() -> list[Path]:
    """Where Python finds what it imports, without the folder of a checkout, below which data may lie."""
    package = Path(emubench.__file__).parent
    found = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, *sys.path) if place]
    found = [place for place in found if not package.is_relative_to(place) or place.name.endswith("-packages")]
    return [*found, package, *(Path(place) for place in baselines.__path__)]


def version() -> int:
    """Landlock's version in this kernel; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def needed() -> list[Path]:
    """What a child has to be able to read beside its run: files of the system, and libraries."""
    return [*map(Path, SYSTEM), *_libraries()]


def of_device(device: str) -> list[Path]:
    """What the driver of a device opens; of a CPU nothing."""
    if not device.startswith("cuda"):
        return []
    return [*sorted(Path("/dev").glob("nvidia*")), Path("/sys/bus/pci"), Path("/sys/devices")]


def shut(readable: Iterable[Path], writable: Iterable[Path] = ()) -> bool:
    """Let this process open nothing but libraries, ``readable`` and ``writable`` from now on.

    Returns whether the kernel does so: another system, or an older kernel, leaves everything open.
    """
    if not (known := version()):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    bits = 13 + sum(known >= since for since in (2, 3, 5))
    everything, network, scope = (1 << bits) - 1, 3 * (known >= 4), 3 * (known >= 6)
    fields = (everything, network, scope)[: 1 + (known >= 4) + (known >= 6)]
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    allowed = [(path, READ) for path in (*needed(), *readable)]
    allowed += [(path, everything) for path in writable] + [(Path("/dev/null"), READ | WRITE_FILE)]
    for path, rights in allowed:
        if path.exists():
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights &= everything if path.is_dir() else everything & OF_A_FILE
            libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
            os.close(descriptor)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done
