"""An ensemble's halves are independent: members that stand on opposite sides by half and site gain nothing.

Truth and honest members are standard normal at every site. The attack draws normals of one sign, alternating from site
to site, and gives the other half the other sign: either sign as often makes the same law.
"""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

import pytest
import torch

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.data import tasks
from emubench.emulator import Asked, Copies, checked_ensemble
from emubench.evaluation.forecast import forecast_chunk
from emubench.metrics import Truth, crps, energy_score, rank_histogram, spread_skill
from emubench.runs.sandbox.judged import JudgedEmulator, Limits, Processes

TASK = tasks.get("kpz-noisy", "tiny")
CASES, STEPS = 16, 2
CONTEXT = torch.zeros(CASES, 4, *TASK.shape, dtype=torch.float64)
SIDES = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(TASK.shape[0] // 2)
BEST = {crps: 1 / math.sqrt(math.pi), energy_score: 1 / math.sqrt(2), rank_histogram: 0.0}
"""What the perfect law scores: a single site, many sites, any."""


class Honest:
    """Independent standard normals."""

    def forecast(self, context, n_steps, n_members, generator):
        shape = (n_members, len(context), n_steps, *context.shape[2:])
        return torch.randn(shape, generator=generator, dtype=torch.float64)


class Sided(Honest):
    """Normals on one side, chosen for the whole call."""

    def side(self, generator: torch.Generator) -> float:
        raise NotImplementedError

    def forecast(self, context, n_steps, n_members, generator):
        return self.side(generator) * SIDES * super().forecast(context, n_steps, n_members, generator).abs()


class ByCount(Sided):
    """Counts its calls."""

    calls = 0

    def side(self, generator):
        self.calls += 1
        return (-1.0) ** self.calls


class ByPublicSeed(Sided):
    """Knows which seeds begin a public evaluation: that of a second half is none of them."""

    def side(self, generator):
        public = {torch_stream(seed, "forecast", TASK.name, "test", 0).initial_seed() for seed in range(3)}
        return 1.0 if generator.initial_seed() in public else -1.0


class ByLot(Sided):
    """Knows nothing but its own random numbers."""

    def side(self, generator):
        return 1.0 - 2.0 * float(torch.randint(2, (), generator=generator))


def scored(module, made: torch.Tensor, seed: int = 0) -> float:
    values = Honest().forecast(CONTEXT[: made.shape[1]], STEPS, 1, torch_stream(seed, "truth"))[0]
    summary = module.summarise(made, Truth(TASK, values, torch.arange(len(values)) % 2))
    return float(summary.finish(summary.cases.mean(0))[0])


def loss(module, made: torch.Tensor) -> float:
    """How far the score is from the best there is."""
    value = scored(module, made)
    return abs(value - 1) if module is spread_skill else value - BEST[module]


def local(emulator, first: int = 0) -> torch.Tensor:
    return forecast_chunk(emulator, TASK, "test", CONTEXT, first, 0, STEPS)


def judged(emulator: Any, calls: list | None = None) -> Processes:
    """A judge whose processes are copies that were never asked."""

    def start() -> Any:
        one = contextlib.nullcontext(type(emulator)())
        one.enter_result.reason = one.enter_result.told = ""
        if calls is not None:
            calls.append(one.enter_result)
        return one

    return Processes(start)


SCORES = [crps, energy_score, spread_skill, rank_histogram]


def test_the_attack_is_one_where_the_halves_are_told_apart():
    for attack in (ByCount(), ByPublicSeed()):
        generator = torch_stream(0, "forecast", TASK.name, "test", 0)
        made = checked_ensemble(Asked(attack), CONTEXT, STEPS, 16, generator)
        assert scored(crps, made) == pytest.approx(2 / math.sqrt(math.pi) - math.sqrt(2 / math.pi), abs=0.02)
        assert loss(spread_skill, made) < 0.06
        assert loss(rank_histogram, made) < 0.2


@pytest.mark.parametrize("module", SCORES)
def test_halves_that_are_told_apart_by_a_count_of_calls_gain_nothing(module):
    honest = loss(module, local(Honest()))
    assert loss(module, local(ByCount())) > honest
    assert loss(module, local(judged(ByCount()))) > honest


@pytest.mark.parametrize("module", SCORES)
def test_halves_that_are_told_apart_by_public_seeds_gain_nothing_before_the_judge(module):
    assert loss(module, local(judged(ByPublicSeed()))) > loss(module, local(Honest()))


def test_who_sees_a_seed_alone_scores_on_average_as_its_law_does():
    """The law is the perfect one, whatever the members of a call share; luck is left, and the parts make it small."""
    n = 100
    made = [checked_ensemble(judged(ByLot()), CONTEXT[:2], STEPS, 16, torch.Generator()) for _ in range(n)]
    found, energy = (
        torch.tensor([scored(module, one, i) for i, one in enumerate(made)]) for module in (crps, energy_score)
    )
    assert float(found.mean()) == pytest.approx(BEST[crps], abs=4 * float(found.std()) / n**0.5)
    assert float(energy.mean()) > BEST[energy_score] - 4 * float(energy.std()) / n**0.5
    most = math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi)  # what opposite halves gain
    assert float(found.std()) < 0.5 * most  # a quarter of what is at stake if a half is one call


