"""Steps on other machines by Dask distributed: a scheduler that runs already, or one with workers in batch jobs.

A Dask scheduler does what anyone tells it who can reach it, as the user who started it: keep it on loopback or a
private network, or give ``--tls`` (see ``docs/scaling.md``).
"""

import asyncio
import importlib
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emubench.core.errors import EmubenchError
from emubench.files import schema
from emubench.runs.grid import executors
from emubench.runs.grid.executors import Context, Place

CONNECT = 20.0
"""Seconds to wait for a scheduler to answer."""
AHEAD = 1000
"""Steps that the scheduler holds at a time: enough to see how many workers are worth starting."""
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
Line = Annotated[str, Field(max_length=2000, pattern=r"^[^\n\r]*$")]


class Cluster(schema.Model):
    """``cluster.toml``: the batch jobs that workers run in. Every worker process does one step at a time."""

    system: Literal["slurm", "pbs"]
    jobs: Annotated[int, Field(ge=1, le=10000)]
    """Batch jobs to submit."""
    cores: Annotated[int, Field(ge=1, le=4096)]
    """Cores of one batch job."""
    processes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Workers in one batch job; ``cores / processes`` is what ``threads`` of the grid may be."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")]
    """Memory of one batch job, such as ``"16GB"``."""
    walltime: Annotated[str, Field(pattern=r"^[\d:\-]+$", max_length=40)]
    interface: Annotated[str, Field(pattern=r"^[\w.:\-]+$", max_length=40)]
    """Network interface on which scheduler and workers talk, such as ``"ib0"``."""
    queue: Line | None = None
    account: Line | None = None
    gpu: bool = False
    """Whether each batch job has one GPU, and its worker the resource ``GPU = 1``."""
    local_directory: Line = "/tmp"
    log_directory: Annotated[str, Field(max_length=2000, pattern=r"^\S+$")] | None = None
    """Without blanks, which batch systems read as its end."""
    directives: Annotated[list[Line], Field(max_length=100)] = []
    """More of the batch system's options; with SLURM an option that is given here is not given by us as well."""
    leave_out: Annotated[list[Line], Field(max_length=100)] = []
    """Directives of ours that are not to be written, by their beginning, such as ``"--mem"``."""
    prologue: Annotated[list[Line], Field(max_length=1000)] = []
    """Shell lines before the worker, such as ``"module load python"``."""

    @model_validator(mode="after")
    def _divides(self) -> "Cluster":
        if self.cores % self.processes:
            raise ValueError(f"cores: {self.cores}, where a multiple of processes ({self.processes}) belongs")
        if self.gpu and self.processes != 1:
            raise ValueError(f"processes: {self.processes}, where 1 belongs: a GPU has one step at a time")
        return self


class SchedulerFile(BaseModel):
    """What is read of the file that ``dask scheduler --scheduler-file`` writes."""

    model_config = ConfigDict(extra="ignore")
    address: Annotated[str, Field(max_length=300)]


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.replace("_", "-")
        raise EmubenchError(f"{package} is not installed; install it with: pip install 'emubench[cluster]'") from None


def security(folder: Path | None) -> Any:
    """Mutual TLS by ``ca.pem``, ``cert.pem`` and ``key.pem`` of a folder; ``None`` without one."""
    if folder is None:
        return None
    for name in TLS_FILES:
        if not (folder / name).is_file():
            raise EmubenchError(f"{folder / name}: no such file; --tls takes a folder with {', '.join(TLS_FILES)}")
    ca, cert, key = (str((folder / name).absolute()) for name in TLS_FILES)
    files = {"cert": cert, "key": key}
    roles = {f"tls_{role}_{kind}": files[kind] for role in ("client", "scheduler", "worker") for kind in files}
    return _need("distributed").Security(require_encryption=True, tls_ca_file=ca, **roles)


@contextmanager
def scheduler(address: str, tls: Path | None = None) -> Iterator[Place]:
    """The workers of the scheduler at ``address`` (``tcp://host:port``, ``tls://…``, or its scheduler file)."""
    distributed, keys = _need("distributed"), security(tls)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said in one line, by us
    if "://" not in address:
        address = schema.read_json(SchedulerFile, Path(address), 2**20).address

    async def ask() -> None:
        """A client that can't connect hangs as it is disposed of, so ask first."""
        arguments = keys.get_connection_args("client") if keys else {}
        async with distributed.rpc(address, connection_args=arguments, timeout=CONNECT) as remote:
            await asyncio.wait_for(remote.identity(), CONNECT)

    try:
        asyncio.run(ask())
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "start one with: dask scheduler --host 127.0.0.1; one with TLS needs tls:// and --tls"
        raise EmubenchError(f"{address}: no Dask scheduler answers ({reason}); {hint}") from None
    with distributed.Client(address, security=keys, timeout=CONNECT, set_as_default=False) as client:
        yield _place(client, address)


