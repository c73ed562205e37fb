"""What a step costs on Dask, beside its work: ``python benchmarks/cluster.py``

Starts a scheduler and worker processes on loopback and measures: the time per step that does nothing, the client's
peak memory over many of them, and how much faster two workers finish equal single-threaded steps than one; beside it
what the machine allows: the same loops in two plain processes at once against one after the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emubench.runs.grid import clusters, runner, steps
from emubench.runs.grid.executors import Place
from emubench.runs.grid.plans import Grid, Plan
from emubench.runs.grid.steps import Outcome, Step


def nothing(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """A step without work."""
    return Outcome(0.0, "")


def loop() -> None:
    """A second or so of one core."""
    total = 0
    for i in range(20_000_000):
        total += i


def busy(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """A step of one loop."""
    begun = time.perf_counter()
    loop()
    return Outcome(time.perf_counter() - begun, "")


def loops(n_processes: int, n: int) -> float:
    """Wall-clock time of ``n`` loops in plain processes, the same number in each."""
    processes = [multiprocessing.Process(target=_loops, args=(n // n_processes,)) for _ in range(n_processes)]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - begun


def _loops(n: int) -> None:
    for _ in range(n):
        loop()


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
            with clusters.scheduler(str(file)) as place:
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


def shown(ratios: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=12, help="steps of one core in each round")
    parser.add_argument("--rounds", type=int, default=7, help="one worker, two workers and plain processes in turn")
    given = parser.parse_args()
    steps.is_done = lambda *_: False
    with dask(2) as two:
        before = time.process_time()
        took, n = seconds(two, given.steps, nothing), given.steps
        client = 1e3 * (time.process_time() - before) / n
        each = f"{1e3 * took / n:.2f} ms each, of which {client:.2f} ms are CPU time of the client"
        print(f"{n} steps without work, 2 workers: {took:.1f} s; {each}")
        print(f"peak memory of the client: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        gains, plain = [], []
        with dask(1) as one:
            for _ in range(given.rounds):
                gains.append(seconds(one, given.busy, busy) / seconds(two, given.busy, busy))
                plain.append(loops(1, given.busy) / loops(2, given.busy))
    what = f"{given.busy} equal steps of one core, {given.rounds} rounds"
    print(f"{what}: {shown(gains)} as fast with 2 workers as with 1")
    print(f"the same loops in plain processes: {shown(plain)} as fast with 2 as with 1")


if __name__ == "__main__":
    main()
