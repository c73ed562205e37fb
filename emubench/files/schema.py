"""What pydantic models of every file that a stranger may have written share: no unknown keys, bounded sizes."""

import json
import lzma
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emubench.core.errors import EmubenchError, reason

SCHEMA_VERSION = 1
MAX_TEXT_BYTES = 2**20
MAX_MEMORY = 64 * 2**20
"""Bytes that xz may hold beyond what it inflates to; its own default needs 9 MiB."""
Number = Annotated[float, Field(allow_inf_nan=False)]
MAX_KEY_PARTS = 16
"""Parts of a dotted key of TOML: time and memory to read one grow with their square."""
_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\[^\n])*+"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w\\-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_KEY_PARTS}}}")
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,79}$")]
Text = Annotated[str, Field(max_length=2000)]


class Model(BaseModel):
    """Strict base: no unknown keys, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def parse(model: type[Any], data: Any, where: Path | str) -> Any:
    """Validate ``data`` as ``model``; the first fault becomes one line that names file, key and what was found."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))[:200] or "(whole file)"
        found = f" (found {_quoted(first['input'])})" if first["type"] != "missing" else ""
        raise EmubenchError(f"{where}: {key}: {first['msg']}{found}") from None


def _quoted(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a number of very many digits"


def read_bytes(path: Path, max_bytes: int, what: str = "") -> bytes:
    """The content of a file of bounded size; ``what`` it should be, for the errors."""
    if not path.is_file():
        raise EmubenchError(f"{path}: no such {what or 'file'}")
    if path.stat().st_size > max_bytes:
        raise EmubenchError(f"{path}: larger than {max_bytes} bytes{what and f': not a {what}'}")
    return path.read_bytes()


def read_json(model: type[Any], path: Path, max_bytes: int = 64 * 2**20, max_inflated: int = 0) -> Any:
    """Read and validate a JSON file of bounded size.

    With ``max_inflated`` it is compressed with xz, and no more bytes are inflated than that.
    """
    content = read_bytes(path, max_bytes)
    return parse_json(model, _inflated(path, content, max_inflated) if max_inflated else content, path)


def _inflated(path: Path, content: bytes, max_inflated: int) -> bytes:
    try:
        inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)
        text = inflater.decompress(content, max_inflated + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise EmubenchError(f"{path}: not a whole xz file ({error})") from None
    if len(text) > max_inflated:
        raise EmubenchError(f"{path}: holds more than {max_inflated} bytes")
    if not inflater.eof or inflater.unused_data:
        raise EmubenchError(f"{path}: not a whole xz file (cut, or followed by something else)")
    return text


def parse_json(model: type[Any], text: bytes | str, where: Path | str) -> Any:
    """Validate JSON text, or its bytes in UTF-8, as ``model``; a byte order mark before it is none of it."""
    try:
        data = json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EmubenchError(f"{where}: not valid JSON ({error})") from None
    return parse(model, data, where)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file of at most 1 MiB, not yet validated; ``what`` it is, for the errors."""
    content = read_bytes(path, MAX_TEXT_BYTES, what)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        if _LONG_KEY.search(text):
            raise EmubenchError(f"{path}: not valid TOML (a key of more than {MAX_KEY_PARTS} parts)")
        return tomllib.loads(text)
    except RecursionError:
        raise EmubenchError(f"{path}: not valid TOML (nested too deeply)") from None
    except ValueError as error:
        raise EmubenchError(f"{path}: not valid TOML ({reason(error)[:200]})") from None
