"""Datasets from Python, without reading them whole: windows for training loops of torch, and views of xarray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import h5py
import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.data import layout, verification
from emubench.files import hdf5
from emubench.files.header import read_header

if TYPE_CHECKING:
    import xarray


class Window(NamedTuple):
    """A stretch of one trajectory, ``"T *S"``: what a model sees, and what comes next. NaN = not observed."""

    context: Tensor
    target: Tensor


class Windows(torch.utils.data.Dataset[Window]):
    """All windows of ``context + target`` consecutive samples of a split's observations, read when they are asked for.

    Rows are stored whole in time, so that a window is one read. h5py has one global lock and its handles don't survive
    a fork: every process opens its own, and so several workers of a ``DataLoader`` read side by side::

        windows = Windows("data/standard/lorenz96-noisy.h5", context=16, target=8)
        loader = torch.utils.data.DataLoader(windows, batch_size=64, shuffle=True, num_workers=2)
    """

    def __init__(
        self,
        path: Path | str,
        context: int,
        target: int,
        *,
        stride: int = 1,
        split: str = "train",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.path, self.array = Path(path), f"{split}/observation"
        self.context, self.target, self.stride, self.dtype = context, target, stride, dtype
        if min(context, stride) < 1 or target < 0:
            wrong = f"context {context}, target {target}, stride {stride}"
            raise EmubenchError(f"windows of {wrong}: context and stride are at least 1, target at least 0")
        with hdf5.open_plain(self.path) as file:
            header = read_header(self.path, file)
            shapes = layout.Layout(verification.task_of(self.path, header), header.kind).shapes
            if self.array not in shapes:
                raise EmubenchError(f"{self.path}: holds {header.kind}, but no array {self.array}")
        self.n_trajectories, self.n_samples, *_ = shapes[self.array]
        if context + target > self.n_samples:
            raise EmubenchError(
                f"windows of {context + target} samples do not fit into trajectories of {self.n_samples}"
            )
        self._opened: h5py.Dataset | None = None
        self._owner = -1

    @property
    def per_trajectory(self) -> int:
        """Windows in one trajectory; none crosses into the next."""
        return (self.n_samples - self.context - self.target) // self.stride + 1

    def __len__(self) -> int:
        return self.n_trajectories * self.per_trajectory

    def __getitem__(self, index: int) -> Window:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        trajectory, number = divmod(index % len(self), self.per_trajectory)
        begun = number * self.stride
        values = self._source()[trajectory, begun : begun + self.context + self.target]
        samples = torch.from_numpy(np.asarray(values)).to(self.dtype)
        return Window(samples[: self.context], samples[self.context :])

    def _source(self) -> Any:
        """The stored array, by a handle of this very process; kept open, for with it goes the cache of its chunks."""
        if self._opened is None or self._owner != os.getpid():
            self._opened = cast(h5py.Dataset, h5py.File(self.path, "r")[self.array])
            self._owner = os.getpid()
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the handle, for processes that are spawned."""
        return {**self.__dict__, "_opened": None, "_owner": -1}


def to_xarray(path: Path | str, group: str) -> xarray.Dataset:
    """A lazy view of one group (``train``, ``validation``, ``test``, ``climate``) of a dataset file.

    With the file's attributes beside the group's; it is a context manager and closes the file.
    """
    import xarray

    path = Path(path)
    with hdf5.open_plain(path) as file:
        header = read_header(path, file)
        if group not in file:
            raise EmubenchError(f"{path}: no group {group!r}; there are {', '.join(sorted(file))}")
    opened = xarray.open_dataset(path, engine="h5netcdf", group=group)
    opened.attrs.update(header.model_dump(exclude_unset=True))
    return opened
