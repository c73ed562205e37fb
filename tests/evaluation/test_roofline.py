"""Ceilings and what is counted against them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from emubench import systems
from emubench.dynamics.kernels._simd import lanes
from emubench.dynamics.schemes import EXPLICIT
from emubench.evaluation.throughput import roofline


def test_products_count_by_their_formula_and_views_not_at_all():
    a, b = torch.ones(5, 7), torch.ones(7, 11)
    flops, moved = roofline.count(lambda: a @ b)
    assert flops == 2 * 5 * 7 * 11
    assert moved == 4 * (5 * 7 + 7 * 11 + 5 * 11)
    assert roofline.count(lambda: a.view(35).unbind()) == (0, 0)
    flops, moved = roofline.count(lambda: torch.tanh(a) + 1.0)
    assert (flops, moved) == (2 * 35, 4 * 4 * 35)


def test_a_layer_counts_its_product_and_its_bias():
    layer, x = nn.Linear(16, 32), torch.ones(8, 16)
    flops, moved = roofline.count(lambda: layer(x))
    assert 2 * 8 * 16 * 32 <= flops <= 2 * 8 * 16 * 32 + 8 * 32
    assert moved >= 4 * (8 * 16 + 16 * 32 + 8 * 32)


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96"])
@pytest.mark.parametrize("scheme", ["rk4", "heun", "euler"])
def test_a_solver_s_formula_is_what_the_reference_integrator_does(name, scheme):
    """Torch's operators, less those that move numbers without computing."""
    system = systems.get(name)
    state = torch.ones(1, *system.shape, dtype=torch.float64)

    class Arithmetic(roofline.Counter):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            before = self.flops
            out = super().__torch_dispatch__(func, types, args, kwargs)
            if func.overloadpacket.__name__ in ("roll", "stack", "cat", "clone"):
                self.flops = before
            return out

    with Arithmetic() as counter:
        EXPLICIT[scheme](system.rhs, 0.01)(state, None)
    work = roofline.solver_work(system, scheme, steps=1)
    assert work is not None
    assert work[0] == pytest.approx(counter.flops, rel=0.25)
    assert work[1] == 8 * state.numel()


def test_work_grows_with_steps_and_samples_and_is_unknown_of_others():
    system = systems.get("kuramoto_sivashinsky")
    once, more = (roofline.solver_work(system, "etdrk4", steps, samples) for steps, samples in ((1, 1), (4, 10)))
    assert once is not None
    assert more is not None
    assert more[0] == 40 * once[0]
    assert more[1] == 10 * once[1]
    assert 9000 < once[0] < 10000  # eight transforms of 64 points are 7680 of them
    assert roofline.solver_work(systems.get("kpz"), "strang", 1) is None


def test_what_binds_is_what_is_used_most(monkeypatch):
    monkeypatch.setattr(roofline, "flops_per_second", lambda threads, dtype: 100.0)
    monkeypatch.setattr(roofline, "bytes_per_second", lambda threads: 1000.0)
    assert roofline.bound((50.0, 100.0), 1.0, 1, "float64").binds == "arithmetic"
    assert roofline.bound((50.0, 900.0), 1.0, 1, "float64").binds == "memory"
    assert roofline.bound((50.0, 900.0), 10.0, 1, "float64").binds == "overhead"
    assert roofline.bound((50.0, 900.0), 10.0, 1, "float64").flops_per_second == 5.0


def test_the_ceilings_are_of_this_century():
    assert 1e8 < roofline.flops_per_second(1) < 1e12
    assert 1e8 < roofline.flops_per_second(1, "float32") < 1e12
    assert 1e8 < roofline.bytes_per_second(1) < 1e12


def test_a_multiply_add_of_half_the_precision_counts_twice_the_numbers(monkeypatch):
    """In equal time, as registers hold twice as many; by counts, since rates of a busy machine differ by any factor."""
    monkeypatch.setattr(roofline, "least_seconds", lambda function, arguments: 1.0)
    counted = roofline.flops_per_second.__wrapped__
    assert counted(1, "float32") == 2 * counted(1, "float64") == counted(2, "float64")
    assert counted(1, "float64") == 2 * roofline.FMAS * 8 * lanes(np.dtype("float64"))
