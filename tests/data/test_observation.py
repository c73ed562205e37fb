"""The observation operator: how noisy, what is hidden, and what a draw depends on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import tasks
from emubench.data.observation import Observation

NAN = float("nan")


def residuals(name: str, n: int = 40_000) -> np.ndarray:
    """Observation − truth of one long trajectory of a task, in climatological σ; hidden sites left out."""
    task = tasks.get(name)
    truth = np.linspace(-5, 5, n)[:, None] * np.ones(task.system.shape)
    difference = task.observation(task.system, truth, stream(1, name)) - task.observation.select(truth)
    seen = ~np.isnan(difference[0])
    return (difference / task.observation.select(task.system.std))[:, seen]


@pytest.mark.parametrize("system", systems.names())
@pytest.mark.parametrize("track", ["noisy", "partial", "scarce"])
def test_the_noise_is_gaussian_of_a_tenth_of_sigma(system, track):
    r = residuals(f"{system}-{track}", 4000)
    standard_error = 0.1 / math.sqrt(2 * len(r))
    assert np.abs(r.std(axis=0) - 0.1).max() < 5 * standard_error  # every site has its own σ
    assert np.abs(r.mean(axis=0)).max() < 5 * 0.1 / math.sqrt(len(r))
    assert stats.kstest(r.ravel() / 0.1, "norm").pvalue > 1e-3


def test_the_noise_is_white_in_time_and_across_sites():
    r = residuals("lorenz96-noisy", 4000) / 0.1
    bound = 5 / math.sqrt(len(r))
    assert abs((r[1:] * r[:-1]).mean()) < bound / math.sqrt(40)
    correlation = np.corrcoef(r.T) - np.eye(40)
    assert np.abs(correlation).max() < bound


def test_the_noise_of_kpz_is_that_of_its_saturated_width():
    task = tasks.get("kpz-noisy")
    assert task.observation.noise_std(task.system) == pytest.approx(np.full(256, 0.462), abs=5e-4)


@pytest.mark.parametrize("system", systems.names())
def test_a_clean_observation_is_the_truth_itself_and_a_copy(system):
    task = tasks.get(f"{system}-clean")
    truth = np.random.default_rng(0).normal(size=(5, *task.system.shape))
    before = truth.copy()
    observed = task.observation(task.system, truth, stream(0))
    assert (observed == truth).all()
    observed[:] = 0
    assert (truth == before).all()


@pytest.mark.parametrize("name", ["lorenz96-partial", "kuramoto_sivashinsky-scarce", "kpz-partial"])
def test_a_mask_is_a_random_half_fixed_in_time_and_redrawn(name):
    task = tasks.get(name)
    (n_sites,) = task.system.shape
    n = 400
    truth = np.zeros((6, n_sites))
    masks = []
    for i in range(n):
        hidden = np.isnan(task.observation(task.system, truth, stream(0, name, "train", i)))
        assert (hidden == hidden[0]).all(), "the mask changes within a trajectory"
        masks.append(~hidden[0])
    seen = np.array(masks)
    assert (seen.sum(axis=1) == n_sites // 2).all()
    assert len(np.unique(seen, axis=0)) == n
    share = seen.mean(axis=0)  # every site is as likely as any other
    assert np.abs(share - 0.5).max() < 5 * 0.5 / math.sqrt(n)
    neighbours = (seen & np.roll(seen, 1, axis=1)).mean()  # pairs: (n/2 − 1)/(2(n − 1)), not blocks of sites
    expected = (n_sites / 2 - 1) / (2 * (n_sites - 1))
    assert neighbours == pytest.approx(expected, abs=5 * 0.5 / math.sqrt(n * n_sites))


def test_partial_lorenz63_shows_x_alone_all_the_time():
    task = tasks.get("lorenz63-partial")
    truth = np.arange(30.0).reshape(10, 3)
    observed = task.observation(task.system, truth, stream(0))
    assert observed.shape == (10, 1)
    assert np.isfinite(observed).all()
    assert np.abs(observed[:, 0] - truth[:, 0]).max() < 6 * 0.1 * 7.92


def test_the_mask_does_not_depend_on_the_noise():
    system, truth = systems.get("lorenz96"), np.zeros((4, 40))
    masks = [np.isnan(Observation(fraction=0.5, noise=s)(system, truth, stream(3))) for s in (0.0, 0.1, 10.0)]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] == masks[2]).all()


@pytest.mark.parametrize("name", ["lorenz96-partial", "lorenz63-noisy", "lorenz63-partial", "kpz-scarce"])
def test_a_shorter_trajectory_is_observed_like_the_start_of_a_longer_one(name):
    task = tasks.get(name)
    truth = np.random.default_rng(0).normal(size=(50, *task.system.shape))
    long, short = (task.observation(task.system, truth[:n], stream(5)) for n in (50, 20))
    np.testing.assert_array_equal(long[:20], short)


def test_what_was_never_there_stays_missing():
    task = tasks.get("kpz-noisy")
    truth = np.zeros((4, 256))
    truth[:2] = NAN
    observed = task.observation(task.system, truth, stream(0))
    assert np.isnan(observed[:2]).all()
    assert np.isfinite(observed[2:]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, "observes nothing: fraction 0.0"),
        ({"fraction": -0.5}, "observes nothing"),
        ({"fraction": 1.5}, "fraction 1.5"),
        ({"fraction": NAN}, "fraction nan"),
        ({"components": ()}, r"observes nothing.*components \(\)"),
        ({"noise": -0.1}, "noise must lie between 0 and 10.*not -0.1"),
        ({"noise": NAN}, "noise.*nan"),
        ({"noise": math.inf}, "noise.*inf"),
    ],
)
def test_an_operator_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(EmubenchError, match=message):
        Observation(**arguments)


@pytest.mark.parametrize("fraction", [1e-9, 0.01])
def test_a_tiny_fraction_still_observes_one_site(fraction):
    system = systems.get("lorenz96")
    observed = Observation(fraction=fraction)(system, np.zeros((3, 40)), stream(0))
    assert (~np.isnan(observed)).sum(axis=1).tolist() == [1, 1, 1]
