"""The baselines, one method per file: in a checkout its folder ``baselines/``, in a wheel the files beside this one.

>>> import emubench
>>> [name for name in emubench.baselines.names() if emubench.baselines.get(name).knowledge == "equation"]
['oracle']
"""

import os
import re
from pathlib import Path
from types import ModuleType

from emubench.core import registry
from emubench.core.errors import EmubenchError

OWN = "EMUBENCH_BASELINES"
"""The variable of the environment that names folders with more baselines, separated as in ``PATH``."""

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "baselines").is_dir():
    __path__ = [str(_root / "baselines")]
__path__ = [*__path__, *filter(None, os.environ.get(OWN, "").split(os.pathsep))]


def names() -> list[str]:
    """Names of all baselines: the files of ``baselines/``, and plug-ins.

    >>> "resnet_ode" in names()
    True
    """
    return registry.names(__name__)


def of_file(path: Path) -> str:
    """The name of the baseline in a file, whose folder counts as one of baselines from now on, for children too.

    Raises :class:`~emubench.core.errors.EmubenchError` where there is no file, or its name is no name or another's.
    """
    path = path.resolve()
    if not path.is_file():
        raise EmubenchError(f"{path}: no such file; a baseline is one of {', '.join(names())}, or a file of yours")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,79}", path.stem):
        raise EmubenchError(f"{path}: a file name of lower-case letters, digits and _ belongs here")
    folder = str(path.parent)
    if folder not in map(os.path.realpath, __path__):
        if path.stem in names():
            raise EmubenchError(f"{path}: there is a baseline {path.stem} already; give it another name")
        os.environ[OWN] = os.pathsep.join(filter(None, (os.environ.get(OWN), folder)))
        __path__.append(folder)
    return path.stem


def get(name: str) -> ModuleType:
    """The module of a baseline: it defines ``knowledge``, ``Config``, ``build`` and ``train``.

    Raises :class:`~emubench.core.errors.EmubenchError` for an unknown name, naming the nearest.

    >>> get("resnet_ode").Config().substeps
    4
    """
    return registry.load(__name__, name, "baseline")
