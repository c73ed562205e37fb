"""Scoring: truth against forecast, chunk by chunk; the one place where cases are averaged and bootstrapped."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench import __version__, metrics
from emubench.core.errors import EmubenchError, unknown
from emubench.core.hardware import check_device, described
from emubench.core.random import torch_stream
from emubench.data import dataset, layout, recipes, reference, widths
from emubench.data.recipes import TaskLike
from emubench.data.tasks import Task
from emubench.emulator import Asked, Copies, Emulator
from emubench.evaluation.figures import Collector
from emubench.evaluation.forecast import CHUNK, Progress, chunks, counted_share, forecast_chunk
from emubench.files import hdf5, run_files, schema, store
from emubench.files.timing import Speed
from emubench.metrics import Pool, Row, Summary, Truth, stability
from emubench.metrics._headline import headline

if TYPE_CHECKING:
    import pandas as pd

CPU = torch.device("cpu")
N_RESAMPLES = 1000
INTERVAL, Z_95 = (0.025, 0.975), 1.959964
Forecaster = Callable[[str, slice], Tensor]
"""``(split, cases) -> forecast "M B T *S"`` of those cases."""
Figures = float | tuple[Any, Any, Any] | None
"""A value, or a tuple of a value with the ends of its interval; ``None`` where there is none."""


@dataclass(frozen=True, repr=False)
class Result:
    """Scores of one emulator on one task, with what the plots need and the time that the forecasts took."""

    task: Task
    scores: run_files.ScoreFile
    figures: dict[str, Any]
    """The content of ``figures.json``."""
    timing: dict[str, Any] = field(default_factory=dict)
    """The content of ``timing.json``; empty where the forecasts were made elsewhere."""
    of_ensembles: frozenset[str] = frozenset()
    """Names of the scores that other random numbers of an ensemble move."""

    def table(self) -> "pd.DataFrame":
        """One row per score: task, metric, lead_time, value, low, high (95 %), n_cases, unit; see docs/metrics.md.

        ``lead_time`` is NaN in the scores of a whole forecast, elsewhere in units of the task.
        """
        import pandas as pd  # which takes longer to import than a task to score

        return pd.DataFrame([row.model_dump() for row in self.scores.rows]).astype({"lead_time": "float64"})

    def __repr__(self) -> str:
        """The score that heads the task, with its interval."""
        head = headline(self.task)
        row = next(row for row in self.scores.rows if row.metric == head.metric and row.lead_time is None)
        ends = ", ".join("failed" if end is None else f"{end:.3g}" for end in (row.low, row.high))
        value = "failed" if row.value is None else f"{row.value:.3g}"
        return f"<{self.task.name} ({self.task.size}): {head.metric} {value} [{ends}] {row.unit}>"


class StoredTruth(NamedTuple):
    """The truth that a split is scored against."""

    values: Float[Tensor, "B T *S"]
    """The scored components at the leads asked for, in physical units."""
    start: Tensor
    """Index into ``system.starts`` of each case."""
    digest: str
    """The stored hash; empty where the truth is a draw from the exact law, which is stored nowhere."""


def load_truth(task: TaskLike, data: Path | str = "data", split: str = "test") -> StoredTruth:
    """The truth of every case of a split, beside :func:`emubench.forecast`: for scorers, and never for an emulator.

    ``split`` is one of ``task.splits``: "test", or "climate" for the long runs. Its ``values`` have the shape
    ``(case, time, *space)``; the first time is the sample after the context. Raises :class:`EmubenchError` where it was
    not generated, or is damaged.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> tuple(emubench.load_truth(task).values.shape)
    (16, 442, 3)
    """
    data = Path(data)
    task = recipes.resolve(task, data=data)
    if split not in task.splits:
        raise unknown("split", split, task.splits)
    if split == widths.SPLIT:
        values = widths.truth(task, dataset.seed_of(task, data))
        return StoredTruth(values, torch.zeros(len(values), dtype=torch.long), "")
    path = layout.truth_path(task, data)
    with dataset.open_truth(task, data) as file:
        values, digest = hdf5.read_hashed(path, file, f"{split}/truth")
        start, _ = hdf5.read_hashed(path, file, f"{split}/start")
    scored = task.observation.select(values[:, task.context :])
    if not np.isfinite(scored).all():
        raise EmubenchError(f"{path}: array {split}/truth holds values that are not finite")
    return StoredTruth(torch.from_numpy(np.ascontiguousarray(scored)), torch.from_numpy(start.astype("i8")), digest)


@dataclass(frozen=True)
class Cases:
    """Contexts, truth and kinds of start of the cases of the split "test"."""

    task: Task
    contexts: Float[Tensor, "B C *S"]
    truth: Float[Tensor, "B T *S"]
    start: Tensor

    @classmethod
    def load(cls, task: Task, data: Path) -> "Cases":
        """The cases of the dataset below ``data``."""
        truth, start, _ = load_truth(task, data, "test")
        return cls(task, dataset.load(task, data).context("test"), truth, start)


def headline_cases(
    emulator: Emulator, cases: Cases, seed: int, progress: Progress | None = None
) -> Float[Tensor, " B"]:
    """The headline score of every case, forecast as it is scored and as far ahead as the truth goes."""
    task, (n, n_steps) = cases.task, cases.truth.shape[:2]
    found = []
    for part in chunks(n):
        made = forecast_chunk(emulator, task, "test", cases.contexts[part], part.start, seed, n_steps)
        found.append(headline(task).cases(made.cpu(), cases.truth[part], cases.start[part]))
        if progress is not None:
            progress(part.stop, n)
    return torch.cat(found)


def truth_digest(task: Task, data: Path) -> str:
    """Hash of the stored truth of both splits: scores belong to it."""
    with dataset.open_truth(task, data) as file:
        return store.combine([str(file[f"{s}/truth"].attrs.get(store.DIGEST, "")) for s in ("test", "climate")])


def header(task: Task, digest: str) -> dict[str, Any]:
    """What a file of scores or diagnostics says of itself: versions, the task, and the hash of the truth."""
    versions = {"schema_version": schema.SCHEMA_VERSION, "emubench_version": __version__}
    return {**versions, "task": task.name, "size": task.size, "truth_sha256": digest}


def resample(start: Tensor, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Float[Tensor, "R B"]:
    """Bootstrap weights of cases, resampled within each kind of start; rows sum to 1."""
    generator = torch_stream(seed, "bootstrap", len(start))
    weights = torch.zeros(n_resamples, len(start), dtype=torch.float64)
    for kind in start.unique():
        (index,) = torch.nonzero(start == kind, as_tuple=True)
        drawn = torch.randint(len(index), (n_resamples, len(index)), generator=generator)
        weights.scatter_add_(1, index[drawn], torch.full(drawn.shape, 1.0 / len(start), dtype=torch.float64))
    return weights


def bootstrap(summary: Summary, weights: Float[Tensor, "R B"]) -> tuple[Tensor, Tensor, Tensor]:
    """Value, low and high of every output: a bootstrap is a matrix product."""
    value = summary.finish(summary.cases.mean(0))
    resampled = summary.finish(weights @ summary.cases)
    low, high = torch.quantile(resampled, torch.tensor(INTERVAL, dtype=torch.float64), dim=0)
    return value, low, high


def intervals(summary: Summary, weights: Float[Tensor, "R B"]) -> list[tuple[float, float, float]]:
    """Value, low and high of every output, one tuple each."""
    return list(zip(*(ends.tolist() for ends in bootstrap(summary, weights)), strict=True))


def wilson(share: float, n: int) -> tuple[float, float, float]:
    """A share of ``n`` cases with its 95 % score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Resamples of cases that are all alike are all alike: a bootstrap would promise certainty.

    >>> [round(end, 3) for end in wilson(1.0, 64)]
    [1.0, 0.943, 1.0]
    """
    middle, wide = share + Z_95**2 / (2 * n), Z_95 * math.sqrt(share * (1 - share) / n + (Z_95 / (2 * n)) ** 2)
    low, high = ((middle + sign * wide) / (1 + Z_95**2 / n) for sign in (-1, 1))
    return share, min(share, max(0.0, low)), max(share, min(1.0, high))


def score(
    task: Task,
    data: Path,
    forecaster: Forecaster,
    progress: Progress | None = None,
    context: Tensor | None = None,
    device: torch.device = CPU,
) -> Result:
    """Score the forecasts that ``forecaster`` gives for every case of ``task.splits``, at the leads asked for.

    ``context`` is that of the first test case, for the plots. Metrics are computed on ``device``; their values per case
    are averaged and resampled on the CPU, and the plots' curves are made there.
    """
    frozen = reference.get(task.name)
    rows: list[run_files.ScoreRow] = []
    kept: dict[str, list[float]] = {}
    figures = Collector(task)
    digests, moved = [], {"skill_accuracy"} if task.n_members("test") > 1 else set()
    for split in task.splits:
        values, start, digest = load_truth(task, data, split)
        digests += [digest] if digest else []
        pool = Pool(task, values[start == 0]) if split == "climate" else None
        if pool and "d_floor" not in frozen:
            frozen = frozen | stability.measured(Truth(task, values, start, pool))
        moved_pool = pool.to(device) if pool else None
        modules = [m for m in map(metrics.get, metrics.names()) if m.split == split and m.applies(task)]
        parts: list[list[Summary]] = [[] for _ in modules]
        for cases in chunks(len(values)):
            made = forecaster(split, cases)
            truth = Truth(task, values[cases], start[cases], pool, frozen)
            there, forecast = truth.to(device, moved_pool), made.to(device)
            for part, module in zip(parts, modules, strict=True):
                part.append(module.summarise(forecast, there))
            if split != widths.SPLIT:
                figures.add(split, made.cpu(), truth, context)
            if progress:
                progress(cases.stop, len(values))
        weights = resample(start)
        for part in parts:
            whole = Summary(torch.cat([p.cases for p in part]).cpu(), part[0].rows, part[0].finish, part[0].headline)
            rows += _rows(task, whole, weights)
            moved |= {row.metric for row in whole.rows if task.n_members(split) > 1}
            for name, column in whole.headline.items():
                kept[name] = whole.cases[:, column].tolist()
    scores = run_files.ScoreFile(**header(task, store.combine(digests)), rows=rows, cases=kept)
    return Result(task, with_skill(scores, task), figures.content(), of_ensembles=frozenset(moved))


def score_row(
    task: Task, metric: str, figures: Figures, n_cases: int, unit: str, lead_time: float | None = None
) -> run_files.ScoreRow:
    """A row from a value, or from (value, low, high); what is not finite is null, as JSON knows no NaN."""
    ends = figures if isinstance(figures, tuple) else (figures, None, None)
    value, low, high = (None if end is None else run_files.finite_or_none(float(end)) for end in ends)
    return run_files.ScoreRow(
        task=task.name, metric=metric, lead_time=lead_time, value=value, low=low, high=high, n_cases=n_cases, unit=unit
    )


def _rows(task: Task, summary: Summary, weights: Tensor) -> list[run_files.ScoreRow]:
    n = len(summary.cases)
    return [
        score_row(task, row.metric, wilson(found[0], n) if row.counts_cases else found, n, row.unit, row.lead_time)
        for row, found in zip(summary.rows, intervals(summary, weights), strict=True)
    ]


def with_skill(scores: run_files.ScoreFile, task: Task) -> run_files.ScoreFile:
    """``scores`` with ``skill_accuracy`` = (score − floor)/(oracle − floor) by today's frozen reference values.

    It follows from the per-case values kept in the file: 0 at the floor, 1 at the perfect-model reference.
    """
    scale = reference.scale(task.name)
    rows = [row for row in scores.rows if row.metric != "skill_accuracy"]
    if scale.usable:
        for values in scores.cases.values():
            cases = torch.tensor(values, dtype=torch.float64)[:, None]
            start = torch.arange(len(cases)) % len(task.system.starts)
            skill = Summary(cases, (Row("skill_accuracy", None, "1", better=1),), scale.skill)
            rows += _rows(task, skill, resample(start))
    return scores.model_copy(update={"rows": rows})


def evaluate(
    emulator: Emulator | Asked,
    task: TaskLike,
    data: Path | str = "data",
    *,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Forecast every context of a task with ``emulator``, score the forecasts, and time them.

    ``emulator`` is any object with ``forecast``, see :class:`emubench.Emulator`. Each call goes to a copy of it, made
    by ``copy.deepcopy``, with random numbers that follow from ``seed``: equal emulators get equal scores. ``task`` is a
    task, or the name or recipe of one at standard size, ``data`` the folder it was generated below. The result has the
    scores as a ``table()``, and :func:`emubench.compare` and :func:`emubench.plot` take several.

    Contexts are handed over, and forecasts scored, on ``device``, where the emulator's weights have to be. Random
    numbers are drawn by the host, so that equal seeds give equal draws on any device.

    Raises :class:`EmubenchError` where the emulator answers in another shape or type than it was asked for; NaN and
    infinity are scored as failures.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> result = emubench.evaluate(emubench.train("persistence", task), task)
    >>> table = result.table().set_index("metric")
    >>> bool(0 < table.loc["valid_prediction_time", "value"] < 1)     # in Lyapunov times
    True
    """
    data = Path(data)
    task = recipes.resolve(task, data=data)
    where = check_device(str(device), torch.float64)
    observations = dataset.load(task, data)
    contexts = {split: observations.context(split) for split in task.splits}
    seconds = dict.fromkeys(task.splits, 0.0)
    asked = emulator if isinstance(emulator, Asked) else Copies(emulator)
    counted = 0.0

    def forecaster(split: str, cases: slice) -> Tensor:
        nonlocal counted
        before = asked.seconds
        made = forecast_chunk(asked, task, split, contexts[split][cases].to(where), cases.start, seed)
        seconds[split] += asked.seconds - before
        if split == "test":
            counted += made.shape[1] * counted_share(made, task)
        leads = torch.tensor(task.leads(split), device=made.device) - 1
        return made if len(leads) == task.steps(split) else made[:, :, leads]

    result = score(task, data, forecaster, progress, contexts["test"][0], where)
    share = min(1.0, counted / task.n_test)  # of the samples that count as forecast; rounding makes none more
    timing = {
        "lyapunov_times_per_second": rate(task, seconds["test"], share),
        "counted_share": share,
        "unit": f"{task.system.lead_time_unit}s of one member per second, encoder included, batches of {CHUNK} cases",
        **{f"{split}_seconds": spent for split, spent in seconds.items()},
        "threads": torch.get_num_threads(),
        "device": described(where),
        "scored_on": described(where),
    }
    Speed.model_validate(timing)
    return dataclasses.replace(result, timing=timing)


