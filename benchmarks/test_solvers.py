"""The solvers against what a user would otherwise pick, at equal scheme, step and precision.

    pip install -e '.[dev,peers]'
    pytest benchmarks/test_solvers.py                            # every contender on one core
    EMUBENCH_BENCH_CORES=2 pytest benchmarks/test_solvers.py     # every contender may use two

A table per piece of work, and a summary with speed-ups at the end. Times are the least of all rounds. GFLOP/s count the
operations of the textbook formula, which the kernels undercut; the ceiling is a loop of vector FMAs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import ceilings
import contenders
import numpy as np
import pytest
from summary import CORES, Results

from emubench import systems
from emubench.core.random import stream
from emubench.dynamics import kernels
from emubench.dynamics.kernels import kpz
from emubench.dynamics.system import System

pytestmark = pytest.mark.filterwarnings("ignore")


def flops_of_kuramoto_sivashinsky(n: int) -> float:
    """Of an ETDRK4 step in the textbook's form: eight real transforms, four squares, the stages on N/2 + 1 modes."""
    return 8 * 2.5 * n * np.log2(n) + 4 * n + 46 * (n // 2 + 1)


def start(system: System, n_batch: int) -> np.ndarray:
    return np.stack([system.draw(stream(0, "benchmark", b), system.starts[0]) for b in range(n_batch)])


def emubench(system: System, state: np.ndarray) -> contenders.Rollout:
    """One sample: the system's sample interval is the whole run."""
    rollout = kernels.rollout_parallel if CORES > 1 else kernels.find(system)
    rngs = [stream(0, "noise", b) for b in range(len(state))]
    return lambda: rollout(system, state, 1, rngs)[:, 0]


def need(results: Results, contender: str, module: str) -> None:
    if contender != "emubench" and importlib.util.find_spec(module) is None:
        reason = f"{contender} is not installed (pip install 'emubench[peers]')"
        results.missing.add(reason)
        pytest.skip(reason)


def race(
    benchmark, results: Results, work: str, contender: str, run: Callable, n: float, unit: str, rounds: int
) -> float:
    """Time ``run``, which does ``n`` units of work; return units per second."""
    benchmark.group = work
    benchmark.pedantic(run, rounds=rounds, iterations=1, warmup_rounds=2)
    seconds = benchmark.stats.stats.min / n
    results.unit[work] = unit
    results.seconds.setdefault(work, {})[contender] = seconds
    return 1 / seconds


def rate(flops: float) -> str:
    ceiling = ceilings.flops_per_second()
    return f"emubench: {flops / 1e9:.0f} GFLOP/s of {ceiling / 1e9:.0f} in an FMA loop"


@pytest.mark.parametrize("contender", ["emubench", "jax"])
def test_lorenz63(benchmark, results, contender):
    work = "lorenz63 against jax: RK4, 4096 trajectories x 1000 steps"
    need(results, contender, "jax")
    system = systems.get("lorenz63", sample_interval=1.0)
    state = start(system, 4096)
    run = emubench(system, state) if contender == "emubench" else contenders.jax_lorenz63(state, 1000, 0.001)
    speed = race(benchmark, results, work, contender, run, 4096 * 1000, "step", 50)
    results.targets[work] = 4
    if contender == "emubench":
        results.notes[work] = rate(speed * 68)


@pytest.mark.parametrize("contender", ["emubench", "jax"])
def test_lorenz96(benchmark, results, contender):
    work = "lorenz96 against jax: RK4, N=40, 256 trajectories x 800 steps"
    need(results, contender, "jax")
    system = systems.get("lorenz96", sample_interval=1.0)
    state = start(system, 256)
    run = emubench(system, state) if contender == "emubench" else contenders.jax_lorenz96(state, 800, 0.00125)
    speed = race(benchmark, results, work, contender, run, 256 * 800, "step", 20)
    results.targets[work] = 10
    if contender == "emubench":
        results.notes[work] = rate(speed * 28 * 40)


@pytest.mark.parametrize("contender", ["emubench", "exponax"])
@pytest.mark.parametrize(("n", "length", "n_steps", "target"), [(64, 22.0, 128, 2.5), (512, 200.0, 32, 1.5)])
def test_kuramoto_sivashinsky(benchmark, results, contender, n, length, n_steps, target):
    work = f"kuramoto_sivashinsky against exponax: ETDRK4, N={n}, 256 trajectories x {n_steps} steps"
    need(results, contender, "exponax")
    h = 0.03125
    system = systems.get("kuramoto_sivashinsky", n_sites=n, length=length, solver_step=h, sample_interval=n_steps * h)
    state = start(system, 256)
    if contender == "emubench":
        run = emubench(system, state)
    else:
        run = contenders.exponax_kuramoto_sivashinsky(state, n_steps, h, length)
    speed = race(benchmark, results, work, contender, run, 256 * n_steps, "step", 15)
    results.targets[work] = target
    if contender == "emubench":
        results.notes[work] = rate(speed * flops_of_kuramoto_sivashinsky(n))


@pytest.mark.parametrize("contender", ["emubench", "emubench, strang", "py-pde"])
def test_kpz(benchmark, results, contender):
    """py-pde has no batches: it runs one trajectory, the kernel 64; both are given per site and step."""
    work = "kpz against py-pde: Euler-Maruyama, N=1024"
    need(results, contender.split(",")[0], "pde")
    n_batch, n_steps = (1, 5000) if contender == "py-pde" else (64, 500)
    system = systems.get("kpz", n_sites=1024, solver_step=0.01, sample_interval=n_steps * 0.01)
    rngs = [stream(0, "noise", b) for b in range(n_batch)]
    state = np.zeros((n_batch, 1024))
    if contender == "py-pde":
        run = contenders.pde_kpz(1024, n_steps, 0.01)
    else:
        scheme = "strang" if "strang" in contender else "euler_maruyama"
        run = lambda: kpz.rollout(system, state, 1, rngs, scheme=scheme)  # noqa: E731
    speed = race(benchmark, results, work, contender, run, 1024 * n_batch * n_steps, "site and step", 10)
    results.targets[work] = 10
    if contender == "emubench":
        alone = ceilings.normals_per_second()
        results.notes[work] = (
            f"emubench: {speed / 1e6:.0f} million normals/s of {alone / 1e6:.0f} by the generator alone"
        )


@pytest.mark.parametrize("contender", ["emubench", "dysts"])
def test_lorenz63_trajectories(benchmark, results, contender):
    work = "lorenz63 against dysts (not at equal scheme: RK4 h=0.001, DOP853 at 1e-12): 32 trajectories x 5 time units"
    need(results, contender, "dysts")
    system = systems.get("lorenz63", beta=2.667, sample_interval=5.0)
    state = start(system, 32)
    run = emubench(system, state) if contender == "emubench" else contenders.dysts_lorenz63(state, 5.0)
    race(benchmark, results, work, contender, run, 32 * 5, "trajectory and time unit", 5)


def test_jax_solves_the_same():
    pytest.importorskip("jax")
    for name, run in (("lorenz63", contenders.jax_lorenz63), ("lorenz96", contenders.jax_lorenz96)):
        system = systems.get(name, sample_interval=0.5)
        state = start(system, 5)
        expected = run(state, system.steps_per_sample, system.solver_step)()
        assert np.abs(emubench(system, state)() - expected).max() < 1e-11


def test_exponax_solves_the_same():
    pytest.importorskip("exponax")
    for n, length in ((64, 22.0), (512, 200.0)):
        system = systems.get("kuramoto_sivashinsky", n_sites=n, length=length)
        state = start(system, 5)
        expected = contenders.exponax_kuramoto_sivashinsky(state, 32, system.solver_step, length)()
        assert np.abs(emubench(system, state)() - expected).max() < 1e-5


def test_py_pde_solves_the_same_linear_part():
    pytest.importorskip("pde")
    system = systems.get("kpz", n_sites=64, lam=0.0, noise=0.0, solver_step=0.01)
    state = stream(0).standard_normal((1, 64))
    expected = contenders.pde_kpz(64, 100, 0.01, lam=0.0, noise=0.0, start=state[0])()
    found = kpz.rollout(system, state, 1, [stream(0)], scheme="euler_maruyama")[0, 0]
    assert np.abs(found - expected).max() < 1e-12


def test_dysts_solves_the_same():
    pytest.importorskip("dysts")
    system = systems.get("lorenz63", beta=2.667, sample_interval=1.0)
    state = start(system, 2)
    assert np.abs(emubench(system, state)() - contenders.dysts_lorenz63(state, 1.0)()).max() < 1e-6
