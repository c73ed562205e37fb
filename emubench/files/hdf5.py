"""Opening HDF5 files that a stranger may have written: only plain, bounded, numeric arrays get through."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emubench.core.errors import EmubenchError, reason, unreadable
from emubench.files import store

DEFLATE, SHUFFLE, CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
ALLOWED_FILTERS = {DEFLATE, SHUFFLE, CHECKSUM}
MAX_BYTES = 64 * 2**30
MAX_OBJECTS = 1000
"""Groups and arrays of a file, by all their names."""
MAX_RATIO, SMALL = 64, 2**28
"""Arrays may hold so many times the bytes of their file, beyond what is small anyhow; numbers shrink by less."""
MIN_CHUNK, MAX_CHUNK = 2**20, 2**28
"""Bytes that a chunk may have, however small its array is, and however large."""
PIECE = 2**22
"""Bytes that are inflated at a time."""
MAX_NPY_HEADER = 2**16
NPZ_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
Check = Callable[[str, tuple[int, ...], np.dtype], None]
"""Called with name, shape and type of an array before it is read: raises :class:`EmubenchError` to refuse it."""


def open_plain(path: Path | str) -> h5py.File:
    """Open ``path`` for reading after checking every object in it: the one door for HDF5 that was not made just now.

    Raises :class:`EmubenchError` for a file that is missing, truncated or not HDF5, and for links, virtual, external,
    object-typed or filter-plugin datasets, naming the object; what is locked, or may not be read, is called that. A
    file that would take far more memory than disk is refused as well.
    """
    path = Path(path)
    if not path.is_file():
        raise EmubenchError(f"{path}: no such file")
    file = opened(path)
    try:
        with refused(path, "damaged HDF5 file"):
            n_bytes, most = 0, MAX_RATIO * path.stat().st_size + SMALL
            for name, dataset in walk(path, file):
                _check_dataset(path, name, dataset)
                n_bytes += dataset.nbytes
                if n_bytes > most:
                    raise EmubenchError(
                        f"{path}: {name}: arrays of {n_bytes} bytes in a file of so few ({most} belong)"
                    )
                _check_chunks(path, name, dataset)
    except EmubenchError:
        file.close()
        raise
    return file


def opened(path: Path) -> h5py.File:
    """``path`` opened for reading, unchecked."""
    with refused(path, "not a whole HDF5 file"):
        return h5py.File(path, "r")


@contextmanager
def refused(path: Path, what: str) -> Iterator[None]:
    """Name what h5py raises for a damaged file in an :class:`EmubenchError`; ``what`` says what went wrong.

    An error number is the system's, and says nothing of what the file holds.
    """
    try:
        yield
    except (RuntimeError, OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise unreadable(path, error) from None
        raise EmubenchError(f"{path}: {what} ({reason(error)})") from None


def walk(
    path: Path, group: h5py.Group, prefix: str = "", depth: int = 0, left: Iterator[int] | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Names and arrays of a file; a link is refused, and so are more objects than are ``left``."""
    left = iter(range(MAX_OBJECTS)) if left is None else left
    if depth > 4:
        raise EmubenchError(f"{path}: {prefix}: groups are nested too deeply")
    for key in group:
        name = f"{prefix}/{key}"
        if next(left, None) is None:
            raise EmubenchError(f"{path}: {name}: more than {MAX_OBJECTS} groups and arrays")
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise EmubenchError(f"{path}: {name}: links are refused; store the array itself")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from walk(path, item, name, depth + 1, left)
        elif isinstance(item, h5py.Dataset):
            yield name, item
        else:
            raise EmubenchError(f"{path}: {name}: only groups and arrays are allowed")


def _check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise EmubenchError(f"{path}: {name}: virtual and external arrays are refused; store the array itself")
    if dataset.dtype.kind not in "fiu" and not (dataset.dtype.kind == "S" and dataset.ndim <= 1):
        raise EmubenchError(f"{path}: {name}: type {dataset.dtype} is refused; numbers only")
    if dataset.shape is None:
        raise EmubenchError(f"{path}: {name}: holds no array")
    if dataset.size * dataset.dtype.itemsize > MAX_BYTES:
        raise EmubenchError(f"{path}: {name}: shape {dataset.shape} exceeds {MAX_BYTES // 2**30} GiB")
    for number, *_, title in _filters(dataset):
        if number not in ALLOWED_FILTERS:
            raise EmubenchError(f"{path}: {name}: filter {title!r} is refused; use gzip or none")


