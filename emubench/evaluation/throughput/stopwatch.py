"""Timing forecasts: one case at a time, or as many at once as pay; with the start from the context, or without it.

The clock is this process's, around a call and the device's end of work. Calls with fresh inputs (other cases, each
with noise of 10⁻⁴ σ that is new every time) are interleaved with calls whose input was seen before; the figures are
those of fresh ones. Some outputs are kept, for :mod:`emubench.evaluation.throughput.audit`.
"""

import datetime
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.hardware import peak_memory, processor, synchronise, usable_cores
from emubench.core.random import stream, torch_stream
from emubench.data.tasks import Task
from emubench.emulator import Emulator, Stepper, checked_ensemble, roll_out
from emubench.evaluation.forecast import counted_share
from emubench.files.timing import Hardware, Quantiles, Scenario

REPETITIONS = 20
SHORTEST = 0.5
"""Seconds for which short calls are repeated at least."""
FRESH = 1e-4
"""Standard deviation, in σ, of what makes an input fresh."""
SUSPICION = 2.0
"""Seconds for which an emulator is timed further before it is accused of caching."""
KEPT_CASES = 64
LONGEST = 5.0
"""Seconds that a call of a sweep over batches may last."""
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
CACHED = 2.0
"""Fresh and repeated inputs may not differ by more than this factor."""


@dataclass(frozen=True)
class Subject:
    """An emulator to be timed, and what for: ``contexts`` ``"B C *S"`` are the scored ones of the test split."""

    name: str
    emulator: Emulator
    task: Task
    contexts: Tensor
    seed: int = 0
    device: torch.device = torch.device("cpu")
    seconds: float = 10.0
    """Time for which calls are repeated, unless 20 repetitions need less."""
    memory_cap: int = 2 * 2**30

    @property
    def n_members(self) -> int:
        """Ensemble size asked for, as when scored."""
        return self.task.n_members("test")

    def generator(self, *labels: str | int) -> torch.Generator:
        """Randomness of one call."""
        return torch_stream(self.seed, "bench", *labels)


@dataclass(frozen=True)
class Sample:
    """What a timed call was asked and what it answered, of some cases."""

    scenario: str
    fresh: bool
    context: Tensor
    generator_labels: tuple[str | int, ...]
    cases: Tensor
    """Rows of ``context`` that ``forecast`` ``"M b T *S"`` holds."""
    test_cases: Tensor
    """Which cases of the test split these are."""
    forecast: Tensor


