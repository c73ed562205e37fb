"""The summary at the end of a benchmark run."""

from __future__ import annotations

import pytest
from summary import RESULTS, Results


@pytest.fixture
def results() -> Results:
    return RESULTS


def pytest_terminal_summary(terminalreporter) -> None:
    if RESULTS.seconds or RESULTS.missing:
        terminalreporter.section("solvers")
        for line in RESULTS.lines():
            terminalreporter.write_line(line)
