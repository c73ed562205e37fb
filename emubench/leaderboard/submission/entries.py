"""``entry.toml``: who submits what, and how it was made; unknown keys are refused and every size is bounded.

The same as a JSON schema is ``leaderboard/entry.schema.json``. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from emubench.core.errors import EmubenchError
from emubench.files import schema
from emubench.files.schema import Model, Name

ENTRIES = Path("leaderboard/entries")
ENTRY_FILE = "entry.toml"
FORECASTS = "forecasts"
"""The method of an entry whose forecasts were made elsewhere."""
SEEDS_OF_A_METHOD = 3
Line = Annotated[str, Field(min_length=1, max_length=300)]
Url = Annotated[str, Field(pattern=r"^(https://[A-Za-z0-9\-._~/?#@!$&()*+,;=%]{1,300})?$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9_\-]{1,80}/seed-[0-9]{1,10}/[a-z]{1,20}\.(json|safetensors|npz|h5)$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Scalar = Annotated[str, Field(max_length=200)] | bool | Integer | Annotated[float, Field(allow_inf_nan=False)] | None
Setting = Scalar | Annotated[list[Scalar], Field(max_length=100)]


class Entry(Model):
    """What ``entry.toml`` holds."""

    schema_version: Literal[1]
    name: Name
    """As the folder is called."""
    division: Literal["standard", "open"]
    """standard: a reviewed method, which the judge retrains; open: weights or forecasts, shown apart and unranked."""
    size: Literal["tiny", "standard"]
    authors: Annotated[list[Line], Field(min_length=1, max_length=50)]
    contact: Line
    paper: Url = ""
    code: Url = ""
    licence: Line
    method: Name
    """A file of ``baselines/``, or "forecasts"."""
    knowledge: Literal["none", "structure", "equation form", "equation"]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=16)]
    training_command: Text
    data: Text
    """The data used, beyond the task's own."""
    budget: Text
    hardware: Line
    notes: Annotated[str, Field(max_length=10_000)] = ""
    overrides: Annotated[dict[Name, Annotated[dict[Name, Setting], Field(max_length=100)]], Field(max_length=64)] = {}
    """Per task, the settings in which it differs from the method's defaults."""
    files: Annotated[dict[FileName, Digest], Field(min_length=1, max_length=2000)]
    """SHA-256 of every other file of the folder."""

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @model_validator(mode="after")
    def _fits(self) -> Entry:
        if self.method == FORECASTS and self.division != "open":
            raise ValueError("forecasts belong to the open division")
        return self

    @property
    def label(self) -> str:
        """What fewer than three seeds are."""
        return "" if len(self.seeds) >= SEEDS_OF_A_METHOD else "a checkpoint, not a method"

    def tasks(self) -> list[str]:
        """Its tasks, sorted."""
        return sorted({name.split("/")[0] for name in self.files})


def read(folder: Path) -> Entry:
    """The validated ``entry.toml`` of a folder; the first fault becomes one line."""
    path = folder / ENTRY_FILE
    if path.is_symlink() or not path.is_file():
        raise EmubenchError(f"{path}: no such file; make an entry with: emubench submit new NAME --from RUN")
    content = schema.read_toml(path, "entry")
    try:
        entry = schema.parse(Entry, content, path)
    except RecursionError:
        raise EmubenchError(f"{path}: nested too deeply") from None
    if entry.name != folder.resolve().name:
        raise EmubenchError(
            f"{path}: name: {entry.name!r} in a folder called {folder.resolve().name!r}: make them equal"
        )
    return entry


def json_schema() -> str:
    """The published JSON schema."""
    return json.dumps(Entry.model_json_schema(), indent=1, sort_keys=True) + "\n"


# --- writing ----------------------------------------------------------------------------------------------------------


def to_toml(entry: Entry) -> str:
    """``entry.toml`` of an entry; TOML has no null, so settings that are none are left out."""
    content = entry.model_dump(exclude_none=True)
    content["overrides"] = {task: stated for task, stated in content["overrides"].items() if stated}
    return tomli_w.dumps(content | {"files": dict(sorted(content["files"].items()))})


def sha256(path: Path) -> str:
    """Hash of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what a task asks for, known without torch ------------------------------------------------------------------------

SHAPES_FILE = Path(__file__).with_name("shapes.json")


@cache
def shapes() -> dict[str, dict[str, dict[str, tuple[int, ...]]]]:
    """``[size][task][split]``: shape ``(M, B, T, *S)`` of a whole forecast. Written by ``python -m
    benchmarks.maintain.shapes``.
    """
    content = json.loads(SHAPES_FILE.read_text(encoding="utf-8"))
    return {
        size: {task: {split: tuple(shape) for split, shape in splits.items()} for task, splits in found.items()}
        for size, found in content.items()
    }
