"""What is not a number is a fault of a discretisation, never a pass."""

from __future__ import annotations

import numpy as np
import pytest

from emubench.dynamics import resolution

SOUND = np.random.default_rng(0).standard_normal((2, 64, 3)) * 0.01 + np.array([0.0, 1.0])[:, None, None]
"""Means of 0 and mean squares of 1, of 64 trajectories with three components."""


def test_equal_statistics_do_not_differ():
    assert resolution._differs(SOUND, SOUND) is None


@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.parametrize("finer", [False, True])
def test_statistics_that_are_no_numbers_differ(moment, finer):
    lost = SOUND.copy()
    lost[moment, 5, 1] = np.nan
    assert resolution._differs(*((SOUND, lost) if finer else (lost, SOUND))) is not None


def test_an_agreement_time_that_is_no_number_is_too_short():
    assert "solver_step" in resolution.Resolution({}, {"solver_step": float("nan")}).wrong(1.0)
