"""Scored runs compared in pairs: means over seeds and cases, and differences with 95 % intervals.

A difference of two entries is paired: both meet the same resampled cases, 10 000 times, while the seeds of each are
resampled on their own. Climates are compared seed by seed: Student's t over these differences, joined by the two runs'
own errors over cases, for over 200 Lyapunov times runs from one context are as good as independent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from emubench.core.errors import EmubenchError
from emubench.data import dataset, reference
from emubench.evaluation import scoring
from emubench.evaluation.forecast import headline_cases
from emubench.leaderboard import ranking, statistics
from emubench.leaderboard.ranking import Cell
from emubench.metrics._headline import headline
from emubench.runs import folders
from emubench.runs.scored import Run

TWINS = {
    "ot_regularized": {"field_weight": 0.0, "cloud_weight": 0.0},
    "weak_adversarial": {"objective": "one_step"},
}
"""Settings with which a baseline lacks nothing but its idea."""


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Missing(Exception):
    """The runs that a comparison needs are not there."""


class Runs:
    """Scored runs by baseline and task; of :data:`TWINS` as ``<baseline> twin``. Other settings are left out."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.found: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in runs:
            name, settings = run.card.baseline, run.card.overrides or {}
            if settings == TWINS.get(name):
                self.found[f"{name} twin", run.task.name].append(run)
            elif not settings:
                self.found[name, run.task.name].append(run)

    def of(self, name: str, task: str) -> list[Run]:
        """All seeds, in order."""
        if (name, task) not in self.found:
            raise Missing(f"{name} on {task}, default settings")
        return sorted(self.found[name, task], key=lambda run: run.card.seed)

    def cell(self, name: str, task: str) -> Cell:
        """The same, with resampled means."""
        return ranking.make_cell(self.of(name, task))

    def accuracy(self, name: str, task: str) -> Estimate:
        """Mean headline score."""
        cell = self.cell(name, task)
        return Estimate(cell.value, *statistics.interval(cell.pooled(cell.sampled)))

    def skill(self, name: str, task: str) -> Estimate:
        """Mean ``skill_accuracy``."""
        frozen = reference.get(task)
        floor, oracle = frozen["floor"], frozen["oracle"]
        low, high = sorted((bound - floor) / (oracle - floor) for bound in self.accuracy(name, task)[1:])
        return Estimate((self.accuracy(name, task).value - floor) / (oracle - floor), low, high)

    def gained(self, name: str, other: str, task: str) -> Estimate:
        """How much better the headline score is than that of ``other``, paired."""
        one, two = self.cell(name, task), self.cell(other, task)
        sign = headline(one.task).better
        sampled = sign * (one.pooled(one.sampled) - two.pooled(two.sampled))
        return Estimate(sign * (one.value - two.value), *statistics.interval(sampled))

    def calmer(self, name: str, other: str, task: str) -> Estimate:
        """How much higher ``skill_stability`` is than that of ``other``, seed by seed."""
        ours, theirs = ({run.card.seed: stability(run) for run in self.of(n, task)} for n in (name, other))
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        if len(pairs) < 2:
            raise Missing(f"{name} and {other} on {task} with two seeds in common")
        differences = np.array([one.value - two.value for one, two in pairs])
        cases = np.mean([math.hypot(*((e.high - e.low) / 2 for e in pair)) for pair in pairs])
        seeds = student.ppf(0.975, len(pairs) - 1) * differences.std(ddof=1) / math.sqrt(len(pairs))
        half, mean = math.hypot(seeds, float(cases)), float(differences.mean())
        return Estimate(mean, mean - half, mean + half)

    def lost(self, name: str, task: str) -> tuple[int, int]:
        """Lost climate runs, and how many there are, over all seeds."""
        runs = self.of(name, task)
        n = runs[0].task.n_climate
        shares = [score(run, "surviving_fraction").value for run in runs]
        return sum(round(n * (1 - share)) for share in shares), n * len(runs)


def score(run: Run, metric: str) -> Estimate:
    """A stored score of one run; one that failed counts as the worst."""
    row = run.row(metric, 0.0)
    if row is None:
        raise EmubenchError(f"{run.path / 'scores.json'}: {metric} is missing")
    return Estimate(*row)


def stability(run: Run) -> Estimate:
    """``skill_stability`` of one run."""
    return score(run, "skill_stability")


def crps_gained(runs: list[Run], floor: list[Run], data: Path, n_steps: int) -> Estimate:
    """By how much the mean CRPS of the leads 1, 2, 4 … ``n_steps`` is below that of ``floor``, paired."""
    cells = [np.stack([crps_cases(run, data, n_steps) for run in group]) for group in (runs, floor)]
    weights = statistics.case_weights("kpz", len(runs[0].task.system.starts), cells[0].shape[1])
    sampled = [
        (statistics.seed_weights(group[0].entry, group[0].task.name, len(group)) * (weights @ cases.T)).sum(1)
        for group, cases in zip((runs, floor), cells, strict=True)
    ]
    return Estimate(float(cells[1].mean() - cells[0].mean()), *statistics.interval(sampled[1] - sampled[0]))


def crps_cases(run: Run, data: Path, n_steps: int) -> np.ndarray:
    """Mean CRPS over the leads up to ``n_steps`` of every test case, forecast as for the scores."""
    opened = folders.load(run.path)
    emulator, task = opened.emulator, opened.task
    values, start, _ = scoring.load_truth(task, data, "test")
    contexts = dataset.load(task, data).context("test")
    seed = run.card.seed
    return headline_cases(emulator, task, contexts, values[:, :n_steps], start, seed).numpy()  # type: ignore[arg-type]
