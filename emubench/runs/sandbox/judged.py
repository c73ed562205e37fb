"""An emulator in a child process, forecasting through pipes under limits, and the training of one."""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import emubench
from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device
from emubench.data import layout
from emubench.emulator import Asked, Emulator
from emubench.files import schema, store
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from emubench.runs.sandbox import namespaces, pipe, trainee

KEPT = ("LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")
"""What a judged emulator sees of its judge's environment: where libraries are, and which GPUs count."""


@dataclass(frozen=True)
class Limits:
    """What a judged emulator may take: seconds to load, per call and to train, bytes beyond torch's own, threads."""

    start_seconds: float = 300.0
    call_seconds: float = 1800.0
    memory_bytes: int = 8 * 2**30
    threads: int = 1
    train_seconds: float = 3600.0
    """Limit of one training: the stated budget is 5 minutes on two cores, the rest is for slower machines."""
    device: str = "cpu"
    """Where it is trained, and forecasts; truth, metrics and pipes are the judge's processor's."""

    def values(self) -> dict[str, Any]:
        """Its fields, the device only where it is not the CPU."""
        fields = dataclasses.asdict(self)
        if self.device == "cpu":
            del fields["device"]
        return fields


class JudgedEmulator(contextlib.AbstractContextManager):
    """An :class:`~emubench.emulator.Emulator` whose forecasts come from a child process; NaN once it has failed."""

    def __init__(self, command: list[str], limits: Limits, run: Path | None = None) -> None:
        self.limits, self.reason, self.said = limits, "", ""
        self._folder = tempfile.TemporaryDirectory()
        for name in (folders.RECIPE, "card.json", "model.safetensors"):
            if run is not None and (run / name).exists():
                shutil.copyfile(run / name, Path(self._folder.name) / name)
        _hand_over(Path(self._folder.name))
        root = str(Path(emubench.__file__).parents[1])
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        path = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
        own = dict.fromkeys(("HOME", "TMPDIR"), self._folder.name) | {"USER": "judged", "PATH": os.defpath}
        own |= {"CUDA_CACHE_DISABLE": "1"} if limits.device != "cpu" else {}  # it may write no file
        own |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(limits.threads)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=kept | own,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    @classmethod
    def of_run(cls, folder: Path, limits: Limits) -> "JudgedEmulator":
        """The emulator of a run's or an entry's folder; the child gets a copy of its card and weights."""
        judged = cls(_command("child", Path(), limits, 2 * limits.call_seconds), limits, folder)
        judged.wait_until_ready()
        return judged

    @property
    def told(self) -> str:
        """Why it failed in the judge's words (``reason``), then in its own, which are shown and never kept."""
        return f"{self.reason}: {self.said}" if self.said else self.reason

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_until_ready(self, seconds: float | None = None, when: str = "while loading") -> None:
        """Wait for the emulator to be loaded, or for ``seconds`` for something else."""
        self._attempt((), time.monotonic() + (seconds or self.limits.start_seconds), when)

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """The child's forecast; NaN if it failed at this call or before."""
        shape = (len(context), n_steps, *context.shape[2:])
        deadline = time.monotonic() + self.limits.call_seconds
        header = {"n_steps": n_steps, "n_members": n_members, "seed": generator.initial_seed()}
        send = partial(pipe.send, self._to, pipe.CONTEXT, header, context.numpy(), deadline)
        when = f"at a forecast of {len(context)} cases"
        values = self._attempt(((1, *shape), (n_members, *shape)), deadline, when, send)
        return torch.full((1, *shape), torch.nan, dtype=torch.float64) if values is None else values

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
                self.said = ascii(header.get("reason", ""))[1:-1][:500]
                raise pipe.PipeError("failed")
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


def _command(module: str, folder: Path, limits: Limits, work_seconds: float, *more: int) -> list[str]:
    """The command of a child that works on ``folder`` for so long, beyond starting."""
    seconds = int(limits.threads * (limits.start_seconds + work_seconds))
    bounds = map(str, (*more, limits.memory_bytes, seconds, limits.threads))
    return [sys.executable, "-m", f"emubench.runs.sandbox.{module}", str(folder), *bounds, limits.device]


