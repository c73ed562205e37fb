"""Operators by kernels of our own: beside torch's layers and extended precision, and where they do not step in."""

import numpy as np
import pytest
import torch

from emubench.evaluation.throughput.roofline import count
from emubench.learning.models.networks import GatedMlp, ProductMlp, QuadraticMlp, RingField
from emubench.learning.models.operators import tanh_

KINDS = (GatedMlp, ProductMlp, QuadraticMlp)


def ring_field(kind, radius=2, width=16):
    torch.manual_seed(0)
    field = RingField(radius, width, kind)
    for weight in field.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return field


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_rings", "n_sites", "radius"), [(1, 5, 2), (3, 40, 2), (70, 12, 5), (129, 33, 0)])
def test_rates_are_those_of_the_layers(kind, n_rings, n_sites, radius):
    field, u = ring_field(kind, radius), torch.randn(n_rings, n_sites)
    by_layers = field(u)
    assert by_layers.requires_grad
    with torch.no_grad():
        exact = field.double()(u.double())
        field.float()
        error = (field(u) - exact).abs().max()
    assert error <= 3 * (by_layers - exact).abs().max() + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_ring_does_not_depend_on_its_neighbours_in_the_batch_nor_on_where_it_begins(kind):
    field, u = ring_field(kind), torch.randn(2, 67, 40)
    with torch.no_grad():
        whole = field(u)
        assert torch.equal(field(u[1, 40:41]), whole[1, 40:41])
        assert torch.equal(field(u.roll(7, -1)), whole.roll(7, -1))
        assert torch.equal(field(u.transpose(0, 1)), whole.transpose(0, 1))  # not contiguous


def test_what_is_not_finite_stays_within_its_reach():
    field, u = ring_field(GatedMlp), torch.randn(3, 40)
    u[1, 20] = torch.nan
    with torch.no_grad():
        wrong = ~field(u).isfinite()
    assert wrong[1, 18:23].all()
    assert int(wrong.sum()) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_forward_derivatives_without_gradients_are_those_with_them(kind):
    field, u, v = ring_field(kind), torch.randn(3, 40), torch.randn(3, 40)
    with torch.no_grad():
        found = torch.func.jvp(field, (u,), (v,))[1]
    step = 1e-3
    difference = (field.double()(u + step * v.double()) - field(u - step * v.double())) / (2 * step)
    assert torch.allclose(found.double(), difference, atol=1e-4)


def test_other_precisions_and_widths_go_through_the_layers():
    field, u = ring_field(GatedMlp), torch.randn(3, 40)
    odd = ring_field(GatedMlp, width=12)
    with torch.no_grad():
        assert field.double()(u.double()).dtype == torch.float64
        field.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert field(u).dtype == torch.bfloat16
        assert torch.equal(odd(u), odd(u.clone().requires_grad_()))


def test_operations_are_counted():
    field, u = ring_field(GatedMlp), torch.randn(3, 40)
    flops, moved = count(lambda: field(u))
    assert flops == 2 * 3 * 40 * (2 * 5 * 16 + 16 * 16 + 16)
    assert moved < 4 * 3 * 40 * 16  # no layer's output leaves the kernel


def test_tanh_is_exact_to_two_units_in_the_last_place():
    size = 10.0 ** torch.linspace(-300, 2, 20_003, dtype=torch.float64)
    x = torch.cat([size, -size, torch.tensor([0.0, torch.inf, -torch.inf, 1e300], dtype=torch.float64)])
    exact = np.tanh(x.numpy().astype(np.longdouble))
    assert np.finfo(np.longdouble).eps < 1e-18, "no extended precision here to compare with"
    with torch.no_grad():
        found = tanh_(x.clone()).numpy()
    assert np.all(np.abs(found - exact) <= 2 * np.spacing(np.abs(exact).astype(float)))


def test_tanh_keeps_nan_and_its_place():
    x = torch.randn(3, 5, dtype=torch.float64)
    x[1, 2] = torch.nan
    with torch.no_grad():
        assert tanh_(x) is x
    assert x.isnan().nonzero().tolist() == [[1, 2]]


def test_tanh_of_what_wants_gradients_has_them():
    x = torch.randn(7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(tanh_(x.clone()).sum(), x)
    assert torch.allclose(gradient, 1 - torch.tanh(x) ** 2)
