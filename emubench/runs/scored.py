"""Scored runs as entries of a comparison: read from disk, checked to stand on one footing, named, seeds together."""

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.data.tasks import Task
from emubench.evaluation.scoring import Result, rate
from emubench.files import run_files, schema, timing
from emubench.files.timing import RANKED, Speedup, Timing
from emubench.metrics._headline import headline
from emubench.runs import folders, jobs

MAX_LABEL = 48


@dataclass(frozen=True)
class ScoredRun:
    """One scored run. ``entry`` is what it counts for: runs that differ in their seed alone share it."""

    path: Path
    card: run_files.Card
    scores: run_files.ScoreFile
    throughput: float | None
    """Units of lead time per second of one of two measurements: see :meth:`rate`."""
    entry: str = ""
    timing: Timing | None = None
    benched: bool = False
    """Whether ``throughput`` is that of the best batch, and not of the forecasts that scoring asked for."""
    device: str = "cpu"
    """Where ``throughput`` was measured."""
    test_seconds: float | None = None
    counted_share: float = 1.0
    scored_on: str = "cpu"
    """What those forecasts took, and where."""
    claimed_speedup: Speedup | None = None
    """The speed-up that an entry states, whose folder holds no more of its timing."""
    result: Result | None = None
    """What an emulator got that was evaluated in memory: it has no folder, and its card says nothing of its making."""

    @cached_property
    def task(self) -> Task:
        """The task it was scored on."""
        return self.result.task if self.result else folders.task_of(self.path, self.card)

    def rate(self, benched: bool) -> float | None:
        """Units of lead time per second: of the best batch where ``benched``, else of the scored forecasts."""
        if benched == self.benched:
            return self.throughput
        return None if benched or not self.test_seconds else rate(self.task, self.test_seconds, self.counted_share)

    @property
    def kind(self) -> tuple[bool, str]:
        """What ``throughput`` is: whether it was benched, and where."""
        return self.benched, self.device

    def as_scored(self) -> "ScoredRun":
        """The run with the speed of its scored forecasts."""
        return dataclasses.replace(self, throughput=self.rate(benched=False), benched=False, device=self.scored_on)

    @property
    def speedup(self) -> Speedup | None:
        """Offline, end to end, in the plain mode, if it was measured."""
        bench = self.timing.benches.get("eager") if self.timing else None
        return bench.speedups.get(RANKED) if bench else self.claimed_speedup

    @property
    def speedup_on(self) -> str:
        """Where that was measured, as far as it is known."""
        bench = self.timing.benches.get("eager") if self.timing else None
        return f"{bench.hardware.device} ({bench.hardware.name})" if bench else self.device

    @cached_property
    def cases(self) -> np.ndarray:
        """Headline score of every case; one that is not finite is a failure and counts as the worst there is."""
        name, worst = headline(self.task).metric, headline(self.task).worst
        if not self.scores.cases.get(name):
            raise EmubenchError(f"{self.path / 'scores.json'}: cases.{name}: missing; {_again(self.path)}")
        values = np.array(self.scores.cases[name], dtype=np.float64)
        return np.where(np.isfinite(values), values, worst)

    def row(self, metric: str, worst: float) -> tuple[float, float, float] | None:
        """Value, low and high of a whole-forecast score; null stands for a failure; ``None`` if it was not scored."""
        for row in self.scores.rows:
            if row.metric == metric and row.lead_time is None:
                value = worst if row.value is None else row.value
                low, high = (value if bound is None else bound for bound in (row.low, row.high))
                return value, low, high
        return None


def _again(path: Path) -> str:
    return f"score it again with: emubench score {path} --again"


def read_run(path: Path, card: run_files.Card | None = None) -> ScoredRun:
    """The run in folder ``path``, which must have been scored; ``card`` is its card where that was read already."""
    card = card or folders.read_card(path)
    if not (path / "scores.json").exists():
        raise EmubenchError(f"{path}: has no scores yet; make them with: emubench score {path}")
    scores = schema.read_json(run_files.ScoreFile, path / "scores.json")
    if (scores.task, scores.size) != (card.task, card.size):
        found, wanted = f"{scores.task} ({scores.size})", f"{card.task} ({card.size})"
        raise EmubenchError(f"{path / 'scores.json'}: scores of {found} in a run of {wanted}; {_again(path)}")
    timed = timing.read(path)
    if timed is None:
        return ScoredRun(path, card, scores, None)
    kind: dict[str, Any] = {"benched": timed.benched, "device": timed.scored_on}
    kind |= timed.model_dump(include={"test_seconds", "counted_share", "scored_on"})
    if "eager" in timed.benches:
        hardware = timed.benches["eager"].hardware
        kind["device"] = f"{hardware.device} ({hardware.name})"
    return ScoredRun(path, card, scores, timed.lyapunov_times_per_second, timing=timed, **kind)


