"""What was timed has to be what was scored: one line for every cheat that is found.

Four checks. *Caching*: inputs seen before may not be twice as fast as fresh ones. *The same forecasts*: a timed call
is asked again of ``reference``, the same emulator loaded anew elsewhere, with the same input and the same random
numbers; over the first half unit of lead time nine in ten differ by rounding alone, the rest by little. Chaos lets
rounding grow afterwards, so later leads are compared exactly where they can be, and else by their temporal variance:
that of the last quarter with those of all quarters of the other, of which one alone may be calm by chance.
*No batch, no horizon*: timed cases are asked of ``reference`` again in a batch of another size, at other places, with
other neighbours, and some of them as far ahead as stability is scored. Without random numbers both are the timed
forecast; with them the forecasts of other draws are as near to the timed one as to each other.
*The same scores*: timed forecasts score what the run's ``scores.json`` says of these cases; those of fresh inputs, as
far as their noise can't have grown to an error.

What they can't see: an emulator that does the same less work when it is scored has lower scores, and is no cheat.
"""

import itertools
from pathlib import Path

import torch
from torch import Tensor

from emubench import metrics
from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.emulator import Emulator, checked_ensemble, same_values
from emubench.evaluation import scoring
from emubench.evaluation.forecast import CHUNK
from emubench.evaluation.throughput.stopwatch import CACHED, Sample, Subject
from emubench.files.timing import Scenario
from emubench.metrics._headline import headline

HALF = 0.5
"""Units of lead time over which forecasts have to be equal (at least one sample)."""
TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 0.3}
"""Largest difference over that time, in σ, by the precision of the emulator."""
PARTED = 0.1
"""Share of forecasts that may differ by more: filters through gappy contexts let rounding grow, too."""
MOST = 100.0
"""Factor on the tolerance by which none of them may differ."""
DRAWS = 3
"""Forecasts with other random numbers that a timed one is compared with."""
FURTHER = 5.0
"""Factor by which it may be further from the nearest of them than they are from each other."""
FEW = 4
"""Cases that are forecast as far ahead as stability is scored."""
FRESH_HORIZON = 3.0
"""Units of lead time over which a fresh input's forecast has its score: noise of 10⁻⁴ σ may grow 200-fold more than λ₁
makes it grow."""
VARIANCE = 2.0
"""Factor by which the temporal variance of the last quarter may lie outside those of all quarters of the other forecast
where chaos has parted them."""


def check_caching(name: str, scenarios: dict[str, Scenario]) -> None:
    """Raise :class:`EmubenchError` where repeated inputs took another time than fresh ones."""
    for label, scenario in scenarios.items():
        ratio = scenario.repeated_over_fresh
        if not 1 / CACHED <= ratio <= CACHED:
            raise EmubenchError(
                f"{name}: {label}: inputs seen before took {ratio:.2g} times as long as fresh ones, where "
                f"{1 / CACHED:g} to {CACHED:g} belongs: is something cached?"
            )


def check_samples(subject: Subject, samples: list[Sample], reference: Emulator, precision: str) -> None:
    """Raise :class:`EmubenchError` where ``reference`` forecasts otherwise than the timed emulator did."""
    for sample in samples:
        generator = subject.generator(*sample.generator_labels)
        context, steps = sample.context.cpu(), subject.task.test_steps
        again = checked_ensemble(reference, context, steps, subject.n_members, generator)
        if reason := getattr(reference, "reason", ""):
            raise EmubenchError(f"{subject.name}: loaded anew for comparison, it {reason}")
        found, wanted = sample.forecast.double(), again.cpu()[:, sample.cases].double()
        where = f"{subject.name}: {sample.scenario}, {'fresh' if sample.fresh else 'repeated'} input"
        if found.shape != wanted.shape:
            raise EmubenchError(f"{where}: timed {tuple(found.shape)}, where {tuple(wanted.shape)} is scored")
        check_equal(where, subject.task, found, wanted, TOLERANCE[precision])


