"""pydantic models of every file that a stranger may have written: unknown keys refused, every size bounded."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emubench.core.errors import EmubenchError

SCHEMA_VERSION = 1
MAX_TEXT_BYTES = 2**20
MAX_KEY_PARTS = 16
"""Of a dotted key of TOML: time and memory to read one grow with their square."""
_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\[^\n])*+"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w\\-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_KEY_PARTS}}}")
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,79}$")]
Text = Annotated[str, Field(max_length=2000)]


class Model(BaseModel):
    """Strict base: no unknown keys, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    lead_time_unit: Annotated[str, Field(max_length=40)]
    recipe: Annotated[str, Field(max_length=2**20)] = ""
    """Of a custom task, as JSON; the sixteen are known by name."""
    header_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Card(Model):
    """``card.json`` of a run: everything needed to rebuild the emulator beside its weights, and what it cost."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    baseline: Name
    task: Name
    size: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    data_sha256: Annotated[str, Field(max_length=64)]
    knowledge: Literal["none", "structure", "equation form", "equation"]
    config: dict[Name, Any]
    overrides: dict[Name, Any] | None = None
    n_parameters: Annotated[int, Field(ge=0, lt=2**63)]
    train_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    device: Annotated[str, Field(max_length=200)]


class ScoreRow(Model):
    """One row of ``scores.json``; a value that could not be scored is null."""

    task: Name
    metric: Name
    lead_time: float | None
    value: float | None
    low: float | None
    high: float | None
    n_cases: Annotated[int, Field(ge=0, lt=2**63)]
    unit: Annotated[str, Field(max_length=40)]


class ScoreFile(Model):
    """``scores.json``: rows, and per-case values of the headline metrics for paired comparisons."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    task: Name
    size: Name
    truth_sha256: Annotated[str, Field(max_length=64)]
    rows: Annotated[list[ScoreRow], Field(max_length=20000)]
    cases: dict[Name, Annotated[list[float], Field(max_length=100000)]]


class Diagnostic(Model):
    """One diagnostic of an emulator: rows, arrays for plots, and a line where it is not (wholly) available."""

    rows: Annotated[list[ScoreRow], Field(max_length=1000)] = []
    series: dict[Name, Annotated[list[float], Field(max_length=10000)]] = {}
    note: Text = ""


class DiagnosticsFile(Model):
    """``diagnostics.json`` of a run: reported, never ranked."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    task: Name
    size: Name
    truth_sha256: Annotated[str, Field(max_length=64)]
    diagnostics: dict[Name, Diagnostic]

    def rows(self) -> list[ScoreRow]:
        """All rows, in the order of the diagnostics."""
        return [row for diagnostic in self.diagnostics.values() for row in diagnostic.rows]


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


def read_json(model: type[Any], path: Path, max_bytes: int = 64 * 2**20) -> Any:
    """Read and validate a JSON file of bounded size."""
    if not path.is_file():
        raise EmubenchError(f"{path}: no such file")
    if path.stat().st_size > max_bytes:
        raise EmubenchError(f"{path}: larger than {max_bytes} bytes")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EmubenchError(f"{path}: not valid JSON ({error})") from None
    return parse(model, data, path)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file of at most 1 MiB, not yet validated; ``what`` it is, for the errors."""
    if not path.is_file():
        raise EmubenchError(f"{path}: no such {what}")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise EmubenchError(f"{path}: larger than {MAX_TEXT_BYTES} bytes: not a {what}")
    try:
        text = path.read_text(encoding="utf-8")
        if _LONG_KEY.search(text):
            raise EmubenchError(f"{path}: not valid TOML (a key of more than {MAX_KEY_PARTS} parts)")
        return tomllib.loads(text)
    except RecursionError:
        raise EmubenchError(f"{path}: not valid TOML (nested too deeply)") from None
    except ValueError as error:
        raise EmubenchError(f"{path}: not valid TOML ({str(error).splitlines()[0][:200]})") from None


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a value that could not be scored is written as null."""
    return float(value) if math.isfinite(value) else None