def comparable(paths: list[Path]) -> tuple[list[ScoredRun], list[str]]:
    """The runs that can be compared with most, named and sorted by task and entry; and why not, for each of the others.

    Of two that are one entry on one task with one seed, the first counts.
    """
    runs, faults = [], []
    for path in paths:
        try:
            run = read_run(path)
            _ = run.task, run.cases  # what can't be read is told here
            runs.append(run)
        except EmubenchError as error:
            faults.append(str(error))
    runs, others = on_one_footing(runs)
    named = name_entries(runs)
    order = {name: i for i, name in enumerate(tasks.in_order({run.task.name for run in named}))}
    named.sort(key=lambda run: (order[run.task.name], run.entry, run.card.seed))
    first: dict[tuple[str, str, int], ScoredRun] = {}
    for run in named:
        one = first.setdefault((run.task.name, run.entry, run.card.seed), run)
        if one is not run:
            same = f"both are {run.entry} on {run.task.name} with seed {run.card.seed}"
            others.append(f"{one.path} and {run.path}: {same}; compare one of them")
    return list(first.values()), faults + others


def read_runs(paths: list[Path]) -> list[ScoredRun]:
    """All runs as :func:`comparable` has them; the first that can't be compared raises :class:`EmubenchError`."""
    runs, faults = comparable(paths)
    for fault in faults:
        raise EmubenchError(fault)
    if not runs:
        raise EmubenchError("no runs to compare; make some with: emubench train BASELINE TASK")
    return runs


