"""Rollouts of ``neural_ode`` on lorenz96, eager and compiled, at batch 1 to 4096; and in bfloat16.

    pytest -s benchmarks/test_rollout.py

The modes of ``emubench bench`` take turns, so that what else the machine does falls on all; least and median times are
compared. Compilation is not counted (it is printed). The weights are random: no figure depends on them. On a CPU eager
and compiled rollouts run the same kernel for the field, and no gain is asked for. With EMUBENCH_BENCH_DEVICE=cuda the
same on a GPU, where compiled means replayed as a CUDA graph.
"""

from __future__ import annotations

import os
import statistics
import time

import pytest
import torch

from emubench import baselines
from emubench.core.hardware import check_device, synchronise
from emubench.data import tasks
from emubench.emulator import roll_out
from emubench.evaluation.throughput import modes
from emubench.evaluation.throughput.modes import Mode

TASK = tasks.get("lorenz96-clean")
SAMPLES = {1: 64, 16: 32, 256: 8, 4096: 2}
ROUNDS = 15
MODES = (Mode(), Mode(compile=True), Mode(precision="bfloat16"))


def flow(mode: Mode, device: torch.device):
    """The default network in a mode; ``steps(state, n)`` rolls it out."""
    module = baselines.get("neural_ode")
    torch.manual_seed(0)
    emulator = module.build(TASK, module.default_config(TASK)).to(device).requires_grad_(False)
    torch.nn.init.normal_(emulator.field.network.out.weight, std=0.02)
    modes.apply(emulator, mode, device)
    generator = torch.Generator(device)
    return lambda state, n: roll_out(emulator, state, n, generator)


@pytest.fixture(scope="module")
def rollouts():
    if modes.compiler() is None:
        pytest.skip(modes.NO_COMPILER)
    torch.set_num_threads(1)
    device = check_device(os.environ.get("EMUBENCH_BENCH_DEVICE", "cpu"))
    return device, {mode.name: flow(mode, device) for mode in MODES}


@pytest.mark.parametrize("batch", SAMPLES)
def test_eager_and_compiled(rollouts, batch):
    device, contestants = rollouts
    state = torch.randn(1, batch, *TASK.shape, device=device)
    n, seconds, first = SAMPLES[batch], {name: [] for name in contestants}, {}
    with torch.no_grad():
        for name, run in contestants.items():
            begun = time.perf_counter()
            first[name] = run(state, 4)
            print(f"\nbatch {batch}: {name} took {time.perf_counter() - begun:.1f} s at first", end="")
        assert torch.allclose(first["eager"], first["compiled"], atol=1e-4)
        for _ in range(ROUNDS):
            for name, run in contestants.items():
                synchronise(device)
                begun = time.perf_counter()
                run(state, n)
                synchronise(device)
                seconds[name].append(time.perf_counter() - begun)
    eager = seconds["eager"]
    for name, times in seconds.items():
        speed = batch * n / min(times)
        gains = min(eager) / min(times), statistics.median(eager) / statistics.median(times)
        print(
            f"\nbatch {batch}: {name} {speed:.4g} samples/s, {gains[0]:.2f} times eager (medians {gains[1]:.2f})",
            end="",
        )
