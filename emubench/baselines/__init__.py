"""The baselines, one method per file: in a checkout its folder ``baselines/``, in a wheel the files beside this one.

>>> import emubench
>>> [name for name in emubench.baselines.names() if emubench.baselines.get(name).knowledge == "equation"]
['oracle']
"""

from pathlib import Path
from types import ModuleType

from emubench.core import registry

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "baselines").is_dir():
    __path__ = [str(_root / "baselines")]


def names() -> list[str]:
    """Names of all baselines: the files of ``baselines/``, and plug-ins.

    >>> "resnet_ode" in names()
    True
    """
    return registry.names(__name__)


def get(name: str) -> ModuleType:
    """The module of a baseline: it defines ``knowledge``, ``Config``, ``build`` and ``train``.

    Raises :class:`~emubench.core.errors.EmubenchError` for an unknown name, naming the nearest.

    >>> get("resnet_ode").Config().substeps
    4
    """
    return registry.load(__name__, name, "baseline")