class EndToEnd:
    """The scored forecast: from context to samples. Only ``run`` is under the clock."""

    def prepare(self, subject: Subject, cases: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        """The input of a call on these cases of the test split; ``noise`` makes it fresh."""
        context = subject.contexts[cases]
        std = torch.from_numpy(subject.task.observation.select(subject.task.system.std))
        return (context + noise(context) * std).to(subject.device)

    def run(self, subject: Subject, given: Tensor, generator: torch.Generator) -> Tensor:
        """The forecast ``"M B T *S"``."""
        return checked_ensemble(subject.emulator, given, subject.task.test_steps, subject.n_members, generator)


class RolloutOnly(EndToEnd):
    """The steps of a :class:`~emubench.emulator.Stepper` from states that are there already, ``KEPT_CASES`` of them.

    Each is used as often as the batch is larger: a filter would take longer to start all than the rollout lasts.
    """

    def __init__(self) -> None:
        self.states: Tensor | None = None

    @torch.no_grad()
    def prepare(self, subject: Subject, cases: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        assert isinstance(subject.emulator, Stepper)
        if self.states is None:
            context = subject.contexts[:KEPT_CASES].to(subject.device)
            self.states = subject.emulator.start(context, subject.n_members, subject.generator("states"))
        states = self.states[:, cases % self.states.shape[1]]
        return states + noise(states) * states.std().nan_to_num(1.0)

    @torch.no_grad()
    def run(self, subject: Subject, given: Tensor, generator: torch.Generator) -> Tensor:
        assert isinstance(subject.emulator, Stepper)
        return roll_out(subject.emulator, given, subject.task.test_steps, generator)


def timed(call: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds of ``call`` until the device is done, and its result."""
    synchronise(device)
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        result = call()
        last.record()
        synchronise(device)
        return first.elapsed_time(last) / 1e3, result
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def _rate(amount: float, seconds: Quantiles) -> Quantiles:
    median, low, high = (amount / max(s, 1e-9) for s in (seconds.median, seconds.high, seconds.low))
    return Quantiles(median=median, low=low, high=high)


def scenario_of(
    task: Task,
    batch: int,
    n_members: int,
    fresh: list[float],
    repeated: list[float],
    peak: int,
    share: float = 1.0,
) -> Scenario:
    """The figures of one scenario from the seconds of its calls, of whose samples a ``share`` counts."""
    low, median, high = (float(v) for v in np.quantile(fresh, [0.1, 0.5, 0.9]))
    seconds = Quantiles(median=median, low=low, high=high)
    steps = batch * n_members * task.test_steps * share
    return Scenario(
        batch=batch,
        repetitions=len(fresh),
        seconds=seconds,
        lyapunov_times_per_second=_rate(steps * task.lead_time_step, seconds),
        trajectory_steps_per_second=_rate(steps, seconds),
        repeated_over_fresh=min(repeated) / max(min(fresh), 1e-9),
        peak_memory=peak,
    )


class Calls:
    """Calls of one scenario, fresh and repeated, timed and sampled."""

    def __init__(self, subject: Subject, work: EndToEnd, batch: int, scenario: str) -> None:
        self.subject, self.work, self.batch, self.scenario = subject, work, batch, scenario
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self.samples: dict[bool, Sample] = {}
        self.count = 0
        self._pick = stream(subject.seed, "bench", "kept", scenario)

    def _given(self, fresh: bool) -> tuple[Tensor, Tensor, tuple[str | int, ...]]:
        n = len(self.subject.contexts)
        cases = (torch.arange(self.batch) + (self.count * self.batch if fresh else 0)) % n
        labels = (self.scenario, self.count if fresh else "repeated")
        generator = torch_stream(self.subject.seed, "fresh", *labels)

        def noise(like: Tensor) -> Tensor:
            drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
            return FRESH * drawn if fresh else 0.0 * drawn

        return self.work.prepare(self.subject, cases, noise), cases, labels

    def _timed(self, given: Tensor, labels: tuple[str | int, ...]) -> tuple[float, Tensor]:
        generator = self.subject.generator(*labels)
        return timed(lambda: self.work.run(self.subject, given, generator), self.subject.device)

    def warm_up(self) -> tuple[int, float]:
        """A call with the input that will be repeated, and another one if it was short: memory and seconds it takes."""
        given, _, labels = self._given(False)
        took: list[float] = []

        def call() -> None:
            took.append(self._timed(given, labels)[0])

        peak = peak_memory(call, self.subject.device)
        if took[0] < SHORTEST:
            peak = peak_memory(call, self.subject.device)
        return peak, took[-1]

    def one(self, fresh: bool) -> None:
        """Time one call; keep what it answered, by lot."""
        self.count += 1
        given, cases, labels = self._given(fresh)
        took, forecast = self._timed(given, labels)
        self.seconds[fresh].append(took)
        if self._pick.random() * len(self.seconds[fresh]) < 1:
            chosen = torch.from_numpy(self._pick.permutation(self.batch)[:KEPT_CASES])
            kept = forecast[:, chosen].clone().cpu()
            self.samples[fresh] = Sample(self.scenario, fresh, given, labels, chosen, cases[chosen], kept)

    @property
    def ratio(self) -> float:
        """Least time with a repeated input over the least with a fresh one: other work on the machine only adds."""
        return min(self.seconds[False]) / max(min(self.seconds[True]), 1e-9)


def measure(
    subject: Subject, work: EndToEnd, batch: int, scenario: str, share: float = 1.0
) -> tuple[Scenario, list[Sample]]:
    """Repeat calls of ``batch`` cases: 20 times or for ``subject.seconds``; three fresh ones at least."""
    calls = Calls(subject, work, batch, scenario)
    peak, _ = calls.warm_up()
    begun = time.perf_counter()
    for i in itertools.count(1):
        calls.one(fresh=i % 4 != 2)
        spent = time.perf_counter() - begun
        enough = len(calls.seconds[True]) >= REPETITIONS and spent >= min(SHORTEST, subject.seconds)
        if i >= 4 and (enough or spent >= subject.seconds):
            break
    begun = time.perf_counter()
    while not 1 / CACHED <= calls.ratio <= CACHED:  # on a busy machine the least times take a while to be found
        calls.one(fresh=True)
        calls.one(fresh=False)
        if time.perf_counter() - begun > max(SUSPICION, subject.seconds):
            break
    seconds = calls.seconds[True], calls.seconds[False]
    found = scenario_of(subject.task, batch, subject.n_members, *seconds, peak, share)
    return found, list(calls.samples.values())


def best_batch(subject: Subject, work: EndToEnd, longest: float = LONGEST) -> int:
    """The batch of most cases per second among 1, 4, 16 … up to the cap on memory, or ``longest`` seconds a call.

    Where a device's memory runs out before, a line says at which batch. Raises :class:`EmubenchError` if none fits.
    """
    rates: dict[int, float] = {}
    before = 0.0
    for i, batch in enumerate((1, *BATCHES)):
        calls = Calls(subject, work, batch, "sweep")
        try:
            peak, took = calls.warm_up()
            if i == 0:  # what is compiled at the first call would count as slowness
                continue
            if took < SHORTEST:
                calls.one(fresh=True)
                took = min(took, *calls.seconds[True])
        except torch.OutOfMemoryError as error:
            said = f"{subject.name}: {batch} cases at a time do not fit in the memory of {subject.device}"
            if not rates:
                raise EmubenchError(f"{said}: try --device cpu") from error
            print(f"{said}, {max(rates)} do", file=sys.stderr)
            break
        if rates and peak > subject.memory_cap:
            break
        rates[batch] = batch / took
        slowdown = min(max(took / before, 1.0), 4.0) if before else 1.0
        too_slow = took * slowdown > longest or rates[batch] < 0.25 * max(rates.values())
        if 4 * peak > subject.memory_cap or too_slow:
            break
        before = took
    return max(rates, key=rates.__getitem__)


def run(subject: Subject) -> tuple[dict[str, Scenario], list[Sample]]:
    """All scenarios of an emulator, and what it answered end to end; rollouts alone where it is a Stepper."""
    kinds: dict[str, type[EndToEnd]] = {"end_to_end": EndToEnd}
    if isinstance(subject.emulator, Stepper):
        kinds["rollout"] = RolloutOnly
    given = subject.contexts[:KEPT_CASES].to(subject.device)
    share = counted_share(EndToEnd().run(subject, given, subject.generator("counted")), subject.task)
    scenarios, samples = {}, []
    for kind, work in kinds.items():
        for name, batch in (("single", 1), ("offline", best_batch(subject, work()))):
            label = f"{name}_{kind}"
            scenarios[label], kept = measure(subject, work(), batch, label, share)
            samples += kept if kind == "end_to_end" else []
    return scenarios, samples


def record(device: torch.device, dtype: torch.dtype, compiled: bool) -> Hardware:
    """What the figures of this process belong to."""
    gpu = device.type == "cuda"
    return Hardware(
        device=str(device),
        name=torch.cuda.get_device_name(device) if gpu else processor(),
        driver=f"CUDA {torch.version.cuda}" if gpu else "",
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        tf32=gpu and bool(torch.backends.cuda.matmul.allow_tf32),
        compiled=compiled,
        torch=torch.__version__,
        date=datetime.date.today().isoformat(),
    )
