"""Training a neural ODE by its own Runge–Kutta steps and through torchdiffeq's, same model, same steps, in one run.

``python -m pytest -s benchmarks/test_neural_ode.py``. A training step is what
:class:`emubench.learning.training.descent.Descent` does: loss, back-propagation, clipping, Adam; a sample is one sample
interval of one case. The two take turns of ten steps, so that what else the machine does falls on both and each has its
own data in the cache, as in training; processor time is taken, of one thread; best and median are printed.
"""

from __future__ import annotations

import dataclasses
import statistics
import time

import numpy as np
import pytest
import torch

from emubench import baselines
from emubench.data import tasks
from emubench.dynamics.kernels._simd import SINGLES, aligned
from emubench.learning.models import _product_mlp
from emubench.learning.training.descent import Descent, Log

ROUNDS, STEPS = 40, 10
module = baselines.get("neural_ode")


class ByTorchdiffeq(module.NeuralOde):
    """The same model, its whole segment by one call of torchdiffeq's rk4."""

    def unroll(self, state, n_steps):
        return module.by_torchdiffeq(self, state, torch.arange(n_steps + 1.0))[1:].transpose(0, 1)


def descent(kind: type, name: str):
    """A training step of the default configuration on made-up states, as a function of nothing."""
    task = tasks.get(name)
    config = dataclasses.replace(module.default_config(task), steps=10**6, checks=1, learning_rate=1e-5)
    torch.manual_seed(0)
    flow = kind(task, config)
    batch = torch.randn(config.batch, config.window + config.unroll, *task.shape)
    down = Descent(flow, config, Log(), lambda: torch.zeros(1))
    steps = iter(down)

    def step() -> float:
        next(steps)
        loss = module.shooting_loss(flow, batch, config.unroll, 1)
        down(loss)
        return float(loss.detach())

    return step, config.batch * config.unroll


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean"])
def test_samples_per_second(name):
    torch.set_num_threads(1)
    contestants = {"emubench": module.NeuralOde, "torchdiffeq": ByTorchdiffeq}
    steps = {who: descent(kind, name) for who, kind in contestants.items()}
    losses = {who: [step() for _ in range(3)] for who, (step, _) in steps.items()}
    assert losses["emubench"] == pytest.approx(losses["torchdiffeq"], rel=1e-4)  # the same model, learning the same
    seconds: dict[str, list[float]] = {who: [] for who in steps}
    for _ in range(ROUNDS):
        for who, (step, _) in steps.items():
            begun = time.process_time()
            for _ in range(STEPS):
                step()
            seconds[who].append((time.process_time() - begun) / STEPS)
    rates = {who: steps[who][1] / min(s) for who, s in seconds.items()}
    medians = {who: statistics.median(s) for who, s in seconds.items()}
    text = ", ".join(f"{who} {rate:.3g} samples/s" for who, rate in rates.items())
    best, typical = rates["emubench"] / rates["torchdiffeq"], medians["torchdiffeq"] / medians["emubench"]
    print(f"{name}: {text}; {best:.2f} times as fast (medians {typical:.2f})")


def test_matrix_products_beside_those_of_torch():
    """The product at the heart of a stage, 64 × 64 by 64 × 640, and the gradient of its weights."""
    torch.set_num_threads(1)
    a, b, c = (aligned(64 * n // SINGLES, np.float32).reshape(64, n) for n in (64, 640, 640))
    sums = aligned(64 * 64, np.float32).reshape(64, 64, SINGLES)
    for array in (a, b, sums):
        array[:] = np.random.default_rng(0).standard_normal(array.shape)
    ours, theirs = torch.from_numpy(c), torch.empty(64, 640)
    contestants = {
        "product, emubench": lambda: _product_mlp._multiply(a, b, c),
        "product, torch": lambda: torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=theirs),
        "gradient, emubench": lambda: _product_mlp._add_outer(b, c, sums),
        "gradient, torch": lambda: torch.mm(torch.from_numpy(b), torch.from_numpy(c).T),
    }
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(200):
        for who, run in contestants.items():
            begun = time.perf_counter()
            run()
            seconds[who].append(time.perf_counter() - begun)
    assert torch.allclose(ours, theirs, atol=1e-4)
    for who, spent in seconds.items():
        print(f"\n{who}: {2e-9 * 64 * 64 * 640 / min(spent):.0f} billion operations per second", end="")
