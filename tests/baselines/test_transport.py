"""Entropic transport: against POT, closed forms, finite differences; memory linear in the grid."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import ot
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.core.random import stream
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere

module = baselines.get("ot_regularized")
MAX_RANGE, densities, heat_kernel = module.MAX_RANGE, module.densities, module.heat_kernel
cloud_cost, cloud_transport, ring_transport = module.cloud_cost, module.cloud_transport, module.ring_transport
cloud_divergence, ring_divergence = (partial(module.divergence, t) for t in (cloud_transport, ring_transport))
CONVERGED = {"tolerance": 1e-11, "max_iterations": 20000}


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "transport").standard_normal(shape))


def by_pot(a: np.ndarray, b: np.ndarray, cost: np.ndarray, eps: float) -> float:
    """Cost and entropy of POT's plan."""
    plan = ot.sinkhorn(a, b, cost, eps, method="sinkhorn_log", stopThr=1e-12, numItermax=100_000)
    return float((plan * cost).sum() + eps * (plan * np.log(plan / np.outer(a, b))).sum())


def dense_cost(n: int, eps: float) -> torch.Tensor:
    """−ε log of the heat kernel on a ring of length 1 as a matrix, by the sum over all ways around it."""
    x = torch.arange(n, dtype=torch.float64) / n
    d = x[:, None] - x + torch.arange(-8, 9, dtype=torch.float64)[:, None, None]
    kernel = torch.exp(-(d**2) / (2 * eps)).sum(0) / math.sqrt(2 * math.pi * eps) / n
    return -eps * kernel.log()


# --- point clouds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [pytest.param(0.05, marks=pytest.mark.slow), 2.0])
def test_clouds_agree_with_pot(eps):
    x, y = draws(12, 3), draws(9, 3, seed=1) + 0.5
    cost = cloud_cost(x, y).numpy()
    assert np.allclose(cost, 0.5 * ot.dist(x.numpy(), y.numpy()), atol=1e-12)
    expected = by_pot(np.full(12, 1 / 12), np.full(9, 1 / 9), cost, eps)
    assert float(cloud_transport(x, y, eps, **CONVERGED)) == pytest.approx(expected, rel=1e-4)


def test_a_small_blur_is_the_exact_transport():
    x, y = draws(20, 2), draws(20, 2, seed=1) + 1
    exact = ot.emd2([], [], cloud_cost(x, y).numpy())
    assert float(cloud_transport(x, y, 1e-3, 1e-8, 20000)) == pytest.approx(exact, abs=1e-3 * math.log(20) + 1e-4)


def test_gaussians_on_the_line():
    """Quantiles of N(0, 1) and N(2, 1.5²): half of the squared distance of means plus that of deviations."""
    from scipy.stats import norm

    x = torch.from_numpy(norm.ppf((np.arange(400) + 0.5) / 400))[:, None]
    assert float(cloud_divergence(x, 2 + 1.5 * x, 0.01, 1e-6, 2000)) == pytest.approx(0.5 * (4 + 0.25), rel=0.01)


@pytest.mark.parametrize("eps", [0.25, 0.1])
def test_a_divergence_is_iterated_to_its_tolerance(eps):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert float(cloud_divergence(x, y, eps)) == pytest.approx(
        float(cloud_divergence(x, y, eps, **CONVERGED)), rel=1e-4
    )


def test_the_divergence_of_clouds_is_a_divergence():
    x, y = draws(30, 2), draws(30, 2, seed=1)
    own, other = (float(cloud_divergence(x, v, 0.1, 1e-9, 5000)) for v in (x[torch.randperm(30)], y))
    assert own == pytest.approx(0, abs=1e-7)
    assert other > 1e-3
    assert float(cloud_divergence(y, x, 0.1, 1e-9, 5000)) == pytest.approx(other, rel=1e-5)
    shifts = [float(cloud_divergence(x, x + s, 0.5, 1e-9, 5000)) for s in (0.5, 1.0)]
    assert shifts == pytest.approx([2 * 0.5 * 0.25, 2 * 0.5 * 1.0], rel=1e-5)  # a shift costs its square at any blur
    assert float(cloud_transport(x, x, 0.5, 1e-9, 5000)) > 0.1  # what is taken off


def test_batched_clouds_are_their_clouds():
    x, y = draws(3, 8, 2), draws(3, 6, 2, seed=1)
    together = cloud_divergence(x, y, 0.3, **CONVERGED)
    alone = torch.stack([cloud_divergence(a, b, 0.3, **CONVERGED) for a, b in zip(x, y, strict=True)])
    assert torch.allclose(together, alone, atol=1e-8)


def test_the_gradient_of_clouds():
    x, y = (draws(7, 2, seed=s).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda p, q: cloud_divergence(p, q, 0.3, **CONVERGED), (x, y))
    (gradient,) = torch.autograd.grad(cloud_divergence(x, x.detach() + 0.4, 0.3, **CONVERGED), x)
    assert torch.allclose(gradient, torch.full_like(x, -0.4 / 7), atol=1e-6)


def test_descent_moves_a_cloud_onto_another():
    x, y = draws(40, 2).requires_grad_(), draws(40, 2, seed=1) * 0.3 + 2
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        cloud_divergence(x, y, 0.05).backward()
        optimizer.step()
    assert torch.allclose(x.detach().mean(0), y.mean(0), atol=0.05)
    assert torch.allclose(x.detach().std(0), y.std(0), atol=0.1)


