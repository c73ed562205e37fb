"""The folder of a job is that of its settings: the same for equal jobs, another for any other."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from emubench import __version__, baselines
from emubench.runs.jobs import Job
from tests.support.small_jobs import JOB


def test_equal_jobs_have_equal_folders(tmp_path):
    again = Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"batch": 16, "steps": 20})
    assert JOB.folder(tmp_path) == again.folder(tmp_path)
    parts = JOB.folder(tmp_path).relative_to(tmp_path).parts
    assert parts == ("resnet_ode", "lorenz63-noisy", f"tiny-seed-0-{JOB.hash8()}")
    assert len(JOB.hash8()) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"size": "standard"},
        {"threads": 2},
        {"task": "lorenz63-clean"},
        {"baseline": "linear", "overrides": {}},
        {"overrides": {"steps": 21, "batch": 16}},
        {"overrides": {"steps": 20}},
        {"overrides": {}},
        {"device": "cuda"},
        {"compile": True},
    ],
)
def test_another_job_has_another_folder(tmp_path, change):
    other = dataclasses.replace(JOB, **change)
    assert other.hash8() != JOB.hash8()
    assert other.folder(tmp_path) != JOB.folder(tmp_path)


def test_a_changed_default_gives_another_hash(monkeypatch):
    module, before = baselines.get("resnet_ode"), JOB.hash8()
    original = module.default_config
    monkeypatch.setattr(module, "default_config", lambda task: dataclasses.replace(original(task), width=7))
    assert JOB.hash8() != before


def test_a_job_holds_the_kind_of_its_device_and_none_on_a_cpu():
    fields = ("baseline", "task", "size", "seed", "threads", "overrides")
    known = {name: getattr(JOB, name) for name in fields}
    known |= {"config": dataclasses.asdict(JOB.config()), "version": __version__}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=list).encode()).hexdigest()
    assert JOB.hash8() == digest[:8] == dataclasses.replace(JOB, device="cpu:0").hash8()
    first, second, other = (dataclasses.replace(JOB, device=name).hash8() for name in ("cuda", "cuda:1", "mps"))
    assert first == second != other
