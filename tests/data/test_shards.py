"""Shards of a dataset merge to the bytes of one process, or are refused, however they were damaged or cut short."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from emubench.core.errors import EmubenchError
from emubench.data import generation, shards, tasks
from emubench.data.shards import Target
from emubench.files import store
from tests.support.contents import contents

# --- shards -----------------------------------------------------------------------------------------------------------


TASK = tasks.get("lorenz63-partial", "tiny-40x64")


def sharded(data: Path) -> list[Target]:
    targets = [Target(TASK, kind, 0, data) for kind in ("truth", "observations")]
    for target in targets:
        for block in reversed(target.blocks()):  # in any order
            shards.write(target, block.array, block.first)
        if target.kind == "truth":
            shards.merge(target)
    return targets


def test_shards_merge_to_the_bytes_of_one_process(tmp_path):
    generation.generate(TASK, tmp_path / "one")
    truth, observations = sharded(tmp_path / "many")
    assert len(list(observations.folder.iterdir())) == len(observations.blocks()) == 3 + 3
    shards.merge(observations)
    shards.merge(observations)  # a second client comes late
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert not truth.folder.exists()
    assert not observations.folder.exists()


def test_missing_and_damaged_shards_are_never_merged(tmp_path):
    _, target = sharded(tmp_path)
    one, other = sorted(target.folder.iterdir())[:2]
    spoiled = bytearray(one.read_bytes())
    spoiled[5] ^= 1
    one.write_bytes(spoiled)
    with pytest.raises(EmubenchError, match="damaged and was removed"):
        shards.merge(target)
    assert not one.exists()
    with pytest.raises(EmubenchError, match="is missing"):
        shards.merge(target)
    other.write_bytes(other.read_bytes()[:-1])
    shards.write(target, *next((b.array, b.first) for b in target.blocks() if target.shard(b.array, b.first) == one))
    with pytest.raises(EmubenchError, match="damaged"):
        shards.merge(target)
    assert not target.path.exists()


def test_shards_of_another_seed_are_not_mixed(tmp_path):
    folders = {Target(TASK, "truth", seed, tmp_path).folder for seed in (0, 1)}
    assert len(folders) == 2


def test_a_shard_on_a_full_disk_is_named(tmp_path, monkeypatch):
    target = Target(TASK, "truth", 0, tmp_path)

    def full(block) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emubench.data.generation.run_block", full)
    with pytest.raises(EmubenchError, match=r"train-0: cannot be written \(No space left on device\)"):
        shards.write(target, "train/truth", 0)
    assert contents(tmp_path) == {}


# --- the loop ---------------------------------------------------------------------------------------------------------


def merge_killed(target: Target, at: int) -> bool:
    """Merge in a child process that is killed as it writes for the ``at``-th time; whether it came to that."""
    child = os.fork()
    if child == 0:
        calls = iter(range(at))
        for owner, name in ((store.Sink, "write"), (store.Sink, "truncate"), (os, "pwrite"), (os, "replace")):

            def wrapper(*arguments, original=getattr(owner, name)):
                if next(calls, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments)

            setattr(owner, name, wrapper)
        shards.merge(target)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_merge_that_is_killed_at_any_write_and_once_more_gives_the_same_bytes(tmp_path):
    small = tasks.get("lorenz63-noisy", "tiny-2x8")
    for kind in ("truth", "observations"):
        target = Target(small, kind, 0, tmp_path / "source")
        for block in target.blocks():
            shards.write(target, block.array, block.first)
        if kind == "truth":
            shards.merge(target)
    shutil.copytree(tmp_path / "source", tmp_path / "whole")
    shards.merge(Target(small, "observations", 0, tmp_path / "whole"))
    wanted, killed = contents(tmp_path / "whole"), 0
    for first in range(0, 1000, 6):
        data = tmp_path / str(first)
        shutil.copytree(tmp_path / "source", data)
        target = Target(small, "observations", 0, data)
        died = merge_killed(target, first)
        killed += died
        if died:
            merge_killed(target, 5 * first % 31)
        shards.merge(target)
        assert contents(data) == wanted, first
        if not died:
            break
    assert killed > 10
