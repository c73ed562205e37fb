"""``emubench bench``: how fast a scored run forecasts, and how fast a solver of the same accuracy does."""

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emubench import __version__
from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device
from emubench.data import dataset, reference
from emubench.data.tasks import Task
from emubench.emulator import Emulator, checked_ensemble
from emubench.evaluation import scoring
from emubench.evaluation.forecast import Progress
from emubench.evaluation.throughput import ladder, modes, roofline, stopwatch
from emubench.evaluation.throughput.audit import check_batches, check_caching, check_samples, check_scores
from emubench.evaluation.throughput.modes import Mode
from emubench.evaluation.throughput.stopwatch import Sample, Subject, record
from emubench.files import timing
from emubench.files.run_files import ScoreRow
from emubench.files.timing import RANKED, Bench, Quantiles, Rung
from emubench.metrics import Summary
from emubench.metrics._headline import headline
from emubench.runs import folders, stages
from emubench.runs.sandbox.judged import JudgedEmulator, Limits
from emubench.runs.scored import ScoredRun, read_run


@dataclass(frozen=True)
class Options:
    """What is measured: mode, device, threads, seconds per scenario, memory cap, whether the ladder is climbed."""

    mode: Mode = Mode()
    device: str = "cpu"
    threads: int = 1
    seconds: float = 10.0
    memory_cap: int = 2 * 2**30
    ladder_seconds: float = ladder.BUDGET
    """Seconds for the ladder of a task; 0: no ladder, and no speed-up."""


class Session:
    """One invocation: ladders are measured once per task, for all its runs."""

    def __init__(self, data: Path, options: Options) -> None:
        self.data, self.options = data, options
        self.device = check_device(options.device)
        if options.mode.compile and self.device.type == "cpu" and modes.compiler() is None:
            print(modes.NO_COMPILER, file=sys.stderr)
            self.options = dataclasses.replace(options, mode=dataclasses.replace(options.mode, compile=False))
        torch.set_num_threads(options.threads)
        self._ladders: dict[tuple[str, str], list[Rung]] = {}

    def ladder(self, task: Task, progress: Progress | None = None) -> list[Rung]:
        """The solver ladder of a task."""
        key, budget = (task.name, task.size), self.options.ladder_seconds
        if key not in self._ladders:
            wanted = (task, self.data, budget, progress, self.device)
            self._ladders[key] = ladder.measure(*wanted) if budget > 0 else []
        return self._ladders[key]

    def bench(self, path: Path, progress: Progress | None = None, reference_emulator: Emulator | None = None) -> Bench:
        """Measure a run, check that what was timed is what was scored, write ``timing.json``.

        Raises :class:`EmubenchError` for a run without scores, one scored on other data, and one that cheats; nothing
        is written then. ``reference_emulator`` is the run loaded elsewhere: by default in a child process.
        """
        opened = folders.load(path)
        run, emulator, task = read_run(path, opened.card), opened.emulator, opened.task
        if not stages.is_current(run.scores, task, self.data):
            raise EmubenchError(f"{path}: was not scored on these data by this version; emubench score {path} --again")
        emulator.requires_grad_(False)
        subject = Subject(
            name=f"{run.card.baseline} on {task.name}",
            emulator=emulator.to(self.device),  # type: ignore[arg-type]
            task=task,
            contexts=dataset.load(task, self.data).context("test"),
            seed=run.card.seed,
            device=self.device,
            seconds=self.options.seconds,
            memory_cap=self.options.memory_cap,
        )
        modes.apply(emulator, self.options.mode, self.device)
        compiling = self._compile_seconds(subject) if self.options.mode.compile else None
        cases = run.cases if self.options.mode == Mode() else self._rescored(subject)
        scenarios, samples = stopwatch.run(subject)
        check_caching(subject.name, scenarios)
        self._check(path, subject, samples, cases, reference_emulator)
        start = torch.arange(len(cases)) % len(task.system.starts)
        table = Summary(torch.from_numpy(cases).double()[:, None], ())
        ((value, low, high),) = scoring.intervals(table, scoring.resample(start))
        rungs, scale = self.ladder(task, progress), reference.scale(task.name)
        skill = scale.skill(value) if scale.usable else None
        rollout = any(name.endswith("rollout") for name in scenarios)
        found = Bench(
            emubench_version=__version__,
            mode=self.options.mode.name,
            hardware=record(self.device, samples[0].forecast.dtype, self.options.mode.compile),
            memory_cap=subject.memory_cap,
            scenarios=scenarios,
            rollout_note="" if rollout else "not available: the emulator is no Stepper, its state can't be asked for",
            compile_seconds=compiling,
            accuracy=value,
            accuracy_low=low,
            accuracy_high=high,
            skill=skill,
            speedups={
                name: ladder.speedup(task, rungs, name, scenario, cases, skill, run.card.train_seconds)
                for name, scenario in scenarios.items()
                if name.endswith("end_to_end") and rungs
            },
            limits=self._bounds(run, subject, scenarios),
        )
        timing.add(path, found, rungs)
        return found

    def _compile_seconds(self, subject: Subject) -> float:
        def forecast(batch: int) -> Tensor:
            index = torch.arange(batch) % len(subject.contexts)
            context = subject.contexts[index].to(self.device)
            return checked_ensemble(subject.emulator, context, 2, subject.n_members, subject.generator("compile"))

        return modes.compile_seconds(forecast, self.device)

    def _rescored(self, subject: Subject) -> np.ndarray:
        """Headline score of every case in the mode at hand, forecast as the scorer does."""
        cases = scoring.Cases.load(subject.task, self.data)
        cases = dataclasses.replace(cases, contexts=subject.contexts.to(self.device))
        return scoring.headline_cases(subject.emulator, cases, subject.seed).numpy()

    def _check(
        self, path: Path, subject: Subject, samples: list[Sample], cases: np.ndarray, other: Emulator | None
    ) -> None:
        check_scores(subject, samples, cases.tolist(), self.data)
        lowered = self.options.mode.precision != "full"
        precision = "bfloat16" if lowered else str(samples[0].forecast.dtype).removeprefix("torch.")
        with contextlib.ExitStack() as stack:
            limits = Limits(threads=self.options.threads)
            other = other or stack.enter_context(JudgedEmulator.of_run(path, limits))
            check_samples(subject, samples, other, precision)
            check_batches(subject, samples, other, precision)

    def _bounds(
        self, run: ScoredRun, subject: Subject, scenarios: dict[str, timing.Scenario]
    ) -> dict[str, timing.Bound]:
        """What binds both end-to-end scenarios, on a CPU in the plain mode, where all work is torch's operators."""
        if self.options.mode != Mode() or self.device.type != "cpu" or run.card.knowledge == "equation":
            return {}
        weights = [p.dtype for p in subject.emulator.parameters()]  # type: ignore[attr-defined]
        dtype = "float32" if torch.float32 in weights else "float64"
        found = {}
        for name, scenario in scenarios.items():
            if name.endswith("end_to_end"):
                work = forecast_work(subject, scenario.batch)
                found[name] = roofline.bound(work, scenario.seconds.median, self.options.threads, dtype)
        return found


