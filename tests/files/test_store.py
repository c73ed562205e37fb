"""The store: what a killed process left is swept."""

from __future__ import annotations

import multiprocessing
import os

from emubench.files import store


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    path, process = tmp_path / "run", multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    ours = store.temporary_name(path)
    kept = [ours, ours.with_name(".run.elsewhere-1.partial"), ours.with_name(".other" + ours.name.removeprefix(".run"))]
    for left in (*kept, ours.with_name(ours.name.replace(f"-{os.getpid()}.", f"-{process.pid}."))):
        left.mkdir()
    ours.with_name(ours.name.replace(f"-{os.getpid()}.", f"-0{process.pid}.")).touch()  # a file
    store.sweep(path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
