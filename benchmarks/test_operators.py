"""Operators by kernels of our own beside torch's, at 64 cases: ``pytest -s benchmarks/test_operators.py``

They take turns; least times of the processor count. Operations are those of the products alone, beside the ceiling of
vector multiply-adds in registers, measured in the same run.
"""

from __future__ import annotations

import time

import pytest
import torch

from emubench.evaluation.throughput.roofline import count, flops_per_second
from emubench.learning.models.networks import GatedMlp, ProductMlp, QuadraticMlp, RingField
from emubench.learning.models.operators import tanh_
from emubench.learning.rings import neighbourhoods

FIELDS = {
    "resnet_ode, lorenz96": (RingField(2, 64, GatedMlp), 40),
    "ot_regularized, lorenz96": (RingField(2, 48, GatedMlp), 40),
    "neural_ode, lorenz96": (RingField(2, 64, ProductMlp), 40),
    "weak_adversarial, lorenz96": (RingField(2, 24, QuadraticMlp), 40),
    "resnet_ode, kuramoto_sivashinsky": (RingField(16, 64, GatedMlp), 64),
    "neural_ode, kuramoto_sivashinsky": (RingField(6, 32, ProductMlp), 32),
    "weak_adversarial, kuramoto_sivashinsky": (RingField(4, 24, QuadraticMlp), 64),
}
ROUNDS = 20


def least_seconds(*calls) -> list[float]:
    """Least processor time of each call."""
    seconds = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, seconds, strict=True):
            begun = time.process_time()
            call()
            times.append(time.process_time() - begun)
    return [min(times) for times in seconds]


@pytest.mark.parametrize("name", FIELDS)
@torch.no_grad()
def test_a_field_beside_its_layers(name):
    torch.set_num_threads(1)
    field, n_sites = FIELDS[name]
    u = torch.randn(64, n_sites)
    layers, ours = least_seconds(lambda: field.network(neighbourhoods(u, field.radius)), lambda: field(u))
    done, peak = count(lambda: field(u))[0] / ours, flops_per_second(1, "float32")
    print(f"\n{name}: {1e6 * layers:.0f} µs by layers, {1e6 * ours:.0f} µs, {layers / ours:.2f} times as fast", end="")
    print(f"; {done / 1e9:.0f} of {peak / 1e9:.0f} billion operations per second", end="")
    assert ours < layers


@torch.no_grad()
def test_tangents():
    torch.set_num_threads(1)
    x = torch.randn(512, 300, dtype=torch.float64)
    torchs, ours = (1e9 * s / x.numel() for s in least_seconds(lambda: torch.tanh(x, out=x), lambda: tanh_(x)))
    print(f"\na hyperbolic tangent: {torchs:.2f} ns by torch, {ours:.2f} ns")
    assert ours < torchs