def forecast_work(subject: Subject, batch: int) -> tuple[float, float]:
    """Operations and bytes of a forecast of ``batch`` cases: counted over few samples, as each costs the same."""
    context = subject.contexts[torch.arange(batch) % len(subject.contexts)]
    steps, few, more = subject.task.test_steps, 2, 6

    def counted(n: int) -> np.ndarray:
        asked = (subject.emulator, context, n, subject.n_members, subject.generator("counted"))
        return np.array(roofline.count(lambda: checked_ensemble(*asked)))

    first, second = counted(few), counted(more)
    flops, moved = first + (second - first) * (steps - few) / (more - few)
    return float(flops), float(moved)


def _figures(measured: Quantiles) -> tuple[float, float, float]:
    return measured.median, measured.low, measured.high


def rows(task: Task, found: Bench) -> list[ScoreRow]:
    """The figures that are ranked, as score rows: offline, end to end; the latency is that of a single case."""
    ranked, lead_time = found.scenarios[RANKED], task.system.lead_time_unit
    made: list[tuple[str, scoring.Figures, str]] = [
        ("lyapunov_times_per_second", _figures(ranked.lyapunov_times_per_second), f"{lead_time}/s"),
        ("trajectory_steps_per_second", _figures(ranked.trajectory_steps_per_second), "1/s"),
        ("latency", _figures(found.scenarios["single_end_to_end"].seconds), "s"),
        ("peak_memory", ranked.peak_memory, "bytes"),
    ]
    if found.compile_seconds is not None:
        made.append(("compile_seconds", found.compile_seconds, "s"))
    if (gained := found.speedups.get(RANKED)) is not None:
        made.append(("speedup_at_equal_accuracy", (gained.value, gained.low, gained.high), "1"))
        made.append(("break_even_lyapunov_times", gained.break_even, lead_time))
    made.append((headline(task).metric, (found.accuracy, found.accuracy_low, found.accuracy_high), ""))
    several = {name for name, figures, _ in made if isinstance(figures, tuple) and figures[1] is not None}
    return [
        scoring.score_row(task, name, figures, ranked.repetitions if name in several else 1, unit)
        for name, figures, unit in made
    ]
