"""Checks of the settings of a baseline: what is wrong is named with its value and what would be right."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.learning.rings import on_ring


def check_positive(settings: object, *names: str) -> None:
    """Raise :class:`EmubenchError` unless every named attribute of ``settings`` is above 0 (NaN is not).

    >>> from types import SimpleNamespace
    >>> check_positive(SimpleNamespace(width=-3), "width")
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: width: -3 where a positive number belongs
    """
    for name in names:
        if not getattr(settings, name) > 0:
            raise EmubenchError(f"{name}: {getattr(settings, name)} where a positive number belongs")


def check_least(settings: object, least: float, *names: str, count: int | None = None) -> None:
    """Raise :class:`EmubenchError` unless every named attribute is a number of at least ``least`` (NaN is not).

    Each number of a tuple has to be; there are some, or as many as ``count`` says.

    >>> from types import SimpleNamespace
    >>> check_least(SimpleNamespace(radii=(3, 0), twins=-1), 0, "radii", "twins")
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: twins: -1 where a number of at least 0 belongs
    >>> check_least(SimpleNamespace(filtered=(8,)), 1, "filtered", count=2)
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: filtered: (8,) where 2 numbers of at least 1 belong
    """
    for name in names:
        value = getattr(settings, name)
        numbers = value if isinstance(value, tuple) else (value,)
        enough = len(numbers) == (count or max(1, len(numbers)))
        if not enough or not all(isinstance(v, int | float) and v >= least for v in numbers):
            many = f"{count} numbers" if count else "numbers"
            what = f"{many} of at least {least} belong" if value is numbers else f"a number of at least {least} belongs"
            raise EmubenchError(f"{name}: {value} where {what}")


def check_unused(settings: Any, defaults: Any, names: Iterable[str], where: str) -> None:
    """Raise :class:`EmubenchError` if a named setting, which has no effect ``where``, differs from the default.

    >>> from types import SimpleNamespace
    >>> check_unused(SimpleNamespace(polish=50), SimpleNamespace(polish=0), ["polish"], "on noisy data")
    Traceback (most recent call last):
    emubench.core.errors.EmubenchError: polish: 50 has no effect on noisy data: leave it at 0
    """
    for name in names:
        value, default = getattr(settings, name), getattr(defaults, name)
        if value != default:
            raise EmubenchError(f"{name}: {value} has no effect {where}: leave it at {default}")


def check_only(settings: Any, defaults: Any, used: Iterable[str], where: str) -> None:
    """Raise :class:`EmubenchError` if any setting but those ``used`` differs from the default: it has no effect."""
    names = [field.name for field in dataclasses.fields(settings) if field.name not in set(used)]
    check_unused(settings, defaults, names, where)


def check_localisation(task: Task, localisation: float, name: str = "localisation") -> None:
    """Raise :class:`EmubenchError` unless a filter's covariances can be localised so (0: not at all) on ``task``."""
    if localisation and not on_ring(task):
        raise EmubenchError(f"{name}: {localisation} on {task.name}, which has no ring of sites: 0 belongs")


def on_small_ring(defaults: Any, task: Task) -> Any:
    """Default settings that are made for larger rings, cut to that of ``task``: other settings stay.

    A ``radius`` reaches half the ring at most, ``directions`` are no more than its sites, ``coarse`` divides these, and
    a ``field_blur`` spans one.
    """
    if not on_ring(task):
        return defaults
    n = task.shape[-1]
    most = (n - 1) // 2
    cuts: dict[str, Any] = {
        "radius": lambda radius: min(radius, most),
        "radii": lambda radii: tuple(min(radius, most) for radius in radii),
        "directions": lambda directions: min(directions, 2 * most + 1),
        "coarse": lambda coarse: 1 if n % coarse else coarse,
        "field_blur": lambda blur: max(blur, 1 / n),
    }
    own = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults) if field.name in cuts}
    return dataclasses.replace(defaults, **{name: cuts[name](value) for name, value in own.items()})
