"""The Tracy–Widom law against its published moments and values, and against eigenvalues of random matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import airy

from emubench.leaderboard.plots import tracy_widom


@pytest.fixture(scope="module")
def law() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments from −10 to 14 in steps of 0.1, distribution function and density."""
    s = np.arange(-100, 141) / 10
    return s, *tracy_widom.law(s)


def test_the_moments_are_the_published_ones(law):
    s, _, density = law
    total, mean = density.sum() / 10, (s * density).sum() / 10  # the trapezoidal rule converges exponentially here
    central = [((s - mean) ** k * density).sum() / 10 for k in (2, 3, 4)]
    assert total == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx(tracy_widom.MEAN, abs=1e-11)
    assert central[0] == pytest.approx(tracy_widom.VARIANCE, abs=1e-11)
    assert central[1] / central[0] ** 1.5 == pytest.approx(tracy_widom.SKEWNESS, abs=1e-9)
    assert central[2] / central[0] ** 2 - 3 == pytest.approx(tracy_widom.EXCESS_KURTOSIS, abs=1e-9)


def test_the_density_is_the_derivative_of_the_distribution(law):
    s, cdf, density = law
    assert (np.diff(cdf) >= 0).all()
    spline = np.polynomial.Chebyshev.interpolate(lambda x: tracy_widom.law(x)[0], 24, domain=[-3, -1])
    inside = (s > -3) & (s < -1)
    np.testing.assert_allclose(spline.deriv()(s[inside]), density[inside], atol=1e-9)


def test_more_nodes_change_nothing(law, monkeypatch):
    s, cdf, density = (values[::10] for values in law)
    monkeypatch.setattr(tracy_widom, "NODES", 60)
    finer = tracy_widom.law(s)
    np.testing.assert_allclose(finer, (cdf, density), atol=1e-13)


def test_the_right_tail_is_that_of_the_airy_function(law):
    s, _, density = law
    for at in (4.0, 6.0):  # F ≈ 1 − ∫ B_s(x, x) dx, so that the density is ½ Ai(s)
        assert density[np.flatnonzero(s == at)[0]] == pytest.approx(airy(at)[0] / 2, rel=1e-3)


@pytest.mark.slow
def test_the_largest_eigenvalue_of_random_matrices_follows_it():
    n, rng, largest = 200, np.random.default_rng(0), []
    for _ in range(400):
        matrix = rng.standard_normal((n, n))
        largest.append(np.linalg.eigvalsh((matrix + matrix.T) / np.sqrt(2))[-1])  # off-diagonal variance 1
    scaled = (np.array(largest) - 2 * np.sqrt(n - 0.5)) * n ** (1 / 6)  # n − ½ speeds convergence (Johnstone & Ma 2012)
    assert stats.ks_1samp(scaled, lambda s: tracy_widom.law(s)[0]).pvalue > 0.01
    assert stats.ks_1samp(scaled + 0.6, lambda s: tracy_widom.law(s)[0]).pvalue < 0.01


def test_heights_of_a_flat_interface_have_zero_mean_and_the_known_variance():
    u = np.arange(-60, 81) / 10
    density = tracy_widom.flat_density(u)
    assert [(u**k * density).sum() / 10 for k in (0, 1)] == pytest.approx([1, 0], abs=1e-9)
    assert (u**2 * density).sum() / 10 == pytest.approx(0.63805, abs=1e-5)
