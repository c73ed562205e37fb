"""``emubench submit run``: score an entry with this repository's code and compare with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emubench import task as tasks
from emubench.schema import ScoreRow
from emubench.submission import check, judge


@dataclass(frozen=True)
class Outcome:
    """One task and seed: what was found, and one line for every claim that it does not bear out."""

    judgement: judge.Judgement
    faults: tuple[str, ...]

    @property
    def rows(self) -> list[ScoreRow]:
        """The whole-forecast scores."""
        return [row for row in self.judgement.result.scores.rows if row.lead_time is None]

    def line(self) -> str:
        """For people."""
        name = check.headline(self.judgement.task)
        (row,) = (row for row in self.rows if row.metric == name)
        value = "–" if row.value is None else f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"
        speed = self.judgement.timing.get("lyapunov_times_per_second")
        timed = f", {speed:.3g} Lyapunov times per second here" if speed is not None else ""
        verdict = "FAULT" if self.faults else "ok"
        return f"{verdict:5} {self.judgement.task} seed {self.judgement.seed}: {name} {value}{timed}"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        scores = [row.model_dump() for row in self.rows]
        known = {"task": self.judgement.task, "seed": self.judgement.seed, "reason": self.judgement.reason or None}
        return known | {"faults": self.faults, "scores": scores, "timing": self.judgement.timing}


def rescore(folder: Path, data: Path, limits: judge.Limits, progress: judge.Progress | None = None) -> list[Outcome]:
    """Check the entry, then judge every task and seed of it; a failure of one leaves the others to be judged.

    Raises :class:`~emubench.errors.EmubenchError` for an entry that does not pass the check, and for missing data.
    """
    entry = check.require(folder)
    judge.check_knowledge(folder, entry)
    found = []
    for task in entry.tasks():
        for seed in entry.seeds:
            place = folder / task / f"seed-{seed}"
            judgement = judge.judge_place(entry, place, tasks.get(task, entry.size), data, seed, limits, progress)
            if judgement.reason:
                faults = [f"{place}: the emulator {judgement.reason}; its cases count as failed"]
            else:
                claims = check.read_scores(place)
                faults = judge.false_claims(place / "scores.json", claims, judgement.result.scores)
            found.append(Outcome(judgement, tuple(faults)))
    return found