def _place(client: Any, address: str) -> Place:
    @cache
    def executor(resources: tuple[tuple[str, float], ...]) -> Any:
        return client.get_executor(pure=False, retries=0, **({"resources": dict(resources)} if resources else {}))

    def workers() -> int:
        try:
            if client.status == "running":
                return len(client.nthreads())
        except OSError:
            pass
        raise EmubenchError(
            f"{address}: the scheduler is gone; start it and its workers again, then give the same command: it goes on"
        )

    return Place(executor, AHEAD, workers)


def read(path: Path) -> Cluster:
    """The validated cluster file."""
    return schema.parse(Cluster, schema.read_toml(path, "cluster file"), path)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


MARK = {"slurm": "SBATCH", "pbs": "PBS"}
"""What begins a directive."""


def _options(given: Cluster, tls: Path | None) -> dict[str, Any]:
    """Arguments of dask-jobqueue."""
    threads = given.cores // given.processes
    extra = ["--nthreads", "1"]  # whatever its cores: a worker does one step, which may use several threads
    directives, leave_out = list(given.directives), list(given.leave_out)
    if given.gpu:
        extra += ["--resources", "GPU=1"]
        directives += ["--gres=gpu:1"] if given.system == "slurm" else []
    if given.system == "slurm":
        named = [re.split(r"[=\s]", directive.strip())[0] for directive in given.directives]
        leave_out += ["--mem" if name.startswith("--mem-per-") else name for name in named if name]
    if tls is not None and len(str(tls.absolute()).split()) > 1:
        raise EmubenchError(f"--tls {tls}: a folder without blanks belongs here, as job scripts don't quote it")
    return {
        **given.model_dump(exclude={"system", "jobs", "gpu", "directives", "leave_out", "prologue"}),
        "local_directory": shlex.quote(given.local_directory),
        "job_name": "emubench",
        "job_directives_skip": [f"#{MARK[given.system]} {beginning}" for beginning in leave_out],
        "job_script_prologue": [*given.prologue, *(f"export {v}={threads}" for v in THREAD_VARIABLES)],
        "job_extra_directives": directives,
        "worker_extra_args": extra,
        "python": shlex.quote(sys.executable),
        "security": security(tls),
        "protocol": "tls://" if tls else "tcp://",
    }


def _cluster_class(given: Cluster) -> Any:
    return getattr(_need("dask_jobqueue"), f"{given.system.upper()}Cluster")


def job_script(path: Path, tls: Path | None = None) -> str:
    """The script that each batch job of a cluster file runs; nothing is submitted."""
    given = read(path)
    address = f"{'tls' if tls else 'tcp'}://SCHEDULER:PORT"
    options = {k: v for k, v in _options(given, tls).items() if k != "log_directory"}  # which it would make
    return _cluster_class(given).job_cls(address, name="emubench", **options).job_script()


@contextmanager
def batch(path: Path, tls: Path | None = None) -> Iterator[Place]:
    """A scheduler in this process, on the file's interface, and workers in batch jobs that end with the block."""
    given = read(path)
    make = _cluster_class(given)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if tls is None and given.interface != "lo":
        warning = f"anyone who can reach {given.interface} of this machine can run code as you; --tls closes it"
        print(f"emubench: {warning}", file=sys.stderr)
    options = {k: v for k, v in _options(given, tls).items() if v is not None}
    try:
        cluster = make(**options, scheduler_options={"dashboard": False, "dashboard_address": None})
    except (OSError, ValueError, RuntimeError) as error:
        raise EmubenchError(f"{path}: no scheduler can be started ({error})") from None
    with cluster, _need("distributed").Client(cluster, set_as_default=False) as client:
        cluster.scale(jobs=given.jobs)
        yield _place(client, str(path))


def place(workers: int = 1, address: str | None = None, file: Path | None = None, tls: Path | None = None) -> Context:
    """Where steps are to be done: in this process, in ``workers`` of this machine, or by one of Dask's ways."""
    if (address is not None) + (file is not None) + (workers > 1) > 1:
        raise EmubenchError("give one of --workers, --scheduler and --cluster")
    if file is not None:
        return batch(file, tls)
    if address is not None:
        return scheduler(address, tls)
    return executors.processes(workers) if workers > 1 else executors.in_process()
