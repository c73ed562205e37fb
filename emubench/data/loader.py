"""Datasets from Python, without reading them whole: windows for training loops of torch, and views of xarray."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import h5py
import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.data import dataset, layout, recipes
from emubench.data.recipes import TaskLike
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

    ``task`` is a task, or the name or recipe of one at standard size, ``data`` the folder it was generated below. A
    window is a :class:`Window` of ``context`` and ``target`` samples ``(time, *space)`` in ``dtype``, NaN where nothing
    was observed; ``split`` is "train" or "validation", and consecutive windows begin ``stride`` samples apart. Every
    process opens the file anew, so that several workers of a ``DataLoader`` read side by side.

    Raises :class:`EmubenchError` where nothing was generated, a window does not fit into a trajectory, or the array is
    not the one that its hash says: it is read once to know.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> windows = emubench.Windows(task, 16, 8, stride=8)
    >>> loader = torch.utils.data.DataLoader(windows, batch_size=32, shuffle=True)
    >>> batch = next(iter(loader))
    >>> tuple(batch.context.shape), tuple(batch.target.shape)
    ((32, 16, 3), (32, 8, 3))
    """

    def __init__(
        self,
        task: TaskLike,
        context: int,
        target: int,
        data: Path | str = "data",
        *,
        stride: int = 1,
        split: str = "train",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        task = recipes.resolve(task, data=data)
        self.path, self.array = layout.task_path(task, Path(data)), f"{split}/observation"
        self.context, self.target, self.stride, self.dtype = context, target, stride, dtype
        if min(context, stride) < 1 or target < 0:
            wrong = f"context {context}, target {target}, stride {stride}"
            raise EmubenchError(f"windows of {wrong}: context and stride are at least 1, target at least 0")
        shapes = layout.Layout(task, "observations").shapes
        if self.array not in shapes:
            raise EmubenchError(f"windows are of the splits train and validation, not of {split!r}")
        with dataset.open_file(self.path, "observations", task) as file:
            hdf5.check_hash(self.path, file, self.array)
        self.n_trajectories, self.n_samples, *_ = shapes[self.array]
        if (n := context + target) > self.n_samples:
            raise EmubenchError(f"windows of {n} samples do not fit into trajectories of {self.n_samples}")
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
            self._opened = cast(h5py.Dataset, hdf5.opened(self.path)[self.array])
            self._owner = os.getpid()
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the handle, for processes that are spawned."""
        return {**self.__dict__, "_opened": None, "_owner": -1}


def open_dataset(
    task: TaskLike, group: str = "train", data: Path | str = "data", *, truth: bool = False
) -> "xarray.Dataset":
    """A lazy view of one group of a task's dataset: ``train``, ``validation``, ``test`` or ``climate``.

    It holds ``observation``, of axes ``(trajectory, time, *space)``, or ``context``, of ``(case, time, *space)``, NaN
    where nothing was observed. With ``truth`` it holds the true states instead, which no emulator may see. It has the
    file's attributes, too, is a context manager and closes the file. ``task`` is a task, or the name or recipe of one
    at standard size, ``data`` the folder it was generated below.

    Raises :class:`EmubenchError` for a group that does not exist, where nothing was generated, and where an array of
    the group is not the one that its hash says: each is read once to know.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> with emubench.open_dataset(task, "train") as train:
    ...     dict(train.observation.sizes)
    {'trajectory': 4, 'time': 256, 'component': 3}
    """
    import xarray

    task = recipes.resolve(task, data=data)
    path = (layout.truth_path if truth else layout.task_path)(task, Path(data))
    with dataset.open_file(path, "truth" if truth else "observations", task) as file:
        header = read_header(path, file)
        if group not in file:
            raise EmubenchError(f"{path}: no group {group!r}; there are {', '.join(sorted(file))}")
        for name in (name for name in layout.Layout(task, header.kind).names if name.startswith(f"{group}/")):
            hdf5.check_hash(path, file, name)
    opened = xarray.open_dataset(path, engine="h5netcdf", group=group)
    opened.attrs.update(header.model_dump(exclude_unset=True))
    return opened