def usable(device: str, limits: Limits) -> str:
    """The device called so (:func:`check_device`), once a child has computed there, as confined as one that is judged.

    Raises :class:`EmubenchError`, before anything is judged, where it can't: no case may fail for the judge's machine.
    """
    where = str(check_device(device, stages.DTYPE))
    if where.partition(":")[0] != "cpu":
        limits = dataclasses.replace(limits, device=where)
        with JudgedEmulator(_command("probe", Path(), limits, 0.0), limits) as child:
            child.wait_until_ready()
        if child.reason:
            what = f"--device {device}: an emulator in the judge's sandbox cannot use it"
            raise EmubenchError(f"{what} ({child.told}); judge it with --device cpu")
    return where


def _hand_over(folder: Path) -> None:
    """Give a temporary folder to the user that a child of root goes on as."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            with contextlib.suppress(OSError):  # where there is no such user, the child stays root
                os.chown(path, namespaces.NOBODY, namespaces.NOBODY)


def train(job: Job, data: Path, out: Path, limits: Limits, max_weights: int) -> Path:
    """Build, size and train a stranger's job in a child process; return the run's folder, with its card and weights.

    The child gets a copy of the observations and no truth. Raises :class:`EmubenchError` where it fails, dies, takes
    more than its limits, or makes weights of more than ``max_weights`` bytes.
    """
    with tempfile.TemporaryDirectory(prefix="emubench-training-") as temporary:
        place = Path(temporary).resolve()
        copy = layout.task_path(job.get_task(), place / trainee.DATA)
        copy.parent.mkdir(parents=True)
        shutil.copyfile(layout.task_path(job.get_task(), data), copy)
        store.write_text(place / trainee.JOB, json.dumps(dataclasses.asdict(job)))
        _hand_over(place)
        with JudgedEmulator(_command("trainee", place, limits, limits.train_seconds, max_weights), limits) as child:
            child.wait_until_ready()
            begun = time.monotonic()
            child.wait_until_ready(limits.train_seconds, "while training")
            late = time.monotonic() - begun > limits.train_seconds
        if child.reason:
            beyond = f"takes more than {limits.train_seconds:g} s (--train-seconds)"
            raise EmubenchError(f"training on {job.task} {beyond if late else child.told}")
        made, folder = job.folder(place / trainee.RUNS), job.folder(out)
        folder.mkdir(parents=True)
        for name, most in (("model.safetensors", max_weights), ("card.json", 2**20)):
            if (made / name).resolve() != made / name:
                raise EmubenchError(f"training on {job.task} left a link, where {name} belongs")
            (folder / name).write_bytes(schema.read_bytes(made / name, most))
    return folder


PART = 2
"""Members that a call is asked for, of an ensemble."""


class Processes(Asked):
    """Each call goes to a process of its own; the seeds of an ensemble's calls are drawn here and kept nowhere else.

    A half is made of several calls, so that luck with what the members of one call share counts less. After a failure
    nothing is asked any more.
    """

    shuffled = True

    def __init__(self, start: Callable[[], JudgedEmulator]) -> None:
        self.start, self.reason, self.told, self.seconds = start, "", "", 0.0

    @contextlib.contextmanager
    def ready(self) -> Iterator[Emulator]:
        with self.start() as judged:
            yield judged
            self.told = self.told or judged.told
            self.refuse(judged.reason)

    def parts(self, n_members: int, generator: torch.Generator) -> list[tuple[int, torch.Generator]]:
        """Calls of ``PART`` members each, with secret seeds; a single member is asked for with the public one."""
        if n_members == 1:
            return [(1, generator)]
        halves = (n_members - n_members // 2, n_members // 2)
        sizes = [min(PART, half - done) for half in halves for done in range(0, half, PART)]
        return [(size, torch.Generator().manual_seed(secrets.randbits(63))) for size in sizes]

    def refuse(self, reason: str) -> None:
        """Let its cases fail."""
        self.reason = self.reason or reason
