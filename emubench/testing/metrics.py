"""The contract of a metric: a module that defines ``split``, ``applies`` and ``summarise`` (see CONTRIBUTING.md)."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import stream
from emubench.data import tasks, widths
from emubench.data.tasks import Task
from emubench.emulator import same_values
from emubench.metrics import Pool, Row, Summary, Truth
from emubench.metrics._features import scored_symmetries
from emubench.testing.elsewhere import ELSEWHERE, Apart, Elsewhere
from emubench.testing.examples import require, trajectories

TASKS = ("lorenz63-noisy", "lorenz96-partial", "kpz-noisy")
SPLITS = ("test", "climate", "widths")
KINDS = ("drifting", "noise", "loud", "shifted", "frozen")
"""Forecasts that are sound, but more or less wrong."""
BAD = (float("nan"), float("inf"), -float("inf"), 1e308)
N_FAILURES = 6
"""Ways of failing that are tried per kind of forecast."""
SAMPLES = {"test": 300, "climate": 80}
"""Samples of a case that are scored, to be quick; those of "widths" are few."""
ASPECTS = ("w1", "spatial_spectrum", "temporal_spectrum", "patches")
REFERENCE = {"d_floor": {"tiny": dict.fromkeys(ASPECTS, 0.05)}, "d_zero": dict.fromkeys(ASPECTS, 1.0)}
"""Frozen values, as a task of the benchmark has them: without these there are distances, but no skills."""


def check_metric(module: ModuleType, task: Task | None = None, exempt: Collection[str] = ()) -> None:
    """Raise AssertionError where ``module`` breaks the contract of a metric.

    It scores made forecasts of a few cases of ``task``: if none is given, of those of lorenz63-noisy, lorenz96-partial
    and kpz-noisy that it applies to. Checked are:

    - ``split`` is "test", "climate" or "widths", ``applies`` answers True or False, and ``summarise`` returns a
      :class:`~emubench.metrics.Summary` of one row per case, whose ``finish`` takes means of any leading shape;
    - a forecast that fails, from any sample on, in any member, by NaN, infinity or 1e308, scores no better than before,
      and one that fails everywhere no better than any other; no score is NaN. In the split "test" no forecast scores
      better than the truth itself. Scores whose ``better`` is 0 are left out, and of failing those in ``exempt``;
    - every score lies in the range that its row says, ``bounds``;
    - the scores of a case depend on no other case and on no order, of cases or members;
    - an image of forecast and truth under a symmetry of the system scores the same, and so does single precision;
    - nothing is changed in place, and the scores are the same on another device (:mod:`emubench.testing.elsewhere`).

    >>> from emubench import metrics
    >>> check_metric(metrics.get("error_curve"))
    """
    who = module.__name__.rpartition(".")[2]
    for name in ("split", "applies", "summarise"):
        require(who, hasattr(module, name), f"defines no {name}")
    require(who, module.split in SPLITS, f"split is {module.split!r}, where one of {', '.join(SPLITS)} belongs")
    chosen = [task] if task else [tasks.get(name, "tiny") for name in TASKS]
    answers = [module.applies(one) for one in chosen]
    require(who, all(isinstance(answer, bool) for answer in answers), "applies(task) is neither True nor False")
    scored = [one for one, applies in zip(chosen, answers, strict=True) if applies and module.split in one.splits]
    require(who, bool(scored), f"applies to none of {', '.join(one.name for one in chosen)}")
    for one in scored:
        scorer = _Scorer(module, _truth(one, module.split), f"{who} on {one.name}", frozenset(exempt))
        _check_summary(scorer)
        _check_failures(scorer)
        _check_best_and_worst(scorer)
        _check_cases(scorer)
        _check_invariances(scorer)
        _check_elsewhere(scorer)


def _truth(task: Task, split: str) -> Truth:
    """The truth of a few cases, of both kinds of start where there are two."""
    n = 2 if task.system.scored_in_law else 8
    if split == widths.SPLIT:
        values = widths.truth(task, "0")[:n]
        return Truth(task, values, torch.zeros(n, dtype=torch.long))
    length = min(SAMPLES[split], task.steps(split))
    states, start = trajectories(task, task.context + length)
    scored = task.observation.select(states[:n, task.context :].numpy())
    values, start = torch.from_numpy(scored).contiguous(), start[:n]
    if split == "climate":
        return Truth(task, values, start, Pool(task, values[start == 0]), REFERENCE)
    return Truth(task, values, start)


@dataclass(frozen=True)
class _Scorer:
    """A metric with a truth to score against."""

    module: ModuleType
    truth: Truth
    who: str
    exempt: frozenset[str]

    def require(self, condition: bool, message: str) -> None:
        require(self.who, condition, message)

    @property
    def n_members(self) -> int:
        return self.truth.task.n_members(self.module.split)

    def forecast(self, kind: str) -> Float[Tensor, "M B T *S"]:
        """A forecast of one of :data:`KINDS`, or the "truth" itself."""
        truth, values = self.truth, self.truth.values[None]
        shape = (self.n_members, *truth.values.shape)
        noise = torch.from_numpy(stream(0, "check_metric", kind).standard_normal(shape)) * truth.std
        time = torch.arange(shape[2], dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 3))
        made = {
            "truth": values,
            "noise": truth.mean + noise,
            "loud": truth.mean + 3 * noise,
            "shifted": values + 6 * truth.std + 0.1 * noise,
            "frozen": values[:, :, :1],
            "drifting": values + 0.02 * torch.exp(0.05 * time).clamp(max=100) * noise,
        }
        return made[kind].expand(shape).clone()

    def flawed(self) -> Float[Tensor, "M B T *S"]:
        """A forecast one of whose cases fails on the way."""
        forecast = self.forecast("drifting")
        forecast[0, 1, forecast.shape[2] // 2 :] = float("nan")
        return forecast

    def scores(self, forecast: Tensor, truth: Truth | None = None) -> dict[Row, float]:
        summary = self.module.summarise(forecast, truth or self.truth)
        found = dict(zip(summary.rows, summary.finish(summary.cases.mean(0)).tolist(), strict=True))
        for row, value in found.items():
            (least, most), rounding = row.bounds, 1e-6 * abs(value) + 1e-9
            outside = value < least - rounding or value > most + rounding
            self.require(not outside, f"{_named(row)} is {value:g}, outside its own range {least:g} … {most:g}")
        return found

    def judged(self, row: Row) -> bool:
        """Whether failing must not pay for this score."""
        return row.better != 0 and row.metric not in self.exempt


def _named(row: Row) -> str:
    return row.metric if row.lead_time is None else f"{row.metric} at lead time {row.lead_time:g}"


def _check_summary(scorer: _Scorer) -> None:
    forecast, values = scorer.flawed(), scorer.truth.values.clone()
    given = forecast.clone()
    found = scorer.module.summarise(given, scorer.truth)
    scorer.require(isinstance(found, Summary), f"summarise() returns {type(found).__name__}, not a Summary")
    cases, n = found.cases, len(scorer.truth.values)
    shaped = cases.ndim == 2 and len(cases) == n and cases.dtype == torch.float64
    scorer.require(shaped, f"cases are {tuple(cases.shape)} of {cases.dtype}, where ({n}, K) of torch.float64 belong")
    scorer.require(same_values(given, forecast), "summarise() changes the forecast")
    scorer.require(torch.equal(scorer.truth.values, values), "summarise() changes the truth")
    names = [(row.metric, row.lead_time) for row in found.rows]
    scorer.require(len(set(names)) == len(names) > 0, "rows are none, or two have one name and lead time")
    means = torch.stack([cases.mean(0), cases[0], cases[1]])
    together, shape = found.finish(means), (3, len(names))
    turned = f"finish() turns means {tuple(means.shape)} into {tuple(together.shape)}"
    scorer.require(tuple(together.shape) == shape, f"{turned}, where {shape} belongs")
    same = same_values(found.finish(means[0]), together[0])
    scorer.require(same, "finish() depends on the other means that it is given")
    for name, column in found.headline.items():
        scorer.require(0 <= column < cases.shape[1], f"headline {name} is column {column} of {cases.shape[1]}")


def _check_failures(scorer: _Scorer) -> None:
    n_cases, n_samples = scorer.truth.values.shape[:2]
    for kind in KINDS:
        sound = scorer.scores(scorer.forecast(kind))
        rng = stream(0, "failures", kind)
        for _ in range(N_FAILURES):
            forecast = scorer.forecast(kind)
            cases = sorted({int(c) for c in rng.integers(n_cases, size=rng.integers(1, 5))})
            first, member = int(rng.integers(n_samples)), int(rng.integers(scorer.n_members))
            bad = BAD[rng.integers(len(BAD))]
            forecast[member, cases, first:] = bad
            where = f"a {kind} forecast that becomes {bad:g} at sample {first} of the cases {cases}"
            for row, value in scorer.scores(forecast).items():
                scorer.require(value == value, f"{_named(row)} is not a number for {where}")
                advantage = row.better * (value - sound[row])
                fair = not scorer.judged(row) or advantage <= 1e-9 * (1 + abs(sound[row]))
                scorer.require(fair, f"failing pays: {_named(row)} goes from {sound[row]:g} to {value:g} for {where}")


def _check_best_and_worst(scorer: _Scorer) -> None:
    shape = (scorer.n_members, *scorer.truth.values.shape)
    failed = scorer.scores(torch.full(shape, float("nan"), dtype=torch.float64))
    perfect = scorer.scores(scorer.forecast("truth"))
    for kind in KINDS:
        for row, value in scorer.scores(scorer.forecast(kind)).items():
            worst = not scorer.judged(row) or row.better * (failed[row] - value) <= 1e-9
            message = f"failing pays: {_named(row)} is {failed[row]:g} if all fails, {value:g} for a {kind} forecast"
            scorer.require(worst, message)
            if scorer.module.split == "test" and row.better:  # a law is met by samples, not by one trajectory
                best = row.better * (value - perfect[row]) <= 1e-9
                scorer.require(best, f"{_named(row)}: the truth scores {perfect[row]:g}, a {kind} forecast {value:g}")


def _check_cases(scorer: _Scorer) -> None:
    truth, forecast = scorer.truth, scorer.flawed()
    whole = scorer.module.summarise(forecast, truth).cases
    order = torch.arange(len(truth.values)).flip(0).roll(1)
    for chosen in (order, order[:1], order[1:]):
        part = Truth(truth.task, truth.values[chosen], truth.start[chosen], truth.pool, truth.reference)
        cases = scorer.module.summarise(forecast[:, chosen], part).cases
        same = cases.shape == whole[chosen].shape and torch.allclose(cases, whole[chosen], rtol=1e-10, atol=1e-12)
        scorer.require(same, "the scores of a case depend on the others, or on their order")
    if scorer.module.split != "test":
        return
    made = torch.cat([scorer.forecast("drifting")] * 4)[:4] if scorer.n_members < 4 else scorer.forecast("drifting")[:4]
    made = made + torch.arange(4.0).reshape(4, *[1] * (made.ndim - 1)) * 0.1 * truth.std
    one, other = (scorer.module.summarise(made[members], truth).cases for members in ([0, 1, 2, 3], [3, 2, 0, 1]))
    message = "scores depend on the order of the members"  # but for which halves there are
    scorer.require(torch.allclose(one, other, rtol=1e-10, atol=1e-12), message)


def _check_elsewhere(scorer: _Scorer) -> None:
    forecast, truth = scorer.flawed(), scorer.truth
    here = scorer.module.summarise(forecast, truth).cases
    with Elsewhere():
        pool = truth.pool and truth.pool.to(ELSEWHERE)
        try:
            found = scorer.module.summarise(forecast.to(ELSEWHERE), truth.to(ELSEWHERE, pool))
        except AssertionError as error:
            raise AssertionError(f"{scorer.who}: {error}") from error
        scorer.require(isinstance(found.cases, Apart), "on another device the scores of a case are of the host")
        cases = found.cases.cpu()
    scorer.require(torch.allclose(cases, here, rtol=1e-9, atol=1e-12), "on another device the scores are others")
    found.finish(cases.mean(0))  # means are taken on the CPU


def _check_invariances(scorer: _Scorer) -> None:
    truth, forecast = scorer.truth, scorer.flawed()
    plain = scorer.scores(forecast)
    for act in scored_symmetries(truth.task):
        image = Truth(truth.task, act(truth.values), truth.start, truth.pool, truth.reference)
        for row, value in scorer.scores(act(forecast), image).items():
            message = f"images under a symmetry of the system score otherwise: {_named(row)}"
            scorer.require(math.isclose(value, plain[row], rel_tol=1e-8, abs_tol=1e-10), message)
    single, double = scorer.scores(forecast.float()), scorer.scores(forecast.float().double())
    for row, value in single.items():
        message = f"a forecast in single precision scores otherwise: {_named(row)}"
        scorer.require(math.isclose(value, double[row], rel_tol=1e-6, abs_tol=1e-12), message)
