"""Writing netCDF-4: HDF5 files whose arrays carry dimension scales, which h5py, xarray and netCDF tools all read.

Every scale is created once and for good, in the order of the columns: the same calls give the same bytes. (Libraries
that put a coordinate in the place of a plain dimension free the latter's room whenever its last handle goes.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emubench.core.errors import EmubenchError
from emubench.files.store import DIGEST, HEADER_DIGEST, OWN_DIGEST, ArrayHash, Sink, atomic, attributes_hash

NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
"""How netCDF-4 names a scale without values, before its length."""
ID, IDS = "_Netcdf4Dimid", "_Netcdf4Coordinates"


@contextmanager
def writer(path: Path, attributes: dict[str, Any]) -> Iterator[h5py.File]:
    """An open netCDF-4 file that appears under ``path`` only when the block ends well."""
    versions = f"version=2,hdf5={h5py.version.hdf5_version},h5py={h5py.version.version}"
    try:
        with atomic(path) as temporary, Sink(temporary) as sink, h5py.File(sink, "w", track_order=True) as file:
            put(file.attrs, {**attributes, HEADER_DIGEST: attributes_hash(attributes)})
            file.attrs["_NCProperties"] = np.bytes_(versions)
            yield file
    except OSError as error:
        raise EmubenchError(f"{path}: cannot be written ({error.strerror or error}); nothing was left behind") from None


def put(place: h5py.AttributeManager, attributes: dict[str, Any]) -> None:
    """Set attributes; numbers become arrays of one value, as netCDF has them."""
    for key, value in attributes.items():
        place[key] = value if isinstance(value, str) else np.atleast_1d(value)


class Column:
    """One array of a file, appended row by row and hashed as it grows; under its own dimension's name, a coordinate."""

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: str,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        scales = {dim: _scale(group, dim, length) for dim, length in zip(dims, shape, strict=True) if dim != name}
        self._array: Any = group.create_dataset(name, shape, dtype, track_order=True)
        if name in dims:
            _number(self._array)
            self._array.make_scale(name)
        for axis, dim in enumerate(dims):
            if dim != name:
                self._array.dims[axis].attach_scale(scales[dim])
        ids = [self._array.attrs[ID] if dim == name else scales[dim].attrs[ID] for dim in dims]
        self._array.attrs[ID] = ids[0]
        self._array.attrs[IDS] = np.array(ids, "i4")
        put(self._array.attrs, {**(attributes or {}), OWN_DIGEST: attributes_hash(attributes or {})})
        self._hash, self._filled, self._rows = ArrayHash(), 0, shape[0]

    def allocate(self) -> None:
        """Take the room of the whole array, which is then filled and hashed by :mod:`emubench.data.generation`."""
        self._array[(0,) * len(self._array.shape)] = 0

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows."""
        rows = rows.astype(self._array.dtype, copy=False)
        self._array[self._filled : self._filled + len(rows)] = rows
        self._hash.update(rows)
        self._filled += len(rows)
        if self._filled == self._rows:
            self._array.attrs[DIGEST] = self._hash.hexdigest()


def _scale(group: h5py.Group, dim: str, length: int) -> Any:
    """The scale of a dimension, made where it is new."""
    if dim not in group:
        scale = group.create_dataset(dim, (length,), ">f4", track_order=True)
        _number(scale)
        scale.make_scale(NO_VARIABLE + f"{length:10}")
    return group[dim]


def _number(scale: h5py.Dataset) -> None:
    """Give a scale the next free number of the file."""
    scales: list[str] = []
    scale.file.visititems(lambda name, item: scales.append(name) if "CLASS" in item.attrs else None)
    scale.attrs[ID] = np.int32(len(scales))
