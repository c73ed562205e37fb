"""The judge: truth, metrics and clock are this process's; the judged emulator is a child that answers contexts.

A child that hangs, dies, floods or answers with garbage fails the cases that it was asked for and all that follow,
which are scored as failures, with the reason kept; then the next entry is scored.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from emubench import baselines
from emubench.core import hardware
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.data.tasks import Task
from emubench.evaluation import scoring
from emubench.evaluation.scoring import Progress
from emubench.files import run_files, timing
from emubench.files.entry_files import CARDS, SCORES, RunKey
from emubench.files.run_files import ScoreRow
from emubench.files.timing import RANKED, Bench
from emubench.leaderboard.submission import checks, making
from emubench.leaderboard.submission.entries import FORECASTS, Contents, asked
from emubench.metrics._headline import headline
from emubench.runs import benches, jobs
from emubench.runs.sandbox.judged import JudgedEmulator, Limits, Processes

ROUND_OFF = 0.1
"""Share of a score's 95 % interval by which another machine's round-off may move it.

``random_features`` on lorenz63-clean, the longest valid prediction time, moves by 0.0002 of it on another processor.
"""
CHAOS = 10.0
"""Units of lead time after which round-off may have grown to another run: single precision has 16 factors of e."""
HEADLINE_MEMBERS, OTHER_MEMBERS = 0.6, 2.0
"""Share of it by which the judge's random numbers may move an ensemble's headline, and its other scores.

Chaos draws the runs of the climate as much anew on another machine, and what forecasts say of leads beyond ``CHAOS``.
Where nothing else moves a score, two draws differ with √2 of the interval's standard deviation: by four of these in
1.44 of the interval, whose ends move more. Of the oracle's CRPS on kpz-noisy it is 0.15. Few cases say less of both, by
Student's t.
"""
HEADLINE_WIDTHS, OTHER_WIDTHS = 2.0, 8.0
"""Factor by which its intervals may be wider or narrower: with eight cases moments have had ninefold ones."""
CASES = 0.95
"""Distance of an ensemble's scores of single cases from those found, in units of these cases' from their mean.

