"""Datasets as they are opened: by xarray, as tensors, as windows, and as a file of contexts."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch
import xarray

from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, layout, tasks, verification
from tests.support.stored import observed


@pytest.mark.parametrize("name", ["lorenz63-partial", "lorenz96-noisy"])
def test_xarray_opens_every_group(data, name):
    task = tasks.get(name, "tiny")
    space = "site" if task.system.grid else "component"
    for split in ("train", "validation", "test", "climate"):
        array = "context" if split in ("test", "climate") else "observation"
        row = "case" if split in ("test", "climate") else "trajectory"
        with xarray.open_dataset(data / "tiny" / f"{name}.h5", engine="h5netcdf", group=split) as opened:
            assert opened[array].dims == (row, "time", space)
            np.testing.assert_array_equal(opened[array].values, observed(data, name, f"{split}/{array}"))
            np.testing.assert_allclose(np.diff(opened["time"].values), task.system.sample_interval)
            np.testing.assert_allclose(opened[array].attrs["noise_std"], task.observation.noise_std(task.system))
    with xarray.open_dataset(data / "tiny" / f"{name}.h5", engine="h5netcdf") as opened:
        assert opened.attrs["task"] == name
        assert opened.attrs["seed"] == "0"
    with xarray.open_dataset(data / "tiny" / f"{task.system.name}.truth.h5", engine="h5netcdf", group="test") as opened:
        assert opened["truth"].dims == ("case", "time", space)


def test_load_gives_what_is_stored(data):
    loaded = dataset.load(tasks.get("lorenz96-partial", "tiny"), data)
    stored = observed(data, "lorenz96-partial", "train/observation")
    assert loaded.train.dtype == torch.float64
    np.testing.assert_array_equal(loaded.train.numpy(), stored.astype("f8"))
    assert float(loaded.noise_std[0]) == pytest.approx(0.1 * 3.639, rel=1e-3)


def test_windows_are_consecutive_and_never_cross_trajectories(data):
    series = torch.from_numpy(observed(data, "lorenz63-clean", "train/observation"))
    cut = dataset.windows(series, 7, stride=5)
    assert cut.shape == (4 * ((256 - 7) // 5 + 1), 7, 3)
    starts = [(b, t) for b in range(4) for t in range(0, 250, 5)]
    for window, (b, t) in zip(cut, starts, strict=True):
        assert (window == series[b, t : t + 7]).all()
    with pytest.raises(EmubenchError, match="windows of 257 samples do not fit into trajectories of 256"):
        dataset.windows(series, 257)


def test_a_context_file_shows_contexts_and_lead_times_and_nothing_else(data, tmp_path, emubench):
    path = tmp_path / "contexts.h5"
    finished = emubench("contexts", "lorenz96-noisy", "--size", "tiny", "--data", data, "--file", path)
    assert finished.status == 0
    assert "score --forecast FILE --task lorenz96-noisy --size tiny" in finished.out
    assert len(verification.verify(path)) == 6
    with h5py.File(path) as file:
        assert set(file) == {"test", "climate"}
        for split in file:
            np.testing.assert_array_equal(
                file[split]["context"][()], observed(data, "lorenz96-noisy", f"{split}/context")
            )
            steps = tasks.get("lorenz96-noisy", "tiny").steps(split)
            np.testing.assert_allclose(file[split]["lead_time"][()], 0.05 * np.arange(1, steps + 1))


def test_truth_of_another_seed_than_the_observations_is_refused(own_data, tmp_path):
    task = tasks.get("lorenz63-noisy", "tiny")
    generation.generate(task, tmp_path / "other", seed=1)
    shutil.copy(layout.truth_path(task, tmp_path / "other"), layout.truth_path(task, own_data))
    with pytest.raises(EmubenchError, match=r"lorenz63\.truth\.h5: attribute seed: 1 where 0 is asked for"):
        dataset.open_truth(task, own_data)
