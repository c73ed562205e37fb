"""A step of a grid: a pure function of a small, hashable description, run anywhere that sees the same two folders.

Four kinds: ``shard`` makes one block of trajectories, ``merge`` one dataset file of them, ``train`` a run, ``score``
its scores; other modules add theirs to :data:`KINDS`. What a step makes appears under its name at once and whole, so
that a step may be lost, repeated or run twice at a time without harm: the first result stands. Beside the runs,
``<out>/.steps/<step>.json`` says who works or worked at a step, and ``<step>.log`` why it failed.
"""

import hashlib
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from emubench import __version__
from emubench.core.errors import EmubenchError
from emubench.data import layout, recipes, shards, tasks
from emubench.data.shards import Target
from emubench.data.tasks import Task
from emubench.files import schema, store
from emubench.runs import stages
from emubench.runs.jobs import Job

BEAT = 10.0
"""Seconds between two signs of life of a step."""
SILENT = 60.0
"""Seconds without one after which a step counts as given up."""
LATE = 30.0
"""Seconds that a network file system may take to show what another machine has written."""
_ONE_AT_A_TIME = threading.Lock()
"""Thread counts and torch's global generator belong to the process: so does one step."""


@dataclass(frozen=True)
class Step:
    """What determines a piece of work; equal steps make equal files."""

    kind: str
    label: str
    """What a person reads."""
    content: str
    """Everything that determines it, as JSON with sorted keys; the package's version included."""
    resources: tuple[tuple[str, float], ...] = ()
    """What it takes of a worker, such as ``(("GPU", 1.0),)``, which does not determine the result."""

    @property
    def name(self) -> str:
        """File name of its record: label and hash."""
        digest = hashlib.sha256(f"{self.kind} {self.content}".encode()).hexdigest()
        return f"{self.label.replace(' ', '-').replace('/', '-')}-{digest[:8]}"

    @property
    def values(self) -> dict[str, Any]:
        """The description as a dictionary."""
        return json.loads(self.content)


class Kind(NamedTuple):
    """What steps of one kind do, each of it by step and the folders of data and of results."""

    is_done: Callable[[Step, Path, Path], bool]
    inputs: Callable[[Step, Path, Path], Iterable[Path]]
    make: Callable[[Step, Path, Path], None]


KINDS: dict[str, Kind] = {}
"""Kinds beyond the four of this module, whose work other modules know."""


class Record(schema.Model):
    """``.steps/<name>.json``: the last that is known of a step's work."""

    state: Literal["running", "done", "failed"]
    worker: Annotated[str, Field(max_length=300)]
    seconds: Annotated[float, Field(ge=0)] = 0.0
    error: Annotated[str, Field(max_length=4000)] = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a step; a failure is told, not raised, so that it crosses machines whole."""

    seconds: float
    worker: str
    error: str = ""
    log: str = ""


def describe(kind: str, label: str, resources: tuple[tuple[str, float], ...] = (), **values: Any) -> Step:
    """A step that ``values`` determine."""
    content = json.dumps({**values, "version": __version__}, sort_keys=True)
    return Step(kind, label, content, resources)


def file_steps(task: Task, kind: str, seed: int, data: Path) -> list[Step]:
    """The steps that make a task's truth or observations: a shard per block, then their merging, which is the last."""
    target = Target(task, kind, seed, data)
    name = target.path.name
    known = {"task": task.name, "size": task.size, "recipe": recipes.to_json(task), "file": kind, "seed": seed}
    made = [
        describe("shard", f"make {name} {b.array.split('/')[0]} {b.first}", **known, array=b.array, first=b.first)
        for b in target.blocks()
    ]
    return [*made, describe("merge", f"merge {name}", **known)]


def job_steps(job: Job, resources: tuple[tuple[str, float], ...] = ()) -> tuple[Step, Step]:
    """Training and scoring of a job. Its hash8 stands for the defaults of its configuration."""
    label = f"{job.baseline} {job.task} {job.size} seed {job.seed}"
    values = {"job": job.values(), "hash8": job.hash8()}
    train, score = (describe(kind, f"{kind} {label}", resources, **values) for kind in ("train", "score"))
    return train, score


def _target(values: dict[str, Any], data: Path) -> Target:
    name, size, recipe = (values[key] for key in ("task", "size", "recipe"))
    task = recipes.from_json(recipe, size, name) if recipe else tasks.get(name, size)
    return Target(task, values["file"], values["seed"], data)


def job_of(step: Step) -> Job:
    """The job that a ``train`` or ``score`` step belongs to."""
    return Job(**step.values["job"])


