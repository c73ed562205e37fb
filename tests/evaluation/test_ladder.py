"""The solver ladder: its settings solve the system, and the speed-up is over the fastest that is as accurate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from emubench import baselines, systems
from emubench.core.random import stream
from emubench.data import tasks
from emubench.dynamics.simulate import simulate
from emubench.dynamics.solvers import Setting, SettingSolver, TrueSolver, resample
from emubench.evaluation.throughput import ladder
from emubench.evaluation.throughput.ladder import Cases, settings
from emubench.files.timing import Quantiles, Rung, Scenario
from emubench.metrics._headline import headline

SYSTEMS = ("lorenz63", "lorenz96", "kuramoto_sivashinsky", "kpz")


def attractor(system, n=3):
    states = np.stack([system.draw(stream(5, system.name, i), system.starts[0]) for i in range(n)])
    samples = system.spin_up_samples
    return simulate(system, states, samples)[:, -1] if samples else states


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_ladder_ends_at_the_truth_and_at_one_cheapest_step(name):
    found = settings(tasks.get(f"{name}-clean", "tiny"))
    system = systems.get(name)
    assert Setting(system.schemes[0], system.steps_per_sample) in found
    cheapest = "strang" if name == "kpz" else system.schemes[-1]
    assert Setting(cheapest, 1) in found
    assert found[0].steps == 1
    assert {s.start for s in found} == {"sample"}
    assert ({s.sites for s in found} == {0}) == (name != "kuramoto_sivashinsky")
    assert ({s.dtype for s in found} == {"float64"}) == (name == "kpz")


def test_noisy_contexts_add_filters_and_gaps_leave_nothing_else():
    noisy, partial = (settings(tasks.get(f"lorenz96-{track}", "tiny")) for track in ("noisy", "partial"))
    assert {s.start for s in noisy} == {"sample", "small", "filter"}
    assert {s.start for s in partial} == {"small", "filter"}
    assert partial == [s for s in noisy if s.start != "sample"]


# --- solvers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_finest_setting_is_the_truth_and_kernels_equal_torch(name):
    system = systems.get(name)
    states = attractor(system)

    def rngs():
        return [stream(7, i) for i in range(len(states))] if system.stochastic else []

    whole = Setting(system.schemes[0], system.steps_per_sample)
    truth = TrueSolver(system).solve(states, 2, rngs())
    assert np.array_equal(SettingSolver(system, whole).solve(states, 2, rngs()), truth)
    for scheme in system.schemes[:1] if system.stochastic else system.schemes:
        solver = SettingSolver(system, Setting(scheme, 4))
        assert solver.path == "kernel"
        fast = solver.solve(states, 2, rngs())
        solver.fast = None
        assert np.abs(solver.solve(states, 2, rngs()) - fast).max() < 1e-9
        single = SettingSolver(system, Setting(scheme, 4, dtype="float32"))
        assert single.path == ("torch" if system.stochastic else "kernel")
        found = single.solve(states, 2, rngs())
        assert found.dtype == np.float32
        assert 0 < np.abs(found - fast).max() < 1e-4 * np.abs(fast).max()
    torch.set_num_threads(2)
    try:
        many = np.concatenate([states] * 30)
        streams = [stream(7, i % 3) for i in range(90)] if system.stochastic else []
        assert np.array_equal(SettingSolver(system, whole).solve(many, 2, streams)[-3:], truth)
    finally:
        torch.set_num_threads(1)


def test_coarser_settings_are_less_accurate_by_their_order():
    system = systems.get("lorenz63")
    states = attractor(system, 8)
    truth = TrueSolver(system).solve(states, 1, [])

    def error(scheme, steps):
        return np.abs(SettingSolver(system, Setting(scheme, steps)).solve(states, 1, []) - truth).mean()

    for scheme, order in (("rk4", 4), ("heun", 2), ("euler", 1)):
        assert np.log2(error(scheme, 8) / error(scheme, 16)) == pytest.approx(order, abs=0.4)


def test_half_the_sites_solve_the_same_equation():
    system = systems.get("kuramoto_sivashinsky")
    solver = SettingSolver(system, Setting("etdrk4", 8, sites=32))
    states = attractor(system)
    coarse = solver.restrict(states)
    assert coarse.shape == (3, 32)
    assert np.abs(solver.lift(coarse) - states).max() < 0.02  # the upper modes hold nearly nothing
    truth = TrueSolver(system).solve(states, 5, [])
    found = solver.lift(solver.solve(coarse, 5, []))
    assert np.abs(found - truth).max() < 0.05
    assert found.shape == truth.shape
    wave = np.cos(2 * np.pi * 3 * np.arange(64) / 64)
    assert np.abs(resample(resample(wave, 32), 64) - wave).max() < 1e-12


def test_what_blows_up_is_not_an_error():
    system = systems.get("lorenz96")
    states = 100 * attractor(system)
    found = SettingSolver(system, Setting("euler", 1)).solve(states, 40, [])
    assert not np.isfinite(found).all()


# --- rungs ------------------------------------------------------------------------------------------------------------


def test_settings_on_exact_starts_are_as_accurate_and_as_fast_as_their_steps(data):
    task = tasks.get("lorenz63-clean", "tiny")
    cases, found = Cases.load(task, data), {}
    wanted = [("rk4", n) for n in (1, 4, 13, 50)] + [("heun", 1), ("euler", 1)]
    for key in wanted:
        rung = ladder.rung(cases, Setting(*key), 16, 0.0)
        assert rung is not None
        assert len(rung.cases) == 16
        found[key] = rung
    accuracies = [found["rk4", n].accuracy for n in (1, 4, 13, 50)]
    assert accuracies[-1] == pytest.approx(20.0, abs=0.1)
    assert accuracies == sorted(accuracies)
    assert 2 < accuracies[0] < 5
    assert found["euler", 1].accuracy < found["heun", 1].accuracy < 2
    limit = found["rk4", 50].limit
    assert limit is not None
    assert limit.flops_per_second < limit.flops_ceiling


def test_a_setting_for_which_there_is_no_time_is_scored_on_sixteen_cases(data):
    once = Cases.load(tasks.get("lorenz63-clean", "tiny"), data)
    repeated = {name: torch.cat([getattr(once, name)] * 5) for name in ("contexts", "truth", "start")}
    cases = dataclasses.replace(once, **repeated)
    for seconds, n in ((0.0, 16), (1e3, 80)):
        found = ladder.rung(cases, Setting("euler", 1), 4, seconds)
        assert found is not None
        assert len(found.cases) == n


def test_a_ladder_begins_at_the_cheap_end_and_ends_when_time_is_up(data):
    task = tasks.get("lorenz63-clean", "tiny")
    found = ladder.measure(task, data, budget=1.0)
    assert 0 < len(found) <= len(settings(task))
    assert [(r.scheme, r.steps_per_sample) for r in found] == [
        (s.scheme, s.steps) for s in settings(task)[: len(found)]
    ]
    assert ladder.measure(task, data, budget=0.0) == []


@pytest.mark.slow
def test_filters_start_the_settings_on_noisy_contexts(data):
    task = tasks.get("kuramoto_sivashinsky-partial", "tiny")
    cases = Cases.load(task, data)
    coarse, fine, small = (
        ladder.rung(cases, setting, 16, 0.0)
        for setting in (
            Setting("etdrk4", 2, sites=32, start="filter"),
            Setting("etdrk4", 8, start="filter"),
            Setting("etdrk4", 8, start="small"),
        )
    )
    assert coarse is not None
    assert fine is not None
    assert small is not None
    module = baselines.get("oracle")
    oracle = module.build(task, module.Config())
    made = ladder._forecast(cases, oracle, torch.arange(16), 0)
    own = headline(task).cases(made, cases.truth, cases.start)
    assert fine.accuracy == pytest.approx(float(own.mean()), abs=0.5)
    assert 2 < coarse.accuracy < fine.accuracy + 0.5
    assert small.accuracy < fine.accuracy + 0.5
    assert (coarse.sites, coarse.path, fine.start) == (32, "kernel", "filter")


def test_growth_is_scored_in_law_over_the_time_step_only(data):
    task = tasks.get("kpz-clean", "tiny")
    assert {(s.scheme, s.sites) for s in settings(task)} == {("strang", 0)}
    cases = Cases.load(task, data)
    found = [ladder.rung(cases, Setting("strang", n), 16, 0.0) for n in (5, 20)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].accuracy == pytest.approx(found[1].accuracy, abs=0.1)


# --- speed-up ---------------------------------------------------------------------------------------------------------


def made(accuracy: float, speed: float, scheme="rk4", steps=1) -> Rung:
    rate = Quantiles(median=speed, low=0.9 * speed, high=1.1 * speed)
    scenario = Scenario(
        batch=1,
        repetitions=1,
        seconds=rate,
        lyapunov_times_per_second=rate,
        trajectory_steps_per_second=rate,
        repeated_over_fresh=1.0,
        peak_memory=0,
    )
    cases = [accuracy - 0.5, accuracy + 0.5] * 4
    return Rung(
        scheme=scheme,
        steps_per_sample=steps,
        sites=3,
        dtype="float64",
        start="sample",
        path="kernel",
        accuracy=accuracy,
        scenarios={"offline_end_to_end": scenario},
        cases=cases,
    )


def gain(accuracy, speed, rungs, skill=0.5, task="lorenz63-clean", train=10.0):
    own = made(accuracy, speed)
    scenario = own.scenarios["offline_end_to_end"]
    return ladder.speedup(
        tasks.get(task), rungs, "offline_end_to_end", scenario, np.array(own.cases), skill, train
    )  # fmt: skip


def test_the_rival_is_the_fastest_setting_that_is_as_accurate():
    rungs = [made(1.0, 1000.0), made(2.95, 100.0, steps=2), made(3.5, 40.0, steps=4), made(9.0, 5.0, steps=50)]
    found = gain(3.0, 400.0, rungs)
    assert found.value == pytest.approx(4.0)
    assert found.scheme == "rk4, 2 steps per sample"
    assert found.low == pytest.approx(4.0 * 0.9 / 1.1)
    assert found.high == pytest.approx(4.0 * 1.1 / 0.9)
    assert found.break_even == pytest.approx(10.0 / (1 / 100 - 1 / 400))
    assert found.ranked
    assert gain(3.06, 400.0, rungs).value == pytest.approx(10.0)  # 0.11 Lyapunov times above the first of them
    slow = gain(3.0, 50.0, rungs)
    assert slow.value == pytest.approx(0.5)
    assert slow.break_even is None  # training never pays
    none = gain(9.5, 400.0, rungs)
    assert (none.value, none.scheme) == (None, "no setting measured is as accurate")
    assert not gain(3.0, 400.0, rungs, skill=0.24).ranked
    assert not gain(3.0, 400.0, rungs, skill=None).ranked


def test_the_comparison_is_paired_on_the_cases_that_a_setting_was_scored_on():
    rung = made(3.0, 100.0)
    own = np.array([*rung.cases, 50.0, 50.0])  # later cases, which this setting had no time for, decide nothing
    assert ladder.as_accurate(tasks.get("lorenz63-clean"), [rung], own) == [rung]
    own[:8] += 0.2
    assert ladder.as_accurate(tasks.get("lorenz63-clean"), [rung], own) == []


def test_growth_needs_equal_crps(frozen):
    assert ladder.tolerance(tasks.get("kpz-noisy")) == pytest.approx(0.2)
    rungs = [made(1.5, 1000.0), made(1.3, 100.0)]
    assert gain(1.2, 400.0, rungs, task="kpz-noisy").value == pytest.approx(4.0)
    assert gain(1.4, 400.0, rungs, task="kpz-noisy").value == pytest.approx(0.4)
