"""Timing: the arithmetic of scenarios, and the checks that what is timed is what is scored."""

from __future__ import annotations

import contextlib
import itertools
import time

import pytest
import torch

from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device, peak_memory
from emubench.data import dataset, tasks
from emubench.emulator import step_forecast
from emubench.evaluation import scoring
from emubench.evaluation.forecast import counted_share
from emubench.evaluation.throughput import stopwatch
from emubench.evaluation.throughput.audit import check_batches, check_caching, check_equal, check_samples, check_scores
from emubench.evaluation.throughput.stopwatch import EndToEnd, RolloutOnly, Subject, measure, record, scenario_of
from emubench.metrics._headline import headline
from tests.support.steppers import MapStepper

TASK = tasks.get("lorenz63-clean", "tiny")
COST = 2e-3
CPU = torch.device("cpu")


def tent(state):
    """A cheap chaotic map in units of the system's σ, bounded by construction."""
    return 8.0 * torch.sin(1.7 * state + 0.3)


class Honest(MapStepper):
    """Takes as long for every forecast as it has steps to do."""

    def __init__(self):
        super().__init__(tent)
        self.calls = 0

    def forecast(self, context, n_steps, n_members, generator):
        self.calls += 1
        time.sleep(COST)
        return super().forecast(context, n_steps, n_members, generator)


class Caching(Honest):
    """Remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.known = {}

    def forecast(self, context, n_steps, n_members, generator):
        key = context.nan_to_num(7.0).numpy().tobytes()
        if key not in self.known:
            self.known[key] = super().forecast(context, n_steps, n_members, generator)
        return self.known[key].clone()


class EarlyReturn(Honest):
    """Once it has been warmed up, steps through half of the horizon and repeats the last state."""

    def forecast(self, context, n_steps, n_members, generator):
        self.calls += 1
        if self.calls < 3:
            return step_forecast(self, context, n_steps, n_members, generator)
        half = step_forecast(self, context, n_steps // 2, n_members, generator)
        return torch.cat([half, half[:, :, -1:].expand(-1, -1, n_steps - n_steps // 2, -1)], dim=2)


class SkippedSteps(Honest):
    """Once it has been warmed up, does every second step and interpolates between them."""

    def forecast(self, context, n_steps, n_members, generator):
        self.calls += 1
        whole = step_forecast(self, context, n_steps, n_members, generator)
        if self.calls < 3:
            return whole
        whole[:, :, 1:-1:2] = 0.5 * (whole[:, :, :-2:2] + whole[:, :, 2::2])
        return whole


class BatchSized(Honest):
    """Steps only in batches of the scorer's size, 16 of these contexts; in others it repeats the first sample."""

    def forecast(self, context, n_steps, n_members, generator):
        whole = step_forecast(self, context, n_steps if len(context) == 16 else 1, n_members, generator)
        return whole if len(context) == 16 else whole.expand(-1, -1, n_steps, -1).clone()


class ByNeighbours(Honest):
    """Steps one case in the batch, and gives all others its forecast, moved to their start."""

    def forecast(self, context, n_steps, n_members, generator):
        return step_forecast(self, context[:1], n_steps, n_members, generator).repeat(1, len(context), 1, 1)


