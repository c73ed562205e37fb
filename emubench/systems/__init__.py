"""The systems: one file each, found by name.

>>> import emubench
>>> emubench.systems.names()
['kpz', 'kuramoto_sivashinsky', 'lorenz63', 'lorenz96']
>>> emubench.systems.get("lorenz63", rho=30.0).equation
"x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z"
"""

from typing import Any

from emubench.core import registry
from emubench.core.errors import EmubenchError, unknown
from emubench.dynamics.system import System


def names() -> list[str]:
    """Names of all systems: the files of this folder."""
    return registry.names(__name__)


def get(name: str, **parameters: Any) -> System:
    """The system ``name`` at its benchmark parameters, some of them replaced by ``parameters``.

    >>> get("lorenz96").shape
    (40,)
    """
    module = registry.load(__name__, name, "system")
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    (cls,) = [c for c in classes if issubclass(c, System)]
    for key in parameters:
        if key in cls.letters:
            raise EmubenchError(f"unknown parameter of {name} {key!r}: it is called {cls.letters[key]} here")
        if key not in cls.default_parameters() and key != "climate":
            raise unknown(f"parameter of {name}", key, cls.default_parameters())
    return cls(**parameters)
