"""The noise is normal, independent in every direction, and the same bits from numpy and from the kernel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emubench.core.random import stream
from emubench.dynamics import noise
from emubench.dynamics.kernels import _normal
from emubench.dynamics.kernels._simd import LANES, aligned

N_PER_LANE = 625_000
N_TOTAL = LANES * N_PER_LANE


def generators(n: int = LANES) -> list[np.random.Generator]:
    return [stream(0, "noise", b) for b in range(n)]


def from_kernel(rngs: list[np.random.Generator], n: int, step: int = 0) -> np.ndarray:
    """Normals of one step, ``"lane n"``."""
    out = aligned(n + n % 2)
    _normal.normals(_normal.lane_seeds(rngs, step + 1), step, out, 0, n)
    return out.reshape(-1, LANES).T[:, :n].copy()


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return from_kernel(generators(), N_PER_LANE)


def test_words_are_those_of_the_authors_program():
    # https://prng.di.unimi.it/xoshiro256plusplus.c from the state 1, 2, 3, 4
    expected = [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205, 9973669472204895162]
    assert noise.xoshiro(np.arange(1, 5, dtype=np.uint64), 6).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 64, 257, 5000])
def test_kernel_and_numpy_agree_bit_by_bit(n):
    seeds = noise.seeds(generators(), 3)
    for step in range(3):
        assert np.array_equal(from_kernel(generators(), n, step), noise.normals(seeds[:, step], n))


def test_fewer_trajectories_than_lanes():
    assert np.array_equal(from_kernel(generators(5), 9)[:5], from_kernel(generators(), 9)[:5])


def test_seeds_continue_where_the_last_ones_ended():
    whole = noise.seeds(generators(3), 10)
    rngs = generators(3)
    assert np.array_equal(np.concatenate([noise.seeds(rngs, 4), noise.seeds(rngs, 6)], axis=1), whole)
    assert len(np.unique(whole)) == whole.size


def test_fewer_numbers_are_the_first_of_more():
    seeds = noise.seeds(generators(2), 1)
    assert np.array_equal(noise.normals(seeds, 7), noise.normals(seeds, 20)[..., :7])


def test_box_muller_is_accurate():
    a, b = np.random.default_rng(0).integers(0, 2**64, size=(2, 100_000), dtype=np.uint64)
    a[:3], b[:3] = (0, 2**64 - 1, 2**63), (0, 2**64 - 1, 2**63)
    u = 1 - (a >> np.uint64(12)).astype(float) * 2.0**-52
    angle = np.pi * ((b >> np.uint64(12)).astype(float) * 2.0**-52 - 0.5)
    radius = np.sqrt(-2 * np.log(u))
    x, y = noise.box_muller(a, b)
    assert np.abs(y - radius * np.sin(angle)).max() < 4e-15
    assert np.abs(x - radius * np.cos(angle) * np.where(b % np.uint64(2) == 1, -1, 1)).max() < 4e-15


def test_extreme_words_give_finite_numbers():
    extremes = np.array([0, 1, 2**12, 2**63, 2**64 - 2**12, 2**64 - 1], dtype=np.uint64)
    first, second = np.meshgrid(extremes, extremes)
    found = np.abs(noise.box_muller(first.copy(), second.copy()))
    assert np.isfinite(found).all()
    assert found.max() == pytest.approx(np.sqrt(2 * 52 * np.log(2)))


def test_moments_to_sixth_order(many):
    for order in range(1, 7):
        mean, square = stats.norm.moment(order), stats.norm.moment(2 * order)
        error = np.sqrt((square - mean**2) / N_TOTAL)
        assert abs((many**order).mean() - mean) < 4 * error, order


def test_distribution_function(many):
    assert stats.kstest(many.ravel(), "norm").pvalue > 0.01
    assert stats.kstest((many**2).sum(axis=0), stats.chi2(LANES).cdf).pvalue > 0.01


@pytest.mark.parametrize("sigma", [3.0, 4.0, 5.0, 5.3])
def test_tails(many, sigma):
    for tail in (many > sigma, many < -sigma):
        expected = stats.norm.sf(sigma) * N_TOTAL
        assert 1e-4 < stats.poisson.cdf(tail.sum(), expected) < 1 - 1e-4


@pytest.mark.parametrize("transform", [lambda z: z, np.square, np.abs], ids=["values", "squares", "sizes"])
def test_lanes_are_uncorrelated(many, transform):
    correlation = np.corrcoef(transform(many))[np.triu_indices(LANES, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(N_PER_LANE)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 256, 257])
@pytest.mark.parametrize("transform", [lambda z: z, lambda z: z**2 - 1], ids=["values", "squares"])
def test_a_lane_is_uncorrelated_in_time(many, lag, transform):
    z = transform(many)
    products = z[:, lag:] * z[:, :-lag]
    assert abs(products.mean()) < 4.5 * products.std() / np.sqrt(products.size)


def test_pairs_fill_the_plane_evenly(many):
    uniform = stats.norm.cdf(many[:, :500_000])
    counts = np.histogram2d(uniform[:, 0::2].ravel(), uniform[:, 1::2].ravel(), bins=40, range=[[0, 1]] * 2)[0]
    assert 1e-3 < stats.chisquare(counts.ravel()).pvalue < 1 - 1e-3


def test_steps_and_neighbouring_generators_are_uncorrelated():
    z = noise.normals(noise.seeds(generators(200), 50), 20).reshape(200, -1)
    correlation = np.corrcoef(z)[np.triu_indices(200, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(z.shape[1])
    steps = np.corrcoef(z.reshape(200, 50, 20).transpose(1, 0, 2).reshape(50, -1))[np.triu_indices(50, 1)]
    assert np.abs(steps).max() < 5 / np.sqrt(200 * 20)
