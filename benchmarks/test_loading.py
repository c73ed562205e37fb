"""Reading windows for training: emubench's lazy windows, the whole file in memory, and plain h5py, on one file.

    pytest benchmarks/test_loading.py

An epoch of 4096 random windows of 24 samples from 32 × 1024 samples of lorenz96-noisy, in batches of 64.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from emubench.data import dataset, generation, layout, tasks
from emubench.data.loader import Windows

CONTEXT, TARGET, BATCH, N = 16, 8, 64, 4096


@pytest.fixture(scope="module")
def task_and_folder(tmp_path_factory):
    folder, task = tmp_path_factory.mktemp("data"), tasks.get("lorenz96-noisy")
    generation.generate(task, folder)
    return task, folder


def lazily(task, folder, starts):
    """By ``torch.utils.data.DataLoader``, one window at a time."""
    windows = Windows(task, CONTEXT, TARGET, folder)
    subset = torch.utils.data.Subset(windows, [t * windows.per_trajectory + s for t, s in starts.tolist()])
    loader = torch.utils.data.DataLoader(subset, batch_size=BATCH)
    return lambda: [batch.context for batch in loader]


def in_memory(task, folder, starts):
    """As the baselines train: all windows as a view of one tensor, a batch by one index."""
    with h5py.File(layout.task_path(task, folder), "r") as file:
        samples = torch.from_numpy(file["train/observation"][:]).float()
    pool = dataset.windows(samples, CONTEXT + TARGET)
    rows = torch.from_numpy(starts[:, 0] * (len(pool) // len(samples)) + starts[:, 1])
    return lambda: [pool[part][:, :CONTEXT] for part in rows.split(BATCH)]


def plainly(task, folder, starts):
    """What one would write first with h5py."""

    def epoch():
        batches = []
        with h5py.File(layout.task_path(task, folder), "r") as file:
            array = file["train/observation"]
            for first in range(0, N, BATCH):
                rows = [array[t, s : s + CONTEXT + TARGET] for t, s in starts[first : first + BATCH]]
                batches.append(torch.from_numpy(np.stack(rows)).float()[:, :CONTEXT])
        return batches

    return epoch


@pytest.mark.parametrize("way", [lazily, in_memory, plainly], ids=lambda f: f.__name__)
def test_an_epoch(benchmark, task_and_folder, way):
    torch.set_num_threads(1)
    task, folder = task_and_folder
    rng = np.random.default_rng(0)
    length = task.train.length - CONTEXT - TARGET + 1
    starts = np.stack([rng.integers(task.train.trajectories, size=N), rng.integers(length, size=N)], axis=1)
    epoch = way(task, folder, starts)
    benchmark.group = f"{N} windows"
    batches = benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)
    expected = plainly(task, folder, starts)()
    assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))
