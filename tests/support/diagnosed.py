"""What the tests of diagnostics share: a task, an emulator that forgets, and figures by name."""

from __future__ import annotations

import pytest

from emubench.data import tasks
from emubench.evaluation import diagnostics
from emubench.files import run_files

LORENZ63 = tasks.get("lorenz63-noisy", "tiny")


def values(diagnostic: run_files.Diagnostic) -> dict[str, float | None]:
    """Value of every row; that of the longest lead where there are several."""
    return {row.metric: row.value for row in diagnostic.rows}


def interval_of(diagnostic: run_files.Diagnostic, metric: str) -> tuple[float, float]:
    (row,) = [row for row in diagnostic.rows if row.metric == metric]
    assert row.low is not None
    assert row.high is not None
    return row.low, row.high


class Constant:
    """It ignores its context's last samples' noise: a climatology."""

    def forecast(self, context, n_steps, n_members, generator):
        return context.new_zeros(1, len(context), n_steps, *context.shape[2:])


@pytest.fixture
def short_spectra(monkeypatch):
    """Lyapunov spectra over two Lyapunov times at tiny size."""
    monkeypatch.setattr(diagnostics, "MAX_DURATION", 16.0)