def of_one_kind(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The runs with speeds that compare: as they are if all are one quantity on one device, else as they were scored.

    Where the scored forecasts were made on several devices, none has a speed.
    """
    for tried in (list(runs), [run.as_scored() for run in runs]):
        if len({run.kind for run in tried if run.throughput is not None}) < 2:
            return tried
    return [dataclasses.replace(run, throughput=None) for run in runs]


Scored = Mapping[str, Result | Sequence[Result]] | str | Path | Sequence[str | Path]
"""What can be compared: results by the name of what was evaluated, or folders that hold scored runs."""


def runs_of(scored: Scored) -> list[ScoredRun]:
    """The runs at or below one folder or several, or those that stand for results; of a name's results, one per seed.

    Raises :class:`EmubenchError` where there are none, or where they don't stand on one footing.
    """
    if not isinstance(scored, Mapping):
        paths = [scored] if isinstance(scored, str | Path) else scored
        return read_runs(folders.find_runs([Path(path) for path in paths]))
    runs: list[ScoredRun] = []
    for name, results in scored.items():
        seeds: Counter[str] = Counter()
        for result in [results] if isinstance(results, Result) else results:
            runs.append(_evaluated(name, result, seeds[result.task.name]))
            seeds[result.task.name] += 1
    if not runs:
        raise EmubenchError("no results to compare; make some with: emubench.evaluate(emulator, task)")
    for fault in on_one_footing(runs)[1]:
        raise EmubenchError(fault)
    return runs


def bare_card(
    scores: run_files.ScoreFile, seed: int, baseline: str, knowledge: Any = "none", device: str = ""
) -> run_files.Card:
    """The card of what has scores alone: it says nothing of the making."""
    return run_files.Card(
        schema_version=schema.SCHEMA_VERSION,
        emubench_version=scores.emubench_version,
        baseline=baseline,
        task=scores.task,
        size=scores.size,
        seed=seed,
        data_sha256="",
        knowledge=knowledge,
        config={},
        n_parameters=0,
        train_seconds=0.0,
        threads=1,
        device=device,
    )


def _evaluated(name: str, result: Result, seed: int) -> ScoredRun:
    card = bare_card(result.scores, seed, "evaluated")
    return ScoredRun(
        Path(name), card, result.scores, result.timing.get("lyapunov_times_per_second"), name, result=result
    )


def on_one_footing(runs: list[ScoredRun]) -> tuple[list[ScoredRun], list[str]]:
    """The runs that stand on the footing of most, and a line for each that does not.

    That is one size and one version for all; one truth and as many cases for all runs of a task.
    """
    kept, faults = _as_most(runs, lambda run: (run.scores.size, run.scores.emubench_version), _other_making)
    by_task: dict[str, list[ScoredRun]] = defaultdict(list)
    for run in kept:
        by_task[run.task.name].append(run)
    off = set()
    for of_task in by_task.values():
        same, lines = _as_most(of_task, lambda run: (run.scores.truth_sha256, len(run.cases)), _other_truth)
        off |= {id(run) for run in of_task} - {id(run) for run in same}
        faults += lines
    return [run for run in kept if id(run) not in off], faults


def _as_most(
    runs: list[ScoredRun], key: Callable[[ScoredRun], Any], fault: Callable[[ScoredRun, ScoredRun], str]
) -> tuple[list[ScoredRun], list[str]]:
    """The runs whose ``key`` is the commonest (of several, the first), and the ``fault`` of each of the others."""
    counted = Counter(map(key, runs))
    one = max(runs, key=lambda run: counted[key(run)], default=None)
    if one is None:
        return [], []
    others = [run for run in runs if key(run) != key(one)]
    return [run for run in runs if key(run) == key(one)], [fault(one, run) for run in others]


def _other_making(one: ScoredRun, run: ScoredRun) -> str:
    if run.scores.size != one.scores.size:
        sizes = f"{one.path} has size {one.scores.size} and {run.path} has size {run.scores.size}"
        return f"{sizes}: give the runs of one size, such as runs/*/*/{one.scores.size}-*"
    versions = f"{one.scores.emubench_version} and {run.scores.emubench_version}"
    return f"{one.path} and {run.path} were scored by emubench {versions}; {_again(run.path)}"


def _other_truth(one: ScoredRun, run: ScoredRun) -> str:
    kind = "truths" if run.scores.truth_sha256 != one.scores.truth_sha256 else "numbers of cases"
    again = f"score both on the same data with: emubench score {one.path} {run.path} --again"
    return f"{one.path} and {run.path} were scored against different {kind} of {run.task.name}; {again}"


def _overrides(card: run_files.Card, alone: bool) -> tuple[dict[str, Any], bool]:
    """Settings in which a card differs from its baseline's defaults, and whether these are known (else: all settings).

    A card that does not state them is compared with today's defaults, but only where its baseline is not ``alone``:
    where no task has two configurations of it, they are not needed to tell entries apart.
    """
    stated = getattr(card, "overrides", None)
    if stated is not None or alone:
        return stated or {}, True
    if card.baseline not in baselines.names():
        return card.config, False
    config = dataclasses.asdict(jobs.Job(card.baseline, card.task, card.size).config())
    defaults = json.loads(json.dumps(config))
    return {k: v for k, v in card.config.items() if k not in defaults or defaults[k] != v}, True


def name_entries(runs: list[ScoredRun]) -> list[ScoredRun]:
    """Give every run its entry: the baseline, with the settings in which it differs from the defaults.

    Overriding the same settings to other values on another task is still one entry (``steps=*``); two values on one
    task are two. The default entry keeps its name and its runs whatever else is compared with it.
    """
    configs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        configs[run.card.baseline, run.card.task].add(_text(run.card.config))
    several = {baseline for (baseline, _), found in configs.items() if len(found) > 1}
    groups: dict[tuple[str, ...], list[_Member]] = defaultdict(list)
    for run in runs:
        overrides, known = _overrides(run.card, run.card.baseline not in several)
        settings = {key: _text(overrides[key]) for key in sorted(overrides)}
        groups[run.card.baseline, *settings].append((run, settings, known))
    named = []
    for (baseline, *keys), members in groups.items():
        told_apart = [key for key in keys if _varies_within_a_task(members, key)]
        variants: dict[tuple[str, ...], list[_Member]] = defaultdict(list)
        for member in members:
            variants[tuple(member[1][key] for key in told_apart)].append(member)
        for variant in variants.values():
            shown = keys if variant[0][2] else told_apart
            label = _label(baseline, {key: {settings[key] for _, settings, _ in variant} for key in shown})
            named += [dataclasses.replace(run, entry=label) for run, _, _ in variant]
    return named


_Member = tuple[ScoredRun, dict[str, str], bool]
"""A run, the settings in which it differs from the defaults as JSON, and whether these are known to be all."""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _varies_within_a_task(members: list[_Member], key: str) -> bool:
    found = {(run.card.task, settings[key]) for run, settings, _ in members}
    return len(found) > len({task for task, _ in found})


def _label(baseline: str, settings: dict[str, set[str]]) -> str:
    if not settings:
        return baseline
    parts = [f"{key}={next(iter(values)) if len(values) == 1 else '*'}" for key, values in settings.items()]
    label = f"{baseline} ({', '.join(parts)})"
    if len(label) <= MAX_LABEL:
        return label
    digest = hashlib.sha256(label.encode()).hexdigest()[:6]  # a cut label must still be its own
    return f"{label[: MAX_LABEL - 9]}… {digest})"
