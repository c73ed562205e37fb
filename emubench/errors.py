"""The one exception that the command line prints as a single line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmubenchError(Exception):
    """Something that the caller can put right: the message says what is wrong, where, and what would be right."""


def unknown(kind: str, name: str, known: Iterable[str]) -> EmubenchError:
    """The error for a name that does not exist, with the nearest known ones.

    >>> print(unknown("system", "lorenz69", ["lorenz63", "lorenz96", "kpz"]))
    unknown system 'lorenz69': did you mean lorenz96 or lorenz63?
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return EmubenchError(f"unknown {kind} {name!r}: {hint}")
