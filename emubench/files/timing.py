"""``timing.json`` of a run: the time that scoring took, and what ``emubench bench`` measured, mode by mode."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emubench.files import schema, store
from emubench.files.schema import Model, Name, Number

MAX_BYTES = 2**20
RANKED = "offline_end_to_end"
"""The scenario whose throughput is ranked: any number of cases at once, the start from the context included."""
BENCHED = "start included"
"""Words in the unit of a figure that was benched."""
Positive = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Line = Annotated[str, Field(max_length=200)]


class Quantiles(Model):
    """Median of repeated measurements, with their 10th and 90th percentile."""

    median: Positive
    low: Positive
    high: Positive


class Scenario(Model):
    """One way of asking for forecasts: ``batch`` cases per call, over the horizon of the test split."""

    batch: Annotated[int, Field(ge=1)]
    repetitions: Count
    """Calls with inputs never seen before: those that count."""
    seconds: Quantiles
    """Time of one call."""
    lyapunov_times_per_second: Quantiles
    """Units of lead time of one member per second (kpz: samples)."""
    trajectory_steps_per_second: Quantiles
    """Sample intervals of one member per second."""
    repeated_over_fresh: Positive
    """Time of a call with an input seen before, in that of one with a fresh input."""
    peak_memory: Count
    """Bytes that a call takes beyond what was held before it."""


class Hardware(Model):
    """Where and how it was measured."""

    device: Line
    name: Line
    driver: Line
    cores: Count
    threads: Count
    dtype: Line
    tf32: bool
    compiled: bool
    torch: Line
    date: Line


class Bound(Model):
    """How near a rollout comes to what the device can do."""

    flops_per_second: Positive
    bytes_per_second: Positive
    flops_ceiling: Positive
    bytes_ceiling: Positive
    binds: Name
    """``arithmetic``, ``memory``, or ``overhead`` where neither is used to a tenth."""


class Rung(Model):
    """One solver setting, from the same contexts: how accurate and how fast."""

    scheme: Name
    steps_per_sample: Annotated[int, Field(ge=1)]
    sites: Count
    dtype: Name
    start: Name
    """``sample``, ``small`` or ``filter``: see :class:`emubench.dynamics.solvers.Setting`."""
    path: Name
    """``kernel`` or ``torch``."""
    accuracy: Number
    """Mean headline score: valid prediction time, or CRPS."""
    scenarios: dict[Name, Scenario]
    cases: Annotated[list[Number], Field(max_length=100000)] = []
    """Headline score per case."""
    limit: Bound | None = None
    """The limit of the offline scenario, where all the work is a kernel's."""


class Speedup(Model):
    """The emulator's throughput over the highest of any measured solver setting that is at least as accurate."""

    value: Positive | None
    low: Positive | None
    high: Positive | None
    """It comes from the 10th and 90th percentiles of both timings; null where no setting measured is as accurate."""
    scheme: Line
    """The setting it is compared with."""
    ranked: bool
    """Whether the emulator's skill is high enough for its speed to be ranked."""
    break_even: Positive | None
    """Units of lead time that must be simulated before training has paid; null: never, as the solver is faster."""


class Bench(Model):
    """All that was measured of a run in one mode."""

    emubench_version: Line
    mode: Name
    hardware: Hardware
    memory_cap: Count
    scenarios: dict[Name, Scenario]
    rollout_note: Line = ""
    """Why there is no rollout-only figure, where there is none."""
    compile_seconds: Positive | None = None
    accuracy: Number
    accuracy_low: Number
    accuracy_high: Number
    skill: Number | None
    speedups: dict[Name, Speedup] = {}
    """The speed-up of each scenario."""
    limits: dict[Name, Bound] = {}