def rate(task: Task, seconds: float, share: float) -> float:
    """Units of lead time of one member per second, where all forecasts of the split "test" took ``seconds``.

    Of their samples a ``share`` counts, see :func:`counted_share`.
    """
    lead_times = share * task.n_test * task.test_steps * task.lead_time_step * task.n_members("test")
    return lead_times / max(seconds, 1e-9)


def forecast_shapes(task: Task) -> dict[str, tuple[int, ...]]:
    """Shape ``(M, B, T, *S)`` of a whole forecast, per split."""
    return {s: (task.n_members(s), task.cases(s), len(task.leads(s)), *task.shape) for s in task.splits}


def score_forecast(
    path: Path | str, task: TaskLike, data: Path | str = "data", progress: Progress | None = None
) -> Result:
    """Score a forecast file that any framework has made, through the same code as an emulator.

    The file is ``.npz`` with an array per split of the task ("test", "climate"), or HDF5 with ``forecast`` in a group
    per split, of the shape ``(member, case, time, *space)`` at the lead times asked for. Raises :class:`EmubenchError`
    where an array is missing, or has another shape.

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz63-noisy", "tiny")
    >>> files = emubench.generate(task)
    >>> zeros = {split: np.zeros((1, task.cases(split), task.steps(split), 3)) for split in task.splits}
    >>> np.savez("forecast.npz", **zeros)
    >>> len(emubench.score_forecast("forecast.npz", task).table()) > 100
    True
    """
    path, data = Path(path), Path(data)
    task = recipes.resolve(task, data=data)
    arrays = hdf5.read_forecast(path, forecast_shapes(task))
    native = {split: np.ascontiguousarray(a, a.dtype.newbyteorder("=")) for split, a in arrays.items()}
    forecasts = {split: torch.from_numpy(array) for split, array in native.items()}
    context = dataset.first_context(task, data)
    return score(task, data, lambda split, cases: forecasts[split][:, cases], progress, context)
