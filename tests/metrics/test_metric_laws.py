"""Every metric keeps the contract: failing never pays, and a case's scores depend on no other case nor on any order."""

from __future__ import annotations

import pytest

from emubench import metrics, testing
from emubench.data import tasks
from emubench.testing.metrics import TASKS

EXEMPT = {"dead_fraction"}
"""Who fails instead of standing still is no longer dead."""
LONG = ("spread_skill", "energy_score", "rank_histogram", "growth")
"""Of these the contract on kpz takes seconds: slow tests."""
PAIRS = [
    pytest.param(m, t, marks=(pytest.mark.slow,) if m in LONG and t.startswith("kpz") else ())
    for m in metrics.names()
    for t in TASKS
    if metrics.get(m).applies(tasks.get(t))
]


@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_every_metric_keeps_the_contract(metric, name):
    testing.check_metric(metrics.get(metric), tasks.get(name, "tiny"), EXEMPT)
