"""A dataset of several blocks, made in one go, and generation that fails after some of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from emubench.data import generation, tasks

TASK = tasks.get("lorenz63-partial", "tiny-40x120")
"""Three blocks in each file."""
CODE = "import sys; from emubench.cli.main import main; sys.argv[0] = 'emubench'; main()"
"""The console script, for a process of its own."""


def failing_after(n: int, error: BaseException):
    """``generation.run_block``, which raises ``error`` when it is called once more than ``n`` times."""
    calls = iter(range(n))

    def run(block):
        if next(calls, None) is None:
            raise error
        return generation_run_block(block)

    return run


generation_run_block = generation.run_block


@pytest.fixture(scope="session")
def whole_dataset(tmp_path_factory) -> Path:
    """TASK, generated in one go by one process."""
    folder = tmp_path_factory.mktemp("whole")
    generation.generate(TASK, folder)
    return folder
