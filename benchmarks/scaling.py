"""How long a grid takes on more workers: ``python benchmarks/scaling.py RUNS --workers 1 8 64``

Reads what each run cost (training from its card, forecasting from its timing), adds what generating and scoring cost,
and hands the steps out in the order of :mod:`emubench.grid` to imagined workers. ``--seeds`` repeats the runs of one
seed.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import defaultdict
from pathlib import Path

from emubench import jobs

# Measured CPU seconds, one core, standard size: sums over the shards of a file, its merging, and metrics of one run.
TRUTH = {"lorenz63": 1.0, "lorenz96": 0.5, "kuramoto_sivashinsky": 3.6, "kpz": 3.4}
MERGE = {"lorenz63": 0.2, "lorenz96": 0.4, "kuramoto_sivashinsky": 0.5, "kpz": 0.6}
METRICS = {"lorenz63": 1.1, "lorenz96": 2.0, "kuramoto_sivashinsky": 5.3, "kpz": 19.0}
SHARDS = 23
START = 10.0
"""Seconds until a worker has started and imported everything."""
HAND_OUT = 0.005
"""Seconds of the client and the scheduler per step."""


def makespan(chains: list[list[float]], workers: int) -> float:
    """Seconds until the last of ``chains`` is done, each a sequence, on workers that take what is ready in order."""
    ready = [(i, 0) for i in range(len(chains))]
    heapq.heapify(ready)
    busy: list[tuple[float, int, int]] = []
    now = START
    while ready or busy:
        while ready and len(busy) < workers:
            i, part = heapq.heappop(ready)
            heapq.heappush(busy, (now + HAND_OUT + chains[i][part], i, part))
        now, i, part = heapq.heappop(busy)
        if part + 1 < len(chains[i]):
            heapq.heappush(ready, (i, part + 1))
    return now


def main() -> None:
    """Print what each baseline costs, then the time on each number of workers and what binds it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    chains: list[tuple[str, str, list[float]]] = []
    for run in jobs.find_runs([given.runs]):
        card, timing = jobs.read_card(run), json.loads((run / "timing.json").read_text())
        scoring = timing["test_seconds"] + timing["climate_seconds"] + METRICS[card.task.split("-")[0]]
        for total, seconds in enumerate((card.train_seconds, scoring)):
            sums[card.baseline][total] += given.seeds * seconds
        chains += [(card.task, card.baseline, [card.train_seconds, scoring])] * given.seeds
    chains.sort(key=lambda chain: chain[:2])
    shards = [[seconds / SHARDS] for seconds in TRUTH.values() for _ in range(SHARDS)]
    generating = sum(TRUTH.values()) + 5 * sum(MERGE.values())  # a truth and four tracks of each system
    for baseline, (train, score) in sorted(sums.items()):
        print(f"{baseline:14} train {train:8.0f} s   score {score:8.0f} s")
    total = generating + sum(map(sum, sums.values()))
    name, longest = max(((f"{b} on {t}", sum(c)) for t, b, c in chains), key=lambda pair: pair[1])
    print(f"generate       {generating:8.1f} s; all {total:8.0f} s; longest: {name}, {longest:.0f} s")
    for workers in given.workers:
        merging = makespan([[2 * seconds] for seconds in MERGE.values()], workers) - START
        took = makespan(shards, workers) + merging + makespan([c for *_, c in chains], workers) - START
        print(f"{workers:3} workers: {took / 60:7.1f} min, {total / took / workers:.0%} busy")


if __name__ == "__main__":
    main()
