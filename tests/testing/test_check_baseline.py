"""The contract of a baseline: the smallest one keeps it, and one that breaks a clause is told which."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from emubench import testing
from emubench.core.errors import EmubenchError
from emubench.data import tasks


class Scaled(nn.Module):
    """The last sample times a weight."""

    weight: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def forecast(self, context, n_steps, n_members, generator):
        last = torch.nan_to_num(context[:, -1])
        return (self.weight * last)[None, :, None].repeat(1, 1, n_steps, 1)


@dataclass(frozen=True)
class Settings:
    """One of each kind that JSON turns into another."""

    rate: float = 0.1
    widths: tuple = (4, 8)


class Small:
    """A baseline in a class, where a file would be a module; variants below break the contract."""

    knowledge = "none"
    Config = Settings

    @staticmethod
    def build(task, config):
        return Scaled()

    @staticmethod
    def train(emulator, data, config, seed, log):
        generator = torch.Generator().manual_seed(seed)
        emulator.weight.fill_(0.5 + 0.01 * torch.rand((), generator=generator, dtype=torch.float64))


class WithoutTrain:
    knowledge, Config, build = "none", Settings, Small.build


class Boasting(Small):
    knowledge = "everything"


class Changeable(Small):
    @dataclass
    class Config:
        rate: float = 0.1


class Demanding(Small):
    @dataclass(frozen=True)
    class Config:
        rate: float


class OtherSettings(Small):
    @staticmethod
    def default_config(task):
        return {"rate": 0.2}


class Unwritable(Small):
    @dataclass(frozen=True)
    class Config:
        device: torch.device = torch.device("cpu")


class NotANumber(Small):
    @dataclass(frozen=True)
    class Config:
        rate: float = float("nan")


class Nested(Small):
    @dataclass(frozen=True)
    class Config:
        pairs: tuple = field(default=((1, 2), (3, 4)))


class NoModule(Small):
    @staticmethod
    def build(task, config):
        return Scaled().forecast

    @staticmethod
    def train(emulator, data, config, seed, log):
        pass


class Unbuildable(Small):
    @staticmethod
    def build(task, config):
        raise ValueError("width 7 is odd")


class Singular(Small):
    @staticmethod
    def train(emulator, data, config, seed, log):
        torch.linalg.cholesky(-torch.eye(2))


class Filling(Small):
    """Fills the gaps of the data in place."""

    @staticmethod
    def train(emulator, data, config, seed, log):
        data.validation.nan_to_num_(0.0).mul_(2)


class Peeping(Small):
    """Spoils the contexts."""

    @staticmethod
    def train(emulator, data, config, seed, log):
        data.contexts["climate"].zero_()


class Unseeded(Small):
    @staticmethod
    def train(emulator, data, config, seed, log):
        emulator.weight.fill_(torch.rand((), generator=torch.Generator().manual_seed(torch.Generator().seed())))


class Growing(Small):
    """Each training adds to the last."""

    count = 0

    @staticmethod
    def train(emulator, data, config, seed, log):
        Growing.count += 1
        emulator.weight.fill_(Growing.count)


class Hoarding(Small):
    """Keeps what it fitted where nothing saves it."""

    class Emulator(Scaled):
        factor = 1.0

        def forecast(self, context, n_steps, n_members, generator):
            return self.factor * super().forecast(context, n_steps, n_members, generator)

    @staticmethod
    def build(task, config):
        return Hoarding.Emulator()

    @staticmethod
    def train(emulator, data, config, seed, log):
        emulator.weight.fill_(1.0)
        emulator.factor = 0.5


class Late(Small):
    """A buffer appears in training."""

    @staticmethod
    def train(emulator, data, config, seed, log):
        emulator.register_buffer("offset", torch.zeros(3))


class Widening(Small):
    """A buffer changes its shape in training."""

    @staticmethod
    def train(emulator, data, config, seed, log):
        emulator.weight = torch.zeros(3, dtype=torch.float64)


class Half(Scaled):
    def forecast(self, context, n_steps, n_members, generator):
        return super().forecast(context, n_steps, n_members, generator).half()


class Wrong(Small):
    """Its emulator breaks a clause of its own."""

    @staticmethod
    def build(task, config):
        return Half()


BROKEN = [
    (WithoutTrain, "defines no train"),
    (Boasting, "knowledge is 'everything', where one of 'none', 'structure', 'equation form', 'equation' belongs"),
    (Changeable, "Config is no frozen dataclass"),
    (Demanding, "Config has no default for rate"),
    (OtherSettings, r"default_config\(task\) gives dict, not a Config"),
    (Unwritable, "Config can't be stored as JSON"),
    (NotANumber, "Config can't be stored as JSON"),
    (Nested, "Config does not come back from JSON as it was"),
    (NoModule, r"build\(\) gives method, not a torch.nn.Module"),
    (Unbuildable, "Unbuildable can't be built with these settings: width 7 is odd"),
    (Singular, "with these settings the fit breaks down"),
    (Filling, r"train\(\) changes the data: validation"),
    (Peeping, r"train\(\) changes the data: contexts\['climate'\]"),
    (Unseeded, "two trainings with one seed differ in weight"),
    (Growing, "two trainings with one seed differ in weight"),
    (Hoarding, "something fitted is not saved"),
    (Late, "can't be saved and loaded again: tensor offset is not of this architecture"),
    (Widening, r"can't be saved and loaded again: tensor weight: shape \(3,\) where \(\) belongs"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")  # the first check makes what the others find


def test_the_smallest_baseline_keeps_the_contract(data):
    testing.check_baseline(Small, data=data)
    testing.check_baseline(Small, tasks.get("lorenz63-partial", "tiny"), data, rate=0.2, widths=(2,))


def test_it_makes_the_data_that_it_is_not_given():
    testing.check_baseline(Small)


@pytest.mark.parametrize(("cls", "message"), BROKEN, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_broken_clause_is_named(data, cls, message):
    with pytest.raises(AssertionError, match=f"{cls.__name__} on lorenz63-noisy: .*{message}"):
        testing.check_baseline(cls, data=data)


def test_a_broken_clause_of_its_emulator_is_named(data):
    with pytest.raises(AssertionError, match="Half on lorenz63-noisy: .*dtype torch.float16"):
        testing.check_baseline(Wrong, data=data)


def test_a_setting_that_does_not_exist_is_refused(data):
    with pytest.raises(EmubenchError, match="unknown setting of Small 'steps'"):
        testing.check_baseline(Small, data=data, steps=3)
