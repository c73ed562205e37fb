"""``emubench submit run``: score and bench an entry with this repository's code and compare with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.files.entry_files import SCORES, Run
from emubench.files.run_files import ScoreRow
from emubench.files.timing import RANKED, Bench
from emubench.leaderboard.submission import check, judge
from emubench.leaderboard.submission.contents import Contents
from emubench.leaderboard.submission.entries import FORECASTS
from emubench.metrics._headline import headline
from emubench.runs import bench as benches
from emubench.runs.sandbox import judged


@dataclass(frozen=True)
class Outcome:
    """One task and seed: what was found, and one line for every claim that it does not bear out."""

    judgement: judge.Judgement
    faults: tuple[str, ...]
    bench: Bench | None = None
    """Its speed on this machine, of the first seed of a task that bears its claims out."""

    @property
    def rows(self) -> list[ScoreRow]:
        """The whole-forecast scores."""
        return [row for row in self.judgement.result.scores.rows if row.lead_time is None]

    def line(self) -> str:
        """For people."""
        name = headline(self.judgement.result.task).metric
        (row,) = (row for row in self.rows if row.metric == name)
        value = "–" if row.value is None else f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"
        speed = self.judgement.result.timing.get("lyapunov_times_per_second")
        timed = f", {speed:.3g} Lyapunov times per second here" if speed is not None else ""
        if self.bench is not None and RANKED in self.bench.speedups:
            gained = self.bench.speedups[RANKED]
            timed += ", no solver measured is as accurate" if gained.value is None else f", {_gain(gained.value)}"
        verdict = "FAULT" if self.faults else "ok"
        return f"{verdict:5} {self.judgement.task} seed {self.judgement.seed}: {name} {value}{timed}"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        scores = [row.model_dump() for row in self.rows]
        known = {"task": self.judgement.task, "seed": self.judgement.seed, "reason": self.judgement.reason or None}
        measured = self.bench.model_dump() if self.bench else None
        return known | {
            "faults": self.faults,
            "scores": scores,
            "timing": self.judgement.result.timing,
            "bench": measured,
        }


def _gain(value: float) -> str:
    return f"{value:.3g} times the speed of a solver as accurate"


def rescore(
    folder: Path,
    data: Path,
    limits: judged.Limits,
    progress: judge.Progress | None = None,
    bench_seconds: float = 0.0,
) -> list[Outcome]:
    """Check the entry, then judge every task and seed of it; a failure of one leaves the others to be judged.

    With ``bench_seconds`` the first seed of every task is timed for so long per scenario, beside a ladder of solvers.
    Raises :class:`~emubench.core.errors.EmubenchError` for an entry that does not pass the check, and for missing data.
    """
    contents = check.require(folder)
    entry = contents.entry
    judge.check_method(contents)
    if entry.method != FORECASTS and not entry.has_weights:
        more = "a maintainer retrains it (emubench submit verify), and submit new --weights keeps them"
        raise EmubenchError(f"{folder}: has no weights to be run: {more}")
    ladder_seconds = min(60.0, 30 * bench_seconds)
    options = benches.Options(threads=limits.threads, seconds=bench_seconds, ladder_seconds=ladder_seconds)
    session, found = benches.Session(data, options), []
    for name, seed in entry.runs:
        where = f"{folder / SCORES}: {name}.{seed}"
        judgement = judge.judge_entry(contents, tasks.get(name, entry.size), data, seed, limits, progress)
        if judgement.reason:
            faults = [f"{where}: the emulator {judgement.reason}; its cases count as failed"]
        else:
            faults = judge.false_claims(where, contents.scores[name, seed], judgement.result.scores)
        timed = bench_seconds > 0 and seed == entry.seeds[0] and entry.method != FORECASTS and not faults
        found.append(
            Outcome(judgement, tuple(faults), _bench(contents, (name, seed), session, progress) if timed else None)
        )
    return found


def _bench(contents: Contents, run: Run, session: benches.Session, progress: judge.Progress | None) -> Bench:
    """Bench a copy of a run's folder: nothing is written into the entry."""
    with contents.unpacked(run) as folder:
        return session.bench(folder, progress)
