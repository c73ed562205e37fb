"""``emubench doctor`` tells what is there, and names what is missing with its remedy."""

from __future__ import annotations

import json
import os

import pytest

from emubench import systems
from emubench.cli import machine
from emubench.core.errors import EmubenchError
from emubench.dynamics import simulate
from emubench.evaluation.throughput import modes


def test_a_sound_machine(emubench, tmp_path):
    finished = emubench("doctor", "--data", tmp_path, "--runs", tmp_path / "runs", "--json")
    found = {finding["what"]: finding for finding in json.loads(finished.out)}
    assert finished.status == 0, finished
    assert found.keys() >= {"python", "libraries", "processor", "devices", "compiler", "sandbox", *systems.names()}
    assert "times the reference solver" in found["lorenz96"]["found"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    (finding,) = machine.folder(tmp_path / "data")
    assert finding.state == "fault"


def test_storage_without_locks(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("h5py.File", fails)
    (finding,) = machine.folder(tmp_path)
    assert finding.state == "fault"
    assert "No locks available" in finding.found
    assert "HDF5_USE_FILE_LOCKING" in finding.remedy


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(modes, "compiler", lambda: None)
    (finding,) = machine.compiler()
    assert finding.state == "note"
    assert "CXX" in finding.remedy


def test_a_kernel_that_is_wrong_or_broken(monkeypatch):
    sound = simulate.simulate
    monkeypatch.setattr(simulate, "simulate", lambda *a, reference: sound(*a, reference=reference) + reference)
    assert machine.kernel("lorenz63").state == "fault"

    def fails(*_, **__):
        raise EmubenchError("no vector unit")

    monkeypatch.setattr(simulate, "simulate", fails)
    assert {finding.state for finding in machine.kernels()} == {"fault"}
