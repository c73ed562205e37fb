"""How long a grid takes on more workers: ``python benchmarks/scaling.py RUNS --workers 1 8 64``

The grid of all sixteen tasks × the baselines of which there are runs × ``--seeds``. What each run cost is read
(training from its card, forecasting from its timing), what generating and scoring cost is added, and the steps are
handed out in the order of :mod:`emubench.runs.grid.plans` to imagined workers. For a task without a run stands the mean
of that baseline's runs on the same system, or of all of its runs.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import defaultdict
from pathlib import Path

from emubench.data import tasks
from emubench.runs import folders

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


def measured(runs: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds of training and of scoring, by baseline and task; the mean over seeds."""
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for run in folders.find_runs([runs]):
        card, timing = folders.read_card(run), json.loads((run / "timing.json").read_text())
        scoring = timing["test_seconds"] + timing["climate_seconds"] + METRICS[card.task.split("-")[0]]
        found[card.baseline][card.task].append([card.train_seconds, scoring])
    return {b: {task: mean(seeds) for task, seeds in by_task.items()} for b, by_task in found.items()}


def mean(costs: list[list[float]]) -> list[float]:
    """Of training, and of scoring."""
    return [sum(column) / len(costs) for column in zip(*costs, strict=True)]


def estimate(runs: dict[str, list[float]], task: str) -> list[float]:
    """The cost of a task, or the mean of the tasks most like it."""
    system = task.split("-")[0]
    like = [cost for name, cost in runs.items() if name.split("-")[0] == system]
    return runs.get(task) or mean(like or list(runs.values()))


def main() -> None:
    """Print what each baseline costs, then the time on each number of workers and what binds it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    costs = measured(given.runs)
    chains: list[tuple[str, str, list[float]]] = []
    for task in sorted(tasks.names()):
        for baseline in sorted(costs):
            chains += [(task, baseline, estimate(costs[baseline], task))] * given.seeds
    shards = [[seconds / SHARDS] for seconds in TRUTH.values() for _ in range(SHARDS)]
    generating = sum(TRUTH.values()) + 5 * sum(MERGE.values())  # a truth and four tracks of each system
    for baseline, runs in sorted(costs.items()):
        train, score = (sum(cost[i] for _, b, cost in chains if b == baseline) for i in range(2))
        print(f"{baseline:16} train {train:8.0f} s   score {score:8.0f} s   from runs on {len(runs):2} tasks")
    total = generating + sum(sum(cost) for *_, cost in chains)
    name, longest = max(((f"{b} on {t}", sum(c)) for t, b, c in chains), key=lambda pair: pair[1])
    print(f"generate       {generating:8.1f} s; all {total:8.0f} s; longest: {name}, {longest:.0f} s")
    for workers in given.workers:
        merging = makespan([[2 * seconds] for seconds in MERGE.values()], workers) - START
        took = makespan(shards, workers) + merging + makespan([c for *_, c in chains], workers) - START
        print(f"{workers:3} workers: {took / 60:7.1f} min, {total / took / workers:.0%} busy")


if __name__ == "__main__":
    main()
