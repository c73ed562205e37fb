"""Verifying a dataset file against its own hashes and schema, and observations against the seed of their truth."""

from pathlib import Path

import h5py

from emubench.core.errors import EmubenchError
from emubench.data import recipes, tasks
from emubench.data.dataset import open_file
from emubench.data.layout import Layout, truth_path
from emubench.data.tasks import Task
from emubench.files import hdf5, store
from emubench.files.header import FileHeader, read_header

NETCDF_ATTRIBUTES = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates")
"""Attributes of an array that belong to the file format."""


def verify(path: Path) -> list[str]:
    """Check a file against its own hashes and schema; return the arrays checked, raise on the first fault."""
    with hdf5.open_plain(path) as file:
        header = read_header(path, file)
        task = task_of(path, header)
        open_file(path, header.kind, task).close()
        truth = truth_path(task, path.parent.parent)
        if header.kind == "observations" and truth.exists():  # of another seed they are not a pair
            open_file(truth, "truth", task, header.seed).close()
        arrays = {name.strip("/"): hdf5.read_attributes(path, array) for name, array in hdf5.walk(path, file)}
        names = [name for name, own in arrays.items() if "not a netCDF variable" not in str(own.get("NAME", ""))]
        wanted = Layout(task, header.kind).names
        for name in sorted({*names, *wanted}):
            if name not in names or name not in wanted:
                raise EmubenchError(f"{path}: array {name} {'does not belong here' if name in names else 'is missing'}")
            _verify_array(path, name, file)
    return names


def _verify_array(path: Path, name: str, file: h5py.File) -> None:
    attributes = hdf5.read_attributes(path, file[name])  # type: ignore[arg-type]
    own = {k: v for k, v in attributes.items() if k not in NETCDF_ATTRIBUTES}
    if store.OWN_DIGEST not in own:
        raise EmubenchError(f"{path}: array {name}: attribute {store.OWN_DIGEST} is missing: an unfinished file")
    if store.attributes_hash(own) != own[store.OWN_DIGEST]:
        raise EmubenchError(f"{path}: array {name}: an attribute was edited (one of {', '.join(sorted(own))})")
    hdf5.check_hash(path, file, name)


def task_of(path: Path, header: FileHeader) -> Task:
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