class Filling(Honest):
    """Repeats a quarter of the test horizon, and of that alone; scored and timed alike."""

    def forecast(self, context, n_steps, n_members, generator):
        if n_steps != TASK.test_steps:
            return step_forecast(self, context, n_steps, n_members, generator)
        part = step_forecast(self, context, n_steps // 4, n_members, generator)
        return part.repeat(1, 1, 5, 1)[:, :, :n_steps].clone()


class Drawing:
    """Turns slowly, from a start with an error that is drawn for the whole batch."""

    def forecast(self, context, n_steps, n_members, generator):
        start = context[:, -1] + 0.01 * torch.randn(context[:, -1].shape, generator=generator, dtype=context.dtype)
        angle = 0.1 * torch.arange(1, 1 + n_steps, dtype=context.dtype)[:, None]
        return (angle.cos() * start[:, None] + angle.sin() * start.roll(1, dims=-1)[:, None])[None]


class DrawingAlone(Drawing):
    """Is right in batches of the scorer's size alone."""

    def forecast(self, context, n_steps, n_members, generator):
        return super().forecast(context if len(context) == 16 else -context, n_steps, n_members, generator)


def subject(emulator, name="net", **more) -> Subject:
    contexts = torch.randn(16, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Subject(name, emulator, TASK, contexts, seconds=0.2, **more)


def timed_samples(emulator, batch=4):
    who = subject(emulator)
    scenario, samples = measure(who, EndToEnd(), batch, "offline_end_to_end")
    return who, {"offline_end_to_end": scenario}, samples


def test_an_honest_emulator_passes_all_checks():
    who, scenarios, samples = timed_samples(Honest())
    check_caching("net", scenarios)
    check_samples(who, samples, Honest(), "float64")
    assert sorted(s.fresh for s in samples) == [False, True]
    scenario = scenarios["offline_end_to_end"]
    assert scenario.seconds.median > COST
    assert scenario.repetitions >= 3
    per_call = 4 * TASK.test_steps
    assert scenario.trajectory_steps_per_second.median == pytest.approx(per_call / scenario.seconds.median)
    lead_times = scenario.trajectory_steps_per_second.median * TASK.lead_time_step
    assert scenario.lyapunov_times_per_second.median == pytest.approx(lead_times)
    assert scenario.lyapunov_times_per_second.low <= scenario.lyapunov_times_per_second.median


def test_a_cache_is_caught():
    _, scenarios, _ = timed_samples(Caching())
    with pytest.raises(EmubenchError, match="net: offline_end_to_end: inputs seen before took .* is something cached?"):
        check_caching("net", scenarios)


def test_an_early_return_is_caught():
    who, _, samples = timed_samples(EarlyReturn())
    with pytest.raises(EmubenchError, match="the timed forecast ends early: over its last quarter") as caught:
        check_samples(who, samples, Honest(), "float64")
    assert "\n" not in str(caught.value)


def test_skipped_steps_are_caught():
    who, _, samples = timed_samples(SkippedSteps())
    with pytest.raises(EmubenchError, match="the timed forecast is not the scored one: they differ by"):
        check_samples(who, samples, Honest(), "float64")


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
@pytest.mark.parametrize(
    ("emulator", "words"),
    [
        (Honest, ""),
        (Drawing, ""),
        (BatchSized, "net: offline_end_to_end, .* input, in another batch: the timed forecast is not the scored one"),
        (ByNeighbours, "in another batch: the timed forecast is not the scored one: they differ by"),
        (DrawingAlone, "in another batch: the timed forecast is not the scored one: .* where random numbers make 0.00"),
        (Filling, "a forecast of 4416 samples leaves that of 442 at sample 111: the timed one stops there"),
    ],
)
def test_a_timed_forecast_depends_on_no_batch_and_no_horizon(emulator, words, batch):
    """At every batch: a case is asked again among others, at another place, in a batch of another size."""
    who, _, samples = timed_samples(emulator(), batch)
    check_samples(who, samples, emulator(), "float64")  # the same batch sees none of it
    with pytest.raises(EmubenchError, match=words) if words else contextlib.nullcontext():
        check_batches(who, samples, emulator(), "float64")


def moving(*shape, kind="test"):
    return 8 * torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def stops(forecast, at, rest):
    forecast = forecast.clone()
    forecast[:, :, at:] = forecast[:, :, at - 1 : at] if rest is None else rest
    return forecast


def between(forecast, leads):
    """Right at these leads alone, and straight lines between them."""
    ends = [0, *(lead - 1 for lead in leads)]
    for a, b in itertools.pairwise(ends):
        share = (torch.arange(a, b + 1) - a).double()[:, None] / max(b - a, 1)
        forecast[:, :, a : b + 1] = (1 - share) * forecast[:, :, a : a + 1] + share * forecast[:, :, b : b + 1]
    return forecast


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda f: f, 1.0),
        (lambda f: f[:, :1], 1.0),
        (lambda f: stops(f, 32, None), 32 / 128),
        (lambda f: stops(f, 32, 0.0), 33 / 128),  # the jump to zero is a change
        (lambda f: stops(f, 32, torch.nan), 32 / 128),
        (lambda f: stops(f, 1, None), 1 / 128),
        (lambda f: torch.full_like(f, torch.nan), 1 / 128),
        (lambda f: between(f.clone(), (1, 2, 4, 8, 16, 32, 64, 128)), 16 / 128),
        (lambda f: f.repeat_interleave(4, dim=2)[:, :, :128], 32 / 128),
    ],
    ids=["whole", "one case", "constant", "zero", "failed", "persistence", "nothing", "scored leads", "repeated"],
)
def test_speed_counts_samples_at_which_the_forecast_moves(change, share):
    found = counted_share(change(moving(2, 16, 128, 3)), TASK)
    assert found == pytest.approx(share, abs=0.002)


