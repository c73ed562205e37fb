"""The header of a dataset file: its root attributes, checked."""

from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from pydantic import AliasChoices, Field

from emubench.core.errors import EmubenchError
from emubench.files import hdf5, schema
from emubench.files.schema import Model, Name, Text

OLD_NAME = "lead_time_unit"
"""What older files call ``score_time_unit``, as if it were the unit of their ``lead_time``."""


class FileHeader(Model):
    """Root attributes of a dataset file."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    kind: Literal["observations", "truth", "contexts"]
    system: Name
    task: Annotated[str, Field(max_length=80)]
    size: Name
    seed: Annotated[str, Field(max_length=80)]
    parameters: Text
    equation: Text
    sample_interval: float
    time_unit: float
    """Time units of the equation, which all axes are in, to one ``score_time_unit``."""
    score_time_unit: Annotated[str, Field(max_length=40, validation_alias=AliasChoices("score_time_unit", OLD_NAME))]
    recipe: Annotated[str, Field(max_length=2**20)] = ""
    """The recipe of a custom task, as JSON; the sixteen are known by name."""
    header_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def read_header(path: Path, file: h5py.File) -> FileHeader:
    """The validated root attributes; another schema version is named together with ours."""
    attributes = {k: _plain(v) for k, v in hdf5.read_attributes(path, file).items() if not k.startswith("_")}
    version = attributes.get("schema_version")
    if version is None:
        raise EmubenchError(f"{path}: attribute schema_version is missing: not an emubench dataset")
    if version != schema.SCHEMA_VERSION:
        raise EmubenchError(f"{path}: schema_version {version}, but this emubench reads {schema.SCHEMA_VERSION}")
    return schema.parse(FileHeader, attributes, path)


def _plain(value: Any) -> Any:
    """An attribute as a Python scalar: netCDF stores numbers as arrays of one."""
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
