"""emubench: a benchmark suite for learned emulators of chaotic ODEs and PDEs.

Generate a dataset, train on it, forecast, score, compare: ``README.md`` does so in fifteen lines. What takes a task
takes its name, too, and what takes a folder takes a string.

- **Systems**: :class:`System`, :class:`Climate`, :func:`simulate`, :func:`measure_climate`; by name from ``systems``.
- **Data**: :class:`Observation`, :class:`Task`, :func:`generate`, :func:`load`, :func:`open_dataset`,
  :class:`Windows`; by name from ``tasks``.
- **Emulators**: :class:`Emulator`, :class:`Stepper`, :func:`step_forecast`, :func:`checked_forecast`, :func:`train`;
  by name from ``baselines``.
- **Scores**: :func:`forecast`, :func:`load_truth`, :func:`evaluate`, :func:`score_forecast`, :func:`compare`,
  :func:`plot`; by name from ``metrics``.
- **Contracts** that a system, a metric, an emulator and a baseline keep: ``testing``.
- What the caller can put right: :class:`EmubenchError`.

A name is imported when it is first asked for, so that ``import emubench`` takes neither torch nor numpy.

>>> import emubench
>>> emubench.systems.get("lorenz96").shape
(40,)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emubench import baselines, metrics, systems, testing
    from emubench.core.errors import EmubenchError
    from emubench.data import tasks
    from emubench.data.dataset import load
    from emubench.data.generation import generate
    from emubench.data.loader import Windows, open_dataset
    from emubench.data.observation import Observation
    from emubench.data.tasks import Task
    from emubench.dynamics.climates import measure_climate
    from emubench.dynamics.simulate import simulate
    from emubench.dynamics.system import Climate, System
    from emubench.emulator import Emulator, Stepper, checked_forecast, step_forecast
    from emubench.evaluation.forecast import forecast
    from emubench.evaluation.scoring import evaluate, load_truth, score_forecast
    from emubench.leaderboard.plots import plot
    from emubench.leaderboard.ranking import compare
    from emubench.runs.training import train

__version__ = "0.1.0"
__all__ = [
    "Climate",
    "EmubenchError",
    "Emulator",
    "Observation",
    "Stepper",
    "System",
    "Task",
    "Windows",
    "baselines",
    "checked_forecast",
    "compare",
    "evaluate",
    "forecast",
    "generate",
    "load",
    "load_truth",
    "measure_climate",
    "metrics",
    "open_dataset",
    "plot",
    "score_forecast",
    "simulate",
    "step_forecast",
    "systems",
    "tasks",
    "testing",
    "train",
]
_MODULES = {name: name for name in ("baselines", "metrics", "systems", "testing")} | {"tasks": "data.tasks"}
_HOMES = {
    "core.errors": ("EmubenchError",),
    "data.dataset": ("load",),
    "data.generation": ("generate",),
    "data.loader": ("Windows", "open_dataset"),
    "data.observation": ("Observation",),
    "data.tasks": ("Task",),
    "dynamics.climates": ("measure_climate",),
    "dynamics.simulate": ("simulate",),
    "dynamics.system": ("Climate", "System"),
    "emulator": ("Emulator", "Stepper", "checked_forecast", "step_forecast"),
    "evaluation.forecast": ("forecast",),
    "evaluation.scoring": ("evaluate", "load_truth", "score_forecast"),
    "leaderboard.plots": ("plot",),
    "leaderboard.ranking": ("compare",),
    "runs.training": ("train",),
}
"""What the imports above tell an editor, for the interpreter; a test holds the two together."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name in _MODULES:
        found = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    else:
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All public names, imported or not."""
    return sorted({*globals(), *__all__})
