"""A process in a world of its own, by Linux's namespaces: nobody's rights, no network, no other process, a few folders.

What the kernel does not grant is left out; :mod:`emubench.runs.sandbox.landlock` is asked for its part besides. See
https://man7.org/linux/man-pages/man7/namespaces.7.html.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 1 << 17, 1 << 27, 1 << 28, 1 << 29, 1 << 30
WORLD = NEWNS | NEWIPC | NEWPID | NEWNET
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION, REMOUNT, PRIVATE = 1, 2, 4, 8, 1 << 5, 1 << 18
BIND, RECURSIVE = 1 << 12, 1 << 14
DEATH_SIGNAL, NO_NEW_PRIVILEGES, CAPABILITIES = 1, 38, 0x20080522
NOBODY = 65534
"""The user, and the group, that owns nothing."""
TOP = "/proc"
"""Where the new root folder is put together: a folder that is always there, and empty in a new world."""


def enter(places: Sequence[Path]) -> None:
    """Go on as nobody, where only ``places`` and this folder are and no other process, as far as the kernel lets it.

    Forks: this process stays to end as the one that goes on does, and all that this one starts ends with it. A judge
    who is root gives that up wherever nobody can then still read ``places``.
    """
    if not sys.platform.startswith("linux"):
        return
    libc, places = ctypes.CDLL(None, use_errno=True), [place for place in (*places, Path.cwd()) if place.exists()]
    _fork(libc)  # to have one thread, as a new user needs
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    root, seen = os.geteuid() == 0, False
    if libc.unshare(WORLD) == 0 if root else _unshare_user(libc):
        _fork(libc)  # the first process of a world has to stay, and no signal from within can end it
        _fork(libc)
        with contextlib.suppress(OSError):  # some systems let a user be made who may mount nothing
            _look_at(libc, places)
            seen = True
    if root and (seen or _readable(places)):
        with contextlib.suppress(OSError):  # a container may know no such user
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.capset(struct.pack("=Ii", CAPABILITIES, 0), bytes(24))


def _unshare_user(libc: ctypes.CDLL) -> bool:
    """Make a world of which this process's user is nobody, as Linux lets any user; return whether it does."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(WORLD | NEWUSER) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        Path("/proc/self", name).write_text(text)
    return True


def _fork(libc: ctypes.CDLL) -> None:
    """Go on in a child; this process ends as it does, and it ends with this one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = os.fork()
    if child == 0:
        libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        return
    os.closerange(3, 256)  # the pipes to the judge are the child's
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 128 - code if code < 0 else code
    if code > 128 and os.getpid() != 1:
        os.kill(os.getpid(), code - 128)
    os._exit(code)


def _look_at(libc: ctypes.CDLL, places: list[Path]) -> None:
    """Make a root folder that holds ``places`` and a list of this world's processes alone."""

    def mount(source: str | Path, target: str, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
        names = os.fsencode(source), os.fsencode(target)
        if libc.mount(*names, kind, ctypes.c_ulong(flags), options) != 0:
            raise OSError(ctypes.get_errno(), f"mount: {target}")

    here = os.getcwd()
    mount("none", "/", None, PRIVATE | RECURSIVE)
    mount("none", TOP, b"tmpfs", NO_SUID | NO_DEVICES, b"mode=755,size=1m")
    for place in sorted(place for place in places if not place.is_relative_to(TOP)):
        target = Path(f"{TOP}{place}")
        (target if place.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.touch()
        mount(place, str(target), None, BIND | RECURSIVE)
    os.mkdir(f"{TOP}/proc")
    with contextlib.suppress(OSError):  # not where parts of it are hidden, as in containers
        mount("none", f"{TOP}/proc", b"proc", NO_SUID | NO_DEVICES | NO_EXECUTION)
    mount("none", TOP, None, REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES)
    os.chroot(TOP)
    os.chdir(here)


def _readable(places: list[Path]) -> bool:
    """Whether nobody can read ``places``; asked by root, who can always go back."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        return all(os.access(place, os.R_OK, effective_ids=True) for place in places)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
