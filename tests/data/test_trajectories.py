"""The stored trajectories and their observations: what they are, and what each draw depends on."""

from __future__ import annotations

import numpy as np
import pytest

from emubench.core.random import stream
from emubench.data import generation, tasks
from emubench.data.tasks import Amount, Size
from emubench.dynamics.simulate import simulate
from tests.support.stored import observed, read, truth_of

DETERMINISTIC = ["lorenz63", "lorenz96", "kuramoto_sivashinsky"]
NAMES = ["lorenz63", "lorenz96", "kpz"]


# --- what is in the files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.names())
def test_observations_are_the_truth_of_the_same_trajectory_plus_noise(data, name):
    task = tasks.get(name, "tiny")
    sigma = task.observation.noise_std(task.system)
    for split, array in (("train", "observation"), ("validation", "observation"), ("test", "context")):
        seen = observed(data, name, f"{split}/{array}")
        truth = task.observation.select(truth_of(data, task.system.name, split))[: len(seen), : seen.shape[1]]
        assert np.isfinite(seen).sum() == task.observation.fraction * np.isfinite(truth).sum()
        if task.track == "clean":
            np.testing.assert_array_equal(seen, truth)
        else:
            scaled = ((seen - truth) / sigma)[np.isfinite(seen)]
            assert abs(scaled.std() - 1) < 5 / np.sqrt(2 * scaled.size)
            assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)


@pytest.mark.parametrize("system", DETERMINISTIC)
@pytest.mark.parametrize("split", ["test", "climate"])
def test_the_truth_goes_on_where_the_context_ends(data, system, split):
    task, context = tasks.get(f"{system}-clean", "tiny"), observed(data, f"{system}-clean", f"{split}/context")
    truth = truth_of(data, system, split)
    assert context.shape[1] == 64
    assert truth.shape[1] == 64 + task.steps(split)
    following = simulate(task.system, context[:, -1], 1)[:, 0]
    np.testing.assert_allclose(following, truth[:, 64], rtol=0, atol=1e-9)
    lead_time = observed(data, f"{system}-clean", f"{split}/lead_time")
    time = read(data / "tiny" / f"{system}.truth.h5", f"{split}/time")
    np.testing.assert_allclose(lead_time, time[64:], rtol=1e-12)
    assert time[63] == 0


@pytest.mark.parametrize("split", ["train", "validation", "test", "climate"])
def test_trajectories_are_on_the_attractor_and_independent(data, split):
    task, truth = tasks.get("lorenz96-clean", "tiny"), truth_of(data, "lorenz96", split)
    assert np.abs(truth[:, 0].std() / 3.639 - 1) < 0.3
    correlation = np.corrcoef(truth[:, 0])
    assert np.abs(correlation - np.eye(len(truth))).max() < 0.8
    assert task.system.spin_up_samples * task.system.sample_interval <= 10 * task.system.time_unit


def test_half_of_the_kpz_cases_start_flat(data):
    for split in ("test", "climate"):
        truth, start = truth_of(data, "kpz", split), read(data / "tiny" / "kpz.truth.h5", f"{split}/start")
        assert start.tolist() == [0, 1] * (len(start) // 2)
        flat, stationary = truth[start == 1], truth[start == 0]
        assert np.isfinite(stationary).all()
        assert np.isnan(flat[:, :56]).all()
        assert (flat[:, 56] == 0).all()
        assert np.isfinite(flat[:, 57:]).all()
        width = flat.std(axis=-1)[:, 57:]  # it grows: W² ~ t^(2/3)
        assert width[:, 0].max() < width[:, 60:].mean()
        widths = stationary.std(axis=-1)
        assert 0.6 < widths.mean() / 4.62 < 1.2
        context = observed(data, "kpz-noisy", f"{split}/context")
        assert np.isnan(context[start == 1, :56]).all()
        assert np.isfinite(context[start == 1, 56:]).all()
        assert np.isfinite(context[start == 0]).all()


def test_kpz_trains_on_both_starts_from_time_zero(data):
    truth = truth_of(data, "kpz", "train")
    assert (truth[1::2, 0] == 0).all()
    assert (truth[::2, 0].std(axis=-1) > 1).all()
    assert np.isfinite(truth).all()


def test_kpz_goes_on_after_the_context_without_a_jump(data):
    truth = truth_of(data, "kpz", "climate")[::2]  # stationary starts
    increments = np.diff(truth, axis=1).std(axis=(0, 2))
    assert increments[63] == pytest.approx(increments.mean(), rel=0.1)


# --- what draws depend on ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_amounts(tmp_path_factory) -> dict:
    """Datasets of other amounts: more and shorter trajectories, in more than one block; same seed."""
    folder = tmp_path_factory.mktemp("amounts")
    with pytest.MonkeyPatch.context() as patch:
        size = Size(Amount(20, 100), Amount(3, 300), Amount(1, 50), Amount(1, 40), n_test=18, n_climate=3)
        patch.setitem(tasks.SIZES, "other", size)
        for name in NAMES:
            for track in ("partial", "scarce"):
                generation.generate(tasks.get(f"{name}-{track}", "other"), folder)
    return {p.stem: p for p in (folder / "other").iterdir()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "validation", "test", "climate"])
