"""Speed-up at equal accuracy: the emulator's throughput over that of the fastest solver setting that is as accurate."""

from __future__ import annotations

import numpy as np

from emubench.data import reference
from emubench.data.tasks import Task
from emubench.dynamics.solvers import Setting
from emubench.files.timing import Rung, Scenario, Speedup
from emubench.metrics._headline import headline

TOLERANCE = 0.1
"""Lyapunov times by which a setting may fall short of the emulator."""
CRPS_TOLERANCE = 0.1
"""The tolerance for systems scored in law, as a share of what lies between the frozen floor and oracle."""
RANKED_SKILL = 0.25


def tolerance(task: Task) -> float:
    """By how much a setting's mean headline score may be worse than the emulator's."""
    if not task.system.scored_in_law:
        return TOLERANCE
    scale = reference.scale(task.name)
    return CRPS_TOLERANCE * abs((scale.floor or 0.0) - (scale.oracle or 0.0))


def as_accurate(task: Task, ladder: list[Rung], cases: np.ndarray) -> list[Rung]:
    """The settings whose paired mean score is at least the emulator's, less the tolerance; ``cases`` are its scores."""
    better, least = headline(task).better, -tolerance(task)
    return [rung for rung in ladder if better * (np.array(rung.cases) - cases[: len(rung.cases)]).mean() >= least]


def label(task: Task, rung: Rung) -> str:
    """The setting, for people."""
    sites = 0 if rung.sites == task.system.shape[0] else rung.sites
    return Setting(rung.scheme, rung.steps_per_sample, sites, rung.dtype, rung.start).label


def speedup(
    task: Task,
    ladder: list[Rung],
    scenario: str,
    timing: Scenario,
    cases: np.ndarray,
    skill: float | None,
    train_seconds: float,
) -> Speedup:
    """The figure of one scenario; ``cases`` ``"B"`` are the emulator's headline scores."""
    rivals = [rung for rung in as_accurate(task, ladder, cases) if scenario in rung.scenarios]
    ranked = skill is not None and skill >= RANKED_SKILL
    if not rivals:
        none = "no setting measured is as accurate"
        return Speedup(value=None, low=None, high=None, scheme=none, ranked=ranked, break_even=None)
    best = max(rivals, key=lambda rung: rung.scenarios[scenario].lyapunov_times_per_second.median)
    theirs, ours = best.scenarios[scenario].lyapunov_times_per_second, timing.lyapunov_times_per_second
    return Speedup(
        value=ours.median / theirs.median,
        low=ours.low / theirs.high,  # the extremes that the percentiles allow
        high=ours.high / theirs.low,
        scheme=label(task, best),
        ranked=ranked,
        break_even=break_even(train_seconds, ours.median, theirs.median),
    )


def break_even(train_seconds: float, emulator: float, solver: float) -> float | None:
    """Units of lead time after which training has paid, from throughputs in such units per second; ``None``: never.

    Simulating n units costs n/solver, or training + n/emulator.

    >>> break_even(100.0, 20.0, 10.0)
    2000.0
    """
    saved = 1 / solver - 1 / emulator
    return train_seconds / saved if saved > 0 else None
