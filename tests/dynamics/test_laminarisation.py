"""Kuramoto–Sivashinsky runs that fall onto a steady state are found, and no chaotic run is taken for one."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data.trajectories import simulate_block
from emubench.dynamics import kernels
from emubench.dynamics.climates import leading_exponent
from emubench.dynamics.simulate import SimulationError, simulate
from emubench.systems.kuramoto_sivashinsky import KuramotoSivashinsky

CLIMATE = KuramotoSivashinsky.reference_climate
EIGHT_CELLS = KuramotoSivashinsky(length=64.0, solver_step=0.125, climate=CLIMATE)


def sine(system: KuramotoSivashinsky, n_cells: int, amplitude: float = 2.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * n_cells * np.arange(system.n_sites) / system.n_sites)


def unchecked(system: KuramotoSivashinsky, state: np.ndarray, n_samples: int) -> np.ndarray:
    """Samples without the guard."""
    fast = kernels.find(system)
    assert fast is not None
    return fast(system, state, n_samples, [])


def fluctuation(samples: np.ndarray, window: int = 100) -> np.ndarray:
    """Relative fluctuation of the spatial variance in every window of every trajectory, written out anew."""
    energy = samples.var(-1)
    windows = np.lib.stride_tricks.sliding_window_view(energy, window, axis=1)
    return windows.std(-1) / windows.mean(-1)


@pytest.fixture(scope="module")
def steady() -> np.ndarray:
    """The eight-cell state of L = 64, from a sine: rest to nine digits."""
    start = sine(EIGHT_CELLS, 8) + 0.1 * EIGHT_CELLS.draw(stream(0), "attractor")
    state = unchecked(EIGHT_CELLS, start[None], 3000)[0, -1]
    assert np.abs(EIGHT_CELLS.rhs(torch.from_numpy(state.copy())).numpy()).max() < 1e-6
    power = np.abs(np.fft.rfft(state)) ** 2
    assert power[8::8].sum() > (1 - 1e-12) * power.sum()  # eight equal cells
    assert state.std() > 1
    return state


def test_the_eight_cell_state_of_length_64_is_linearly_stable(steady):
    """Of the Jacobian's eigenvalues for perturbations of zero mean one vanishes, a shift; the others decay."""
    jacobian = torch.func.jacfwd(EIGHT_CELLS.rhs)(torch.from_numpy(steady.copy()))
    rates = np.sort(torch.linalg.eigvals(EIGHT_CELLS.project(jacobian.T).T).real.numpy())[::-1]
    assert rates[:2] == pytest.approx(0, abs=1e-7)  # the shift, and the mean that was projected away
    assert rates[2] < -0.005


def test_a_run_from_the_steady_state_is_found_after_one_window(steady):
    moved = np.stack([np.roll(steady, 5), steady[::-1] * -1])
    with pytest.raises(SimulationError, match="trajectory 0 at time 100: laminar: the energy was steady for 100") as e:
        simulate(EIGHT_CELLS, moved, 120)
    assert (e.value.trajectory, e.value.time) == (0, 100.0)
    assert "L 64 is not chaotic" in e.value.cause
    assert simulate(EIGHT_CELLS, moved, 99).shape == (2, 99, 64)  # too short to tell


def test_generation_names_trajectory_time_and_cause(steady):
    """Trajectory 18 of the training split starts near the steady state: number 2 of the second block."""

    @dataclass(frozen=True, kw_only=True)
    class OneLaminar(KuramotoSivashinsky):
        def draw(self, rng, start):
            chaotic = super().draw(rng, start)
            chosen = stream(0, self.name, "train", 18)
            return steady + 1e-3 * chaotic if (chaotic == super().draw(chosen, start)).all() else chaotic

    system = OneLaminar(length=64.0, solver_step=0.125, climate=dataclasses.replace(CLIMATE, time_unit=3.0))
    assert system.spin_up_samples == 30
    with pytest.raises(EmubenchError, match=r"^kuramoto_sivashinsky: train trajectory 18 at time \d+: laminar: ") as e:
        simulate_block(system, 0, "train", 1, 200)
    assert isinstance(e.value, SimulationError)
    assert 130 <= e.value.time <= 229
    home = pickle.loads(pickle.dumps(e.value))  # as from a worker process
    assert (str(home), home.trajectory, home.split) == (str(e.value), 18, "train")


def test_a_blow_up_in_the_spin_up_is_named_as_well():
    system = KuramotoSivashinsky(sample_interval=8.0, solver_step=8.0, climate=CLIMATE)
    with pytest.raises(SimulationError, match=r"test trajectory (1[6-9]|2\d|3[01]) at time \d+: the solution blew up"):
        simulate_block(system, 0, "test", 1, 10)


@pytest.mark.parametrize(("n_sites", "length", "cells"), [(64, 22.0, 2), (32, 13.0, 2)])
def test_other_steady_states_are_found_too(n_sites, length, cells):
    """Unstable ones as well, while a run stays on them: started exactly symmetric, rounding alone drives it away."""
    system = KuramotoSivashinsky(n_sites=n_sites, length=length, solver_step=0.125, climate=CLIMATE)
    samples = unchecked(system, sine(system, cells)[None], 200)
    assert "laminar" in (system.fault(samples) or "")


@pytest.mark.parametrize("length", [8.0, 12.0, 22.0])
def test_starts_leave_invariant_subspaces(length):
    """A field that is odd about a point stays so: its modes' phases are then those of one shift, up to the sign."""
    system = KuramotoSivashinsky(length=length, climate=CLIMATE)
    modes = np.fft.rfft(np.stack([system.draw(stream(0, i), "attractor") for i in range(16)]))
    phases = np.angle(modes[:, 2] / (1j * (modes[:, 1] / 1j / np.abs(modes[:, 1])) ** 2))
    assert np.abs(np.sin(phases)).min() > 1e-3
    assert (np.abs(modes[:, 2]) > 1e-3).all()


def test_length_12_has_no_chaos_once_its_symmetry_is_broken():
    """The transverse instability of odd states, 0.13, is not an exponent of the attractor."""
    with pytest.raises(EmubenchError, match="no chaos found at the parameters"):
        leading_exponent(KuramotoSivashinsky(length=12.0, solver_step=0.25), n_trajectories=8)


@pytest.mark.slow
def test_chaos_at_length_22_is_never_taken_for_laminar():
    """In 10⁶ time units the energy fluctuates by at least 9 % in every window, 90 times the limit."""
    system = KuramotoSivashinsky(solver_step=0.25, climate=CLIMATE)
    state = np.stack([system.draw(stream(0, i), "attractor") for i in range(256)])
    lowest = np.inf
    for _ in range(8):
        samples = simulate(system, state, 512)  # checked
        lowest = min(lowest, fluctuation(samples).min())
        state = samples[:, -1].copy()
    assert lowest > 0.07


@pytest.mark.slow
def test_runs_of_length_64_that_collapse_are_found():
    """Of 32 generic runs several have collapsed by t = 6000, and the guard finds those and no others."""
    state = np.stack([EIGHT_CELLS.draw(stream(0, "collapse", i), "attractor") for i in range(32)])
    samples = unchecked(EIGHT_CELLS, state, 6000)
    found = [EIGHT_CELLS.fault(samples[b : b + 1]) is not None for b in range(32)]
    assert found == list(fluctuation(samples[:, -100:])[:, -1] <= 1e-3)
    assert 1 <= sum(found) <= 16
    first = found.index(True)
    with pytest.raises(SimulationError, match=rf"trajectory {first} at time \d+: laminar"):
        simulate(EIGHT_CELLS, state, 6000)
