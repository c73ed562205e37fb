"""``emubench submit run``: score and bench an entry with this repository's code and compare with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.evaluation.scoring import Progress
from emubench.files.entry_files import SCORES, Run
from emubench.files.run_files import ScoreRow
from emubench.files.timing import RANKED, Bench
from emubench.leaderboard.submission import check, judge
from emubench.leaderboard.submission.entries import FORECASTS
from emubench.metrics._headline import headline
from emubench.runs import bench as benches
from emubench.runs.sandbox import judged


@dataclass(frozen=True)
class Outcome:
    """One task and seed: what was found, and one line for every claim that it does not bear out."""

    run: Run
    judgement: judge.Judgement
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
            gain = "no solver measured is" if gained is None else f"{gained:.3g} times the speed of a solver"
            timed += f", {gain} as accurate"
        return f"{'FAULT' if self.faults else 'ok':5} {task} seed {seed}: {row.metric} {value}{timed}"

    def as_json(self) -> dict[str, Any]:
        """The same for machines, with all scores."""
        return {
            "task": self.run[0],
            "seed": self.run[1],
            "reason": self.judgement.reason or None,
            "faults": self.faults,
            "scores": [row.model_dump() for row in self.rows],
            "timing": self.judgement.result.timing,
            "bench": self.bench.model_dump() if self.bench else None,
        }


def rescore(
    folder: Path, data: Path, limits: judged.Limits, progress: Progress | None = None, bench_seconds: float = 0.0
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
    for run in entry.runs:
        name, seed = run
        where = f"{folder / SCORES}: {name}.{seed}"
        judgement = judge.judge_entry(contents, tasks.get(name, entry.size), data, seed, limits, progress)
        if judgement.reason:
            faults = [f"{where}: the emulator {judgement.reason}; its cases count as failed"]
        else:
            faults = judge.false_claims(where, contents.scores[run], judgement.result.scores)
        bench = None
        if bench_seconds > 0 and seed == entry.seeds[0] and entry.method != FORECASTS and not faults:
            with contents.unpacked(run) as copy:  # so that nothing is written into the entry
                bench = session.bench(copy, progress)
        found.append(Outcome(run, judgement, tuple(faults), bench))
    return found
