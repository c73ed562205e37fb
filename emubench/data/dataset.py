"""Datasets: generate, open and verify. A task's observations are one file, its system's truth another.

``<data>/<size>/<task>.h5`` holds all that an emulator may see (groups ``train``, ``validation``: ``observation``;
groups ``test``, ``climate``: ``context``); ``<data>/<size>/<system>.truth.h5`` serves the scorer alone.
"""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.data import recipes, widths
from emubench.data.layout import Layout, task_path, truth_path
from emubench.data.recipes import TaskLike
from emubench.data.tasks import Task
from emubench.files import hdf5, store
from emubench.files.header import read_header


def open_file(path: Path, kind: str, task: Task, seed: int | str | None = None) -> h5py.File:
    """Open a dataset file of the given kind for ``task``, checked for structure and header.

    What is read of it has to come through :func:`emubench.files.hdf5.read_hashed`, which checks the hash of an array.
    """
    if not path.exists():
        raise EmubenchError(
            f"{path}: no such dataset; make it with: emubench generate {task.name}{'.toml' * task.custom} "
            f"--size {task.size} --data {shlex.quote(str(path.parent.parent))}"
        )
    file, wanted = hdf5.open_plain(path), Layout(task, kind)
    try:
        header = read_header(path, file)
        if header.kind != kind:
            raise EmubenchError(f"{path}: holds {header.kind} where {kind} belong")
        for key, value in wanted.header(0).items():
            if key not in ("emubench_version", "seed") and getattr(header, key) != value:
                remedy = "; it was made of another recipe: remove it, or give the recipe another name" * task.custom
                found = f"{getattr(header, key)!r} where {value!r} belongs{remedy}"
                raise EmubenchError(f"{path}: attribute {key}: {found}")
        if seed is not None and header.seed != str(seed):
            raise EmubenchError(
                f"{path}: attribute seed: {header.seed} where {seed} is asked for; choose another --data or remove it"
            )
        for name, shape in wanted.shapes.items():
            if name not in file or file[name].shape != shape:  # type: ignore[union-attr]
                found = file[name].shape if name in file else "nothing"  # type: ignore[union-attr]
                raise EmubenchError(f"{path}: array {name}: shape {found} where {shape} belongs")
        if store.attributes_hash(header.model_dump(exclude_unset=True)) != header.header_sha256:
            raise EmubenchError(f"{path}: attribute header_sha256: the header was edited (seed or emubench_version)")
    except BaseException:
        file.close()
        raise
    return file


def open_truth(task: Task, data: Path) -> h5py.File:
    """Open the truth that the task's observations were made of: of the same seed."""
    return open_file(truth_path(task, data), "truth", task, seed_of(task, data))


@dataclass(frozen=True)
class Observations:
    """All that an emulator may see of a task; physical units, NaN = not observed."""

    task: Task
    seed: str
    digest: str
    train: Float[Tensor, "B T *S"]
    validation: Float[Tensor, "B T2 *S"]
    contexts: dict[str, Tensor]
    noise_std: Tensor
    std: Tensor
    mean: Tensor

    def context(self, split: str) -> Tensor:
        """Contexts of one of ``task.splits``; those of ``"widths"`` are stored nowhere and made here."""
        if split == widths.SPLIT:
            return widths.contexts(self.task, self.seed).to(self.train.device)
        return self.contexts[split]

    def to(self, device: torch.device | str) -> "Observations":
        """The same data on ``device``."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        contexts = {split: context.to(device) for split, context in self.contexts.items()}
        return dataclasses.replace(self, contexts=contexts, **moved)


def seed_of(task: Task, data: Path) -> str:
    """The seed of the task's dataset."""
    path = task_path(task, data)
    with open_file(path, "observations", task) as file:
        return read_header(path, file).seed


def train_digest(task: Task, data: Path) -> str:
    """The stored hash of the task's training data."""
    with open_file(task_path(task, data), "observations", task) as file:
        return str(file["train/observation"].attrs.get(store.DIGEST, ""))


def load(task: TaskLike, data: Path | str = "data") -> Observations:
    """Read a task's observations into memory: tensors of float64 in physical units, NaN where nothing was observed.

    ``train`` and ``validation`` are ``(trajectory, time, *space)``, ``context("test")`` and ``context("climate")``
    ``(case, time, *space)``. ``task`` is a task, or the name or recipe of one at standard size, ``data`` the folder it
    was generated below. Raises :class:`EmubenchError` where nothing was generated, or where a file is damaged.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> observations = emubench.load(task)
    >>> tuple(observations.train.shape), tuple(observations.context("test").shape)
    ((4, 256, 3), (16, 64, 3))
    """
    data = Path(data)
    task = recipes.resolve(task, data=data)
    path = task_path(task, data)
    with open_file(path, "observations", task) as file:
        shapes = Layout(task, "observations").shapes
        found = {name: hdf5.read_hashed(path, file, name, shape) for name, shape in shapes.items()}
        header = read_header(path, file)
    arrays = {name: torch.from_numpy(values.astype("f8")) for name, (values, _) in found.items()}
    select = task.observation.select
    return Observations(
        task=task,
        seed=header.seed,
        digest=found["train/observation"][1],
        train=arrays["train/observation"],
        validation=arrays["validation/observation"],
        contexts={s: arrays[f"{s}/context"] for s in ("test", "climate")},
        noise_std=torch.from_numpy(task.observation.noise_std(task.system)),
        std=torch.from_numpy(select(task.system.std)),
        mean=torch.from_numpy(select(task.system.mean)),
    )


def first_context(task: Task, data: Path) -> Tensor:
    """The context of the first test case alone, ``"T *S"``: for who has a task's forecasts already."""
    path, name = task_path(task, data), "test/context"
    with open_file(path, "observations", task) as file:
        values, _ = hdf5.read_hashed(path, file, name, Layout(task, "observations").shapes[name])
    return torch.from_numpy(values[0].astype("f8"))


def windows(observation: Float[Tensor, "B T *S"], length: int, stride: int = 1) -> Float[Tensor, "W L *S"]:
    """All stretches of ``length`` consecutive samples, within trajectories.

    >>> windows(torch.arange(4.0).reshape(1, 4, 1), 3)[..., 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    if length > observation.shape[1]:
        raise EmubenchError(f"windows of {length} samples do not fit into trajectories of {observation.shape[1]}")
    unfolded = observation.unfold(1, length, stride).movedim(-1, 2)
    return unfolded.reshape(-1, length, *observation.shape[2:])
