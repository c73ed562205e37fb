"""The sixteen tasks, all on one screen: system + observation + amounts of data + context + horizon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from emubench import systems
from emubench.errors import unknown
from emubench.observation import Observation
from emubench.system import System

TRACKS = ("clean", "noisy", "partial", "scarce")
RANKED_TRACKS = ("noisy", "partial", "scarce")
NOISE = 0.1
CONTEXT = 64
TEST_HORIZON, CLIMATE_HORIZON = 20.0, 200.0  # Lyapunov times
TEST_SAMPLES, CLIMATE_SAMPLES = 128, 1024  # stochastic systems, which have none


class Amount(NamedTuple):
    """How much data a split holds."""

    trajectories: int
    length: int


@dataclass(frozen=True)
class Size:
    """Amounts of data of one benchmark size."""

    train: Amount
    validation: Amount
    scarce_train: Amount
    scarce_validation: Amount
    n_test: int
    n_climate: int


SIZES = {
    "standard": Size(Amount(32, 1024), Amount(8, 1024), Amount(1, 256), Amount(1, 128), n_test=256, n_climate=64),
    "tiny": Size(Amount(4, 256), Amount(2, 256), Amount(1, 128), Amount(1, 128), n_test=16, n_climate=8),
}


@dataclass(frozen=True)
class Task:
    """What is to be learned from what, and how far ahead it is judged."""

    name: str
    system: System
    observation: Observation
    size: str
    train: Amount
    validation: Amount
    n_test: int
    n_climate: int
    context: int
    test_steps: int
    climate_steps: int

    @property
    def track(self) -> str:
        """clean, noisy, partial or scarce."""
        return self.name.rsplit("-", 1)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``*S`` of the scored components."""
        return self.observation.select(self.system.std).shape

    @property
    def lead_time_step(self) -> float:
        """One sample interval in units of lead time."""
        return self.system.sample_interval / self.system.time_unit

    @property
    def full_state(self) -> bool:
        """Whether every component of the state is scored."""
        return self.shape == self.system.shape

    def steps(self, split: str) -> int:
        """Samples to forecast in ``"test"`` or ``"climate"``."""
        return {"test": self.test_steps, "climate": self.climate_steps}[split]

    def cases(self, split: str) -> int:
        """Cases of ``"test"`` or ``"climate"``."""
        return {"test": self.n_test, "climate": self.n_climate}[split]


def observation_of(system: System, track: str) -> Observation:
    """The observation operator of a track: see the table in the datasheet."""
    if track == "clean":
        return Observation()
    if track == "noisy":
        return Observation(noise=NOISE)
    return Observation(noise=NOISE, fraction=0.5) if system.ring else Observation(noise=NOISE, components=(0,))


def make(system: System, track: str, size: str = "standard") -> Task:
    """The task of ``system`` on ``track``."""
    if track not in TRACKS:
        raise unknown("track", track, TRACKS)
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    amounts, scarce, unit = SIZES[size], track == "scarce", system.time_unit / system.sample_interval
    return Task(
        name=f"{system.name}-{track}",
        system=system,
        observation=observation_of(system, track),
        size=size,
        train=amounts.scarce_train if scarce else amounts.train,
        validation=amounts.scarce_validation if scarce else amounts.validation,
        n_test=amounts.n_test,
        n_climate=amounts.n_climate,
        context=CONTEXT,
        test_steps=TEST_SAMPLES if system.stochastic else math.ceil(TEST_HORIZON * unit),
        climate_steps=CLIMATE_SAMPLES if system.stochastic else math.ceil(CLIMATE_HORIZON * unit),
    )


def names() -> list[str]:
    """Names of all tasks: every system on every track.

    >>> len(names())
    16
    """
    return [f"{system}-{track}" for system in systems.names() for track in TRACKS]


def get(name: str, size: str = "standard") -> Task:
    """The task called ``name``.

    >>> get("lorenz96-noisy").test_steps
    237
    """
    if name not in names():
        raise unknown("task", name, names())
    system, track = name.rsplit("-", 1)
    return make(systems.get(system), track, size)
