"""Diagnostics of an emulator on a task: reported beside the scores, never ranked. See ``docs/diagnostics.md``.

Each is a function of a :class:`Subject` that returns a :class:`~emubench.files.run_files.Diagnostic`. Rows called
``true_…`` are the same figure of the true system by the same protocol. What an emulator lacks for one of them is no
fault: the diagnostic then says in one line why it is not available.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from emubench import metrics
from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.data import dataset, layout
from emubench.data.observation import observed_symmetry
from emubench.data.tasks import Task
from emubench.dynamics import lyapunov
from emubench.dynamics.simulate import simulate
from emubench.dynamics.spectrum import Estimate, Spectrum
from emubench.dynamics.system import System
from emubench.emulator import checked_forecast, same_values
from emubench.evaluation import error_growth, scoring
from emubench.evaluation.error_growth import autonomous, emulator_spectrum, twin_growth
from emubench.evaluation.forecast import Progress, part_of
from emubench.files import hdf5
from emubench.files.run_files import Diagnostic, ScoreRow
from emubench.metrics import Summary
from emubench.metrics._headline import headline

MAX_EXPONENTS = 64
MAX_REPLICAS, MAX_DURATION = 8, 100.0
"""Runs of a Lyapunov spectrum, and the Lyapunov times that each lasts."""
OUTSIDE = 2.0
"""σ by which states are moved away from the attractor."""
MEMBERS = 16
LONG_LEAD = 8
"""Samples after which symmetry is looked at a second time where there is no Lyapunov time."""
QUANTILES = {"median": 0.5, "q99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Subject:
    """An emulator on a task, with what only the scorer may see."""

    emulator: Any
    task: Task
    data: Path
    seed: int = 0
    progress: Progress = field(default=lambda done, total: None)

    def context(self, split: str) -> Float[Tensor, "B C *S"]:
        """What the emulator sees."""
        return dataset.load(self.task, self.data).contexts[split]

    def true_context(self) -> Float[Tensor, "B C *S"]:
        """The whole true states behind the test contexts."""
        path = layout.truth_path(self.task, self.data)
        with dataset.open_truth(self.task, self.data) as file:
            values, _ = hdf5.read_hashed(path, file, "test/truth")
        return torch.from_numpy(values[:, : self.task.context].copy())

    def row(
        self, metric: str, figures: scoring.Figures, n_cases: int, unit: str, lead_time: float | None = None
    ) -> ScoreRow:
        """A row from a value, or from (value, low, high)."""
        return scoring.score_row(self.task, metric, figures, n_cases, unit, lead_time)


def interval(estimate: Estimate, n: int) -> tuple[float, float, float]:
    """Value and its 95 % interval from the standard error of a mean of ``n`` independent samples (Student's t).

    >>> [round(v, 2) for v in interval(Estimate(1.0, 0.1), 16)]
    [1.0, 0.79, 1.21]
    """
    half = float(stats.t.ppf(0.975, max(1, n - 1))) * estimate.error
    return estimate.value, estimate.value - half, estimate.value + half


def lyapunov_spectrum(subject: Subject) -> Diagnostic:
    """Spectrum, λ₁ and Kaplan–Yorke dimension of a deterministic Stepper, and their errors against the true system."""
    system, n = subject.task.system, min(MAX_REPLICAS, subject.task.n_climate)
    if system.stochastic:
        return Diagnostic(note=f"not available: {system.name} is stochastic")
    duration = MAX_DURATION * min(1.0, subject.task.n_climate / 64) * system.time_unit  # less at smaller sizes
    context = subject.context("climate")[:n]
    state, step = autonomous(subject.emulator, context, "Lyapunov exponents are", subject.seed)
    project = conserved(system, state, step)
    true = true_spectrum(system, n, duration, subject.seed)
    dimension = lyapunov.n_perturbations(system) if project else state[0].numel()
    given: dict[str, Any] = {"project": project, "seed": subject.seed, "progress": subject.progress}
    measure = partial(emulator_spectrum, subject.emulator, context, system.sample_interval, duration=duration, **given)
    own = as_many_as_resolved(measure, min(dimension, MAX_EXPONENTS))
    rows, note = _compare(subject, own, true)
    sizes = (("state_dimension", state[0].numel()), ("true_state_dimension", math.prod(system.shape)))
    rows += [subject.row(name, size, n, "1") for name, size in sizes]
    series = {}
    for prefix, spectrum in (("", own), ("true_", true)):
        series[f"{prefix}exponents"] = spectrum.exponents.tolist()
        series[f"{prefix}standard_errors"] = spectrum.standard_error.tolist()
    return Diagnostic(rows=rows, series=series, note=note)


def _compare(subject: Subject, own: Spectrum, true: Spectrum) -> tuple[list[ScoreRow], str]:
    """λ₁ and Kaplan–Yorke dimension: the emulator's, the system's and the difference."""
    n, rows, notes = len(own.rates), [], []
    takes = {"lyapunov_exponent_1": itemgetter(0), "kaplan_yorke_dimension": attrgetter("kaplan_yorke_dimension")}
    for name, take in takes.items():
        unit = "1/time" if name.startswith("lyapunov") else "1"
        try:
            mine, truth = take(own), take(true)
        except EmubenchError as error:
            notes.append(str(error))
            continue
        error = Estimate(mine.value - truth.value, math.hypot(mine.error, truth.error))
        for metric, value in ((name, mine), (f"true_{name}", truth), (f"{name}_error", error)):
            rows.append(subject.row(metric, interval(value, n), n, unit))
    return rows, "; ".join(notes)


def conserved(system: System, state: Float[Tensor, "R ..."], step: lyapunov.Map) -> lyapunov.Map | None:
    """``system.project`` if the emulator, too, keeps perturbations in the subspace where the system's live.

    Else an emulator that conserves a quantity exactly would get exponents for changing it, which its system has not.
    """
    if state.shape[1:] != system.shape or lyapunov.n_perturbations(system) == state[0].numel():
        return None
    normal = torch.randn(1, *state.shape, generator=torch_stream(0, "conserved"), dtype=torch.float64).to(state.dtype)
    with torch.no_grad():
        _, pushed = lyapunov.push_forward(step, state, system.project(normal), "emulator")
    leaked = (pushed - system.project(pushed)).norm() / pushed.norm()
    return system.project if float(leaked) < 1e-5 else None


def as_many_as_resolved(measure: Callable[[int], Spectrum], n: int) -> Spectrum:
    """``measure(n)``, with a quarter fewer exponents as often as some are lost in rounding."""
    while True:
        try:
            return measure(n)
        except lyapunov.Unresolved:
            if n == 1:
                raise
            n = max(1, 3 * n // 4)


@lru_cache(maxsize=8)
def true_spectrum(system: System, n_replicas: int, duration: float, seed: int) -> Spectrum:
    """The true system's spectrum, over runs of the same number and length."""
    state = error_growth.sample_states(system, n_replicas, seed)
    n = min(lyapunov.n_perturbations(system), MAX_EXPONENTS)
    return as_many_as_resolved(lambda k: lyapunov.twin_spectrum(system, state, k, duration=duration, seed=seed), n)


class TrueForecast:
    """The true system as an emulator whose context is the scored part of its present state."""

    def __init__(self, task: Task, present: Float[Tensor, " B *S"]) -> None:
        self.task, self.present = task, present

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """The truth from the present state, with its scored components as ``context`` shows them."""
        components = self.task.observation.components
        state = self.present.clone()
        state[..., list(components) if components else slice(None)] = context[:, -1]
        run = simulate(self.task.system, state.numpy(), n_steps)
        return torch.from_numpy(self.task.observation.select(run).copy())[None]


def twin_separation(subject: Subject) -> Diagnostic:
    """Time for twin forecasts to part from 0.01 σ to 0.1 σ, beside that of the true system's twins."""
    task = subject.task
    if task.system.stochastic:
        return Diagnostic(note=f"not available: {task.system.name} is stochastic")
    context = subject.context("test")
    std = torch.from_numpy(task.observation.select(task.system.std))
    own = twin_growth(subject.emulator, context, std, task.test_steps, seed=subject.seed)
    subject.progress(1, 2)
    present = subject.true_context()[:, -1]
    scored = torch.from_numpy(task.observation.select(present.numpy()).copy())[:, None]
    true = twin_growth(TrueForecast(task, present), scored, std, task.test_steps, seed=subject.seed)
    rows = []
    for prefix, passage in (("", own), ("true_", true)):
        mean, step = passage.mean, task.lead_time_step
        time = interval(Estimate(mean.value * step, mean.error * step), len(context))
        rows.append(subject.row(f"{prefix}twin_separation_time", time, len(context), task.system.lead_time_unit))
        rows.append(subject.row(f"{prefix}twins_never_apart", passage.never, len(context), "1"))
    return Diagnostic(rows=rows)


def noise_doubling(subject: Subject) -> Diagnostic:
    """The headline score where the contexts' noise is doubled: the same draws, twice as large; same gaps."""
    task = subject.task
    if task.observation.noise == 0:
        return Diagnostic(note=f"not available: {task.name} has no noise")
    cases = scoring.Cases.load(task, subject.data)
    exact = torch.from_numpy(task.observation.select(subject.true_context().numpy()).copy())
    name, unit = headline(task).metric, headline(task).unit
    scores = []
    for k, contexts in enumerate((cases.contexts, 2 * cases.contexts - exact)):
        asked = dataclasses.replace(cases, contexts=contexts)
        scores.append(scoring.headline_cases(subject.emulator, asked, subject.seed, part_of(subject.progress, k, 2)))
    table = torch.stack([*scores, scores[1] - scores[0]], dim=1)
    labels = (f"{name}_at_noise", f"{name}_at_double_noise", "noise_doubling_change")
    figures = scoring.intervals(Summary(table, ()), scoring.resample(cases.start))
    rows = [subject.row(label, figure, len(table), unit) for label, figure in zip(labels, figures, strict=True)]
    return Diagnostic(rows=rows)


def one_sample_gain(subject: Subject) -> Diagnostic:
    """Largest singular values of the σ-scaled one-sample Jacobian, on the attractor and 2 σ outside; and the flow's."""
    system, n = subject.task.system, 4 * subject.task.n_test  # 1024 states at standard size
    if system.stochastic:
        return Diagnostic(note=f"not available: {system.name} is stochastic")
    advance = error_growth.physical_map(subject.emulator, subject.context("climate")[:2], system, subject.seed)
    states, std, name = error_growth.sample_states(system, n, subject.seed), torch.from_numpy(system.std), "emulator"
    rows = []
    for k, (label, distance) in enumerate((("gain", 0.0), ("gain_outside", OUTSIDE))):
        at = error_growth.outside(states, system, distance) if distance else states
        own = error_growth.map_gains(advance, at, std, name, part_of(subject.progress, k, 2))
        true = error_growth.system_gains(system, n, subject.seed, distance)
        for prefix, gains in (("", own), ("true_", true)):
            for statistic, q in QUANTILES.items():
                value = float(gains.sort().values[max(0, math.ceil(q * n) - 1)])
                rows.append(subject.row(f"{prefix}{label}_{statistic}", value, n, "1/sample"))
    return Diagnostic(rows=rows)


def symmetry_violation(subject: Subject) -> Diagnostic:
    """‖F(S u) − S F(u)‖ in σ, after one sample and after one Lyapunov time, for every symmetry S of the system."""
    task, context = subject.task, subject.context("test")
    long = LONG_LEAD if task.system.stochastic else max(2, round(1 / task.lead_time_step))
    ahead = min(long, task.test_steps)
    std = torch.from_numpy(task.observation.select(task.system.std))
    _, start, _ = scoring.load_truth(task, subject.data, "test")
    symmetries = task.system.symmetries()
    if not symmetries:
        return Diagnostic(note=f"not available: {task.system.name} declares no symmetry")

    def run(given: Tensor, draw: str, members: int) -> Tensor:
        generator = torch_stream(subject.seed, "symmetry", draw)
        return checked_forecast(subject.emulator, given, ahead, members, generator)[:, :, [0, ahead - 1]].double()

    first, again = run(context, "one", MEMBERS), run(context, "two", MEMBERS)
    if len(first) == 1 and not same_values(first, again):
        return Diagnostic(note="not available: the emulator draws random numbers, but gives a single member")
    rows = []
    for i, (name, symmetry) in enumerate(symmetries.items()):
        act = observed_symmetry(symmetry, task.observation, task.system)
        squares = squared_violation(run(act(context), f"symmetry {i}", MEMBERS), act(first), std)
        summary = Summary(squares, (), lambda mean: mean.sign() * mean.abs().sqrt())
        found = scoring.intervals(summary, scoring.resample(start))
        label = "symmetry_violation_" + "_".join(re.findall(r"[a-z0-9]+", name.lower()))
        for lead, figures in zip((1, ahead), found, strict=True):
            rows.append(subject.row(label, figures, len(context), "sigma", lead * task.lead_time_step))
        subject.progress(i + 1, len(symmetries))
    return Diagnostic(rows=rows)


def squared_violation(
    of_transformed: Float[Tensor, "M B L *S"], transformed: Float[Tensor, "M B L *S"], std: Float[Tensor, " *S"]
) -> Float[Tensor, "B L"]:
    """Mean over components of (difference of ensemble means / σ)², less what sampling adds to it: unbiased.

    With one member each (deterministic) there is no sampling. A failed forecast counts 10 σ.
    """
    ensembles = (of_transformed / std, transformed / std)
    square = (ensembles[0].mean(0) - ensembles[1].mean(0)).square()
    for members in ensembles:
        if len(members) > 1:
            square = square - members.var(0) / len(members)
    square = torch.where(square.isfinite(), square, metrics.LOST**2).clamp(max=metrics.LOST**2)
    return square.flatten(2).mean(2)


DIAGNOSTICS: dict[str, Callable[[Subject], Diagnostic]] = {
    made.__name__: made
    for made in (lyapunov_spectrum, twin_separation, noise_doubling, one_sample_gain, symmetry_violation)
}


def measure(name: str, subject: Subject) -> Diagnostic:
    """The diagnostic ``name``; what the emulator lacks for it becomes its note."""
    try:
        return DIAGNOSTICS[name](subject)
    except EmubenchError as error:
        return Diagnostic(note=str(error)[:2000])
