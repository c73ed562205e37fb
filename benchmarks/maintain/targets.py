"""What the baselines must reach, beside what they reach: a table of ``baselines/README.md`` from ``expected.toml``.

One baseline is above another where their intervals of 95 % don't touch, which asks for more than a paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

CHAOTIC = ("lorenz63", "lorenz96", "kuramoto_sivashinsky")
FAMILIES = ("resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial")
CLOSED_FORM = ("polynomial", "random_features", "reservoir", "weak_sindy")
LEARNED = (*FAMILIES, "fourier_operator", *CLOSED_FORM)
UNTOLD = tuple(name for name in LEARNED if name != "weak_sindy")
"""Those that don't know the equation's form."""
LOOK_UP = "analogue"
HEADLINE, SKILL = "headline", "skill_accuracy"
Expected = dict[str, dict[str, dict[str, Any]]]


class Score(NamedTuple):
    """A baseline's score with its 95 % interval; ``sign`` is −1 where less is better."""

    baseline: str
    value: float
    low: float
    high: float
    sign: int = 1

    def __str__(self) -> str:
        return f"`{self.baseline}` {self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def mean(self) -> float:
        """The value, turned so that more is better; what is no number is the worst."""
        return -math.inf if math.isnan(self.value) else self.sign * self.value

    @property
    def ends(self) -> tuple[float, float]:
        """The worse and the better end of the interval, turned alike."""
        low, high = sorted((self.sign * self.low, self.sign * self.high))
        return (-math.inf, -math.inf) if math.isnan(self.value) else (low, high)


class Target(NamedTuple):
    """One line: where, what is asked, what was reached, and whether it is met (``None``: a score is not there)."""

    where: str
    asked: str
    reached: str
    met: bool | None


def targets(expected: Expected) -> list[Target]:
    """All lines."""
    return [*_levels(expected), *_above(expected), *_lost(expected)]


def as_table(expected: Expected) -> str:
    """The lines as a table of Markdown."""
    answers = {True: "met", False: "**missed**", None: "not measured"}
    rows = [f"| {one.where} | {one.asked} | {one.reached} | {answers[one.met]} |" for one in targets(expected)]
    return "\n".join(["| task | target | reached | |", "|---|---|---|---|", *rows]) + "\n"


def look_ups(expected: Expected) -> str:
    """A table of Markdown: on every task the score of ``analogue``, and the learned baselines that are not above it."""
    lines = ["| task | `analogue` | not above it |", "|---|---|---|"]
    for task in expected.get(LOOK_UP, {}):
        (found,) = _scores(expected, (LOOK_UP,), task, HEADLINE)
        below = [one for one in _scores(expected, LEARNED, task, HEADLINE) if one.ends[0] <= found.ends[1]]
        names = ", ".join(f"`{one.baseline}`" for one in below)
        lines.append(f"| {task} | {found.value:.3g} [{found.low:.3g}, {found.high:.3g}] | {names or 'none'} |")
    return "\n".join(lines) + "\n"


def _target(where: str, asked: str, measure: Callable[[], tuple[str, bool]]) -> Target:
    try:
        return Target(where, asked, *measure())
    except KeyError as lacking:
        return Target(where, asked, f"no score of {lacking.args[0]}", None)


def _scores(expected: Expected, names: Iterable[str], task: str, metric: str) -> list[Score]:
    """A score of several baselines, the best mean first."""
    sign = -1 if metric == HEADLINE and task.startswith("kpz") else 1
    if metric == HEADLINE:
        metric = "crps" if sign < 0 else "valid_prediction_time"
    rows = [(name, expected[name][task][metric]) for name in names]
    found = [Score(name, row["value"], row["low"], row["high"], sign) for name, row in rows]
    return sorted(found, key=lambda score: score.mean, reverse=True)


def _levels(expected: Expected) -> Iterator[Target]:
    """Valid prediction times in Lyapunov times, then skills, of one baseline or of the best."""

    def line(task: str, metric: str, least: float, names: Iterable[str], what: str = "") -> Target:
        def measure() -> tuple[str, bool]:
            best = _scores(expected, names, task, metric)[0]
            return str(best), best.value >= least

        who = what or f"`{next(iter(names))}`"
        return _target(task, f"{who}: {'skill' if metric == SKILL else 'Lyapunov times'} ≥ {least:g}", measure)

    for name, least in (("random_features", 10), ("neural_ode", 7), ("resnet_ode", 6)):
        yield line("lorenz63-clean", HEADLINE, least, (name,))
    yield line("lorenz96-clean", HEADLINE, 6.5, ("neural_ode",))
    yield line("lorenz96-clean", HEADLINE, 4, CLOSED_FORM, "the best in closed form")
    yield line("kuramoto_sivashinsky-clean", HEADLINE, 4, LEARNED, "the best")
    for name in ("weak_adversarial", "neural_ode"):
        for system, least in zip(CHAOTIC, (0.5, 0.5, 0.4), strict=True):
            yield line(f"{system}-noisy", SKILL, least, (name,))

    def two_of_three() -> tuple[str, bool]:
        best = [_scores(expected, UNTOLD, f"{system}-noisy", SKILL)[0] for system in CHAOTIC]
        return "; ".join(map(str, best)), sum(score.value >= 0.7 for score in best) >= 2

    asked = "the best that is not told the equation's form: skill ≥ 0.7 on two of three"
    yield _target(", ".join(f"{system}-noisy" for system in CHAOTIC), asked, two_of_three)
    for system in CHAOTIC:
        yield line(f"{system}-partial", SKILL, 0.4, LEARNED, "the best")


def _above(expected: Expected) -> Iterator[Target]:
    """Headline scores above another baseline's: of all that are named, or of one of them."""

    def line(task: str, what: str, names: Iterable[str], rival: str, choose: Callable[..., Score]) -> Target:
        def measure() -> tuple[str, bool]:
            one = choose(_scores(expected, names, task, HEADLINE), key=lambda score: score.ends[0])
            (other,) = _scores(expected, (rival,), task, HEADLINE)
            return f"{one}; {other}", one.ends[0] > other.ends[1]

        return _target(task, f"{what} above `{rival}`", measure)

    for system in (*CHAOTIC, "kpz"):
        yield line(f"{system}-partial", "every learned one (shown: the least)", LEARNED, "linear", min)
    untold = [name for name in UNTOLD if name != "polynomial"]
    for system in (*CHAOTIC, "kpz"):
        yield line(f"{system}-scarce", "one that is not told the equation's form", untold, "polynomial", max)
    yield line("kpz-noisy", "`resnet_ode`", ("resnet_ode",), "linear", min)


def _lost(expected: Expected) -> Iterator[Target]:
    """No lost climate run of the four families that descend in gradients."""
    for track in ("clean", "noisy"):

        def measure(track: str = track) -> tuple[str, bool]:
            tasks = [f"{system}-{track}" for system in (*CHAOTIC, "kpz")]
            shares = [score.value for t in tasks for score in _scores(expected, FAMILIES, t, "surviving_fraction")]
            return f"at most {1 - min(shares):.2%}", min(shares) == 1

        yield _target(f"all systems, {track}", f"{', '.join(f'`{name}`' for name in FAMILIES)}: no lost run", measure)