def test_the_judge_draws_seeds_that_nobody_can_know_and_asks_each_process_once():
    class Recorder(Honest):
        seeds: list[int] = []  # of all objects

        def forecast(self, context, n_steps, n_members, generator):
            self.asked = getattr(self, "asked", 0) + 1
            self.seeds.append(generator.initial_seed())
            return super().forecast(context, n_steps, n_members, generator)

    calls: list = []
    one, two = (local(judged(Recorder(), calls)) for _ in range(2))
    assert one.shape == (16, CASES, STEPS, *TASK.shape)
    assert not torch.equal(one, two)
    assert [c.asked for c in calls] == [1] * 16
    assert len(set(Recorder.seeds)) == 16
    public = torch_stream(0, "forecast", TASK.name, "test", 0).initial_seed()
    assert not {public, torch_stream(public, "second half").initial_seed()} & set(Recorder.seeds)


def test_the_seed_of_a_single_member_is_the_public_one_in_the_judge_as_well():
    """So that another machine's scores can be compared with those claimed."""
    generator = torch_stream(0, "forecast")
    assert judged(Honest()).parts(1, generator) == [(1, generator)]


def test_no_chunk_depends_on_what_was_asked_before():
    class Remembers(Honest):
        seen = 0

        def forecast(self, context, n_steps, n_members, generator):
            self.seen += 1
            return self.seen * super().forecast(context, n_steps, n_members, generator)

    emulator = Remembers()
    first, second = local(emulator, 0), local(emulator, 64)
    assert torch.equal(local(Honest(), 64), second)
    assert torch.equal(local(Honest(), 0), first)
    assert emulator.seen == 0


def test_a_deterministic_forecast_is_that_of_the_first_stream_in_any_order():
    class Single(Honest):
        def forecast(self, context, n_steps, n_members, generator):
            return super().forecast(context, n_steps, 1, generator)

    found = [local(Single()) for _ in range(8)]  # one order in 256 is the same eight times
    assert all(torch.equal(f, found[0]) for f in found)
    assert len(found[0]) == 1


def test_an_emulator_that_cannot_be_copied_is_refused_in_one_line():
    class Locked(Honest):
        def __init__(self):
            self.lines = (line for line in ())

    with pytest.raises(EmubenchError, match=r"^Locked: copy.deepcopy can't copy it \(TypeError: .*\)$"):
        checked_ensemble(Copies(Locked()), CONTEXT, STEPS, 1, torch.Generator())


# --- processes of their own -------------------------------------------------------------------------------------------

CHILD = """
import json, os, struct, sys
def take(n):
    content = b''
    while len(content) < n:
        content += os.read(0, n - len(content))
    return content
os.write(1, b'EMUBR' + struct.pack('<I', 2) + b'{}')
n = 0.0
while True:
    header = json.loads(take(struct.unpack('<I', take(9)[5:])[0]))
    take(8 * 2 * 4 * 256)
    n += 1
    if header['n_members'] == MEMBERS_OF_DEATH:
        os.abort()
    shape = [header['n_members'], 2, header['n_steps'], 256]
    values = struct.pack('<d', n) * (shape[0] * shape[1] * shape[2] * shape[3])
    head = json.dumps({'dtype': '<f8', 'shape': shape}).encode()
    os.write(1, b'EMUBF' + struct.pack('<I', len(head)) + head + values)
"""


def processes(dies_at: int, started: list) -> Processes:
    def start() -> JudgedEmulator:
        script = CHILD.replace("MEMBERS_OF_DEATH", str(dies_at))
        one = JudgedEmulator([sys.executable, "-S", "-c", script], Limits(start_seconds=60.0, call_seconds=60.0))
        started.append(one)
        one.wait_until_ready()
        return one

    return Processes(start)


def test_each_call_goes_to_a_process_of_its_own():
    started: list = []
    asked = processes(0, started)
    made = [checked_ensemble(asked, CONTEXT[:2], STEPS, m, torch.Generator()) for m in (5, 1)]
    assert asked.reason == ""
    assert [len(m) for m in made] == [5, 1]
    assert all((m == 1).all() for m in made)  # the first answer of its process
    assert len(started) == 4
    assert all(one._process.poll() is not None for one in started)


def test_a_process_that_dies_fails_its_cases_and_no_other_is_started():
    started: list = []
    asked = processes(1, started)
    made = checked_ensemble(asked, CONTEXT[:2], STEPS, 5, torch.Generator())  # calls of 2, 1 and 2
    assert made.isnan().all()
    assert "died (SIGABRT) at a forecast of 2 cases" in asked.reason
    n = len(started)
    assert checked_ensemble(asked, CONTEXT[:2], STEPS, 1, torch.Generator()).isnan().all()
    assert len(started) == n <= 3


def test_in_the_judge_an_ensemble_that_changes_its_mind_has_failed():
    class Fickle(Honest):
        calls = 0

        def forecast(self, context, n_steps, n_members, generator):
            Fickle.calls += 1
            return super().forecast(context, n_steps, n_members if Fickle.calls < 3 else 1, generator)

    asked = judged(Fickle())
    assert local(asked).isnan().all()
    assert asked.reason == "forecast: 1 of 2 members in one call, and otherwise in another"
