"""What a step costs on Dask, beside its work: ``python benchmarks/cluster.py``

Starts a scheduler and worker processes on loopback and measures: the time per step that does nothing, the client's
peak memory over many of them, and how much faster two workers finish equal single-threaded steps than one.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emubench import cluster, runner, steps
from emubench.executors import Place
from emubench.grid import Grid, Plan
from emubench.steps import Outcome, Step


def nothing(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """A step without work."""
    return Outcome(0.0, "")


def busy(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """A second or so of one core."""
    begun, total = time.perf_counter(), 0
    for i in range(20_000_000):
        total += i
    return Outcome(time.perf_counter() - begun, "")


def plan(n: int) -> Plan:
    """``n`` steps that need nothing."""
    made = tuple(Step("train", f"train nothing {i}", "{}") for i in range(n))
    return Plan(Grid(tasks=["x"], baselines=["x"], seeds=[0]), made, dict.fromkeys(made, ()), ())


@contextmanager
def dask(n_workers: int) -> Iterator[Place]:
    """A scheduler and workers of this machine."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "scheduler.json")
        common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
        commands = [["scheduler", *common, "--port", "0"]]
        commands += [["worker", *common, "--nthreads", "1", "--local-directory", name]] * n_workers
        processes = []
        try:
            for kind, *options in commands:
                command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
                processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
                while not file.exists():
                    time.sleep(0.05)
            with cluster.scheduler(str(file)) as place:
                while place.workers() < n_workers:
                    time.sleep(0.1)
                runner.execute(plan(4 * n_workers), place, Path(name), Path(name), 1, work=nothing)  # imports
                yield place
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


def seconds(place: Place, n: int, work: object) -> float:
    """Wall-clock time of ``n`` steps."""
    begun = time.perf_counter()
    run = runner.execute(plan(n), place, Path(), Path(), 1, work=work)  # type: ignore[arg-type]
    assert set(run.state.values()) == {"done"}
    return time.perf_counter() - begun


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=16)
    given = parser.parse_args()
    steps.is_done = lambda *_: False
    with dask(2) as place:
        before = time.process_time()
        took, n = seconds(place, given.steps, nothing), given.steps
        client = 1e3 * (time.process_time() - before) / n
        each = f"{1e3 * took / n:.2f} ms each, of which {client:.2f} ms are CPU time of the client"
        print(f"{n} steps without work, 2 workers: {took:.1f} s; {each}")
        print(f"peak memory of the client: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        two = seconds(place, given.busy, busy)
    with dask(1) as place:
        one = seconds(place, given.busy, busy)
    gain = f"{one / two:.2f} times as fast"
    print(f"{given.busy} equal steps of one core: {one:.1f} s with 1 worker, {two:.1f} s with 2: {gain}")


if __name__ == "__main__":
    main()
