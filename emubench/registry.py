"""A file is its own registration: list the modules of a package and load one by its name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from emubench.errors import unknown


def names(package: str) -> list[str]:
    """Names of the public modules of ``package``, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import ``package.name``; an unknown name raises an :class:`EmubenchError` that lists the nearest ones."""
    if name not in names(package):
        raise unknown(kind, name, names(package))
    return importlib.import_module(f"{package}.{name}")
