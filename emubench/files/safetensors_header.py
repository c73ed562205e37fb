"""The header of a safetensors file, read by hand and within bounds: nothing is executed, nothing large is believed.

A file is eight bytes (little-endian length n), n bytes of JSON ``{name: {dtype, shape, data_offsets}}`` and the data,
which the tensors have to fill without overlap or gap (https://github.com/huggingface/safetensors, "Format").
"""

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from emubench.core.errors import EmubenchError, reason

MAX_HEADER = 2**20
MAX_TENSORS = 10_000
ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")
KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "u1"}
"""How numpy reads what has to be checked."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor; ``begin`` and ``end`` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        """Number of values."""
        return prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file, by name; raises :class:`EmubenchError` naming the first fault."""
    size = path.stat().st_size
    with path.open("rb") as file:
        n = int.from_bytes(file.read(8), "little") if size >= 8 else size
        if n > MAX_HEADER:
            raise EmubenchError(f"{path}: header of {n} bytes, where at most {MAX_HEADER} belong")
        if size < 8 or 8 + n > size:
            raise EmubenchError(f"{path}: not a whole safetensors file ({size} bytes)")
        text = file.read(n)
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise EmubenchError(f"{path}: header: not valid JSON ({reason(error)[:200]})") from None
    if not isinstance(content, dict) or len(content) > MAX_TENSORS:
        raise EmubenchError(f"{path}: header: a table of at most {MAX_TENSORS} tensors belongs here")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise EmubenchError(f"{path}: header: __metadata__: a table of strings belongs here")
    tensors = {name: _tensor(path, name, value, 8 + n) for name, value in content.items()}
    _check_layout(path, tensors, 8 + n, size)
    return tensors


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _integers(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) <= most and all(type(v) is int and 0 <= v < 2**48 for v in value)


def _tensor(path: Path, name: str, value: Any, start: int) -> TensorInfo:
    where = f"{path}: tensor {ascii(name)[1:-1][:80]}"
    if not _NAME.fullmatch(name):
        raise EmubenchError(f"{where}: a name of letters, digits, dots, dashes and underscores belongs here")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise EmubenchError(f"{where}: dtype, shape and data_offsets belong here, and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise EmubenchError(f"{where}: dtype {ascii(dtype)[:40]}, where one of {', '.join(ITEM_SIZES)} belongs")
    if not _integers(shape, 8) or not _integers(offsets, 2) or len(offsets) != 2:
        raise EmubenchError(f"{where}: shape and data_offsets have to be lists of integers from 0 on")
    if prod(length or 1 for length in shape) >= 2**48:  # which an empty tensor can claim at no cost
        raise EmubenchError(f"{where}: shape {shape}, whose strides no tensor can have")
    if offsets[1] - offsets[0] != prod(shape) * ITEM_SIZES[dtype]:
        found = f"data_offsets {offsets} of {offsets[1] - offsets[0]} bytes"
        raise EmubenchError(f"{where}: {found}, where shape {shape} needs {prod(shape) * ITEM_SIZES[dtype]}")
    return TensorInfo(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _check_layout(path: Path, tensors: dict[str, TensorInfo], start: int, size: int) -> None:
    end, before = start, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < end:
            raise EmubenchError(f"{path}: tensors {before} and {name} overlap")
        if tensor.begin > end:
            raise EmubenchError(f"{path}: {tensor.begin - end} bytes before tensor {name} belong to none")
        end, before = tensor.end, name
    if end != size:
        raise EmubenchError(f"{path}: {size} bytes, where the tensors end at {end}")


def n_floats(tensors: dict[str, TensorInfo]) -> int:
    """Number of floating-point values: the ``n_parameters`` of a card."""
    return sum(t.numel for t in tensors.values() if t.dtype in FLOATS)


def check_values(path: Path, tensors: dict[str, TensorInfo]) -> None:
    """Raise :class:`EmubenchError` naming the first tensor that holds NaN, an infinity or no boolean."""
    for name, tensor in tensors.items():
        if tensor.dtype not in KINDS:
            continue
        values = np.fromfile(path, KINDS[tensor.dtype], tensor.numel, offset=tensor.begin)
        if tensor.dtype == "BOOL":
            sound = values <= 1
        elif tensor.dtype == "BF16":  # eight bits of exponent, all ones where it is not finite
            sound = (values & 0x7F80) != 0x7F80
        else:
            sound = np.isfinite(values)
        if not sound.all():
            raise EmubenchError(f"{path}: tensor {name}: {(~sound).sum()} of {values.size} values are not finite")
