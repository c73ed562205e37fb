"""Growth between twins of an emulator, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.evaluation.error_growth import twin_growth
from tests.support.steppers import MapStepper, Noisy, attractor, normal, true_stepper


@pytest.mark.parametrize("factor", [1.1, 1.7, 30.0])
def test_twins_of_a_linear_map_separate_at_its_rate(factor):
    context, std = normal(7, 20, 3, 4), torch.tensor([1.0, 2.0, 0.5, 3.0])
    found = twin_growth(MapStepper(lambda u: factor * u), context, std, 80)
    assert found.times.numpy() == pytest.approx(math.log(10) / math.log(factor), rel=1e-6)
    assert found.never == 0
    wider = twin_growth(MapStepper(lambda u: factor * u), context, std, 80, lower=0.02, upper=0.06)
    assert wider.times.numpy() == pytest.approx(math.log(3) / math.log(factor), rel=1e-6)


def test_twins_that_never_separate_count_as_the_horizon():
    found = twin_growth(MapStepper(lambda u: 0.9 * u), normal(8, 5, 1, 3), torch.ones(3), 12)
    assert found.times.tolist() == [12.0] * 5
    assert found.never == 1


def test_the_wait_before_the_lower_threshold_does_not_count():
    found = twin_growth(MapStepper(lambda u: 2 * u), normal(9, 5, 1, 3), torch.ones(3), 4)
    assert found.never == 1  # 2^4 thousandths are under a tenth
    assert found.times.tolist() == [4.0] * 5
    longer = twin_growth(MapStepper(lambda u: 2 * u), normal(9, 5, 1, 3), torch.ones(3), 10)
    assert longer.times.numpy() == pytest.approx(math.log2(10))


def test_a_lost_twin_is_a_crossing():
    class Lost(MapStepper):
        def forecast(self, context, n_steps, n_members, generator):
            forecast = super().forecast(context, n_steps, n_members, generator)
            forecast[:, 0, 5:] = torch.nan
            return forecast

    found = twin_growth(Lost(lambda u: 1.01 * u), normal(10, 3, 1, 3), torch.ones(3), 40)
    assert found.times[0] == 0
    assert found.times[1:].tolist() == [40.0, 40.0]


def test_stochastic_twins_are_refused():
    noisy = Noisy(lambda u: u)
    with pytest.raises(EmubenchError, match="Noisy: growth between twins: not available, as it is stochastic"):
        twin_growth(noisy, normal(11, 3, 1, 3), torch.ones(3), 4)
    with pytest.raises(EmubenchError, match="perturbation, lower, upper"):
        twin_growth(MapStepper(lambda u: u), normal(11, 3, 1, 3), torch.ones(3), 4, perturbation=0.05)


def test_twins_of_lorenz96_grow_like_its_first_exponent():
    """At these sizes the growth is still nearly that of infinitesimal errors, ln 10 / λ₁."""
    system = systems.get("lorenz96")
    emulator = true_stepper(system, 0.05)
    found = twin_growth(emulator, attractor(system, 64), torch.from_numpy(system.std), 80)
    exponent = math.log(10) / (found.mean.value * system.sample_interval)
    assert exponent == pytest.approx(1.69, rel=0.15)
    assert found.never == 0
