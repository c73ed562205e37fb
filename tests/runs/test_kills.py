"""A campaign (a quarter of an hour): the whole board on Dask, whose workers are killed ten times at random moments.

python -m pytest -m campaign -s tests/runs/test_kills.py
"""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from emubench.data import tasks
from emubench.runs.grid import clusters, executors, plans, runner
from tests.support.contents import contents
from tests.support.dask_cluster import Dask, dask
from tests.support.grids import results

KILLS, WORKERS = 10, 2
GRID = f"""
tasks = {tasks.names()}
baselines = ["persistence", "climatology", "linear", "resnet_ode"]
seeds = [0]
size = "tiny"
budget = 20
"""


def kill_at_random(made: Dask, workers: list, over: threading.Event, longest: float, seed: int) -> list[float]:
    """Kill one worker after another, each at a moment drawn anew, and start one in its place; when it was done."""
    rng, begun, killed = random.Random(seed), time.monotonic(), []
    while len(killed) < KILLS and not over.wait(rng.uniform(0, 2 * longest / KILLS)):
        victim = workers.pop(rng.randrange(len(workers)))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        workers.append(made.worker())
        killed.append(time.monotonic() - begun)
    return killed


@pytest.mark.campaign
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    begun = time.monotonic()
    with executors.in_process() as place:
        whole = tmp_path / "whole"
        plan = plans.expand(tmp_path / "grid.toml", whole / "data")
        run = runner.execute(plan, place, whole / "data", whole / "runs", 1)
    alone = time.monotonic() - begun
    assert set(run.state.values()) == {"done"}, run.failed
    data, out, killed = tmp_path / "data", tmp_path / "runs", []
    with dask(tmp_path / "dask") as made, clusters.scheduler(made.address) as place:
        workers, over = [made.worker() for _ in range(WORKERS)], threading.Event()
        seed = random.randrange(2**32)
        killer = threading.Thread(target=lambda: killed.extend(kill_at_random(made, workers, over, 0.6 * alone, seed)))
        killer.start()
        begun = time.monotonic()
        plan = plans.expand(tmp_path / "grid.toml", data)
        run = runner.execute(plan, place, data, out, 1)
        took = time.monotonic() - begun
        over.set()
        killer.join()
    assert set(run.state.values()) == {"done"}, run.failed
    assert len(killed) == KILLS
    assert contents(data) == contents(whole / "data")
    assert results(out) == results(whole / "runs")
    assert len(list(Path(out).rglob("scores.json"))) == 64
    moments = ", ".join(f"{seconds:.0f}" for seconds in killed)
    print(
        f"\n{len(plan.steps)} steps: {alone:.0f} s in process; {took:.0f} s on {WORKERS} workers, killed at {moments} s"
    )
