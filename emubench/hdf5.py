"""Opening HDF5 files that a stranger may have written: only plain, bounded, numeric arrays get through."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emubench.errors import EmubenchError

ALLOWED_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
MAX_BYTES = 64 * 2**30
NPZ_FAULTS = (zipfile.BadZipFile, zlib.error, OSError, ValueError, AttributeError, EOFError, RuntimeError, KeyError)
Check = Callable[[str, tuple[int, ...], np.dtype], None]
"""Called with name, shape and type of an array before it is read: raises :class:`EmubenchError` to refuse it."""


def open_plain(path: Path | str) -> h5py.File:
    """Open ``path`` for reading after checking every object in it.

    Raises :class:`EmubenchError` for a file that is missing, truncated or not HDF5, and for links, virtual, external,
    object-typed or filter-plugin datasets, naming the object.
    """
    path = Path(path)
    if not path.is_file():
        raise EmubenchError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise EmubenchError(f"{path}: not a whole HDF5 file ({str(error).splitlines()[0]})") from None
    try:
        for name, dataset in walk(path, file):
            _check_dataset(path, name, dataset)
    except EmubenchError:
        file.close()
        raise
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        file.close()
        raise EmubenchError(f"{path}: damaged HDF5 file ({str(error).splitlines()[0]})") from None
    return file


def walk(path: Path, group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, h5py.Dataset]]:
    """Names and arrays of a file; a link is refused."""
    if depth > 4:
        raise EmubenchError(f"{path}: {prefix}: groups are nested too deeply")
    for key in group:
        name = f"{prefix}/{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise EmubenchError(f"{path}: {name}: links are refused; store the array itself")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from walk(path, item, name, depth + 1)
        elif isinstance(item, h5py.Dataset):
            yield name, item
        else:
            raise EmubenchError(f"{path}: {name}: only groups and arrays are allowed")


def _check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise EmubenchError(f"{path}: {name}: virtual and external arrays are refused; store the array itself")
    if dataset.dtype.kind not in "fiu" and not (dataset.dtype.kind == "S" and dataset.ndim <= 1):
        raise EmubenchError(f"{path}: {name}: type {dataset.dtype} is refused; numbers only")
    if dataset.size is not None and dataset.size * dataset.dtype.itemsize > MAX_BYTES:
        raise EmubenchError(f"{path}: {name}: shape {dataset.shape} exceeds {MAX_BYTES // 2**30} GiB")
    filters = dataset.id.get_create_plist()
    for i in range(filters.get_nfilters()):
        if filters.get_filter(i)[0] not in ALLOWED_FILTERS:
            raise EmubenchError(f"{path}: {name}: filter {filters.get_filter(i)[3]!r} is refused; use gzip or none")


def read_attributes(path: Path, item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """All attributes of a group or array; damaged ones are refused."""
    try:
        return dict(item.attrs)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        where = f"array {str(item.name).strip('/')}" if isinstance(item, h5py.Dataset) else f"group {item.name}"
        raise EmubenchError(f"{path}: {where}: damaged attributes ({str(error).splitlines()[0]})") from None


def read_array(path: Path, file: h5py.File, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read the numeric array ``name``, checking its shape (both are named when they differ)."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise EmubenchError(f"{path}: array {name} is missing")
    if dataset.dtype.kind not in "fiu":
        raise EmubenchError(f"{path}: {name}: type {dataset.dtype} where numbers belong")
    if shape is not None and dataset.shape != shape:
        raise EmubenchError(f"{path}: {name}: shape {dataset.shape} where {shape} belongs")
    try:
        return dataset[()]
    except (OSError, RuntimeError) as error:
        raise EmubenchError(f"{path}: {name}: cannot be read ({str(error).splitlines()[0]})") from None


def read_npz(path: Path, names: tuple[str, ...], check: Check) -> dict[str, np.ndarray]:
    """Read the arrays ``names`` that an npz file holds, without pickles; ``check`` sees each header before the data."""
    try:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    continue
                with archive.open(f"{name}.npy") as member:
                    version = np.lib.format.read_magic(member)
                    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                    shape, _, dtype = read_header(member)
                check(name, shape, dtype)
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays
    except NPZ_FAULTS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EmubenchError(f"{path}: not a whole npz file ({reason})") from None


def read_forecast(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A forecast file: HDF5 groups ``test``, ``climate`` with ``forecast``, or an npz with these keys.

    ``shapes`` says what belongs into each split, ``(M, B, T, *S)``; one member alone is taken, too. Raises
    :class:`EmubenchError` for another shape or type, and for whatever is not a plain array.
    """

    def check(split: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        wanted = shapes[split]
        if shape[1:] != wanted[1:] or shape[:1] not in {(1,), wanted[:1]}:
            raise EmubenchError(f"{path}: forecast of {split}: shape {shape} where {wanted} belongs")
        if dtype.kind != "f" or dtype.itemsize not in (4, 8):
            raise EmubenchError(f"{path}: forecast of {split}: type {dtype} where float32 or float64 belongs")

    if path.suffix == ".npz":
        arrays = read_npz(path, tuple(shapes), check)
    else:
        arrays = {}
        with open_plain(path) as file:
            stored = {name.strip("/"): item for name, item in walk(path, file)}
            for split in shapes:
                if (item := stored.get(f"{split}/forecast")) is not None:
                    check(split, item.shape, item.dtype)
                    arrays[split] = read_array(path, file, f"{split}/forecast")
    for split, wanted in shapes.items():
        if split not in arrays:
            raise EmubenchError(f"{path}: the forecast of split {split} is missing (shape {wanted})")
    return arrays
