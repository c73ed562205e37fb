"""Generation that was interrupted goes on where it was, whatever was damaged meanwhile, or starts anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from emubench.core.errors import EmubenchError
from emubench.data import generation, layout, partial, trajectories, verification
from emubench.data.layout import Layout
from emubench.files import store
from tests.support.contents import contents
from tests.support.generated import CODE, TASK, failing_after, generation_run_block


def interrupt(folder: Path, monkeypatch, n: int, error: BaseException | None = None) -> None:
    """Leave a run after ``n`` blocks as an interrupt does that came late."""
    with monkeypatch.context() as patch:
        patch.setattr(partial, "WORTH_KEEPING", 0.0)
        patch.setattr(generation, "run_block", failing_after(n, error or KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt if error is None else EmubenchError):
            generation.generate(TASK, folder)


@pytest.mark.parametrize("n", [1, 4, 8])
def test_an_interrupted_run_goes_on_without_redoing_blocks(whole_dataset, tmp_path, monkeypatch, n):
    interrupt(tmp_path, monkeypatch, n)
    assert not list(tmp_path.rglob("*63*partial.h5"))
    assert list(tmp_path.rglob(".*.partial"))
    redone = []
    with monkeypatch.context() as patch:
        patch.setattr(generation, "run_block", lambda block: (redone.append(block), generation_run_block(block))[1])
        generation.generate(TASK, tmp_path)
    total = generation.n_blocks(Layout(TASK, "truth")) + generation.n_blocks(Layout(TASK, "observations"))
    assert len(redone) == total - n
    assert contents(tmp_path) == contents(whole_dataset)


def test_progress_counts_resumed_blocks_and_ends_at_the_total(tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 3)
    seen = []
    generation.generate(TASK, tmp_path, progress=lambda done, total: seen.append((done, total)))
    total = generation.n_blocks(Layout(TASK, "truth")) + generation.n_blocks(Layout(TASK, "observations"))
    assert seen == [(i, total) for i in range(4, total + 1)]


@pytest.mark.slow
def test_a_run_begun_on_the_processor_goes_on_on_another_device(tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 2)
    seen = []
    generation.generate(TASK, tmp_path, progress=lambda *progress: seen.append(progress), device="cpu:0")
    assert seen[-1][0] == seen[-1][1]
    assert verification.verify(layout.truth_path(TASK, tmp_path))


def damage_block(file: Path, journal: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["train/truth"][3, 5] = 7.0


def damage_structure(file: Path, journal: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def lose_file(file: Path, journal: Path) -> None:
    file.unlink()


def other_title(file: Path, journal: Path) -> None:
    lines = journal.read_text().splitlines()
    title = json.loads(lines[0]) | {"header": "0" * 64}
    journal.write_text("\n".join([json.dumps(title), *lines[1:]]))


def cut_line(file: Path, journal: Path) -> None:
    journal.write_text(journal.read_text()[:-40])


def no_text(file: Path, journal: Path) -> None:
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([lines[0], b"\xff\xfe", b"[1]", *lines[1:]]) + b"\n")


@pytest.mark.parametrize("damage", [damage_block, damage_structure, lose_file, other_title, cut_line, no_text])
def test_what_was_damaged_meanwhile_is_made_anew(whole_dataset, tmp_path, monkeypatch, damage):
    interrupt(tmp_path, monkeypatch, 4)
    truth = layout.truth_path(TASK, tmp_path)
    damage(store.partial_name(truth), store.journal_name(truth))
    generation.generate(TASK, tmp_path)
    assert contents(tmp_path) == contents(whole_dataset)


def test_a_partial_file_of_another_seed_is_not_resumed(whole_dataset, tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 4)
    generation.generate(TASK, tmp_path, seed=1)
    with h5py.File(layout.truth_path(TASK, tmp_path)) as file:
        assert file.attrs["seed"] == "1"
        expected = trajectories.simulate_block(TASK.system, 1, "train", 0, 120)
        np.testing.assert_array_equal(file["train/truth"][:16], expected)


def test_a_fault_leaves_nothing(tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 4, OSError(28, "No space left on device"))
    assert contents(tmp_path) == {}


def test_a_killed_run_is_resumed(whole_dataset, tmp_path):
    """Not even a signal that cannot be caught costs more than the blocks that were under way."""
    code = (
        "import os, sys\nfrom emubench.data import generation\nrun, calls = generation.run_block, []\n"
        "def killed(block):\n    calls.append(block)\n"
        "    return run(block) if len(calls) < 5 else os.kill(os.getpid(), 9)\n"
        "generation.run_block = killed\n" + CODE
    )
    command = ["generate", "lorenz63-partial", "--size", TASK.size, "--out", str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", code, *command], check=False)
    assert killed.returncode == -9
    left = {p.name for p in (tmp_path / TASK.size).iterdir()}
    assert left == {".lorenz63.truth.h5.partial", ".lorenz63.truth.h5.journal"}
    generation.generate(TASK, tmp_path)
    assert contents(tmp_path) == contents(whole_dataset)