def test_speed_counts_no_samples_that_are_made_up_between_the_scored_leads():
    """Of what is scored in law, noise of the right variance moves, and is nowhere near."""
    task = tasks.get("kpz-noisy", "tiny")
    noise = torch.randn(2, 16, 128, 256, generator=torch.Generator().manual_seed(0))
    walk = torch.zeros_like(noise)
    for t in range(1, 128):
        walk[:, :, t] = 0.98 * walk[:, :, t - 1] + 0.2 * noise[:, :, t]
    at_leads = noise.clone()
    at_leads[:, :, [lead - 1 for lead in (1, 2, 4, 8, 16, 32, 64, 128)]] = walk[:, :, [0, 1, 3, 7, 15, 31, 63, 127]]
    assert counted_share(walk, task) == 1.0
    assert counted_share(at_leads, task) == 2 / 128
    assert counted_share(at_leads[..., :3], TASK) > 0.9  # where all samples are scored it is a matter of scores


def test_a_forecast_that_stops_early_is_no_faster():
    """By the stopwatch: a quarter of the steps in a quarter of the time counts as a quarter."""

    class Quarter(Honest):
        def forecast(self, context, n_steps, n_members, generator):
            part = step_forecast(self, context, n_steps // 4, n_members, generator)
            return torch.cat([part, part[:, :, -1:].expand(-1, -1, n_steps - n_steps // 4, -1)], dim=2)

    found = scenario_of(TASK, 1, 1, [1.0], [1.0], 0, counted_share(ask(Quarter()), TASK))
    assert found.trajectory_steps_per_second.median == pytest.approx(TASK.test_steps / 4, rel=0.01)
    whole = scenario_of(TASK, 1, 1, [4.0], [4.0], 0, counted_share(ask(Honest()), TASK))
    assert found.lyapunov_times_per_second.median == pytest.approx(whole.lyapunov_times_per_second.median, rel=0.01)


def ask(emulator):
    return emulator.forecast(subject(emulator).contexts, TASK.test_steps, 1, torch.Generator())


def test_stopping_early_is_no_faster_when_scored_and_when_benched(data, monkeypatch):
    class Quarter(Honest):
        def forecast(self, context, n_steps, n_members, generator):
            part = step_forecast(self, context, n_steps // 4, n_members, generator)
            return torch.cat([part, part[:, :, -1:].expand(-1, -1, n_steps - n_steps // 4, -1)], dim=2)

    timing = scoring.evaluate(Quarter(), TASK, data).timing
    whole = TASK.n_test * TASK.test_steps * TASK.lead_time_step
    assert timing["lyapunov_times_per_second"] * timing["test_seconds"] == pytest.approx(whole / 4, rel=0.01)
    monkeypatch.setattr(stopwatch, "BATCHES", (1,))
    scenarios, _ = stopwatch.run(subject(Quarter()))
    found = scenarios["offline_end_to_end"]
    steps = found.trajectory_steps_per_second.median * found.seconds.median
    assert steps == pytest.approx(TASK.test_steps / 4, rel=0.01)


def test_the_timed_scores_are_the_scored_ones(data):
    """Skipped steps in forecasts of the scored contexts alone, which no replay would see, lower the score."""
    truth, start, _ = scoring.load_truth(TASK, data, "test")
    contexts = dataset.load(TASK, data).context("test")

    class Perfect:
        def forecast(self, context, n_steps, n_members, generator):
            return truth[None, [int((contexts[:, -1] - c).abs().sum(1).argmin()) for c in context[:, -1]], :n_steps]

    class Constant:
        def forecast(self, context, n_steps, n_members, generator):
            return context[None, :, -1:].expand(-1, -1, n_steps, -1).clone()

    stored = headline(TASK).cases(Perfect().forecast(contexts, TASK.test_steps, 1, None), truth, start).tolist()
    for emulator, honest in ((Perfect(), True), (Constant(), False)):
        who = Subject("net", emulator, TASK, contexts, seconds=0.05)
        _, samples = measure(who, EndToEnd(), 16, "offline_end_to_end")
        if honest:
            check_scores(who, samples, stored, data)
        else:
            with pytest.raises(EmubenchError, match="timed forecasts score .* where scores.json says"):
                check_scores(who, samples, stored, data)


def test_chaos_may_part_forecasts_but_not_at_once_and_not_into_rest():
    generator = torch.Generator().manual_seed(1)
    one, two = (8 * torch.randn(1, 5, 400, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    parted = torch.cat([one[:, :, :100], two[:, :, 100:]], dim=2)
    check_equal("net", TASK, parted, one, 1e-6)
    with pytest.raises(EmubenchError, match=r"differ by .* σ within the first 11 samples, where 1e-06 belongs"):
        check_equal("net", TASK, two, one, 1e-6)
    failed = torch.where(torch.arange(400)[:, None] > 200, torch.nan, one)
    check_equal("net", TASK, failed, failed, 1e-6)  # a failed forecast is scored as one, and may be timed
    with pytest.raises(EmubenchError, match="ends early"):
        check_equal("net", TASK, failed.nan_to_num(0.0), one, 1e-6)
    with pytest.raises(EmubenchError, match="ends early: 100% of the forecasts are finite when they are scored alone"):
        check_equal("net", TASK, failed, one, 1e-6)
    later = torch.where(torch.arange(400)[:, None] > 210, torch.nan, one)
    check_equal("net", TASK, later, failed, 1e-6)  # rounding moves the moment at which a forecast diverges


@pytest.mark.parametrize(("factor", "caught"), [(0.2, False), (1.0, False), (0.05, True), (2.5, True)])
def test_a_quarter_that_is_calm_by_chance_is_no_early_end(factor, caught):
    """The scored forecast has one, too: amplitude 0.3 in its last quarter, 1 before."""
    generator = torch.Generator().manual_seed(2)
    one, two = (8 * torch.randn(1, 1, 400, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    scored, timed = one.clone(), torch.cat([one[:, :, :100], two[:, :, 100:]], dim=2)
    scored[:, :, 300:] *= 0.3
    timed[:, :, 300:] *= factor
    with pytest.raises(EmubenchError, match="ends early") if caught else contextlib.nullcontext():
        check_equal("net", TASK, timed, scored, 1e-6)


@pytest.mark.parametrize(
    ("n_parted", "by", "caught"), [(2, 5e-5, False), (4, 5e-5, True), (2, 1.0, True), (2, torch.nan, True)]
)
def test_one_forecast_in_ten_may_part_at_once_by_little(n_parted, by, caught):
    """As from a filter through a gappy context, which lets rounding grow."""
    one = 8 * torch.randn(1, 30, 40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parted = one.clone()
    parted[:, :n_parted] += by * torch.from_numpy(TASK.system.std)
    with pytest.raises(EmubenchError, match="differ by") if caught else contextlib.nullcontext():
        check_equal("net", TASK, parted, one, 1e-6)


@pytest.mark.slow
def test_rollouts_alone_leave_out_the_start(monkeypatch):
    monkeypatch.setattr(stopwatch, "BATCHES", (1, 4))

    class SlowStart(Honest):
        def start(self, context, n_members, generator):
            time.sleep(50 * COST)
            return super().start(context, n_members, generator)

        def forecast(self, context, n_steps, n_members, generator):
            return step_forecast(self, context, n_steps, n_members, generator)

    scenarios, samples = stopwatch.run(subject(SlowStart()))
    assert set(scenarios) == {
        f"{a}_{b}" for a, b in itertools.product(("single", "offline"), ("end_to_end", "rollout"))
    }
    saved = scenarios["single_end_to_end"].seconds.low - scenarios["single_rollout"].seconds.low
    assert saved > 25 * COST
    assert {s.scenario for s in samples} == {"single_end_to_end", "offline_end_to_end"}
    state = RolloutOnly()
    again = [state.prepare(subject(SlowStart()), torch.arange(2), lambda s: 0.0 * s) for _ in range(2)]
    assert torch.equal(*again)


def test_without_a_step_there_is_no_rollout_alone():
    class Opaque:
        def forecast(self, context, n_steps, n_members, generator):
            return context[None, :, -1:].expand(-1, -1, n_steps, -1).clone()

    scenarios, _ = stopwatch.run(subject(Opaque()))
    assert set(scenarios) == {"single_end_to_end", "offline_end_to_end"}


class Clock:
    """Time that passes when told to, whatever else the machine does."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_the_sweep_takes_what_is_fastest_under_the_caps(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)

    class Linear(MapStepper):
        """As long for sixteen cases as for one, for more much longer."""

        def forecast(self, context, n_steps, n_members, generator):
            clock.sleep(1e-3 if len(context) <= 16 else 3e-4 * len(context))
            return context[None, :, -1:].expand(-1, -1, n_steps, -1).clone()

    assert stopwatch.best_batch(subject(Linear(tent)), EndToEnd()) == 16

    class Greedy(MapStepper):
        """The faster the more cases there are."""

        def forecast(self, context, n_steps, n_members, generator):
            self.asked = len(context)
            clock.sleep(1e-3)
            return context[None, :, -1:].expand(-1, -1, n_steps, -1)

    class Compiled(Linear):
        """Slow once, at its very first call."""

        compiled = False

        def forecast(self, context, n_steps, n_members, generator):
            clock.sleep(0.0 if self.compiled else 0.6)
            self.compiled = True
            return super().forecast(context, n_steps, n_members, generator)

    assert stopwatch.best_batch(subject(Compiled(tent)), EndToEnd(), longest=0.3) == 16

    greedy = Greedy(tent)
    monkeypatch.setattr(stopwatch, "peak_memory", lambda call, device: (call(), greedy.asked * 2**22)[1])
    assert stopwatch.best_batch(subject(greedy, memory_cap=40 * 2**20), EndToEnd()) == 4


def test_the_memory_of_a_call_is_that_of_its_arrays():
    found = peak_memory(lambda: torch.ones(2**24), CPU)
    assert 0.9 * 2**26 < found < 1.5 * 2**26


def test_the_device_is_recorded_and_a_wrong_one_refused():
    found = record(CPU, torch.float32, compiled=False)
    assert (found.device, found.dtype, found.threads, found.tf32) == ("cpu", "float32", torch.get_num_threads(), False)
    assert found.name
    with pytest.raises(EmubenchError, match="--device nowhere"):
        check_device("nowhere")


def test_a_batch_that_does_not_fit_is_told_with_the_one_that_does(capsys):
    class Small(Honest):
        most = 20

        def forecast(self, context, n_steps, n_members, generator):
            if len(context) > self.most:
                raise torch.OutOfMemoryError("out of memory")
            return super().forecast(context, n_steps, n_members, generator)

    assert stopwatch.best_batch(subject(Small()), EndToEnd()) <= 16
    assert capsys.readouterr().err == "net: 64 cases at a time do not fit in the memory of cpu, 16 do\n"
    Small.most = 0
    with pytest.raises(EmubenchError, match="net: 1 cases at a time do not fit in the memory of cpu: try --device cpu"):
        stopwatch.best_batch(subject(Small()), EndToEnd())
