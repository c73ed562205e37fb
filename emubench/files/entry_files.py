"""The files of a leaderboard's entry: one per kind for all its runs, ``{task: {seed: what the run's own file holds}}``.

Cards are plain text, a line per run, for people to review. The others are many numbers, so they are compressed: in them
the rows of scores are columns, figures are thinned, and timings are cut to what is shown. Their models are those of a
run's folder; nothing here names a key of theirs.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, RootModel, field_serializer, field_validator

from emubench.files import schema, store
from emubench.files.run_files import Card, Figures, ScoreFile, ScoreRow
from emubench.files.schema import Name
from emubench.files.timing import EntryTiming

MAX_ROWS = 2000
"""Scores of one run; the most today are 281."""
MAX_SEEDS, MAX_TASKS = 16, 64
RunKey = tuple[str, int]
"""Task and seed."""
_Seed = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]


class EntryScores(ScoreFile):
    """The scores of one run, whose rows are stored as columns."""

    @field_validator("rows", mode="before")
    @classmethod
    def _from_columns(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        columns = list(rows.values())
        if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
            raise ValueError("columns, all as long, belong here")
        if len(columns[0]) > MAX_ROWS:
            raise ValueError(f"{len(columns[0])} rows, where at most {MAX_ROWS} belong")
        return [dict(zip(rows, values, strict=True)) for values in zip(*columns, strict=True)]

    @field_serializer("rows")
    def _to_columns(self, rows: list[ScoreRow]) -> dict[str, list[Any]]:
        return {name: [getattr(row, name) for row in rows] for name in ScoreRow.model_fields}


class Kind(NamedTuple):
    """A kind of file: its model of one run, and the bytes that all of it may take, stored and inflated."""

    model: type[BaseModel]
    max_bytes: int
    max_inflated: int = 0
    """0: it is plain text."""


CARDS, SCORES, FIGURES, TIMING = "cards.json", "scores.json.xz", "figures.json.xz", "timing.json.xz"
KINDS = {
    CARDS: Kind(Card, 2**21),
    SCORES: Kind(EntryScores, 2**23, 2**25),
    FIGURES: Kind(Figures, 2**23, 2**24),
    TIMING: Kind(EntryTiming, 2**20, 2**23),
}


@cache
def _whole(name: str) -> type[RootModel[Any]]:
    """The model of a whole file."""
    seeds = Annotated[dict[_Seed, KINDS[name].model], Field(max_length=MAX_SEEDS)]
    return RootModel[Annotated[dict[Name, seeds], Field(max_length=MAX_TASKS)]]  # type: ignore[misc, valid-type]


def read(folder: Path, name: str) -> dict[RunKey, Any]:
    """What the file ``name`` of an entry holds, run by run; the first fault raises :class:`EmubenchError`."""
    kind, model = KINDS[name], _whole(name)
    found = schema.read_json(model, folder / name, kind.max_bytes, kind.max_inflated)
    return {(task, int(seed)): content for task, seeds in found.root.items() for seed, content in seeds.items()}


def write(folder: Path, name: str, runs: Mapping[RunKey, BaseModel]) -> None:
    """Write the file ``name`` of an entry, of models with the fields of its kind's."""
    content: dict[str, dict[str, Any]] = {}
    for (task, seed), run in sorted(runs.items()):
        found = schema.parse(KINDS[name].model, run.model_dump(), f"{folder / name}: {task}.{seed}")
        content.setdefault(task, {})[str(seed)] = found.model_dump()
    if KINDS[name].max_inflated:
        store.write_packed(folder / name, content)
    else:
        store.write_text(folder / name, _lines(content))


def _lines(content: dict[str, dict[str, Any]]) -> str:
    """JSON with a line per run."""
    tasks = [
        f"{json.dumps(task)}: {{\n" + ",\n".join(f'"{seed}": {json.dumps(run)}' for seed, run in runs.items()) + "}"
        for task, runs in content.items()
    ]
    return "{\n" + ",\n".join(tasks) + "\n}\n"
