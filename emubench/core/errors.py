"""The one exception that the command line prints as a single line."""

import difflib
import errno
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


class EmubenchError(Exception):
    """Something that the caller can put right: the message says what is wrong, where, and what would be right.

    >>> import emubench
    >>> emubench.systems.get("lorenz69")
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: unknown system 'lorenz69': did you mean lorenz96 or lorenz63?
    """


class Unreadable(EmubenchError):
    """A file that can't be read now, for a reason that says nothing of what it holds."""


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What storage answers that has no locks."""
LOCKING = "HDF5_USE_FILE_LOCKING"
"""The variable of the environment that says whether HDF5, and we, lock files."""


def unreadable(path: Path | str, error: OSError) -> Unreadable:
    """The error for a file that the system does not let us read: its own reason, and what would help.

    >>> print(unreadable("a.h5", PermissionError(errno.EACCES, "")))
    a.h5: cannot be read (Permission denied)
    """
    text, helps = os.strerror(error.errno) if error.errno else reason(error), ""
    if error.errno in NO_LOCKS:
        helps = f": its storage has no locks; set {LOCKING}=FALSE to do without, and write from one process alone"
    elif error.errno == errno.EAGAIN:
        helps = ": another process is writing it, and holds its lock; wait for that or end it"
    return Unreadable(f"{path}: cannot be read ({text}){helps}")


def unknown(kind: str, name: str, known: Iterable[str]) -> EmubenchError:
    """The error for a name that does not exist, with the nearest known ones.

    >>> print(unknown("system", "lorenz69", ["lorenz63", "lorenz96", "kpz"]))
    unknown system 'lorenz69': did you mean lorenz96 or lorenz63?
    >>> print(unknown("season", "2026a", []))
    unknown season '2026a': there is none yet
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"known: {', '.join(known)}" if known else "there is none yet"
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    return EmubenchError(f"unknown {kind} {name!r}: {hint}")


def clean(text: str) -> str:
    """``text`` of a stranger without characters that steer a terminal or the direction of writing; lines stay.

    >>> clean("a" + chr(0x202E) + "b" + chr(27) + "c")
    'a\\ufffdb\\ufffdc'
    """
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c for c in text)


def one_line(error: BaseException | str) -> str:
    """A message as one line to be printed, whatever a stranger's file made it quote.

    >>> one_line("a key\\nof two lines is not known")
    'a key of two lines is not known'
    """
    return clean(" ".join(str(error).splitlines()))


def reason(error: BaseException) -> str:
    """The first line of what an error says, or where it says nothing the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
