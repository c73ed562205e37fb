"""JSON in xz, for files of many numbers: small, and read without torch by whatever reads JSON.

xz rather than gzip: what repeats, such as the truth that the four tasks of a system share, stands farther apart than
the 32 KiB that gzip looks back.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.files import schema, store

MAX_MEMORY = 64 * 2**20
"""Bytes that a stream may make its reader hold beyond what it inflates to; xz's own default needs 9 MiB."""


def read_json(model: type[Any], path: Path, max_bytes: int, max_inflated: int) -> Any:
    """Read and validate a JSON file of bounded size that is compressed with xz; no more is inflated than is allowed."""
    content = schema.read_bytes(path, max_bytes)
    try:
        inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)
        text = inflater.decompress(content, max_inflated + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise EmubenchError(f"{path}: not a whole xz file ({error})") from None
    if len(text) > max_inflated:
        raise EmubenchError(f"{path}: holds more than {max_inflated} bytes")
    if not inflater.eof or inflater.unused_data:
        raise EmubenchError(f"{path}: not a whole xz file (cut, or followed by something else)")
    return schema.parse_json(model, text, path)


def write_json(path: Path, content: Any) -> None:
    """Write a file for :func:`read_json`, atomically; equal content gives equal bytes by one version of xz."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"
    with store.atomic(path) as temporary:
        temporary.write_bytes(lzma.compress(text.encode("utf-8"), preset=6 | lzma.PRESET_EXTREME))
