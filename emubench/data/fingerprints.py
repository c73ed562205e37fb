"""Fingerprints of the published datasets, and what :command:`emubench verify` says of a file.

Chaos forbids equal bytes on another machine. So a recipe ``datasets/<task>.toml`` holds, beside the hashes of its
arrays, what a faithful rebuild has in common with them: the exact draws and masks, samples of some trajectories at
early times, and statistics. Maintainers make them from seed 0 (``benchmarks/maintain/fingerprints.py``).
"""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import layout, recipes, verification
from emubench.data.tasks import Task
from emubench.files import hdf5, schema, store
from emubench.files.header import read_header
from emubench.files.schema import Model

IDENTICAL, FAITHFUL, WHOLE = "identical bytes", "faithful rebuild", "whole"
SEED = 0
"""The seed of the published datasets."""
TOLERANCE = 1e-6
"""Tolerance of sample 0, in climatological standard deviations; it grows e-fold per Lyapunov time, as errors do."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Indices = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)]


class ArrayPrint(Model):
    """What a faithful rebuild of one array has to show."""

    sha256: Digest
    mask_sha256: Digest
    rows: Indices
    times: Indices
    sites: Indices
    values: Annotated[list[float], Field(max_length=4096)]
    """Values at rows × times × sites, the first time being sample 0; NaN = not observed."""
    mean: float
    """Mean over rows of what is observed, in climatological units as the next."""
    std: float
    mean_tolerance: float
    std_tolerance: float


class Fingerprint(Model):
    """A published dataset of one size: its arrays by name."""

    seed: int
    draws_sha256: Digest
    arrays: dict[str, ArrayPrint]


def draws(task: Task, seed: int) -> str:
    """Hash of the first random numbers of every split, of initial states, masks and noise: the same on any machine."""
    digest, n_sites = hashlib.sha256(), task.shape[-1]
    for split in layout.SPLITS:
        for i in range(2):
            digest.update(stream(seed, task.system.name, split, i).standard_normal(16).astype("<f8").tobytes())
            rng = stream(seed, task.name, split, i)
            digest.update(rng.permutation(n_sites).astype("<i8").tobytes())
            digest.update(rng.standard_normal(16).astype("<f8").tobytes())
    return digest.hexdigest()


def statistics(task: Task, array: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean and standard deviation of every row, in climatological units, and the hash of all rows' masks."""
    center, scale = (task.observation.select(v) for v in (task.system.mean, task.system.std))
    means, stds, mask = [], [], hashlib.sha256()
    piece = max(1, 2**22 // int(np.prod(array.shape[2:])))
    for row in range(array.shape[0]):
        sums = np.zeros(3)
        for t in range(0, array.shape[1], piece):
            values = (np.asarray(array[row, t : t + piece], dtype="f8") - center) / scale
            seen = np.isfinite(values)
            mask.update(np.packbits(seen).tobytes())
            sums += [seen.sum(), values[seen].sum(), (values[seen] ** 2).sum()]
        count, total, square = sums.tolist()
        means.append(total / max(count, 1))
        stds.append(math.sqrt(max(square / max(count, 1) - means[-1] ** 2, 0.0)))
    return np.array(means), np.array(stds), mask.hexdigest()


def values_at(array: Any, rows: list[int], times: list[int], sites: list[int]) -> np.ndarray:
    """Stored values at ``rows`` × ``times`` × ``sites``, as float64."""
    return np.array([[np.asarray(array[row, t], dtype="f8")[sites] for t in times] for row in rows])


def folder() -> Path:
    """Where the published recipes lie: in a checkout its folder ``datasets``, in a wheel ``emubench/recipes``."""
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "pyproject.toml").is_file() and (root / "datasets").is_dir()
    return root / "datasets" if is_checkout else Path(__file__).parents[1] / "recipes"


def published(name: str, size: str) -> Fingerprint | None:
    """The published fingerprint of a task at a size, if there is one."""
    path = folder() / f"{name}.toml"
    if not path.is_file():
        return None
    found = recipes.read(path).fingerprint.get(size)
    return None if found is None else schema.parse(Fingerprint, found, f"{path}: fingerprint.{size}")


def judge(path: Path) -> str:
    """What a dataset file is: "identical bytes", "faithful rebuild" or, where none is published, "whole".

    Raises :class:`EmubenchError` for a damaged file, and for one that is not the dataset it says it is, with the check
    that failed.
    """
    verification.verify(path)
    with hdf5.open_plain(path) as file:
        header = read_header(path, file)
        task = verification.task_of(path, header)
        expected = None if task.custom or header.kind == "contexts" else published(task.name, header.size)
        if expected is None or header.seed != str(expected.seed):
            return WHOLE
        names = layout.Layout(task, header.kind).shapes
        arrays: dict[str, Any] = {name: file[name] for name in names}
        if all(array.attrs[store.DIGEST] == expected.arrays[name].sha256 for name, array in arrays.items()):
            return IDENTICAL
        if draws(task, expected.seed) != expected.draws_sha256:
            raise EmubenchError(f"{path}: not this dataset: draws: this machine draws other random numbers")
        for name, array in arrays.items():
            if fault := _fault(task, array, expected.arrays[name]):
                raise EmubenchError(f"{path}: not this dataset: array {name}: {fault}")
    return FAITHFUL


def _fault(task: Task, array: Any, expected: ArrayPrint) -> str | None:
    """The first check that an array fails, if any."""
    means, stds, mask = statistics(task, array)
    if mask != expected.mask_sha256:
        return "draws: other samples are unobserved"
    found = values_at(array, expected.rows, expected.times, expected.sites)
    wanted = np.array(expected.values).reshape(found.shape)
    std = task.observation.select(task.system.std)  # the truth is compared as the clean task's, which shows all of it
    gap = np.nan_to_num(np.abs(found - wanted) / std[expected.sites])
    for k, t in enumerate(expected.times):
        lead = t * task.lead_time_step
        allowed = TOLERANCE * (math.exp(lead) if not task.system.stochastic else 1 + 10 * bool(t))
        if array.dtype.itemsize == 4:  # single precision rounds by itself
            allowed += float(2**-22 * np.nanmax(np.abs(wanted[:, k]) / std[expected.sites], initial=0.0))
        if not (worst := gap[:, k].max()) <= allowed:
            which = "sample 0" if t == 0 else f"early agreement, sample {t}"
            return f"{which}: differs by {worst:.2g} σ where {allowed:.2g} is allowed"
    for what, got, want, tolerance in (
        ("mean", float(means.mean()), expected.mean, expected.mean_tolerance),
        ("std", float(stds.mean()), expected.std, expected.std_tolerance),
    ):
        if not abs(got - want) <= tolerance:
            return f"statistics: {what} {got:.6g} where {want:.6g} ± {tolerance:.2g} belongs"
    return None
