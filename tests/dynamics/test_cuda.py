"""What runs on a GPU, tested without one: numba's simulator of CUDA, and the same body without a graph."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from emubench.dynamics.simulate import replayed

SCRIPT = """
import numpy as np
import torch
from emubench import systems
from emubench.dynamics.simulate import reference_rollout
from emubench.dynamics.kernels import _cuda
from emubench.dynamics.solvers import Setting, SettingSolver

for name, parameters in (("lorenz63", {}), ("lorenz96", {"n_sites": 7}), ("lorenz96", {})):
    system = systems.get(name, solver_step=0.025, **parameters)
    state = np.stack([system.draw(np.random.default_rng(i), "attractor") for i in range(5)])
    assert _cuda.supports(system)
    found, expected = _cuda.rollout(system, state, 2, []), reference_rollout(system, state, 2, [])
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() < 1e-11, name
    single = _cuda.rollout(system, state.astype("f4"), 2, [])
    assert single.dtype == np.float32
    assert 0 < np.abs(single - expected).max() < 1e-3, name
assert not _cuda.supports(systems.get("kpz"))
assert not _cuda.supports(systems.get("lorenz96", n_sites=129))
solver = SettingSolver(systems.get("lorenz63"), Setting("rk4", 2), torch.device("cuda"))
assert solver.path == "kernel"
print("equal")
"""


@pytest.mark.slow
def test_the_fused_kernels_are_the_reference_in_the_simulator():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


def test_without_a_gpu_a_graph_is_the_function_itself():
    def double(x):
        return 2 * x

    assert replayed(double, torch.ones(3)) is double


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_replayed_graph_is_the_function():
    x = torch.randn(4, 64, device="cuda", dtype=torch.float64)
    run = replayed(lambda v: torch.fft.irfft(torch.fft.rfft(v) * 0.5, n=64).sin(), x)
    for state in (x, x + 1):
        assert torch.allclose(run(state), torch.fft.irfft(torch.fft.rfft(state) * 0.5, n=64).sin())
