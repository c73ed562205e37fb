"""How fast a judged emulator is: timed in its cage, beside the solver ladder of its task on the same sealed cases.

It is timed as :mod:`emubench.runs.benches` times a run, but for its place: contexts and forecasts cross a pipe, whose
time counts. What was timed has to be what was scored (:mod:`emubench.evaluation.throughput.audit`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emubench.core.errors import EmubenchError
from emubench.data import dataset, reference
from emubench.data.tasks import Task
from emubench.emulator import Emulator
from emubench.evaluation.forecast import CHUNK
from emubench.evaluation.throughput import audit, ladder, stopwatch
from emubench.evaluation.throughput.stopwatch import EndToEnd, Sample, Subject
from emubench.files.timing import RANKED, JudgedSpeed, Quantiles, Rung, Scenario
from emubench.runs.sandbox.judged import JudgedEmulator, Limits

SECONDS = 2.0
"""For so long calls are repeated, and no call of the sweep over batches lasts much longer."""
LADDER_SECONDS = 30.0
"""For the solvers of a task, of which one at a time may take longer."""
ATTEMPTS = 2
"""A timing that is found fault with is made once more: a busy machine looks like a cache."""


@dataclass(frozen=True)
class Asked:
    """The trained run that is to be timed, and what judging it has found."""

    run: Path
    task: Task
    data: Path
    seed: int
    limits: Limits
    cases: np.ndarray
    """Its headline scores ``"B"``."""
    counted_share: float
    train_seconds: float

    def subject(self, emulator: Emulator) -> Subject:
        """What is timed, ``emulator`` being its child."""
        contexts = dataset.load(self.task, self.data).context("test")
        return Subject(self.run.parent.name, emulator, self.task, contexts, self.seed, seconds=SECONDS)

    def child(self) -> JudgedEmulator:
        """A child of its own, which has answered nothing yet."""
        return JudgedEmulator.of_run(self.run, self.limits)


def measure(asked: Asked, rungs: list[Rung]) -> JudgedSpeed:
    """Time an emulator and compare it with the settings of its task's ladder; ``refused`` says why it has no speed."""
    hardware, fault = stopwatch.record(torch.device(asked.limits.device), torch.float64, compiled=False), ""
    known = {"device": hardware.device, "processor": hardware.name, "threads": hardware.threads}
    for _ in range(ATTEMPTS):
        try:
            found = _timed(asked)
        except EmubenchError as error:
            fault = str(error)[:1000]
            continue
        task, scale = asked.task, reference.scale(asked.task.name)
        skill = scale.skill(float(asked.cases.mean())) if scale.usable else None
        compared = (task, rungs, RANKED, found, asked.cases, skill, asked.train_seconds)
        rate, speedup = found.lyapunov_times_per_second, ladder.speedup(*compared) if rungs else None
        return JudgedSpeed(**known, batch=found.batch, lyapunov_times_per_second=rate, speedup=speedup)
    nothing = Quantiles(median=0.0, low=0.0, high=0.0)
    return JudgedSpeed(**known, batch=1, lyapunov_times_per_second=nothing, speedup=None, refused=fault)


def _timed(asked: Asked) -> Scenario:
    """The ranked scenario; raises :class:`EmubenchError` where a child fails, or was timed at something else."""
    with asked.child() as child:
        batch = stopwatch.best_batch(asked.subject(child), EndToEnd(), SECONDS)
        batch = CHUNK if child.reason else batch  # one was too large for it: that in which it was scored is not
    with asked.child() as child:
        subject = asked.subject(child)
        scenario, samples = stopwatch.measure(subject, EndToEnd(), batch, RANKED, asked.counted_share)
        if child.reason:
            raise EmubenchError(f"{subject.name}: while it was timed, it {child.reason}")
    audit.check_caching(subject.name, {RANKED: scenario})
    _check(asked, subject, [sample for sample in samples if sample.fresh])
    return scenario


def _check(asked: Asked, subject: Subject, samples: list[Sample]) -> None:
    """Raise :class:`EmubenchError` unless the fresh calls, whose time counts, got the forecasts that were scored."""
    audit.check_scores(subject, samples, asked.cases.tolist(), asked.data)
    precision = str(samples[0].forecast.dtype).removeprefix("torch.")
    with asked.child() as other:
        audit.check_samples(subject, samples, other, precision)
        audit.check_batches(subject, samples, other, precision)