def _filters(dataset: h5py.Dataset) -> list[tuple[Any, ...]]:
    """Number, flags, values and name of every filter, in the order in which they are applied on writing."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i) for i in range(plist.get_nfilters())]


def _check_chunks(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Raise :class:`EmubenchError` unless every chunk holds what the array's shape says, before HDF5 believes it.

    On reading, HDF5 inflates a chunk to whatever it holds, be it a thousand times the array, and it allocates whole
    chunks, however small their array is.
    """
    if dataset.chunks is None:
        return
    size = prod(dataset.chunks) * dataset.dtype.itemsize
    if size > min(max(dataset.nbytes, MIN_CHUNK), MAX_CHUNK):
        raise EmubenchError(f"{path}: {name}: chunks of {size} bytes in an array of {dataset.nbytes}")
    order = [number for number, *_ in _filters(dataset)]
    if len(set(order)) != len(order):
        raise EmubenchError(f"{path}: {name}: a filter stands twice")
    if DEFLATE not in order:
        return
    at = order.index(DEFLATE)
    wanted = size + (4 if CHECKSUM in order[:at] else 0)
    places: list[tuple[int, ...]] = []
    with refused(path, f"{name}: cannot be read"):
        dataset.id.chunk_iter(lambda info: places.append(info.chunk_offset))
        for place in places:
            skipped, stored = dataset.id.read_direct_chunk(place)
            if not skipped & 1 << at and not _inflates_to(stored, wanted):
                raise EmubenchError(f"{path}: {name}: the chunk at {place} does not hold {wanted} bytes")


def _inflates_to(stored: bytes, n_bytes: int) -> bool:
    """Whether a zlib stream holds so many bytes; no more are inflated than it takes to know, and few are kept."""
    inflater, found = zlib.decompressobj(), 0
    try:
        while found <= n_bytes and not inflater.eof:
            piece = inflater.decompress(stored, PIECE)
            if not piece and not inflater.eof:  # it is cut
                return False
            found, stored = found + len(piece), inflater.unconsumed_tail
    except zlib.error:
        return False
    return found == n_bytes and inflater.eof


def read_attributes(path: Path, item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """All attributes of a group or array; damaged ones are refused."""
    where = f"array {str(item.name).strip('/')}" if isinstance(item, h5py.Dataset) else f"group {item.name}"
    with refused(path, f"{where}: damaged attributes"):
        return dict(item.attrs)


def read_array(path: Path, file: h5py.File, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read the numeric array ``name``, checking its shape (both are named when they differ)."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise EmubenchError(f"{path}: array {name} is missing")
    if dataset.dtype.kind not in "fiu":
        raise EmubenchError(f"{path}: {name}: type {dataset.dtype} where numbers belong")
    if shape is not None and dataset.shape != shape:
        raise EmubenchError(f"{path}: {name}: shape {dataset.shape} where {shape} belongs")
    with refused(path, f"{name}: cannot be read"):
        return dataset[()]


def read_hashed(path: Path, file: h5py.File, name: str, shape: tuple[int, ...] | None = None) -> tuple[np.ndarray, str]:
    """The array ``name`` of a dataset file and its stored hash, which the values that were read have."""
    values, digest = read_array(path, file, name, shape), store.ArrayHash()
    digest.update(values)
    return values, _agreed(path, name, file[name], digest.hexdigest())


def check_hash(path: Path, file: h5py.File, name: str) -> None:
    """Raise :class:`EmubenchError` unless a stored array has its hash; it is read a few rows at a time."""
    if not isinstance(dataset := file.get(name), h5py.Dataset):
        raise EmubenchError(f"{path}: array {name} is missing")
    with refused(path, f"array {name}: cannot be read"):
        found = store.file_hash(dataset)
    _agreed(path, name, dataset, found)


def _agreed(path: Path, name: str, dataset: Any, found: str) -> str:
    stored = read_attributes(path, dataset).get(store.DIGEST)
    if stored is None:
        raise EmubenchError(f"{path}: array {name}: attribute {store.DIGEST} is missing: an unfinished file")
    if stored != found:
        raise EmubenchError(f"{path}: array {name}: bytes differ from their own hash: it was damaged or edited")
    return found


def read_npz(path: Path, names: tuple[str, ...], check: Check) -> dict[str, np.ndarray]:
    """Read the arrays ``names`` that an npz file holds, without pickles; ``check`` sees each header before the data."""
    try:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    continue
                info = archive.getinfo(f"{name}.npy")
                if info.compress_type not in NPZ_COMPRESSIONS:
                    raise EmubenchError(f"{path}: {name}: compressed in another way than numpy does")
                with archive.open(info) as member:
                    start = io.BytesIO(member.read(MAX_NPY_HEADER))  # a header may claim to be of 4 GiB
                version = np.lib.format.read_magic(start)
                shape, _, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_0")(start)
                check(name, shape, dtype)
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays
    except EmubenchError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # whatever a damaged archive or header makes zipfile, zlib, tokenize or numpy raise
        raise EmubenchError(f"{path}: not a whole npz file ({reason(error)})") from None


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
