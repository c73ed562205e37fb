"""A file is its own registration: list the modules of a package, and those that plug-ins add, and load one by name."""

import importlib
import pkgutil
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from emubench.core.errors import EmubenchError, unknown


def names(package: str) -> list[str]:
    """Names of the public modules of ``package`` and of its plug-ins, sorted; nothing of a plug-in is run."""
    return sorted({*_files(package), *_plugins(package)})


def load(package: str, name: str, kind: str) -> ModuleType:
    """The module ``package.name``, or that of a plug-in.

    A plug-in is a module that an installed distribution offers in the entry-point group ``emubench.<last part of
    package>``, such as ``emubench.systems``. Raises :class:`EmubenchError` for one that has the name of a file, or that
    can't be imported, and for an unknown name.
    """
    files, plugins = _files(package), _plugins(package)
    if name in plugins:
        point = plugins[name]
        origin = f"plug-in {point.value}" + (f" of {point.dist.name}" if point.dist else "")
        if name in files:
            raise EmubenchError(f"{kind} {name}: both a file of this package and a {origin}; uninstall the latter")
        try:
            return point.load()
        except Exception as error:
            raise EmubenchError(f"{kind} {name}: {origin} can't be imported ({error})") from error
    if name not in files:
        raise unknown(kind, name, names(package))
    return importlib.import_module(f"{package}.{name}")


def _files(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]


def _plugins(package: str) -> dict[str, EntryPoint]:
    return _offered(f"emubench.{package.rpartition('.')[2]}", tuple(sys.path))


@cache
def _offered(group: str, places: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points of the distributions in ``places``: kept, as reading all of them takes milliseconds every time."""
    return {point.name: point for point in entry_points(group=group)}
