"""The contract of a System holds for every system of the package, and a system that breaks it is told so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from emubench import systems, testing
from emubench.dynamics.schemes import euler
from emubench.dynamics.system import Climate, Fact
from emubench.systems.kpz import KPZ
from emubench.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from emubench.systems.lorenz63 import Lorenz63
from emubench.systems.lorenz96 import Lorenz96
from tests.support.wrong_systems import (
    CentralKPZ,
    CoupledLorenz63,
    DampedLorenz63,
    DampedLorenz96,
    FastKS,
    FastLorenz96,
    NoisyKPZ,
    RelaxedLorenz63,
    ViscousKPZ,
    ViscousKS,
)


@pytest.mark.parametrize("name", systems.names())
def test_every_system_keeps_the_contract(name):
    testing.check_system(systems.get(name))


# --- systems with one wrong term -----------------------------------------------------------------------------------

COARSE = {
    "lorenz63": (0.01, 256, 256),
    "lorenz96": (0.025, 128, 128),
    "kuramoto_sivashinsky": (0.25, 64, 128),
    "kpz": (0.1, 64, 128),
}
"""Solver step, trajectories and samples for the wrong variants of a system: coarse and few, to be quick."""


def failing_facts(cls) -> set[str]:
    """Names of the facts that are off by more than four standard errors of the smaller number of samples used here."""
    step, n_trajectories, n_samples = COARSE[next(name for name in COARSE if cls.name.startswith(name))]
    system = cls(solver_step=step, climate=cls.reference_climate)
    measured = testing.measure_facts(system, n_trajectories, n_samples, reference=True)
    wider = (256 * 256 / (n_trajectories * n_samples)) ** 0.5
    return {name for name, m in measured.items() if not abs(m.measured - m.value) <= wider * m.tolerance}


WRONG = [
    (DampedLorenz63, "<xy> / (beta <z>)"),
    (RelaxedLorenz63, "<xy (rho - z)> / <y^2>"),
    (CoupledLorenz63, "<x (x (rho - z) - y)> / (sigma <y (x - y)>)"),
    (DampedLorenz96, "<x^2> / (F <x>)"),
    (FastLorenz96, "<x_i (x_(i+1) - x_(i+2))> / (F - <x>)"),
    (ViscousKS, "<u_x^2> / <u_xx^2>"),
    (FastKS, "std"),
    (CentralKPZ, "velocity"),
    (NoisyKPZ, "slope variance / (D / (nu dx))"),
    (ViscousKPZ, "slope variance / (D / (nu dx))"),
]


@pytest.mark.parametrize(
    ("cls", "fact"),
    [pytest.param(*one, id=one[0].name, marks=[pytest.mark.slow] if "KPZ" in one[0].__name__ else []) for one in WRONG],
)
def test_a_wrong_term_fails_a_fact(cls, fact):
    assert fact in failing_facts(cls)


@pytest.mark.parametrize(
    "cls",
    [Lorenz63, Lorenz96, KuramotoSivashinsky, pytest.param(KPZ, marks=pytest.mark.slow)],
    ids=lambda cls: cls.name,
)
def test_the_right_terms_fail_none_at_the_same_size(cls):
    assert failing_facts(cls) == set()


# --- systems that break another clause -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Decay(Lorenz63):
    """Three decaying, forced components: the smallest system that keeps the contract; variants below break it."""

    solver_step: float = 0.025

    name = "decay"
    schemes = ("rk4", "euler")
    reference_climate = Climate(mean=(1.0, 1.0, 1.0), std=(1.0, 1.0, 1.0), time_unit=1.0)

    def rhs(self, state):
        return 1 - state

    def symmetries(self):
        return {"permutation": lambda u: u.flip(-1)}

    @property
    def facts(self):
        return (Fact("<x>", 1.0, 0.01, "exact: the fixed point", lambda s, u: u.mean()),)


class OneFalseFact(Decay):
    facts = (Fact("<x>", 1.1, 0.01, "a guess", lambda s, u: u.mean()),)


class NanFact(Decay):
    facts = (Fact("<x>", 1.0, 0.01, "a guess", lambda s, u: u.mean() * float("nan")),)


class NoMeasurableFact(Decay):
    facts = (Fact("<x>", 1.0, 0.01, "a guess"),)


class FactWithoutSource(Decay):
    facts = (Fact("<x>", 1.0, 0.01, "", lambda s, u: u.mean()),)


class WrongShapeOfDraw(Decay):
    def draw(self, rng, start):
        return rng.standard_normal(4)


class DrawFromNowhere(Decay):
    def draw(self, rng, start):
        return np.random.default_rng().standard_normal(3)


class ConstantDraw(Decay):
    def draw(self, rng, start):
        return np.ones(3)


class AsymmetricRhs(Decay):
    def symmetries(self):
        return {"sign": lambda u: -u}


class BatchMean(Decay):
    def rhs(self, state):
        return 1 - state.mean(0, keepdim=True).expand_as(state)


class DoubleOnly(Decay):
    def rhs(self, state):
        return 1 - state.double()


class Detached(Decay):
    def rhs(self, state):
        return 1 - state.detach()


class InPlace(Decay):
    def step(self, step, scheme, dtype, device):
        return lambda u, noise=None: u.mul_(1 - step)


class WrongEuler(Decay):
    def step(self, step, scheme, dtype, device):
        right = super().step(step, scheme, dtype, device)
        return euler(lambda u: 2 * self.rhs(u), step) if scheme == "euler" else right


class NeverLost(Decay):
    def fault(self, samples):
        return None


BROKEN = [
    (OneFalseFact, "fact '<x>': measured 1, known 1.1"),
    (NanFact, "fact '<x>': measured nan"),
    (NoMeasurableFact, "no fact can be measured"),
    (FactWithoutSource, "needs a finite value, a positive tolerance and a source"),
    (WrongShapeOfDraw, r"draw 'attractor' has shape \(4,\), not \(3,\)"),
    (DrawFromNowhere, "differs between equal streams"),
    (ConstantDraw, "the same for different streams"),
    (AsymmetricRhs, "symmetry 'sign' does not commute"),
    (BatchMean, "depends on the others of its batch"),
    (DoubleOnly, "turns float32 into torch.float64"),
    (Detached, "the derivative of a rk4 step is wrong"),
    (InPlace, "changes its argument"),
    (WrongEuler, "scheme euler is 100% off rk4"),
    (NeverLost, "returns a solution that is not finite"),
]


def test_the_smallest_system_keeps_the_contract():
    testing.check_system(Decay(), n_trajectories=2, n_samples=2)


@pytest.mark.parametrize(("cls", "message"), BROKEN, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_broken_clause_is_named(cls, message):
    with pytest.raises(AssertionError, match=f"decay: .*{message}"):
        testing.check_system(cls(), n_trajectories=2, n_samples=2)


class CommonNoise(KPZ):
    """All trajectories get the noise of the first."""

    name = "kpz_common_noise"

    def step(self, step, scheme, dtype, device):
        right = super().step(step, scheme, dtype, device)
        return lambda h, noise=None: right(h, noise[:1].expand_as(noise))


class Tilted(KPZ):
    """The strength of the noise grows along the ring."""

    name = "kpz_tilted"

    def step(self, step, scheme, dtype, device):
        right = super().step(step, scheme, dtype, device)
        weight = torch.linspace(0.5, 1.5, self.n_sites, dtype=dtype)
        return lambda h, noise=None: right(h, None if noise is None else noise * weight)


class Quiet(KPZ):
    """Works without noise."""

    name = "kpz_quiet"

    def step(self, step, scheme, dtype, device):
        right = super().step(step, scheme, dtype, device)
        return lambda h, noise=None: right(h, torch.zeros_like(h) if noise is None else noise)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (CommonNoise, "depends on the others of its batch"),
        (Tilted, "symmetry 'translation by 7 sites' does not commute"),
        (Quiet, "works without noise"),
    ],
)
def test_a_broken_clause_of_a_stochastic_system_is_named(cls, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_system(cls(n_sites=16, climate=cls.reference_climate), n_trajectories=2, n_samples=2)


def test_facts_are_the_same_for_the_same_seed_and_differ_between_seeds():
    system = dataclasses.replace(systems.get("lorenz63"), solver_step=0.01)
    first, again, other = (testing.measure_facts(system, 4, 8, seed) for seed in (0, 0, 1))
    assert first == again
    assert all(first[name].measured != other[name].measured for name in first)