def is_done(step: Step, data: Path, out: Path) -> bool:
    """Whether what the step makes is there, and valid as far as a look at it tells."""
    if other := KINDS.get(step.kind):
        return other.is_done(step, data, out)
    if step.kind in ("shard", "merge"):
        target, values = _target(step.values, data), step.values
        made = step.kind == "shard" and target.shard(values["array"], values["first"]).exists()
        return made or target.path.exists()
    job = job_of(step)
    run = job.folder(out)
    try:
        if step.kind == "train":
            return stages.finished(run, job.get_task(), data)
        return stages.stored_scores(run, job.get_task(), data) is not None
    except EmubenchError:  # unreadable scores are made anew; doing the step says what else may be wrong
        return False


def _inputs(step: Step, data: Path, out: Path) -> Iterator[Path]:
    """The files that it reads."""
    if other := KINDS.get(step.kind):
        yield from other.inputs(step, data, out)
        return
    if step.kind in ("shard", "merge"):
        target = _target(step.values, data)
        if step.kind == "merge" and not target.path.exists():
            yield from (target.shard(block.array, block.first) for block in target.blocks())
        elif target.kind == "observations":
            yield layout.truth_path(target.task, data)
        return
    job = job_of(step)
    yield layout.task_path(job.get_task(), data)
    if step.kind == "score":
        yield layout.truth_path(job.get_task(), data)
        yield job.folder(out) / "card.json"


def _make(step: Step, data: Path, out: Path) -> None:
    values = step.values
    if other := KINDS.get(step.kind):
        other.make(step, data, out)
    elif step.kind == "shard":
        shards.write(_target(values, data), values["array"], values["first"])
    elif step.kind == "merge":
        shards.merge(_target(values, data))
    elif step.kind == "train":
        job = job_of(step)
        store.sweep(job.folder(out))
        stages.train(job, data, out)
    else:
        job = job_of(step)
        stages.score(job.folder(out), data, again=True, device=job.device)


def record_path(step: Step, out: Path) -> Path:
    """Where the record of a step lies."""
    return out / ".steps" / f"{step.name}.json"


def read_record(step: Step, out: Path) -> Record | None:
    """What is known of a step's work; one that gives no sign of life any more counts as none."""
    path = record_path(step, out)
    try:
        age = time.time() - path.stat().st_mtime
        record: Record = schema.read_json(Record, path, 2**20)
    except (OSError, EmubenchError):
        return None
    return None if record.state == "running" and age > SILENT else record


def run(step: Step, data: Path, out: Path, threads: int = 1, debug: bool = False) -> Outcome:
    """Do a step unless it is done. What goes wrong is recorded and returned, or raised with ``debug``."""
    begun, worker = time.perf_counter(), f"{socket.gethostname()}:{os.getpid()}"
    path = record_path(step, out)
    log = path.with_suffix(".log")
    with _ONE_AT_A_TIME:
        try:
            _check_worker(step)
            if is_done(step, data, out):
                return Outcome(0.0, worker)
            store.write_text(path, Record(state="running", worker=worker).model_dump_json())
            with _alive(path):
                _wait_for_inputs(step, data, out)
                _use_threads(threads)
                _make(step, data, out)
            seconds = time.perf_counter() - begun
            with suppress(OSError):  # it is done all the same
                store.write_text(path, Record(state="done", worker=worker, seconds=seconds).model_dump_json())
                log.unlink(missing_ok=True)
            return Outcome(seconds, worker)
        except Exception as error:
            text = (str(error) or type(error).__name__) if isinstance(error, EmubenchError) else _named(error)
            with suppress(OSError):  # on a full disk the answer alone has to do
                store.write_text(log, f"{step.label}\n{step.content}\non {worker}\n\n{traceback.format_exc()}")
                store.write_text(path, Record(state="failed", worker=worker, error=text[:4000]).model_dump_json())
            if debug:
                raise
            return Outcome(time.perf_counter() - begun, worker, text, str(log))
        except BaseException:  # an interrupt: nobody works at it any more
            path.unlink(missing_ok=True)
            raise


def _check_worker(step: Step) -> None:
    """Refuse a step that would not be the same here as where it was described."""
    if (wanted := step.values["version"]) != __version__:
        raise EmubenchError(f"this worker runs emubench {__version__} where {wanted} belongs; install it there")
    if "hash8" in step.values and (job := job_of(step)).hash8() != step.values["hash8"]:
        raise EmubenchError(f"this worker has another baselines/{job.baseline}.py; install the same on all machines")


def _named(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _use_threads(n: int) -> None:
    import numba
    import torch

    torch.set_num_threads(n)
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _wait_for_inputs(step: Step, data: Path, out: Path) -> None:
    """Wait a while for files that were written before this step was handed out, perhaps on another machine."""
    end = time.monotonic() + LATE
    for path in _inputs(step, data, out):
        while not path.exists() and not is_done(step, data, out):  # another client may have merged and removed shards
            if time.monotonic() > end:
                raise EmubenchError(f"{path}: not here after {LATE:.0f} s; do all workers see the same folders?")
            time.sleep(0.1)


@contextmanager
def _alive(path: Path) -> Iterator[None]:
    """Touch ``path`` as long as the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
