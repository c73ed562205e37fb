"""Messages between the judge and a judged emulator: a small JSON header and raw numbers, bounded on both sides.

A frame is ``EMUB``, one byte of tag, four bytes of header length (little-endian), the header, and then the values of
one array, whose type and shape the header states. Nothing is pickled. This module imports no torch.
"""

import json
import os
import select
import struct
import time
from math import prod
from typing import Any

import numpy as np

MAGIC = b"EMUB"
READY, CONTEXT, FORECAST, FAULT = b"R", b"C", b"F", b"E"
MAX_HEADER = 4096
DTYPES = ("<f4", "<f8")
_PIECE = 2**20


class PipeError(Exception):
    """The other side hung, died, or sent what it should not; the message is for people."""


class Died(PipeError):
    """The other side reads, or writes, no more."""


def write(descriptor: int, content: memoryview, deadline: float) -> None:
    """Write all of ``content`` to a non-blocking pipe until ``deadline`` (of :func:`time.monotonic`)."""
    while content:
        _wait(descriptor, deadline, reading=False)
        try:
            content = content[os.write(descriptor, content[:_PIECE]) :]
        except BlockingIOError:
            continue
        except OSError:
            raise Died("died") from None


def read(descriptor: int, n: int, deadline: float) -> bytearray:
    """Exactly ``n`` bytes of a non-blocking pipe, or :class:`PipeError`."""
    content = bytearray()
    while len(content) < n:
        _wait(descriptor, deadline, reading=True)
        try:
            piece = os.read(descriptor, min(_PIECE, n - len(content)))
        except BlockingIOError:
            continue
        if not piece:
            raise Died("died")
        content += piece
    return content


def _wait(descriptor: int, deadline: float, reading: bool) -> None:
    left = deadline - time.monotonic()
    lists = ([descriptor], []) if reading else ([], [descriptor])
    if left <= 0 or not any(select.select(*lists, [], left)):
        raise PipeError("gave no answer in time")


def send(descriptor: int, tag: bytes, header: dict[str, Any], values: np.ndarray | None, deadline: float) -> None:
    """Send one frame."""
    if values is not None:
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        header = header | {"dtype": values.dtype.str, "shape": list(values.shape)}
    text = json.dumps(header).encode()
    write(descriptor, memoryview(MAGIC + tag + struct.pack("<I", len(text)) + text), deadline)
    if values is not None and values.size:
        write(descriptor, values.reshape(-1).data.cast("B"), deadline)


def receive(
    descriptor: int, tags: bytes, shapes: tuple[tuple[int, ...], ...], deadline: float
) -> tuple[bytes, dict[str, Any], np.ndarray | None]:
    """Tag, header and array of the next frame: a tag of ``tags``, and an array of one of ``shapes`` or none.

    Whatever it claims is checked before a byte of the array is read, so that no more is read than was asked for.
    """
    start = bytes(read(descriptor, 9, deadline))
    tag, (length,) = start[4:5], struct.unpack("<I", start[5:])
    if start[:4] != MAGIC or tag not in (tags[i : i + 1] for i in range(len(tags))) or length > MAX_HEADER:
        raise PipeError("sent garbage")
    try:
        header = json.loads(bytes(read(descriptor, length, deadline)))
    except (ValueError, RecursionError):
        raise PipeError("sent garbage") from None
    if not isinstance(header, dict):
        raise PipeError("sent garbage")
    if "shape" not in header:
        return tag, header, None
    shape, dtype = header.get("shape"), header.get("dtype")
    known = {tuple(map(str, one)): one for one in shapes}
    wanted = known.get(tuple(map(str, shape))) if isinstance(shape, list) else None
    if wanted is None:
        raise PipeError(f"sent an array of shape {str(shape)[:80]}, where {' or '.join(map(str, shapes))} belongs")
    if dtype not in DTYPES:
        raise PipeError(f"sent an array of type {str(dtype)[:40]}, where float32 or float64 belongs")
    content = read(descriptor, prod(wanted) * np.dtype(dtype).itemsize, deadline)
    return tag, header, np.frombuffer(content, dtype).reshape(wanted)
