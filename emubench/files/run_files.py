"""The files of a run folder, one model each: ``card.json``, ``scores.json``, ``diagnostics.json``, ``figures.json``."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emubench.files.schema import Model, Name, Number, Text


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
    train_seconds: Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    device: Annotated[str, Field(max_length=200)]
    weights_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the file of the weights; empty in cards that are older than the field."""
    warning: Annotated[str, Field(max_length=400)] = ""
    """How free forecasts ran away or stood still when it was trained."""


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


class RunFile(Model):
    """What the files of a scored run begin with: versions, the task and its truth."""

    schema_version: int
    emubench_version: Annotated[str, Field(max_length=40)]
    task: Name
    size: Name
    truth_sha256: Annotated[str, Field(max_length=64)]


class ScoreFile(RunFile):
    """``scores.json``: rows, and per-case values of the headline metrics for paired comparisons."""

    rows: Annotated[list[ScoreRow], Field(max_length=20000)]
    cases: dict[Name, Annotated[list[float], Field(max_length=100000)]]


class Diagnostic(Model):
    """One diagnostic of an emulator: rows, arrays for plots, and a line where it is not (wholly) available."""

    rows: Annotated[list[ScoreRow], Field(max_length=1000)] = []
    series: dict[Name, Annotated[list[float], Field(max_length=10000)]] = {}
    note: Text = ""


class DiagnosticsFile(RunFile):
    """``diagnostics.json`` of a run: reported, never ranked."""

    diagnostics: dict[Name, Diagnostic]

    def rows(self) -> list[ScoreRow]:
        """All rows, in the order of the diagnostics."""
        return [row for diagnostic in self.diagnostics.values() for row in diagnostic.rows]


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a value that could not be scored is written as null."""
    return float(value) if math.isfinite(value) else None


Series = Annotated[list[Number], Field(max_length=4096)]


class Comparison(Model):
    """A curve of a run beside the truth's, with the band in which another sample of the truth would lie (99 %)."""

    x: Series
    run: Series | None = None
    """Mean over the cases that are not lost; ``None`` if all are."""
    truth: Series
    low: Series
    high: Series

    @model_validator(mode="after")
    def _same_lengths(self) -> "Comparison":
        if {len(s) for s in (self.run, self.truth, self.low, self.high) if s is not None} != {len(self.x)}:
            raise ValueError("x, run, truth, low and high must have the same length")
        return self


class Ranks(Model):
    """Frequencies of the ranks 0 … M of the truth among the members, at one lead; failed cases are left out."""

    lead_time: Number
    frequency: Annotated[list[Number], Field(min_length=2, max_length=4096)]


class Heights(Comparison):
    """Densities of (h − ⟨h⟩)/(Γt)^(1/3) after growth for ``time`` from flat; ⟨h⟩ is the truth's mean."""

    time: Number


class Figures(Model):
    """``figures.json`` of a run, and thinned of an entry; what is empty does not apply."""

    lead_time: Series
    truth: Annotated[list[Series], Field(max_length=4096)]
    forecast: Annotated[list[Series], Field(max_length=4096)]
    """The first member."""
    mean: Annotated[list[Series], Field(max_length=4096)] = []
    spread: Annotated[list[Series], Field(max_length=4096)] = []
    """Mean and standard deviation of the members, of what grows less its mean, where forecasts are scored in law."""
    context: Annotated[list[Annotated[list[Number | None], Field(max_length=4096)]], Field(max_length=4096)] = []
    """What the emulator saw last, at the same interval and up to lead time 0; null where nothing was observed."""
    lost: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the long runs that are lost, and not in the curves."""
    density: Annotated[list[Comparison], Field(max_length=64)] = []
    """Per component, or of all sites of a ring; in units of σ."""
    spatial_spectrum: Comparison | None = None
    temporal_spectrum: Annotated[list[Comparison], Field(max_length=64)] = []
    """Per component, or the mean over a ring's sites; frequencies per unit of lead time."""
    rank_histogram: Annotated[list[Ranks], Field(max_length=64)] = []
    heights: Annotated[list[Heights], Field(max_length=16)] = []