def check_batches(subject: Subject, samples: list[Sample], reference: Emulator, precision: str) -> None:
    """Raise :class:`EmubenchError` where a timed forecast depends on its batch, or on the horizon that is asked for."""
    for sample in samples:
        where = f"{subject.name}: {sample.scenario}, {'fresh' if sample.fresh else 'repeated'} input, in another batch"
        size = min(CHUNK, len(subject.contexts))  # as when scored
        size = size if size != len(sample.context) else max(size // 2, 2)
        cases = sample.cases[: max(size // 2, 1)]
        n, last = len(cases), int(sample.test_cases[: len(cases)].max())
        others = subject.contexts[(last + 1 + torch.arange(size - n)) % len(subject.contexts)]
        given = torch.cat([others, sample.context.cpu()[cases].flip(0)])
        found, draws = sample.forecast[:, :n].double(), []
        for i in range(DRAWS):
            draws.append(_asked(subject, reference, given, subject.task.test_steps, i)[:, size - n :].flip(1).double())
            if i == 1 and same_values(*draws):
                break
        if len(draws) == DRAWS:
            check_near(where, subject.task, found, draws, TOLERANCE[precision])
            continue
        check_equal(where, subject.task, found, draws[0], TOLERANCE[precision], max(PARTED, 1 / n))
        check_horizon(subject, given[-FEW:], reference, TOLERANCE[precision])


def _asked(subject: Subject, reference: Emulator, context: Tensor, n_steps: int, draw: int) -> Tensor:
    generator = subject.generator("again", draw)
    made = checked_ensemble(reference, context, n_steps, subject.n_members, generator).cpu()
    if reason := getattr(reference, "reason", ""):
        raise EmubenchError(f"{subject.name}: loaded anew for comparison, it {reason}")
    return made


def check_horizon(subject: Subject, context: Tensor, reference: Emulator, tolerance: float) -> None:
    """Raise :class:`EmubenchError` unless a run as long as the climate's begins with the timed forecast."""
    task = subject.task
    short, long = (_asked(subject, reference, context, n, 0) for n in (task.test_steps, task.climate_steps))
    long = long[:, :, : task.test_steps]
    std = torch.from_numpy(task.observation.select(task.system.std))
    difference = torch.where(short.isfinite() & long.isfinite(), (short - long).abs() / std, 0.0)
    difference = torch.where(short.isfinite() == long.isfinite(), difference, torch.inf).flatten(3).amax((0, 1, 3))
    if float(difference.max()) > MOST * tolerance:
        first = 1 + int((difference > MOST * tolerance).nonzero()[0])
        raise EmubenchError(
            f"{subject.name}: a forecast of {task.climate_steps} samples leaves that of {task.test_steps} at sample "
            f"{first}: the timed one stops there, or goes on otherwise"
        )


def check_near(where: str, task: Task, found: Tensor, draws: list[Tensor], tolerance: float) -> None:
    """Raise :class:`EmubenchError` where ``found`` is far at first from forecasts by other random numbers."""
    first = max(1, int(HALF / task.lead_time_step))
    std = torch.from_numpy(task.observation.select(task.system.std))

    def apart(one: Tensor, other: Tensor) -> float:
        return float(((one - other)[:, :, :first] / std).nan_to_num(0.0, 1.0, -1.0).square().mean().sqrt())

    among = max(apart(one, other) for one, other in itertools.combinations(draws, 2))
    off = min(apart(found, one) for one in draws)
    if off > FURTHER * among + tolerance:
        raise EmubenchError(
            f"{where}: the timed forecast is not the scored one: {off:.2g} σ apart within the first {first} samples, "
            f"where random numbers make {among:.2g}"
        )


def check_equal(
    where: str, task: Task, found: Tensor, wanted: Tensor, tolerance: float, may_part: float = PARTED
) -> None:
    """Raise :class:`EmubenchError` unless forecasts ``"M B T *S"`` agree as far as chaos lets them."""
    std = torch.from_numpy(task.observation.select(task.system.std))
    difference = ((found - wanted).abs() / std).flatten(3).amax(-1)
    both_failed = ~torch.isfinite(found).flatten(3).all(-1) & ~torch.isfinite(wanted).flatten(3).all(-1)
    difference = torch.where(both_failed, 0.0, difference.nan_to_num(float("inf")))
    first = max(1, int(HALF / task.lead_time_step))
    early = difference[:, :, :first].amax(-1)
    worst, parted = float(early.max()), float((early > tolerance).double().mean())
    if worst > MOST * tolerance or parted > may_part:
        raise EmubenchError(
            f"{where}: the timed forecast is not the scored one: they differ by {worst:.2g} σ within the first "
            f"{first} samples, where {tolerance:g} belongs"
        )
    if float(difference.max()) <= tolerance:
        return
    whole = [torch.isfinite(v).flatten(2).all(-1) for v in (found, wanted)]
    lost = float((whole[1] & ~whole[0]).double().mean())
    if lost > may_part:
        raise EmubenchError(
            f"{where}: the timed forecast ends early: {lost:.0%} of the forecasts are finite when they are scored alone"
        )
    both = whole[0] & whole[1]
    if not both.any():
        return
    end, parts = quarter_variances(found, task, both)[-1], quarter_variances(wanted, task, both)
    if not min(parts) / VARIANCE <= end <= VARIANCE * max(parts):
        raise EmubenchError(
            f"{where}: the timed forecast ends early: over its last quarter it varies {4 * end / sum(parts):.2g} times "
            "as much as the scored one over all of them"
        )


def quarter_variances(forecast: Tensor, task: Task, chosen: Tensor) -> list[float]:
    """Mean temporal variance of each quarter of the ``chosen`` forecasts."""
    return [float(v.var(dim=2)[chosen].mean()) for v in metrics.deviation(forecast, task).tensor_split(4, dim=2)]


def check_scores(subject: Subject, samples: list[Sample], stored: list[float], data: Path) -> None:
    """Raise :class:`EmubenchError` where timed forecasts of scored contexts score otherwise than the run did."""
    task = subject.task
    truth, start, _ = scoring.load_truth(task, data, "test")
    for sample in samples:
        n_steps = task.test_steps
        if sample.fresh and not task.system.scored_in_law:
            n_steps = min(n_steps, int(FRESH_HORIZON / task.lead_time_step))
        # a batch larger than the split repeats its cases: each counts once
        rows = [i for i, case in enumerate(sample.test_cases) if case not in sample.test_cases[:i]]
        cases = sample.test_cases[rows]
        found = headline(task).cases(sample.forecast[:, rows, :n_steps], truth[cases, :n_steps], start[cases])
        wanted = torch.tensor(stored, dtype=torch.float64)[cases]
        if n_steps < task.test_steps:
            wanted = wanted.clamp(max=n_steps * task.lead_time_step)
        difference = headline(task).better * (found - wanted)
        error = float(difference.std()) / len(rows) ** 0.5 if len(rows) > 1 else float(wanted.abs().max())
        worse = -float(difference.mean())
        if worse > 0.1 + 4 * error:
            raise EmubenchError(
                f"{subject.name}: {sample.scenario}: timed forecasts score {float(found.mean()):.3g} in "
                f"{headline(task).metric}, where scores.json says {float(wanted.mean()):.3g} of these cases: score it "
                "again, or is something skipped?"
            )
