"""The console script, called in this process."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from emubench.cli import main


class Finished(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def emubench(monkeypatch, capsys):
    """Call the console script in this process: ``emubench("list", "tasks").out``."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["emubench", *map(str, arguments)])
            status: object = 0
            try:
                main.main()
            except SystemExit as leaving:
                status = leaving.code or 0
        captured = capsys.readouterr()
        assert isinstance(status, int)
        return Finished(status, captured.out, captured.err)

    return run


@pytest.fixture
def refused(emubench):
    """Call a command that has to end with status 1 and one line on standard error; return that line."""

    def run(*arguments: object) -> str:
        finished = emubench(*arguments)
        assert finished.status == 1, finished
        assert finished.err.startswith("emubench: "), finished.err
        assert finished.err.endswith("\n"), finished.err
        assert finished.err.count("\n") == 1, finished.err
        return finished.err.strip()

    return run
