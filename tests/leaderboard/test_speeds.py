"""A judge's speeds: timed in the cage, beside solvers on the same cases; what can't be timed honestly has none."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import torch

from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.evaluation.throughput import ladder
from emubench.files.timing import Rung
from emubench.leaderboard.submission import season_grid, speeds, verified_rows
from emubench.runs import folders, scored
from emubench.runs.grid import steps
from emubench.runs.sandbox.judged import JudgedEmulator, Limits
from tests.support import benched
from tests.support.submissions import TASK, judged_speed, verified_row

LADDER = [Rung.model_validate(one) for one in benched.LADDER]


@pytest.fixture
def asked(submitted_runs, data) -> speeds.Asked:
    """The scored run of ``linear``, to be timed."""
    (run,) = folders.find_runs([submitted_runs / "linear"])
    found = scored.read_run(run, folders.read_card(run))
    return speeds.Asked(run, tasks.get(TASK, "tiny"), data, 0, Limits(), found.cases, 1.0, 2.0)


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(speeds, "SECONDS", 0.3)


class Child(contextlib.AbstractContextManager):
    """A child in this process: the run's emulator, but for what a subclass makes of it."""

    def __init__(self, run: Path, limits: Limits) -> None:
        self.emulator, self.reason, self.calls = folders.load(run).emulator, "", 0

    def forecast(self, context, n_steps, n_members, generator) -> torch.Tensor:
        self.calls += 1
        return self.emulator.forecast(context, n_steps, n_members, generator)

    def __exit__(self, *_: object) -> None:
        pass


def use(monkeypatch, child: type[Child]) -> None:
    monkeypatch.setattr(JudgedEmulator, "of_run", child)


@pytest.mark.slow
def test_a_speed_from_the_cage_is_over_the_fastest_setting_that_is_as_accurate(asked):
    found = speeds.measure(asked, LADDER)
    assert not found.refused
    accuracies, rates = [1.0, 1.5, 0.5, 3.0], [1e4, 5e3, 1e3, 500.0]
    mean = asked.cases[:8].mean()
    best = max(rate for rate, accuracy in zip(rates, accuracies, strict=True) if accuracy >= mean - 0.1)
    rate, gained = found.lyapunov_times_per_second, found.speedup
    assert gained is not None
    assert gained.value == pytest.approx(rate.median / best)
    assert gained.low == pytest.approx(rate.low / (1.2 * best))
    assert gained.high == pytest.approx(rate.high / (0.8 * best))
    assert 0 < rate.low <= rate.median <= rate.high
    assert (found.device, found.threads) == ("cpu", torch.get_num_threads())
    assert found.where.startswith(f"cpu: {found.processor}, ")


def test_the_ladder_of_a_task_is_kept_as_it_was_timed(data, tmp_path):
    step = steps.describe("ladder", "ladder", task=TASK, size="tiny", seconds=0.5, threads=1, device="cpu")
    assert season_grid.run(step, data, tmp_path).error == ""
    kept = season_grid._read(season_grid.Ladder, step, tmp_path).rungs
    cases = scoring.Cases.load(tasks.get(TASK, "tiny"), data)
    assert 0 < len(kept) <= len(ladder.settings(cases.task))
    assert all(len(rung.cases) == len(cases.truth) for rung in kept)
    assert steps.is_done(step, data, tmp_path)


def test_what_dies_while_it_is_timed_has_no_speed_and_says_why(asked, monkeypatch):
    class Dies(Child):
        def forecast(self, *given) -> torch.Tensor:
            self.reason = "died (SIGKILL) at a forecast"
            return torch.full_like(super().forecast(*given), torch.nan)

    use(monkeypatch, Dies)
    found = speeds.measure(asked, LADDER)
    assert found.refused.endswith("while it was timed, it died (SIGKILL) at a forecast")
    assert (found.lyapunov_times_per_second.median, found.speedup) == (0.0, None)


def test_a_batch_that_is_too_large_is_not_timed(asked, monkeypatch):
    class Small(Child):
        def forecast(self, context, *given) -> torch.Tensor:
            made = super().forecast(context, *given)
            if len(context) > 64 or self.reason:
                self.reason = "died at a forecast"
                made = made * torch.nan
            return made

    use(monkeypatch, Small)
    found = speeds.measure(asked, LADDER)
    assert (found.refused, found.batch) == ("", 64)


def test_a_child_that_remembers_is_refused(asked, monkeypatch):
    class Remembers(Child):
        def forecast(self, context, *given) -> torch.Tensor:
            known = self.__dict__.setdefault("known", {})
            key = context.numpy().tobytes()
            if key not in known:
                time.sleep(0.02)
                known[key] = super().forecast(context, *given)
            return known[key]

    use(monkeypatch, Remembers)
    monkeypatch.setattr(speeds, "ATTEMPTS", 1)
    found = speeds.measure(asked, LADDER)
    assert "is something cached?" in found.refused
    assert found.speedup is None


def test_a_child_that_fills_up_its_later_forecasts_is_refused(asked, monkeypatch):
    class Fills(Child):
        def forecast(self, context, n_steps, *given) -> torch.Tensor:
            made = super().forecast(context, n_steps, *given)
            return made if self.calls < 2 else made[:, :, :1].expand_as(made)

    use(monkeypatch, Fills)
    assert "the timed forecast is not the scored one" in speeds.measure(asked, LADDER).refused


# --- rows -------------------------------------------------------------------------------------------------------------


def unsound(**changed) -> list[str]:
    row = verified_row(lyapunov_times_per_second=100.0, **changed)
    return list(verified_rows.unsound("row", "", row, "tiny"))


def test_rows_are_read_with_a_speed_and_without():
    assert unsound() == []
    assert unsound(speed=judged_speed(100.0)) == []
    assert unsound(speed=judged_speed(100.0, None)) == []
    old = verified_row().model_dump(exclude={"speed"})
    assert verified_rows.VerifiedRow(**old).speed is None


def test_a_speed_that_contradicts_its_row_is_named():
    (line,) = unsound(speed=judged_speed(100.0, ranked=False))
    assert "speed: ranked is False, where True follows" in line
    (line,) = unsound(speed=judged_speed(90.0))
    assert "speed: 90.0 where lyapunov_times_per_second is 100.0" in line
    speed = judged_speed(100.0)
    assert speed.speedup is not None
    falling = speed.speedup.model_copy(update={"low": 9.0})
    (line,) = unsound(speed=judged_speed(100.0, speedup=falling))
    assert "where three rising numbers belong" in line
