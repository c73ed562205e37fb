"""Windows read from disk: the right samples, in the right process; and the view of xarray."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emubench.core.errors import EmubenchError
from emubench.data import dataset, tasks
from emubench.data.loader import Window, Windows, open_dataset

TASK = tasks.get("lorenz96-partial", "tiny")


@pytest.fixture(scope="module")
def path(data):
    return data / "tiny" / "lorenz96-partial.h5"


@pytest.fixture(scope="module")
def series(path) -> torch.Tensor:
    with h5py.File(path) as file:
        return torch.from_numpy(file["train/observation"][()])


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a, nan=1e9), torch.nan_to_num(b, nan=1e9))


@pytest.mark.parametrize(
    ("context", "target", "stride"), [(1, 0, 1), (5, 3, 1), (16, 8, 24), (200, 56, 7), (3, 0, 500)]
)
def test_windows_are_those_of_the_array(data, series, context, target, stride):
    lazy = Windows(TASK, context, target, data, stride=stride)
    eager = dataset.windows(series, context + target, stride)
    assert len(lazy) == len(eager)
    for i in {0, 1, len(lazy) // 2, len(lazy) - 1} & set(range(len(lazy))):
        window = lazy[i]
        assert equal(torch.cat([window.context, window.target]), eager[i])
        assert (len(window.context), len(window.target)) == (context, target)
        assert window.context.dtype == torch.float32


def test_indices_count_from_both_ends_and_end(data):
    windows = Windows(TASK, 4, 4, data)
    assert equal(windows[-1].target, windows[len(windows) - 1].target)
    assert isinstance(windows[0], Window)
    for beyond in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[beyond]
    assert sum(1 for _ in Windows(TASK, 100, 100, data, stride=100)) == 4


def test_validation_and_double_precision(data, path):
    window = Windows(TASK, 4, 4, data, split="validation", dtype=torch.float64)[0]
    assert window.target.dtype == torch.float64
    with h5py.File(path) as file:
        stored = torch.from_numpy(file["validation/observation"][0, 4:8].astype("f8"))
    assert equal(window.target, stored)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_workers_read_what_one_reads(data, series, method):
    windows = Windows(TASK, 6, 2, data, stride=8)
    assert torch.isfinite(windows[0].context).any()  # a handle is open before the workers start
    loader = DataLoader(windows, batch_size=16, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    assert equal(
        torch.cat([torch.cat([b.context, b.target], dim=1) for b in batches]), dataset.windows(series, 8, stride=8)
    )


def test_shuffled_windows_are_all_there(data, series):
    loader = DataLoader(
        Windows(TASK, 6, 2, data, stride=8), 16, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(0)
    )
    found = torch.nan_to_num(torch.cat([b.context for b in loader])).sum((1, 2)).sort().values
    wanted = torch.nan_to_num(dataset.windows(series, 8, stride=8)[:, :6]).sum((1, 2)).sort().values
    torch.testing.assert_close(found, wanted)


def test_a_process_opens_its_own_handle(data):
    windows = Windows(TASK, 4, 4, data)
    assert windows[0].context.shape == (4, 40)
    ours = windows._opened
    copy = pickle.loads(pickle.dumps(windows))
    assert copy._opened is None
    assert equal(copy[3].context, windows[3].context)
    assert windows._opened is ours
    windows._owner = os.getpid() + 1  # as after a fork
    assert equal(copy[3].context, windows[3].context)
    assert windows._opened is not ours


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"context": 0, "target": 1}, "context 0, target 1, stride 1: context and stride are at least 1"),
        ({"context": 1, "target": -1}, "target at least 0"),
        ({"context": 1, "target": 1, "stride": 0}, "stride 0"),
        ({"context": 200, "target": 57}, "windows of 257 samples do not fit into trajectories of 256"),
        ({"context": 1, "target": 1, "split": "test"}, "windows are of the splits train and validation, not of 'test'"),
    ],
)
def test_impossible_windows_are_refused(data, arguments, answer):
    with pytest.raises(EmubenchError, match=answer):
        Windows(TASK, data=data, **arguments)


def test_windows_are_of_what_was_generated(data, tmp_path):
    with pytest.raises(EmubenchError, match="no such dataset; make it with: emubench generate lorenz96-partial"):
        Windows(TASK, 1, 1, tmp_path)
    with pytest.raises(EmubenchError, match="unknown task 'lorenz97-partial'"):
        Windows("lorenz97-partial", 1, 1, data)


@pytest.mark.parametrize("group", ["train", "validation", "test", "climate"])
def test_xarray_sees_the_group_and_the_header(data, path, group):
    array = "context" if group in ("test", "climate") else "observation"
    with open_dataset(TASK, group, data) as view, h5py.File(path) as file:
        np.testing.assert_array_equal(view[array].values, file[f"{group}/{array}"][()])
        assert view[array].dims[1:] == ("time", "site")
        assert view.attrs["task"] == "lorenz96-partial"
        assert view.attrs["seed"] == "0"
        assert float(view["time"][1] - view["time"][0]) == pytest.approx(TASK.system.sample_interval)


def test_xarray_sees_the_truth_where_it_is_asked_for(data):
    with open_dataset(TASK, "test", data, truth=True) as view, h5py.File(data / "tiny" / "lorenz96.truth.h5") as file:
        np.testing.assert_array_equal(view["truth"].values, file["test/truth"][()])
        assert "context" not in view
    with open_dataset(TASK, "test", data) as view:
        assert "truth" not in view


def test_xarray_reads_nothing_before_it_is_asked(data):
    with open_dataset(TASK, "train", data) as view:
        assert not view["observation"].variable._in_memory
        assert view["observation"].isel(trajectory=2, time=slice(3, 7)).shape == (4, 40)


def test_an_unknown_group_is_named(data):
    with pytest.raises(EmubenchError, match="no group 'trian'; there are climate, test, train, validation"):
        open_dataset(TASK, "trian", data)
