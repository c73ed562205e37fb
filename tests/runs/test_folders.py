"""Run folders are found at any depth, and half-made ones are not."""

from __future__ import annotations

import shutil

import pytest

from emubench.core.errors import EmubenchError
from emubench.runs import folders, stages
from tests.support.small_jobs import small


def test_runs_are_found_at_any_depth_and_half_made_ones_are_not(data, tmp_path):
    made = [stages.train(small("persistence", n), data, tmp_path) for n in ("lorenz63-noisy", "lorenz96-noisy")]
    hidden = made[0].with_name(".tiny-seed-0-1234abcd.99.partial")
    shutil.copytree(made[0], hidden)
    assert folders.find_runs([tmp_path]) == sorted(made)
    assert folders.find_runs([made[1], tmp_path, made[1]]) == sorted(made)
    for path in (hidden, tmp_path / "nothing"):
        with pytest.raises(EmubenchError, match="no runs here"):
            folders.find_runs([path])
