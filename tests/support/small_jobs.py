"""Trainings of the smallest budget, of every baseline: for what does not depend on skill."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset
from emubench.learning.training.descent import Log
from emubench.runs.jobs import Job

SMALL = {"steps": 3, "batch": 4, "checks": 1, "polish": 50, "max_lead": 8, "members": 8, "pool": 32}
SMALL |= {"rounds": 1, "spin_up": 8, "half_widths": (4,), "twins": 2, "filtered": (2, 32)}
SMALL |= {"rows": 500, "width": 16, "size": 20, "driven": (2, 64)}
"""The least of everything: what is tested here does not depend on skill."""


def small(baseline: str, name: str, **more) -> Job:
    """A job of the smallest budget; what a task has no use for stays off."""
    defaults = dataclasses.asdict(Job(baseline, name, "tiny").config())
    known = {key for key, value in defaults.items() if value or key not in ("polish", "twins")}
    if name.startswith("kpz"):
        known = {key for key in known & SMALL.keys() if has_effect(baseline, name, key)}
    return Job(baseline, name, "tiny", overrides={k: v for k, v in SMALL.items() if k in known}, **more)


@cache
def has_effect(baseline: str, name: str, key: str) -> bool:
    """Whether the task takes the setting, instead of refusing it as one without effect."""
    try:
        Job(baseline, name, "tiny", overrides={key: SMALL[key]}).build()
    except EmubenchError as error:
        return "has no effect" not in str(error)
    return True


def trained(job: Job, data) -> torch.nn.Module:
    """What the job's training gives, without any folder."""
    module, observations = baselines.get(job.baseline), dataset.load(job.get_task(), data)
    torch.manual_seed(job.seed)
    emulator = module.build(job.get_task(), job.config())
    module.train(emulator, observations, job.config(), job.seed, Log())
    return emulator


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


# --- folders ----------------------------------------------------------------------------------------------------------


JOB = Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"steps": 20, "batch": 16})
"""Twenty steps of a network."""
