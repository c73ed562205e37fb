"""Datasets: generate, open and verify. A task's observations are one file, its system's truth another.

``<data>/<size>/<task>.h5`` holds all that an emulator may see (groups ``train``, ``validation``: ``observation``;
groups ``test``, ``climate``: ``context``); ``<data>/<size>/<system>.truth.h5`` serves the scorer alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench import __version__
from emubench.core.errors import EmubenchError
from emubench.data import recipes, tasks, widths
from emubench.data.tasks import Task
from emubench.data.trajectories import LANES, simulate_block
from emubench.files import hdf5, netcdf, schema, store

__all__ = ["LANES", "simulate_block"]  # for whoever needs truth without files

SPLITS = ("train", "validation", "test", "climate")
NETCDF_ATTRIBUTES = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates")
"""Attributes of an array that belong to the file format."""
Progress = Callable[[int, int], None]


def truth_path(task: Task, data: Path) -> Path:
    """Where the truth of the task's system lies; a custom task has one of its own."""
    return data / task.size / f"{task.name if task.custom else task.system.name}.truth.h5"


def task_path(task: Task, data: Path) -> Path:
    """Where the task's observations lie."""
    return data / task.size / f"{task.name}.h5"


def layout(task: Task) -> dict[str, tuple[int, int]]:
    """(trajectories, samples) of each group of the truth file: the largest that any of the four tracks needs."""
    size = task if task.custom else tasks.size_of(task.size)
    return {
        "train": size.train,
        "validation": size.validation,
        "test": (task.n_test, task.context + task.test_steps),
        "climate": (task.n_climate, task.context + task.climate_steps),
    }