Equal scores for all are 1 away. Draws of the oracle on the 16 of tiny kpz-noisy are 0.49 ± 0.11 apart, at most 0.93.
"""


@dataclass(frozen=True)
class Judgement:
    """What the judge found of one task and seed; ``reason`` says why cases failed, if the child did.

    ``told`` says it with the child's own words, which are shown to whoever runs it and kept nowhere.
    """

    result: scoring.Result
    reason: str = ""
    told: str = ""


def judge_run(
    folder: Path, task: Task, data: Path, seed: int, limits: Limits, progress: Progress | None = None
) -> Judgement:
    """Score the run in ``folder`` in child processes, one for each call, on the truth below ``data``."""
    judged = Processes(partial(JudgedEmulator.of_run, folder, limits))
    result = scoring.evaluate(judged, task, data, seed=seed, progress=progress)
    result.timing.update(dict.fromkeys(("device", "scored_on"), hardware.described(torch.device(limits.device))))
    return Judgement(result, judged.reason, judged.told or judged.reason)


def judge_entry(
    found: Contents, task: Task, data: Path, seed: int, limits: Limits, progress: Progress | None = None
) -> Judgement:
    """Score one task and seed of an entry: its forecast file, or its weights."""
    run = task.name, seed
    if found.entry.method == FORECASTS:
        return Judgement(scoring.score_forecast(found.path(run), task, data, progress))
    with found.unpacked(run) as folder:
        return judge_run(folder, task, data, seed, limits, progress)


def check_method(found: Contents) -> None:
    """Raise :class:`EmubenchError` unless the entry declares what its method's file does.

    That is the file's ``knowledge``, and in every card the settings that its defaults and the ``overrides`` give.
    """
    folder, entry = found.folder, found.entry
    if entry.method == FORECASTS:
        return
    if (known := baselines.get(entry.method).knowledge) != entry.knowledge:
        raise EmubenchError(f"{folder}/entry.toml: knowledge: {entry.knowledge!r}, where {entry.method} says {known!r}")
    for task in entry.tasks:
        job = jobs.Job(entry.method, task, entry.size, overrides=entry.overrides.get(task, {}))
        config = json.loads(json.dumps(dataclasses.asdict(job.config())))
        for seed in entry.seeds:
            stated = found.cards[task, seed].config
            for name in sorted(config.keys() | stated.keys()):
                if (one := stated.get(name)) != (two := config.get(name)):
                    fault = f"{one!r}, where {entry.method}'s defaults and entry.toml's overrides give {two!r}"
                    raise EmubenchError(f"{folder / CARDS}: {task}.{seed}: config: {name}: {fault[:200]}")


def false_claims(where: str, claimed: run_files.ScoreFile, result: scoring.Result) -> list[str]:
    """One line for every metric of which a row is claimed that was not found, or the other way round.

    Rows are compared with their intervals, per-case scores one by one, and both have to be of one truth.
    """
    found, faults = result.scores, dict[str, str]()
    for fault in checks.differing(where, {"truth_sha256": (claimed.truth_sha256, found.truth_sha256)}):
        faults["truth_sha256"] = f"{fault}: it was scored on other data"
    left = {(row.metric, row.lead_time): row for row in found.rows}
    for row in claimed.rows:
        what, judged = checks.named(row.metric, row.lead_time), left.pop((row.metric, row.lead_time), None)
        if judged is None:
            faults.setdefault(row.metric, f"{where}: {what}: no such score is known")
        elif not Leeway.of(row.metric, row.lead_time, judged.n_cases, result).allows(row, judged):
            shown, wanted = _shown(row), _shown(judged)
            faults.setdefault(row.metric, f"{where}: {what}: {shown} is claimed, {wanted} was found")
    for metric, lead_time in left:
        faults.setdefault(metric, f"{where}: {checks.named(metric, lead_time)}: is not claimed, and was found")
    for name, values in found.cases.items():
        stated = claimed.cases.get(name, [])
        share = CASES if name in result.of_ensembles else ROUND_OFF
        if len(stated) != len(values) or math.dist(stated, values) > share * spread(values):
            faults.setdefault(name, f"{where}: cases.{name}: other values than were found")
    return list(faults.values())


def spread(values: list[float]) -> float:
    """Distance of the values from their mean, all of them together; of equal ones that of round-off."""
    return max(math.dist(values, [math.fsum(values) / len(values)] * len(values)), 1e-6 * math.hypot(*values), 1e-9)


@dataclass(frozen=True)
class Leeway:
    """By which share of its interval a score may move, and by which factor the interval may be another."""

    share: float
    widths: float = 1.0
    ends: tuple[float, ...] = ()
    """The ends of the score's range: all cases can lie there, so that an interval has no width."""

    @classmethod
    def of(cls, metric: str, lead_time: float | None, n_cases: int, result: scoring.Result) -> "Leeway":
        """That of a row; the starts of a task are scored apart, so that a share of ``n_cases`` has to do."""
        if metric not in result.of_ensembles and not _parted(metric, lead_time, result.task):
            return cls(ROUND_OFF)
        known = asked().scores[result.task.name].get(metric)
        ends = known.bounds if known else ()
        few = float(stats.t.isf(stats.norm.sf(4), max(n_cases // len(result.task.system.starts) - 1, 1))) / 4
        if lead_time is None and metric in (headline(result.task).metric, "skill_accuracy"):
            return cls(few * HEADLINE_MEMBERS, few * HEADLINE_WIDTHS, ends)
        return cls(few * OTHER_MEMBERS, few * OTHER_WIDTHS, ends)

    def allows(self, row: ScoreRow, judged: ScoreRow) -> bool:
        """Whether value, low and high of a row are those that were found."""
        if (row.unit, row.n_cases) != (judged.unit, judged.n_cases):
            return False
        one, two = (0.0 if r.low is None or r.high is None else r.high - r.low for r in (row, judged))
        least = max(1e-6 * abs(judged.value or 0.0), 1e-9)
        if row.value == judged.value and row.value in self.ends:
            one = two = max(one, two)  # here all cases lie there, on another machine all but a few
        if self.widths > 1 and not (one + least) / self.widths <= two + least <= (one + least) * self.widths:
            return False
        most = max(self.share * (math.sqrt(one * two) if self.widths > 1 else two), least)
        pairs = ((row.value, judged.value), (row.low, judged.low), (row.high, judged.high))
        return all(a == b if a is None or b is None else abs(a - b) <= most for a, b in pairs)


def _parted(metric: str, lead_time: float | None, task: Task) -> bool:
    """Whether a score is of runs that another machine's round-off parts from these."""
    known = asked().scores[task.name].get(metric)
    climate = known is not None and known.split == "climate"
    return not task.system.scored_in_law and (climate or (lead_time or 0.0) > CHAOS)


def _shown(row: ScoreRow) -> str:
    value, low, high = ("nothing" if end is None else f"{end:.5g}" for end in (row.value, row.low, row.high))
    return f"{value} [{low}, {high}]"


# --- a whole entry ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One task and seed: what was found, and one line for every claim that it does not bear out."""

    run: RunKey
    judgement: Judgement
    faults: tuple[str, ...]
    bench: Bench | None = None
    """Its speed on this machine, of the first seed of a task that bears its claims out."""

    @property
    def rows(self) -> list[ScoreRow]:
        """The whole-forecast scores."""
        return [row for row in self.judgement.result.scores.rows if row.lead_time is None]

    def line(self) -> str:
        """One line for people."""
        result, (task, seed) = self.judgement.result, self.run
        (row,) = (row for row in self.rows if row.metric == headline(result.task).metric)
        value = "–" if row.value is None else f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"
        speed = result.timing.get("lyapunov_times_per_second")
        timed = f", {speed:.3g} Lyapunov times per second here" if speed is not None else ""
        if self.bench is not None and RANKED in self.bench.speedups:
            gained = self.bench.speedups[RANKED].value
            shown = "no solver measured is" if gained is None else f"{gained:.3g} times the speed of a solver"
            timed += f", {shown} as accurate"
        return f"{'FAULT' if self.faults else 'ok':5} {task} seed {seed}: {row.metric} {value}{timed}"

    def as_json(self) -> dict[str, Any]:
        """All of it for machines."""
        return {
            "task": self.run[0],
            "seed": self.run[1],
            "reason": self.judgement.told or None,
            "faults": self.faults,
            "scores": [row.model_dump() for row in self.rows],
            "timing": self.judgement.result.timing,
            "bench": self.bench.model_dump() if self.bench else None,
        }


def rescore(
    folder: Path, data: Path, limits: Limits, progress: Progress | None = None, bench_seconds: float = 0.0
) -> list[Outcome]:
    """Check the entry, then judge every task and seed of it; a failure of one leaves the others to be judged.

    With ``bench_seconds`` the first seed of every task is timed for so long per scenario, beside a ladder of solvers,
    and the entry keeps that.
    Raises :class:`~emubench.core.errors.EmubenchError` for an entry that does not pass the check, and for missing data.
    """
    contents = checks.require(folder)
    entry = contents.entry
    check_method(contents)
    if entry.method != FORECASTS and not entry.has_weights:
        more = "a maintainer retrains it (emubench submit verify), and submit new --weights keeps them"
        raise EmubenchError(f"{folder}: has no weights to be run: {more}")
    ladder_seconds = min(60.0, 30 * bench_seconds)
    kept = {"threads": limits.threads, "device": limits.device}
    options = benches.Options(**kept, seconds=bench_seconds, ladder_seconds=ladder_seconds)
    session, found, measured = benches.Session(data, options), [], {}
    for run in entry.runs:
        name, seed = run
        where = f"{folder / SCORES}: {name}.{seed}"
        judgement = judge_entry(contents, tasks.get(name, entry.size), data, seed, limits, progress)
        if judgement.reason:
            faults = [f"{where}: the emulator {judgement.told}; its cases count as failed"]
        else:
            faults = false_claims(where, contents.scores[run], judgement.result)
        bench = None
        if bench_seconds > 0 and seed == entry.seeds[0] and entry.method != FORECASTS and not faults:
            with contents.unpacked(run) as copy:  # so that nothing but its timing is written into the entry
                bench = session.bench(copy, progress)
                measured[run] = timing.read(copy)
        found.append(Outcome(run, judgement, tuple(faults), bench))
    making.keep_timing(contents, measured)
    return found
