"""The sixteen tasks, all on one screen: system + observation + amounts of data + context + horizon.

>>> import emubench
>>> emubench.tasks.names()[:4]
['kpz-clean', 'kpz-noisy', 'kpz-partial', 'kpz-scarce']
>>> emubench.tasks.get("kpz-noisy", "tiny").n_test
16
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from emubench import systems
from emubench.core.errors import EmubenchError, unknown
from emubench.data.observation import Observation
from emubench.dynamics.system import System

TRACKS = ("clean", "noisy", "partial", "scarce")
RANKED_TRACKS = ("noisy", "partial", "scarce")
CUSTOM = "custom"
"""Track of the tasks of recipes, each of which is compared by itself."""
NOISE = 0.1
CONTEXT = 64
TEST_HORIZON, CLIMATE_HORIZON = 20.0, 200.0  # Lyapunov times
TEST_SAMPLES, CLIMATE_SAMPLES = 128, 1024  # stochastic systems, which have none
WIDTH_LEADS = (256, 512, 768, 1024)
"""Samples after a stationary start at which widths are judged: so far apart that they have forgotten each other."""


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


LEAST_LENGTH = 2
"""A sample and the next: nothing can be learned from less."""
MAX_TRAJECTORIES, MAX_LENGTH = 10**8, 10**9
"""No split is larger: a slip of the keyboard is refused by name before the disk is asked."""


def size_of(name: str) -> Size:
    """The amounts of the size ``name``: one of SIZES, or one with another train split, such as ``standard-20000x1024``.

    >>> size_of("tiny-48x512").scarce_train
    Amount(trajectories=48, length=512)
    """
    if name in SIZES:
        return SIZES[name]
    base, _, train = name.rpartition("-")
    found = re.fullmatch(r"([0-9]{1,10})x([0-9]{1,10})", train)
    if base not in SIZES or found is None:
        raise unknown("size", name, SIZES)
    amount = check_amount(f"size {name}", Amount(int(found[1]), int(found[2])))
    return replace(SIZES[base], train=amount, scarce_train=amount)


def check_amount(where: str, amount: Amount) -> Amount:
    """``amount`` itself, if it is one that can be generated."""
    if not 1 <= amount.trajectories <= MAX_TRAJECTORIES:
        raise EmubenchError(f"{where}: {amount.trajectories} trajectories, where 1 to {MAX_TRAJECTORIES} belong")
    if not LEAST_LENGTH <= amount.length <= MAX_LENGTH:
        found, right = f"length {amount.length} of trajectories", f"where {LEAST_LENGTH} to {MAX_LENGTH} belong"
        raise EmubenchError(f"{where}: {found}, {right}: a sample and the next")
    return amount


def size_with(name: str, trajectories: int | None = None, length: int | None = None) -> str:
    """Name of the size ``name`` with another train split; unnamed amounts stay.

    >>> size_with("tiny", trajectories=48)
    'tiny-48x256'
    """
    if trajectories is None and length is None:
        return name
    train = size_of(name).train
    amount = Amount(*(old if new is None else new for old, new in zip(train, (trajectories, length), strict=True)))
    check_amount("train", amount)
    return f"{name if name in SIZES else name.rpartition('-')[0]}-{amount.trajectories}x{amount.length}"


@dataclass(frozen=True)
class Task:
    """What is to be learned from what, and how far ahead it is judged.

    ``train`` and ``validation`` are amounts of data (trajectories, samples), ``n_test`` and ``n_climate`` numbers of
    cases, ``context``, ``test_steps`` and ``climate_steps`` numbers of samples. The sixteen tasks of the benchmark are
    had by name, those of a recipe from its file (see datasets/README.md).

    >>> import emubench
    >>> task = emubench.tasks.get("lorenz96-partial", "tiny")
    >>> task.track, task.shape, task.train.trajectories, task.context
    ('partial', (40,), 4, 64)
    >>> round(task.test_steps * task.lead_time_step), task.system.lead_time_unit
    (20, 'Lyapunov time')
    """

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
    custom: bool = False
    """Made by a recipe of the user's; not one of :func:`names`, and its truth is its own."""

    @property
    def track(self) -> str:
        """The track: clean, noisy, partial, scarce; or custom."""
        return CUSTOM if self.custom else self.name.rsplit("-", 1)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``*S`` of the scored components."""
        return self.observation.select(self.system.std).shape

    @property
    def site_axes(self) -> tuple[int, ...]:
        """Axes of states ``"... *S"`` along which the sites of a grid lie."""
        return tuple(range(-len(self.system.grid), 0))

    @property
    def lead_time_step(self) -> float:
        """One sample interval in units of lead time."""
        return self.system.sample_interval / self.system.time_unit

    @property
    def full_state(self) -> bool:
        """Whether every component of the state is scored."""
        return self.shape == self.system.shape

    @property
    def splits(self) -> tuple[str, ...]:
        """What an emulator forecasts: ``"test"``, ``"climate"`` and, of an interface that saturates, ``"widths"``."""
        saturates = self.system.growing and hasattr(self.system, "saturated_width_squared")
        return ("test", "climate", *(["widths"] if saturates else []))

    def steps(self, split: str) -> int:
        """Samples to forecast in one of :attr:`splits`."""
        return {"test": self.test_steps, "climate": self.climate_steps, "widths": max(WIDTH_LEADS)}[split]

    def leads(self, split: str) -> tuple[int, ...]:
        """Which of them are asked for, counted from 1: all, but few of ``"widths"``."""
        return WIDTH_LEADS if split == "widths" else tuple(range(1, self.steps(split) + 1))

    def n_members(self, split: str) -> int:
        """Ensemble size asked for: 16 where the truth of the test split is scored in law, else 1."""
        return 16 if self.system.scored_in_law and split == "test" else 1

    def cases(self, split: str) -> int:
        """Cases of one of :attr:`splits`."""
        return {"test": self.n_test, "climate": self.n_climate, "widths": 8 * self.n_climate}[split]


def observation_of(system: System, track: str) -> Observation:
    """The observation operator of a track: see the table in the datasheet."""
    if track == "clean":
        return Observation()
    if track == "noisy":
        return Observation(noise=NOISE)
    return Observation(noise=NOISE, fraction=0.5) if system.grid else Observation(noise=NOISE, components=(0,))


def make(system: System, track: str, size: str = "standard") -> Task:
    """The task of ``system`` on ``track``."""
    if track not in TRACKS:
        raise unknown("track", track, TRACKS)
    amounts, scarce = size_of(size), track == "scarce"
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
        test_steps=TEST_SAMPLES if system.stochastic else steps_of(system, TEST_HORIZON),
        climate_steps=CLIMATE_SAMPLES if system.stochastic else steps_of(system, CLIMATE_HORIZON),
    )


def steps_of(system: System, horizon: float) -> int:
    """Samples of a horizon in units of lead time."""
    return math.ceil(horizon * (system.time_unit / system.sample_interval))


def names() -> list[str]:
    """Names of all tasks: every system on every track.

    >>> len(names())
    16
    """
    return [f"{system}-{track}" for system in systems.names() for track in TRACKS]


def in_order(found: Iterable[str]) -> list[str]:
    """Tasks as they are listed everywhere: the sixteen in their order, then those of recipes by name.

    >>> in_order({"my-task", "lorenz96-noisy", "kpz-clean"})
    ['kpz-clean', 'lorenz96-noisy', 'my-task']
    """
    left = set(found)
    return [name for name in names() if name in left] + sorted(left.difference(names()))


def get(name: str, size: str = "standard") -> Task:
    """The task called ``name``.

    >>> get("lorenz96-noisy").test_steps
    237
    """
    if name not in names():
        raise unknown("task", name, names())
    system, track = name.rsplit("-", 1)
    return make(systems.get(system), track, size)
