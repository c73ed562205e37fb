"""Nobody waits in silence: who holds a file is named, and a process that waited for its own parent is refused."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emubench.core.errors import EmubenchError
from emubench.core.workers import worker_pool
from emubench.data import generation, tasks
from emubench.files import store

TASK = tasks.get("lorenz63-clean", "tiny")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who holds a lock")
def test_no_waiting_in_silence_for_another_process(tmp_path, capsys):
    path = tmp_path / "tiny" / "lorenz63.truth.h5"
    path.parent.mkdir()
    with store.journal_name(path).open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        release = threading.Timer(0.1, lambda: fcntl.flock(holder, fcntl.LOCK_UN))
        release.start()
        assert len(generation.generate(TASK, tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: waiting for process {os.getpid()} (")
    assert said.count("\n") == 1


def test_no_waiting_in_silence_for_the_parent(tmp_path, monkeypatch):
    """A script without a guard, as a worker imports it."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(EmubenchError, match='below `if __name__ == "__main__":`'):
        generation.generate(TASK, tmp_path)
    with pytest.raises(EmubenchError, match="__main__"), worker_pool(2):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_no_waiting_in_silence_in_a_script_without_a_guard(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(
        f"import multiprocessing\nimport emubench\nmultiprocessing.set_start_method({method!r}, force=True)\n"
        "emubench.generate(emubench.tasks.get('lorenz63-clean', 'tiny'), 'data', workers=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert 'put what the script does below `if __name__ == "__main__":`' in done.stderr
