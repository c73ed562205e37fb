"""A real Dask scheduler and real worker processes, over TCP on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEES = (str(ROOT), str(ROOT / "tests" / "runs"))
"""Where the functions lie that steps by hand are made of, for a worker's ``PYTHONPATH``."""


class Dask:
    """A scheduler and its workers, as processes of this machine."""

    def __init__(self, folder: Path, *options: str, host: str = "127.0.0.1") -> None:
        folder.mkdir()
        self.file, self.folder, self.options, self.host = folder / "scheduler.json", folder, options, host
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start("scheduler", "--port", "0")
        while not self.file.exists():
            assert self.scheduler.poll() is None, (folder / "0.log").read_text()
            time.sleep(0.05)

    def start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--scheduler-file", str(self.file)]
        command += ["--host", self.host, "--no-dashboard", *self.options, *options]
        path = os.pathsep.join([*SEES, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        n = len(self.processes)
        where = ("--local-directory", str(self.folder / f"w{n}"), "--death-timeout", "120")
        return self.start("worker", "--nthreads", "1", "--no-nanny", *where, *options)

    @property
    def address(self) -> str:
        return json.loads(self.file.read_text())["address"]


@contextlib.contextmanager
def dask(folder: Path, *options: str) -> Iterator[Dask]:
    made = Dask(folder, *options)
    try:
        yield made
    finally:
        for process in reversed(made.processes):
            process.kill()
        for process in made.processes:
            process.wait()