def test_a_trajectory_depends_on_seed_system_split_and_number_alone(data, other_amounts, name, split):
    ours, theirs = truth_of(data, name, split), read(other_amounts[f"{name}.truth"], f"{split}/truth")
    n, length = min(len(ours), len(theirs)), min(ours.shape[1], theirs.shape[1])
    assert ours.shape != theirs.shape
    np.testing.assert_array_equal(ours[:n, :length], theirs[:n, :length])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("track", ["partial", "scarce"])
def test_an_observation_depends_on_seed_task_split_and_number_alone(data, other_amounts, name, track):
    for array in ("train/observation", "validation/observation", "test/context", "climate/context"):
        ours, theirs = observed(data, f"{name}-{track}", array), read(other_amounts[f"{name}-{track}"], array)
        n, length = min(len(ours), len(theirs)), min(ours.shape[1], theirs.shape[1])
        np.testing.assert_array_equal(ours[:n, :length], theirs[:n, :length])


@pytest.mark.parametrize("name", ["lorenz96-partial", "kpz-noisy"])
def test_an_observation_can_be_rebuilt_from_its_truth_and_stream(data, name):
    task = tasks.get(name, "tiny")
    truth = truth_of(data, task.system.name, "test")[5, :64]
    again = task.observation(task.system, truth, stream(0, name, "test", 5))
    np.testing.assert_array_equal(observed(data, name, "test/context")[5], again)


def test_the_tracks_share_one_truth_and_no_noise(data):
    noise = {}
    for track in ("noisy", "partial", "scarce"):
        task = tasks.get(f"lorenz96-{track}", "tiny")
        seen = observed(data, task.name, "test/context")
        noise[track] = (seen - truth_of(data, "lorenz96", "test")[:, :64]) / task.observation.noise_std(task.system)
    for a, b in (("noisy", "partial"), ("noisy", "scarce"), ("partial", "scarce")):
        product = noise[a] * noise[b]
        product = product[np.isfinite(product)]
        assert abs(product.mean()) < 5 / np.sqrt(product.size)


@pytest.mark.parametrize("name", NAMES)
def test_scarce_data_are_the_first_samples_of_the_first_trajectory(data, name):
    task = tasks.get(f"{name}-scarce", "tiny")
    seen = observed(data, task.name, "train/observation")
    assert seen.shape[:2] == (1, 128)
    first = task.observation.select(truth_of(data, name, "train"))[:1, :128]
    gap = np.abs(seen - first)[np.isfinite(seen)]
    assert gap.max() < 6 * task.observation.noise_std(task.system).max()


def test_another_seed_gives_other_data(data, tmp_path):
    task = tasks.get("lorenz63-noisy", "tiny")
    generation.generate(task, tmp_path, seed=1)
    for split in ("train", "test"):
        assert (truth_of(data, "lorenz63", split)[:, 0] != truth_of(tmp_path, "lorenz63", split)[:, 0]).all()
    same_split = [truth_of(data, "lorenz63", s)[0, 0] for s in ("train", "validation", "test", "climate")]
    assert len(np.unique(np.array(same_split), axis=0)) == 4
