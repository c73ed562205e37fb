"""The fast kernels are the reference integrators, and a trajectory's bytes are its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core import registry
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics import kernels, noise
from emubench.dynamics.simulate import reference_rollout, rollout
from emubench.dynamics.system import System

CASES = {
    "lorenz63": [{}, {"sigma": 16.0, "rho": 45.92, "beta": 4.0, "solver_step": 0.005}],
    "lorenz96": [{}, {"n_sites": 4}, {"n_sites": 5, "forcing": 10.0}, {"n_sites": 101, "forcing": 5.0}],
    "kuramoto_sivashinsky": [
        {},
        {"n_sites": 8, "length": 12.0, "sample_interval": 0.25, "solver_step": 0.125},
        {"n_sites": 16, "length": 20.0, "sample_interval": 0.5},
        {"n_sites": 32, "solver_step": 0.25},
        {"n_sites": 128, "length": 200.0, "sample_interval": 0.25, "solver_step": 0.125},
        {"n_sites": 512, "length": 200.0, "sample_interval": 0.125},
    ],
    "kpz": [
        {},
        {"lam": 0.0, "n_sites": 37},
        {"lam": -2.0, "nu": 0.5, "noise": 2.0, "dx": 0.7, "n_sites": 64},
        {"n_sites": 33, "solver_step": 0.2},
        {"n_sites": 1024, "sample_interval": 0.1},
    ],
}
PARAMETERS = [
    pytest.param(name, kwargs, id=f"{name}-{i}") for name, sets in CASES.items() for i, kwargs in enumerate(sets)
]


def start(system: System, n_batch: int) -> np.ndarray:
    return np.stack([system.draw(stream(0, "start", b), system.starts[0]) for b in range(n_batch)])


def generators(trajectories: list[int]) -> list[np.random.Generator]:
    return [stream(0, "noise", b) for b in trajectories]


def test_every_kernel_is_tested():
    assert set(CASES) == set(registry.names("emubench.dynamics.kernels"))


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS)
def test_equal_to_the_reference(name, parameters):
    system = systems.get(name, **parameters)
    fast = kernels.find(system)
    assert fast is not None
    state, who = start(system, 3), [0, 1, 2]
    before = state.copy()
    expected = reference_rollout(system, state, 3, generators(who))
    found = fast(system, state, 3, generators(who))
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() < 1e-11 * np.abs(expected).max()
    assert np.array_equal(state, before)


@pytest.mark.parametrize(("name", "parameters"), [p for p in PARAMETERS if "kpz" not in str(p.id)])
def test_single_precision_is_the_same_but_for_its_rounding(name, parameters):
    system = systems.get(name, **parameters)
    fast, state = kernels.find(system), start(system, 19)
    exact, single = fast(system, state, 3, []), fast(system, state.astype(np.float32), 3, [])
    assert single.dtype == np.float32
    error = np.abs(single - exact).max() / np.abs(exact).max()
    assert 1e-9 < error < 1e-5, error
    for n in (1, 3):  # in a block with others, or with copies of itself
        assert np.array_equal(fast(system, state[:n].astype(np.float32), 3, []), single[:n])


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS)
def test_generators_are_left_where_the_reference_leaves_them(name, parameters):
    system = systems.get(name, **parameters)
    mine, reference = generators([0, 1]), generators([0, 1])
    kernels.find(system)(system, start(system, 2), 2, mine)
    reference_rollout(system, start(system, 2), 2, reference)
    assert [g.random() for g in mine] == [g.random() for g in reference]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_batch", [1, 5, 16])
def test_bytes_do_not_depend_on_the_batch(name, n_batch):
    system = systems.get(name)
    fast, state = kernels.find(system), start(system, 33)
    full = fast(system, state, 3, generators(list(range(33))))
    who = np.random.default_rng(n_batch).permutation(33)[:n_batch].tolist()
    assert np.array_equal(fast(system, state[who], 3, generators(who)), full[who])


@pytest.mark.parametrize("name", CASES)
def test_bytes_do_not_depend_on_the_order(name):
    system = systems.get(name)
    fast, state = kernels.find(system), start(system, 33)
    order = np.random.default_rng(0).permutation(33).tolist()
    full = fast(system, state, 3, generators(list(range(33))))
    assert np.array_equal(fast(system, state[order], 3, generators(order)), full[order])


@pytest.mark.parametrize("name", CASES)
def test_neighbours_that_blow_up_do_no_harm(name):
    system = systems.get(name)
    fast, state = kernels.find(system), start(system, 16)
    alone = fast(system, state[:1], 2, generators([0]))
    state[1:] = np.nan
    state[5] = 1e300
    assert np.array_equal(fast(system, state, 2, generators(list(range(16))))[:1], alone)


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS)
def test_chunks_are_one_long_run(name, parameters):
    system = systems.get(name, **parameters)
    fast, state, who = kernels.find(system), start(system, 2), [0, 1]
    whole = fast(system, state, 10, generators(who))
    rngs = generators(who)
    first = fast(system, state, 4, rngs)
    second = fast(system, first[:, -1], 6, rngs)
    assert np.array_equal(np.concatenate([first, second], axis=1), whole)


def test_long_runs_are_cut_into_chunks_unnoticed(monkeypatch):
    from emubench.dynamics.kernels import _blocks

    system = systems.get("lorenz63")
    fast, state = kernels.find(system), start(system, 17)
    whole = fast(system, state, 7, [])
    monkeypatch.setattr(_blocks, "CHUNK", 100)
    assert np.array_equal(fast(system, state, 7, []), whole)


def test_empty_batches_and_empty_runs():
    system = systems.get("lorenz96")
    fast = kernels.find(system)
    assert fast(system, start(system, 2)[:0], 3, []).shape == (0, 3, 40)
    assert fast(system, start(system, 2), 0, []).shape == (2, 0, 40)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("kuramoto_sivashinsky", {"n_sites": 44}),
        ("kuramoto_sivashinsky", {"n_sites": 8 * 37}),
        ("kuramoto_sivashinsky", {"n_sites": 4, "length": 7.0}),
        ("lorenz96", {"n_sites": 3}),
        ("kpz", {"nu": 100.0, "n_sites": 16}),
    ],
)
def test_what_a_kernel_cannot_do_is_left_to_the_reference(name, parameters):
    assert kernels.find(systems.get(name, **parameters)) is None


@pytest.mark.parametrize("n_sites", [24, 88, 96, 200])
def test_sizes_with_small_factors_have_a_kernel(n_sites):
    system = systems.get("kuramoto_sivashinsky", n_sites=n_sites, solver_step=0.25)
    state = start(system, 3)
    fast = kernels.find(system)
    assert fast is not None
    assert np.abs(fast(system, state, 4, []) - reference_rollout(system, state, 4, [])).max() < 1e-11


def test_the_mean_of_kuramoto_sivashinsky_is_dropped_and_high_modes_decay_alone():
    system = systems.get("kuramoto_sivashinsky", length=100.0)
    rough = stream(0, "rough").standard_normal((2, 64)) + 3.0
    found = kernels.find(system)(system, rough, 2, [])
    assert np.abs(found.mean(-1)).max() < 1e-14
    assert np.abs(found - reference_rollout(system, rough, 2, [])).max() < 1e-11


def test_euler_maruyama_of_kpz_is_the_systems_own():
    from emubench.dynamics.kernels import kpz
    from emubench.dynamics.simulate import rollout

    system = systems.get("kpz", n_sites=65, solver_step=0.01, sample_interval=0.1, nu=0.7, dx=0.9)
    state, who = start(system, 3), [0, 1, 2]
    drawn = noise.normals(noise.seeds(generators(who), 20), 65)
    rows = iter(torch.from_numpy(drawn).unbind(1))
    step = system.solver(scheme="euler_maruyama")
    expected = rollout(step, torch.from_numpy(state), 2, system.steps_per_sample, lambda: next(rows)).numpy()
    found = kpz.rollout(system, state, 2, generators(who), scheme="euler_maruyama")
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
    assert kernels.find(system, "milstein") is None


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_threads", [None, 1, 3])
def test_threads_change_nothing(name, n_threads):
    system, who = systems.get(name), list(range(70))
    state = start(system, 70)
    found = kernels.rollout_parallel(system, state, 2, generators(who), n_threads)
    assert np.array_equal(found, kernels.find(system)(system, state, 2, generators(who)))


def test_threads_need_a_kernel():
    system = systems.get("lorenz96", n_sites=3)
    with pytest.raises(EmubenchError, match="no kernel"):
        kernels.rollout_parallel(system, np.zeros((1, 3)), 1, [])


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
def test_the_cheaper_schemes_are_those_of_torch(name):
    system = systems.get(name)
    system = dataclasses.replace(system, solver_step=system.sample_interval / 8)
    module = registry.load("emubench.dynamics.kernels", name, "kernel")
    state = start(system, 11)
    assert system.schemes == module.SCHEMES
    found = {}
    for scheme in system.schemes:
        step = system.solver(scheme=scheme)
        expected = rollout(step, torch.from_numpy(state), 2, 8).numpy()
        found[scheme] = module.rollout(system, state, 2, [], scheme=scheme)
        assert np.abs(found[scheme] - expected).max() < 1e-11
    first, *others = found.values()
    assert all(np.abs(first - other).max() > 1e-4 for other in others)
    assert kernels.find(system, "rk5") is None


def test_machine_code_that_cannot_be_kept_is_used_all_the_same(monkeypatch):
    from numba.core.caching import IndexDataCacheFile

    from emubench.dynamics.kernels._simd import jit

    tried = []

    def full(*_):
        tried.append(True)
        raise OSError(27, "File too large")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)

    @jit
    def double(x):
        return 2 * x

    assert double(1.5) == 3.0
    assert tried