# --- densities on a ring ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.006, 0.1])
@pytest.mark.parametrize("n", [32, 33])
def test_rings_agree_with_pot(eps, n):
    a, b = (torch.softmax(2 * draws(n, seed=s), 0) for s in (0, 1))
    expected = by_pot(a.numpy(), b.numpy(), dense_cost(n, eps).numpy(), eps)
    assert float(ring_transport(a, b, eps, **CONVERGED)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("eps", [0.006, 0.05])
def test_the_heat_kernel_is_the_sum_over_all_ways_around(eps):
    n = 40
    delta = torch.zeros(n, dtype=torch.float64)
    delta[0] = 1
    kernel = torch.fft.irfft(heat_kernel(n, eps) * torch.fft.rfft(delta), n=n)
    assert torch.allclose(-eps * kernel.log(), dense_cost(n, eps)[0], atol=1e-6)


@pytest.mark.parametrize("sites", [1, 5, 13])
def test_shifted_deltas_on_a_circle_cost_half_their_squared_distance(sites):
    """On the shorter way around, whichever way; what mass is elsewhere is too little to count."""
    n = 64
    a = torch.full((n,), 1e-15, dtype=torch.float64)
    a[3] = 1
    for shift in (sites, -sites):
        found = float(ring_divergence(a, a.roll(shift), 0.006, 1e-9, 5000))
        assert found == pytest.approx(0.5 * (sites / n) ** 2, rel=2e-3)


def test_a_shifted_bump_costs_its_shift_at_any_blur():
    x = (torch.arange(128, dtype=torch.float64) - 30) / 128
    a = torch.exp(-0.5 * (x / 0.04) ** 2)
    a = a / a.sum() + 1e-12
    for eps in (0.006, 0.012):
        found = float(ring_divergence(a, a.roll(16), eps, 1e-9, 5000))
        assert found == pytest.approx(0.5 * 0.125**2, rel=0.02)


def test_the_divergence_on_a_ring_is_a_divergence_and_knows_no_origin():
    a, b = (torch.softmax(draws(3, 48, seed=s), -1) for s in (0, 1))
    assert float(ring_divergence(a, a, 0.02, 1e-9, 5000).abs().max()) < 1e-9
    one, other = ring_divergence(a, b, 0.02, 1e-9, 5000), ring_divergence(b, a, 0.02, 1e-9, 5000)
    assert float(one.min()) > 1e-5
    assert torch.allclose(one, other, rtol=1e-5)
    assert torch.allclose(one, ring_divergence(a.roll(7, -1), b.roll(7, -1), 0.02, 1e-9, 5000), rtol=1e-6)


@pytest.mark.parametrize("eps", [pytest.param(0.01, marks=pytest.mark.slow), 0.1])
def test_the_gradient_of_densities(eps):
    u, v = (draws(16, seed=s).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(
        lambda p, q: ring_divergence(densities(p), densities(q), eps, 1e-12, 20000), (u, v), atol=1e-6
    )


def test_fields_become_crests_and_troughs():
    u = draws(5, 16)
    crests, troughs = densities(u)
    assert torch.allclose(crests.sum(-1), torch.ones(5, dtype=torch.float64))
    assert torch.equal(crests.argmax(-1), u.argmax(-1))
    assert torch.equal(troughs.argmax(-1), u.argmin(-1))
    assert torch.allclose(torch.stack([troughs, crests]), densities(-u))


def test_transport_feels_how_far_where_a_squared_error_does_not():
    x = torch.arange(64, dtype=torch.float64)
    u = 3 * torch.exp(-0.5 * ((x - 20) / 2) ** 2)
    near, far = u.roll(8), u.roll(24)
    assert float((u - near).square().mean()) == pytest.approx(float((u - far).square().mean()), rel=0.05)
    losses = [float(ring_divergence(densities(u), densities(v), 0.01).sum()) for v in (near, far)]
    assert losses[1] > 3 * losses[0] > 0


class Largest(TorchDispatchMode):
    """The largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return out


def test_memory_is_linear_in_the_grid():
    for n in (256, 4096):
        a, b = (torch.softmax(draws(n, seed=s), -1).requires_grad_() for s in (0, 1))
        with Largest() as largest:
            ring_divergence(a, b, 0.01).backward()
        assert largest.size <= 2 * n
    with Largest() as largest:
        cloud_divergence(draws(50, 2), draws(50, 2), 0.1)
    assert largest.size == 2500, "this is what would show a matrix"


@pytest.mark.parametrize("eps", [1e-5, 0.9 / (8 * MAX_RANGE), math.nan])
def test_a_blur_that_the_kernel_cannot_resolve_is_refused(eps):
    with pytest.raises(EmubenchError, match=r"eps: .* where at least 0.00521 belongs, on a ring of 64 sites"):
        heat_kernel(64, eps)


def test_the_smallest_blur_is_still_right_across_the_ring():
    """Half way around, where the kernel is e^−24 of its largest value."""
    n, eps = 64, 1 / (8 * MAX_RANGE)
    a = torch.full((n,), 1e-15, dtype=torch.float64)
    a[0] = 1
    expected = float(dense_cost(n, eps)[0, n // 2] - dense_cost(n, eps)[0, 0])
    assert float(ring_transport(a, a.roll(n // 2), eps, 1e-9, 5000) - ring_transport(a, a, eps, 1e-9, 5000)) == (
        pytest.approx(expected, rel=1e-3)
    )


def test_an_iteration_that_may_not_stop_early_ends_where_the_other_stops():
    x, y = draws(20, 2), 0.5 + draws(20, 2, seed=1)
    here = cloud_divergence(x, y, 0.5, 1e-3, 200)
    with Elsewhere() as there:
        found = cloud_divergence(*(sent(cloud, ELSEWHERE) for cloud in (x, y)), 0.5, 1e-3, 200)
        assert not there.trips
        assert torch.equal(found.cpu(), here)