class Speed(Model):
    """How fast a run is, as far as one figure says it, and what that figure means."""

    lyapunov_times_per_second: Annotated[float, Field(ge=0, le=1e15)]
    unit: Line = ""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    device: Line = ""
    test_seconds: Positive | None = None
    """Time of the forecasts that scoring asked for, as the other seconds."""
    counted_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of their samples that speed counts: the rest had stopped, or was not finite."""
    scored_on: Line = "cpu"
    """The device on which they were made; what was benched may be from another."""
    climate_seconds: Positive | None = None
    widths_seconds: Positive | None = None

    @property
    def benched(self) -> bool:
        """Whether the figure is that of the best batch, which ``emubench bench`` finds, and not of the scored one."""
        return BENCHED in self.unit


class Timing(Speed):
    """``timing.json`` of a run."""

    benches: Annotated[dict[Name, Bench], Field(max_length=20)] = {}
    """What was measured, by the name of the mode."""
    ladder: Annotated[list[Rung], Field(max_length=200)] = []

    @property
    def benched(self) -> bool:
        """As its parent's; a run keeps what was benched."""
        return super().benched or "eager" in self.benches


class Solver(Model):
    """One setting of the solver ladder, timed in the same run as the emulator: what it is, how accurate, how fast."""

    name: Line
    accuracy: Annotated[float, Field(ge=-1e6, le=1e6)]
    lyapunov_times_per_second: Annotated[float, Field(ge=0, le=1e15)]


class EntryTiming(Speed):
    """What an entry of the leaderboard keeps of a run's :class:`Timing`; never compared with another machine's."""

    speedup: Speedup | None = None
    """The plain mode's over one of ``solvers``, at equal accuracy."""
    solvers: Annotated[list[Solver], Field(max_length=200)] = []


class JudgedSpeed(Model):
    """What a judge found of an emulator's speed, beside the solver ladder of its task on the same device and cases."""

    device: Line
    """As torch calls it."""
    processor: Line
    threads: Annotated[int, Field(ge=1, le=4096)]
    batch: Annotated[int, Field(ge=1)]
    lyapunov_times_per_second: Quantiles
    speedup: Speedup | None
    """``None`` where no ladder was climbed, and where ``refused`` says why there is no speed."""
    refused: Annotated[str, Field(max_length=1000)] = ""

    @property
    def where(self) -> str:
        """The device in words; speeds of two are never compared."""
        return f"{self.device}: {self.processor}, {self.threads} thread(s)"


def read(run: Path) -> Timing | None:
    """The timing of a run, if there is any."""
    path = run / "timing.json"
    return schema.read_json(Timing, path, MAX_BYTES) if path.exists() else None


def add_scored(run: Path, scored: dict[str, Any]) -> None:
    """Write what scoring took into the run's ``timing.json``; what was benched stays, its figure the ranked one."""
    known, content = read(run), dict(scored)
    if known is not None and known.benches:
        content |= known.model_dump(include={"benches", "ladder"})
        if "eager" in known.benches:
            content |= known.model_dump(include={"lyapunov_times_per_second", "unit", "threads", "device"})
    store.write_text(run / "timing.json", json.dumps(content, indent=1) + "\n")


def add(run: Path, bench: Bench, ladder: list[Rung]) -> None:
    """Write what was measured into the run's ``timing.json``, beside other modes; the plain mode's figure is ranked."""
    known = read(run)
    content: dict[str, Any] = known.model_dump() if known else {}
    content["benches"] = content.get("benches", {}) | {bench.mode: bench.model_dump()}
    if ladder:
        content["ladder"] = [rung.model_dump() for rung in ladder]
    if bench.mode == "eager" or known is None:
        ranked = bench.scenarios[RANKED]
        unit = f"units of lead time of one member per second, {BENCHED}, batches of {ranked.batch} cases"
        content |= {"lyapunov_times_per_second": ranked.lyapunov_times_per_second.median, "unit": unit}
        content |= {"threads": bench.hardware.threads, "device": bench.hardware.device}
    store.write_text(run / "timing.json", json.dumps(content, indent=1) + "\n")