def generate(
    task: Task,
    data: Path,
    seed: int = 0,
    workers: int | None = 1,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Make what is missing of the task's observations and truth: see :func:`emubench.data.generation.generate`."""
    from emubench.data import generation  # which needs this file

    return generation.generate(task, data, seed, workers, progress, device)


# --- what a file is made of -------------------------------------------------------------------------------------------


def header_of(task: Task, kind: str, seed: int) -> dict[str, Any]:
    """Root attributes of a file."""
    system = task.system
    known = {
        "schema_version": schema.SCHEMA_VERSION,
        "emubench_version": __version__,
        "kind": kind,
        "system": system.name,
        "task": "" if kind == "truth" else task.name,
        "size": task.size,
        "seed": str(seed),
        "parameters": json.dumps(system.parameters(), sort_keys=True),
        "equation": system.equation,
        "sample_interval": float(system.sample_interval),
        "time_unit": float(system.time_unit),
        "lead_time_unit": system.lead_time_unit,
    }
    return known | ({"recipe": recipes.to_json(task)} if task.custom else {})


def noise_attributes(task: Task) -> dict[str, Any]:
    """Attributes of an observed array."""
    return {
        "noise_std": task.observation.noise_std(task.system),
        "climatological_mean": task.observation.select(task.system.mean),
        "climatological_std": task.observation.select(task.system.std),
        "missing": "NaN = not observed",
    }


def stored_dtype(task: Task, array: str) -> str:
    """Type of a data array: noisy training data are stored in single precision."""
    return "f4" if array.endswith("/observation") and task.observation.noise else "f8"


def time_axis(task: Task, split: str, samples: range) -> np.ndarray:
    """Times of some samples of a split; in test and climate, 0 is the last context sample."""
    first = 0 if split in ("train", "validation") else 1 - task.context
    return (np.arange(samples.start, samples.stop) + first) * task.system.sample_interval


def write_lead_times(group: Any, task: Task, split: str) -> None:
    """Write the lead times asked for."""
    lead = np.array(task.leads(split)) * task.system.sample_interval
    units = {"units": "time units of the equation after the last context sample: forecast these"}
    netcdf.Column(group, "lead_time", ("lead_time",), lead.shape, "f8", units).append(lead)


def write_context_file(task: Task, data: Path, path: Path) -> None:
    """Write contexts and the lead times asked for, alone: what another framework needs to make a forecast."""
    loaded = load(task, data)
    noise = {"noise_std": loaded.noise_std.numpy(), "missing": "NaN = not observed"}
    with netcdf.writer(path, header_of(task, "contexts", int(loaded.seed))) as file:
        for split in task.splits:
            group, contexts = file.create_group(split, track_order=True), loaded.context(split).numpy()
            time = time_axis(task, split, range(task.context))
            netcdf.Column(group, "time", ("time",), time.shape, "f8").append(time)
            write_lead_times(group, task, split)
            dims = ("case", "time", *task.system.dimension_names)
            netcdf.Column(group, "context", dims, contexts.shape, "f8", noise).append(contexts)


# --- opening ----------------------------------------------------------------------------------------------------------


def read_header(path: Path, file: h5py.File) -> schema.FileHeader:
    """The validated root attributes; another schema version is named together with ours."""
    attributes = {k: _plain(v) for k, v in hdf5.read_attributes(path, file).items() if not k.startswith("_")}
    version = attributes.get("schema_version")
    if version is None:
        raise EmubenchError(f"{path}: attribute schema_version is missing: not an emubench dataset")
    if version != schema.SCHEMA_VERSION:
        raise EmubenchError(f"{path}: schema_version {version}, but this emubench reads {schema.SCHEMA_VERSION}")
    return schema.parse(schema.FileHeader, attributes, path)


def _plain(value: Any) -> Any:
    """An attribute as a Python scalar: netCDF stores numbers as arrays of one."""
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value


def open_file(path: Path, kind: str, task: Task, seed: int | str | None = None) -> h5py.File:
    """Open a dataset file of the given kind for ``task``, checked for structure and header (not hashes)."""
    if not path.exists():
        raise EmubenchError(
            f"{path}: no such dataset; make it with: emubench generate {task.name}{'.toml' * task.custom} "
            f"--size {task.size} --data {shlex.quote(str(path.parent.parent))}"
        )
    file = hdf5.open_plain(path)
    try:
        header = read_header(path, file)
        if header.kind != kind:
            raise EmubenchError(f"{path}: holds {header.kind} where {kind} belong")
        for key, value in header_of(task, kind, 0).items():
            if key not in ("emubench_version", "seed") and getattr(header, key) != value:
                raise EmubenchError(f"{path}: attribute {key}: {getattr(header, key)!r} where {value!r} belongs")
        if seed is not None and header.seed != str(seed):
            raise EmubenchError(
                f"{path}: attribute seed: {header.seed} where {seed} is asked for; choose another --data or remove it"
            )
        for name, shape in expected_shapes(task, kind).items():
            if name not in file or file[name].shape != shape:  # type: ignore[union-attr]
                found = file[name].shape if name in file else "nothing"  # type: ignore[union-attr]
                raise EmubenchError(f"{path}: array {name}: shape {found} where {shape} belongs")
    except BaseException:
        file.close()
        raise
    return file


def open_truth(task: Task, data: Path) -> h5py.File:
    """Open the truth that the task's observations were made of: of the same seed."""
    path = task_path(task, data)
    with open_file(path, "observations", task) as file:
        seed = read_header(path, file).seed
    return open_file(truth_path(task, data), "truth", task, seed)


def expected_shapes(task: Task, kind: str) -> dict[str, tuple[int, ...]]:
    """Shape of every data array of a file of this kind."""
    if kind == "truth":
        return {f"{split}/truth": (n, t, *task.system.shape) for split, (n, t) in layout(task).items()}
    splits = task.splits if kind == "contexts" else ("test", "climate")
    contexts = {f"{s}/context": (task.cases(s), task.context, *task.shape) for s in splits}
    if kind == "contexts":
        return contexts
    amounts = {"train": task.train, "validation": task.validation}
    return contexts | {f"{s}/observation": (a.trajectories, a.length, *task.shape) for s, a in amounts.items()}


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
        return widths.contexts(self.task, self.seed) if split == widths.SPLIT else self.contexts[split]


def seed_of(task: Task, data: Path) -> str:
    """The seed of the task's dataset."""
    path = task_path(task, data)
    with open_file(path, "observations", task) as file:
        return read_header(path, file).seed


def train_digest(task: Task, data: Path) -> str:
    """The stored hash of the task's training data."""
    with open_file(task_path(task, data), "observations", task) as file:
        return str(file["train/observation"].attrs.get(store.DIGEST, ""))


def load(task: Task, data: Path) -> Observations:
    """Read a task's observations into memory (float64)."""
    path = task_path(task, data)
    with open_file(path, "observations", task) as file:
        shapes = expected_shapes(task, "observations")
        arrays = {n: torch.from_numpy(hdf5.read_array(path, file, n, s).astype("f8")) for n, s in shapes.items()}
        header = read_header(path, file)
        digest = str(file["train/observation"].attrs.get(store.DIGEST, ""))
    select = task.observation.select
    return Observations(
        task=task,
        seed=header.seed,
        digest=digest,
        train=arrays["train/observation"],
        validation=arrays["validation/observation"],
        contexts={s: arrays[f"{s}/context"] for s in ("test", "climate")},
        noise_std=torch.from_numpy(task.observation.noise_std(task.system)),
        std=torch.from_numpy(select(task.system.std)),
        mean=torch.from_numpy(select(task.system.mean)),
    )


def windows(observation: Float[Tensor, "B T *S"], length: int, stride: int = 1) -> Float[Tensor, "W L *S"]:
    """All stretches of ``length`` consecutive samples, within trajectories.

    >>> windows(torch.arange(4.0).reshape(1, 4, 1), 3)[..., 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    if length > observation.shape[1]:
        raise EmubenchError(f"windows of {length} samples do not fit into trajectories of {observation.shape[1]}")
    unfolded = observation.unfold(1, length, stride).movedim(-1, 2)
    return unfolded.reshape(-1, length, *observation.shape[2:])


# --- verifying --------------------------------------------------------------------------------------------------------


def verify(path: Path) -> list[str]:
    """Check a file against its own hashes and schema; return the arrays checked, raise on the first fault."""
    with hdf5.open_plain(path) as file:
        header = read_header(path, file)
        task = task_of(path, header)
        open_file(path, header.kind, task).close()
        if store.attributes_hash(header.model_dump(exclude_unset=True)) != header.header_sha256:
            raise EmubenchError(f"{path}: attribute header_sha256: the header was edited (seed or emubench_version)")
        names = _array_names(path, file)
        wanted = _all_names(header.kind, task)
        for name in sorted({*names, *wanted}):
            if name not in names or name not in wanted:
                raise EmubenchError(f"{path}: array {name} {'does not belong here' if name in names else 'is missing'}")
            _verify_array(path, name, file[name])  # type: ignore[arg-type]
    return names


def _verify_array(path: Path, name: str, dataset: h5py.Dataset) -> None:
    attributes = hdf5.read_attributes(path, dataset)
    own = {k: v for k, v in attributes.items() if k not in NETCDF_ATTRIBUTES}
    for digest in (store.DIGEST, store.OWN_DIGEST):
        if digest not in own:
            raise EmubenchError(f"{path}: array {name}: attribute {digest} is missing: an unfinished file")
    if store.attributes_hash(own) != own[store.OWN_DIGEST]:
        raise EmubenchError(f"{path}: array {name}: an attribute was edited (one of {', '.join(sorted(own))})")
    try:
        found = store.file_hash(dataset)
    except (OSError, RuntimeError) as error:
        raise EmubenchError(f"{path}: array {name}: cannot be read ({str(error).splitlines()[0]})") from None
    if found != own[store.DIGEST]:
        raise EmubenchError(f"{path}: array {name}: bytes differ from their own hash: it was damaged or edited")


def _all_names(kind: str, task: Task) -> list[str]:
    """Names of all arrays of a file of this kind."""
    if kind == "truth":
        return [f"{split}/{name}" for split in SPLITS for name in ("start", "time", "truth")]
    splits = task.splits if kind == "contexts" else SPLITS[2:]
    names = [f"{split}/{name}" for split in splits for name in ("context", "lead_time", "time")]
    return names if kind == "contexts" else names + [f"{s}/{n}" for s in SPLITS[:2] for n in ("observation", "time")]


def _array_names(path: Path, file: h5py.File) -> list[str]:
    """Names of the arrays that are there, netCDF dimensions without values left out."""

    def is_variable(dataset: h5py.Dataset) -> bool:
        return "not a netCDF variable" not in str(hdf5.read_attributes(path, dataset).get("NAME", ""))

    return [name.strip("/") for name, dataset in hdf5.walk(path, file) if is_variable(dataset)]


def task_of(path: Path, header: schema.FileHeader) -> Task:
    """The task of a file, from its header alone."""
    try:
        tasks.size_of(header.size)
    except EmubenchError:
        known = ", ".join(tasks.SIZES)
        raise EmubenchError(f"{path}: attribute size: {header.size!r} where one of {known} belongs") from None
    if header.recipe:
        return recipes.from_json(header.recipe, header.size, path)
    try:
        return tasks.get(header.task or f"{header.system}-clean", header.size)
    except EmubenchError as error:
        raise EmubenchError(f"{path}: attribute {'task' if header.task else 'system'}: {error}") from None
