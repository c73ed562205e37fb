"""``entry.toml``: who submits what, and how it was made; unknown keys are refused and every size is bounded.

The same as a JSON schema is ``leaderboard/entry.schema.json``. This module imports no torch.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from emubench.core.errors import EmubenchError
from emubench.files import entry_files, schema, store
from emubench.files.entry_files import FIGURES, MAX_SEEDS, MAX_TASKS, EntryScores, RunKey
from emubench.files.run_files import Card, Figures, ScoreFile
from emubench.files.schema import Model, Name
from emubench.files.timing import EntryTiming

ENTRIES = Path("leaderboard/entries")
ENTRY_FILE = "entry.toml"
FORECASTS = "forecasts"
"""The method of an entry whose forecasts were made elsewhere."""
SEEDS_OF_A_METHOD = 3
Line = Annotated[str, Field(min_length=1, max_length=300)]
Url = Annotated[str, Field(pattern=r"^(https://[A-Za-z0-9\-._~/?#@!$&()*+,;=%]{1,300})?$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WEIGHTS = "model.safetensors"
FORECAST_FILES = ("forecast.npz", "forecast.h5")
_OF_A_RUN = r"[a-z0-9_\-]{1,80}/seed-[0-9]{1,10}/(model\.safetensors|forecast\.npz|forecast\.h5)"
FileName = Annotated[str, Field(pattern=rf"^(cards\.json|(scores|figures|timing)\.json\.xz|{_OF_A_RUN})$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Scalar = Annotated[str, Field(max_length=200)] | bool | Integer | Annotated[float, Field(allow_inf_nan=False)] | None
Setting = Scalar | Annotated[list[Scalar], Field(max_length=100)]


class Entry(Model):
    """What ``entry.toml`` holds."""

    schema_version: Literal[2]
    name: Name
    """The folder is called so, too."""
    division: Literal["standard", "open"]
    """A "standard" method is reviewed and retrained by the judge; what is "open" is shown apart and unranked."""
    size: Literal["tiny", "standard"]
    authors: Annotated[list[Line], Field(min_length=1, max_length=50)]
    contact: Line
    paper: Url = ""
    code: Url = ""
    licence: Line
    method: Name
    """A file of ``baselines/``, or "forecasts"."""
    knowledge: Literal["none", "structure", "equation form", "equation"]
    tasks: Annotated[list[Name], Field(min_length=1, max_length=MAX_TASKS)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=MAX_SEEDS)]
    """Every task was trained with every seed."""
    training_command: Text
    data: Text
    """The data used, beyond the task's own."""
    budget: Text
    hardware: Line
    notes: Annotated[str, Field(max_length=10_000)] = ""
    overrides: Annotated[
        dict[Name, Annotated[dict[Name, Setting], Field(max_length=100)]], Field(max_length=MAX_TASKS)
    ] = {}
    """Per task, the settings in which it differs from the method's defaults."""
    files: Annotated[dict[FileName, Digest], Field(min_length=1, max_length=2000)]
    """SHA-256 of every other file of the folder."""

    @field_validator("tasks", "seeds")
    @classmethod
    def _different(cls, listed: list[str] | list[int]) -> list[str] | list[int]:
        if len(set(listed)) != len(listed):
            raise ValueError("one stands twice")
        return listed

    @model_validator(mode="after")
    def _fits(self) -> "Entry":
        if self.method == FORECASTS and self.division != "open":
            raise ValueError("forecasts belong to the open division")
        return self

    @property
    def label(self) -> str:
        """What fewer than three seeds are."""
        return "" if len(self.seeds) >= SEEDS_OF_A_METHOD else "a checkpoint, not a method"

    @property
    def runs(self) -> list[RunKey]:
        """Task and seed of all it has."""
        return [(task, seed) for task in self.tasks for seed in self.seeds]

    @property
    def has_weights(self) -> bool:
        """Whether it can be run as it is; a standard entry is retrained by the judge, and needs none."""
        return any(name.endswith(WEIGHTS) for name in self.files)


def place(run: RunKey) -> str:
    """The folder of a run's weights or forecasts, below the entry's."""
    task, seed = run
    return f"{task}/seed-{seed}"


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


@dataclass(frozen=True)
class Contents:
    """An entry with all of its files but the large ones: figures, weights and forecasts are read when they are used."""

    folder: Path
    entry: Entry
    scores: dict[RunKey, EntryScores]
    cards: dict[RunKey, Card] = field(default_factory=dict)
    """Forecasts made elsewhere have none."""
    timing: dict[RunKey, EntryTiming] = field(default_factory=dict)

    def figures(self) -> dict[RunKey, Figures]:
        """What it has to show: of one seed per task, if anything."""
        return entry_files.read(self.folder, FIGURES) if FIGURES in self.entry.files else {}

    def path(self, run: RunKey) -> Path:
        """Where the weights or the forecast of a run are."""
        folder = self.folder / place(run)
        return next((folder / name for name in FORECAST_FILES if (folder / name).exists()), folder / WEIGHTS)

    @contextmanager
    def unpacked(self, run: RunKey) -> Iterator[Path]:
        """A folder as that of the run itself, for as long as it is needed: card, weights and scores."""
        with tempfile.TemporaryDirectory(prefix="emubench-entry-") as temporary:
            folder = Path(temporary)
            store.write_text(folder / "card.json", self.cards[run].model_dump_json(indent=1) + "\n")
            scores = ScoreFile(**dict(self.scores[run]))
            store.write_text(folder / "scores.json", scores.model_dump_json(indent=1) + "\n")
            shutil.copyfile(self.path(run), folder / WEIGHTS)
            yield folder


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


class AskedScore(Model):
    """The rows of one metric: their unit, the split whose cases count, the range, and the lead times, in order."""

    unit: str
    split: str
    bounds: tuple[float, float]
    lead_times: list[float | None]

    def allows(self, value: float | None) -> bool:
        """Whether a value lies in the range, up to rounding; one that could not be scored, ``None``, is a failure."""
        if value is None:
            return True
        rounding = 1e-6 * abs(value) + 1e-9  # some are sums in single precision
        return math.isfinite(value) and self.bounds[0] - rounding <= value <= self.bounds[1] + rounding


class Asked(Model):
    """What ``shapes.json`` says of all tasks; ``python -m benchmarks.maintain.shapes`` writes it."""

    headlines: dict[str, str]
    """``[task]``: the metric whose per-case values are kept."""
    shapes: dict[str, dict[str, dict[str, tuple[int, ...]]]]
    """``[size][task][split]``: the shape ``(M, B, T, *S)`` of a whole forecast."""
    scores: dict[str, dict[str, AskedScore]]
    """``[task][metric]``: all rows that scoring makes."""


@cache
def asked() -> Asked:
    """What tasks ask for, read once."""
    return Asked.model_validate_json(SHAPES_FILE.read_bytes())
