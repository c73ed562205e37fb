"""Training a neural ODE by steps with a written-out gradient, by autograd, by torch.compile and through torchdiffeq.

``python -m pytest -s benchmarks/test_neural_ode.py``. All have the same model and steps. A training step is what
:class:`emubench.learning.training.descent.Descent` does: loss, back-propagation, clipping, Adam; a sample is one sample
interval of one case. They take turns of ten steps, so that what else the machine does falls on all and each has its
own data in the cache, as in training; processor time is taken, of one thread; best and median are printed. What the
first steps take besides, such as compilation, is printed apart and is in no ratio.
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
from emubench.learning.models.flow import LearnedFlow
from emubench.learning.training.descent import Descent, Log

ROUNDS, STEPS = 40, 10
module = baselines.get("neural_ode")


class ByTorchdiffeq(module.NeuralOde):
    """The same model, its whole segment by one call of torchdiffeq's rk4."""

    def unroll(self, state, n_steps):
        return module.by_torchdiffeq(self, state, torch.arange(n_steps + 1.0))[1:].transpose(0, 1)


class ByAutograd(module.NeuralOde):
    """The same model, its steps as torch operations one by one."""

    def unroll(self, state, n_steps):
        return LearnedFlow.unroll(self, state, n_steps)


class Compiled(module.NeuralOde):
    """The same model, its whole segment and its gradient compiled for this shape."""

    def __init__(self, task, config):
        super().__init__(task, config)
        self.compiled = torch.compile(LearnedFlow.unroll, dynamic=False)

    def unroll(self, state, n_steps):
        return self.compiled(self, state, n_steps)


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


def contest(name: str, contestants: dict[str, type], rounds: int) -> None:
    """Let them take turns and print how many times as fast the first one is."""
    torch.set_num_threads(1)
    steps, losses, first = {}, {}, {}
    for who, kind in contestants.items():
        begun = time.process_time()
        steps[who] = descent(kind, name)
        losses[who] = [steps[who][0]() for _ in range(3)]
        first[who] = time.process_time() - begun
    seconds: dict[str, list[float]] = {who: [] for who in steps}
    for _ in range(rounds):
        for who, (step, _) in steps.items():
            begun = time.process_time()
            for _ in range(STEPS):
                step()
            seconds[who].append((time.process_time() - begun) / STEPS)
    ours, *others = contestants
    print(f"\n{name}: {ours} {steps[ours][1] / min(seconds[ours]):.3g} samples/s, first steps {first[ours]:.1f} s")
    for who in others:
        assert losses[who] == pytest.approx(losses[ours], rel=1e-4)  # the same model, learning the same
        best = min(seconds[who]) / min(seconds[ours])
        typical = statistics.median(seconds[who]) / statistics.median(seconds[ours])
        print(f"{best:.2f} times as fast as {who} (medians {typical:.2f}), whose first steps take {first[who]:.1f} s")


@pytest.mark.parametrize("name", ["lorenz63-clean", "lorenz96-clean"])
def test_beside_torchdiffeq(name):
    contest(name, {"emubench": module.NeuralOde, "torchdiffeq": ByTorchdiffeq}, ROUNDS)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy", "kuramoto_sivashinsky-noisy"])
def test_beside_autograd_and_torch_compile(name):
    contest(name, {"emubench": module.NeuralOde, "autograd": ByAutograd, "torch.compile": Compiled}, 10)


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
