"""The judge: truth, metrics and clock are this process's; the judged emulator is a child that answers contexts.

A child that hangs, dies, floods or answers with garbage fails the cases that it was asked for and all that follow,
which are scored as failures, with the reason kept; then the next entry is scored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import emubench
from emubench.core.errors import EmubenchError
from emubench.data.tasks import Task
from emubench.evaluation import scoring
from emubench.files import run_files, schema
from emubench.leaderboard.submission import check
from emubench.leaderboard.submission.entries import FORECASTS, Entry
from emubench.runs import jobs
from emubench.runs.sandbox import pipe

Progress = Callable[[int, int], None]
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")
"""Environment variables that a judged emulator sees; the season's secret is not among them."""
ROUND_OFF = 0.1
"""Share of a score's 95 % interval by which another machine's round-off may move it."""


@dataclass(frozen=True)
class Limits:
    """What a judged emulator may take: seconds to load, per call and to train, bytes beyond torch's own, threads."""

    start_seconds: float = 300.0
    call_seconds: float = 1800.0
    memory_bytes: int = 8 * 2**30
    threads: int = 1
    train_seconds: float = 3600.0
    """Of one training: the stated budget is 5 minutes on two cores, the rest is for slower machines."""


class JudgedEmulator:
    """An :class:`~emubench.emulator.Emulator` whose forecasts come from a child process; NaN once it has failed."""

    def __init__(self, command: list[str], limits: Limits) -> None:
        self.limits, self.reason = limits, ""
        self._folder = tempfile.TemporaryDirectory()
        root = str(Path(emubench.__file__).parents[1])
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        path = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
        threads = str(limits.threads)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": threads},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    @classmethod
    def of_run(cls, folder: Path, limits: Limits) -> JudgedEmulator:
        """The emulator of a run's or an entry's folder with ``card.json`` and ``model.safetensors``."""
        seconds = int(limits.threads * (limits.start_seconds + 2 * limits.call_seconds))
        bounds = (limits.memory_bytes, seconds, limits.threads)
        module = "emubench.runs.sandbox.child"
        judged = cls([sys.executable, "-m", module, str(folder.resolve()), *map(str, bounds)], limits)
        judged.wait_until_ready()
        return judged

    def __enter__(self) -> JudgedEmulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_until_ready(self) -> None:
        """Wait for the emulator to be loaded."""
        self._attempt((), time.monotonic() + self.limits.start_seconds, "while loading")

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """The child's forecast; NaN if it failed at this call or before."""
        shape = (len(context), n_steps, *context.shape[2:])
        deadline = time.monotonic() + self.limits.call_seconds
        header = {"n_steps": n_steps, "n_members": n_members, "seed": generator.initial_seed()}

        def ask() -> None:
            pipe.send(self._to, pipe.CONTEXT, header, context.numpy(), deadline)

        when = f"at a forecast of {len(context)} cases"
        values = self._attempt(((1, *shape), (n_members, *shape)), deadline, when, ask)
        if values is None:
            return torch.full((1, *shape), float("nan"), dtype=torch.float64)
        return values

    def _attempt(
        self, shapes: tuple[tuple[int, ...], ...], deadline: float, when: str, ask: Callable[[], None] = lambda: None
    ) -> Tensor | None:
        if self.reason:
            return None
        wanted = pipe.FORECAST if shapes else pipe.READY
        try:
            with contextlib.suppress(pipe.Died):  # what it said before counts
                ask()
            tag, header, values = pipe.receive(self._from, wanted + pipe.FAULT, shapes, deadline)
            if tag == pipe.FAULT:
                raise pipe.PipeError(f"failed: {ascii(header.get('reason', ''))[1:-1][:500]}")
            if (values is None) == bool(shapes):
                raise pipe.PipeError("sent garbage")
        except pipe.PipeError as error:
            self._fail(f"{error} {when}")
            return None
        return None if values is None else torch.from_numpy(values)

    def _fail(self, reason: str) -> None:
        if reason.startswith("died"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(5)
                known = signal.Signals(-status).name if status < 0 else f"exit status {status}"
                reason = reason.replace("died", f"died ({known})", 1)
        self.reason = self.reason or reason
        self.end()

    def end(self) -> None:
        """Stop the child and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self._folder.cleanup()


@dataclass(frozen=True)
class Judgement:
    """What the judge found of one task and seed; ``reason`` says why cases failed, if the child did."""

    task: str
    seed: int
    result: scoring.Result
    timing: dict[str, Any]
    reason: str = ""


def judge_run(
    folder: Path, task: Task, data: Path, seed: int, limits: Limits, progress: Progress | None = None
) -> Judgement:
    """Score the run in ``folder`` in a child process, on the truth below ``data``."""
    with JudgedEmulator.of_run(folder, limits) as judged:
        result, timing = scoring.evaluate(judged, task, data, seed, progress)
        return Judgement(task.name, seed, result, timing, judged.reason)


def judge_place(
    entry: Entry, place: Path, task: Task, data: Path, seed: int, limits: Limits, progress: Progress | None = None
) -> Judgement:
    """Score one task and seed of an entry: its forecast file, or its weights."""
    if entry.method != FORECASTS:
        return judge_run(place, task, data, seed, limits, progress)
    (path,) = (place / name for name in check.FORECAST_FILES if (place / name).exists())
    return Judgement(task.name, seed, scoring.score_forecast(path, task, data, progress), {})


@contextlib.contextmanager
def time_limit(seconds: float, refusal: str) -> Iterator[None]:
    """Raise :class:`EmubenchError` in the block once it has lasted too long, from the main thread alone (SIGALRM)."""

    def stop(*_: object) -> None:
        raise EmubenchError(refusal)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second: one may fall into a finaliser and be lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_method(folder: Path, entry: Entry) -> None:
    """Raise :class:`EmubenchError` unless the entry declares what its method's file does.

    That is the file's ``knowledge``, and in every card the settings that its defaults and the ``overrides`` give.
    """
    if entry.method == FORECASTS:
        return
    if (known := jobs.baseline(entry.method).knowledge) != entry.knowledge:
        raise EmubenchError(f"{folder}/entry.toml: knowledge: {entry.knowledge!r}, where {entry.method} says {known!r}")
    for task in entry.tasks():
        job = jobs.Job(entry.method, task, entry.size, overrides=entry.overrides.get(task, {}))
        config = json.loads(json.dumps(dataclasses.asdict(job.config())))
        for seed in entry.seeds:
            path = folder / task / f"seed-{seed}" / "card.json"
            stated = schema.read_json(run_files.Card, path, check.MAX_BYTES["card.json"]).config
            for name in sorted(config.keys() | stated.keys()):
                if (one := stated.get(name)) != (two := config.get(name)):
                    found = f"{one!r}, where {entry.method}'s defaults and entry.toml's overrides give {two!r}"
                    raise EmubenchError(f"{path}: config: {name}: {found[:200]}")


def false_claims(path: Path, claimed: run_files.ScoreFile, found: run_files.ScoreFile) -> list[str]:
    """One line for every whole-forecast score that is claimed and was not found."""
    rows = {row.metric: row for row in found.rows if row.lead_time is None}
    faults = []
    for row in claimed.rows:
        if row.lead_time is not None:
            continue
        judged = rows.get(row.metric)
        if judged is None:
            faults.append(f"{path}: {row.metric}: no such score is known")
        elif not _agree(row.value, judged):
            faults.append(f"{path}: {row.metric}: {_shown(row.value)} is claimed, {_shown(judged.value)} was found")
    return faults


def _agree(value: float | None, judged: run_files.ScoreRow) -> bool:
    if value is None or judged.value is None:
        return value == judged.value
    width = 0.0 if judged.low is None or judged.high is None else judged.high - judged.low
    return abs(value - judged.value) <= max(ROUND_OFF * width, 1e-6 * abs(judged.value), 1e-9)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.5g}"
