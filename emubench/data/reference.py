"""Frozen reference values per task: floor and oracle of the accuracy skill, noise floors and anchors of stability.

They live in ``reference.json`` and change only with the benchmark version; ``python -m benchmarks.maintain.freeze
--help`` says how they are made. A task without an entry (a custom one) has no skill by accuracy of its own.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PATH = Path(__file__).with_name("reference.json")


@cache
def _all() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}


def version() -> int:
    """Counts how often the values were frozen: scores of two versions do not compare."""
    return int(_all().get("version", 0))


def get(task: str) -> dict[str, Any]:
    """``floor``, ``oracle`` (values of the headline metric), ``d_zero`` and ``d_floor`` of a task, if frozen."""
    return _all().get(task, {})


class Scale(NamedTuple):
    """What skill is measured by; ``source`` is "frozen", or "runs" where it was taken from the runs at hand."""

    floor: float | None
    oracle: float | None
    source: str

    @property
    def usable(self) -> bool:
        """Whether a skill can be computed."""
        return self.floor is not None and self.oracle is not None and self.floor != self.oracle

    def skill(self, value: Any) -> Any:
        """(value − floor)/(oracle − floor): 0 at the floor, 1 at the oracle; of a number, an array or a tensor."""
        assert self.floor is not None
        assert self.oracle is not None
        return (value - self.floor) / (self.oracle - self.floor)


def scale(task: str) -> Scale:
    """The frozen floor and oracle of a task, both ``None`` where there are none."""
    frozen = get(task)
    if "floor" not in frozen or "oracle" not in frozen:
        return Scale(None, None, "")
    return Scale(frozen["floor"], frozen["oracle"], "frozen")
