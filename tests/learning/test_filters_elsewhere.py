"""Filters and smoothers where their data are: as on a CPU, and the host waits for no sample."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from baselines.reservoir import nudged
from emubench.core.errors import EmubenchError
from emubench.emulator import step_forecast
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.filters.ensemble import Filter, assimilate, filtered_start, flat_until_seen, ring_localisation
from emubench.learning.filters.wiener import smoothed
from emubench.learning.training.descent import Descent, Log
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere, check_trips

N, CASES, MEMBERS, T = 6, 3, 8, 12


class Turning:
    """A Stepper: a ring whose values move on by one site and decay."""

    def start(self, context, n_members, generator):
        return torch.nan_to_num(context[:, -1])[None]

    def step(self, state, generator):
        return 0.9 * state.roll(1, -1)

    def read(self, state):
        return state

    def forecast(self, *asked):
        return step_forecast(self, *asked)


def advance(ensemble):
    return 0.9 * ensemble.roll(1, -1) + 0.1


def given():
    drawn = torch.randn(CASES, T, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn[0, :, 2] = torch.nan
    drawn[1, 4:6] = torch.nan  # of this case nothing is seen for two samples
    return drawn


def climate_filter(radius, growing=False):
    made = ClimateFilter(N, list(range(N)), MEMBERS, 1.05, radius, growing)
    made.noise.fill_(0.3)
    made.set_first(torch.randn(40, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64), generator())
    return made


def generator():
    return torch.Generator().manual_seed(3)


def by_assimilate(context):
    first = torch.randn(MEMBERS, CASES, N, generator=generator(), dtype=torch.float64).to(context.device)
    noise = context.new_full((N,), 0.3)
    return assimilate(advance, first, context, noise, lambda e: e, 1.02, None, flat_until_seen(context))


def by_own_steps(context):
    settings = Filter(MEMBERS, 1.02, 2.0)
    return filtered_start(Turning(), context, context.new_full((N,), 0.3), settings, generator(), first=3)


def by_nudging(context):
    def model(memory, values):
        return memory, advance(values)

    *_, (_, values) = nudged(model, context.new_zeros(1), context, 0.5, True, False)
    return values


FILTERS = {
    "transform": lambda context: climate_filter(0.0).to(context.device).analysis(advance, context),
    "localised": lambda context: climate_filter(2.0).to(context.device).analysis(advance, context),
    "growing": lambda context: climate_filter(2.0, growing=True).to(context.device).analysis(advance, context),
    "analyses": lambda context: climate_filter(2.0).to(context.device).analyses(advance, context),
    "fixed lag": lambda context: climate_filter(2.0).to(context.device).smoothed(advance, context, 2),
    "flat until seen": by_assimilate,
    "own steps": by_own_steps,
    "nudging": by_nudging,
    "Wiener": lambda context: smoothed(context.nan_to_num(0.1), context.new_full((N,), 0.3), 1, True)[0],
}


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_computes_where_its_data_are(name):
    here = FILTERS[name](given())
    with Elsewhere() as there:
        whole = given().to(ELSEWHERE)
        found = FILTERS[name](whole).cpu()
        less, more = (there.trips_of(lambda n=n: FILTERS[name](whole[:, -n:])) for n in (T // 2, T))
        check_trips(f"{name}: a sample", less, more, T // 2)
    assert torch.allclose(found, here, rtol=1e-12, atol=1e-12)


def test_localisation_is_the_same_on_a_small_ring():
    assert torch.equal(Filter(radius=2.0).taper(N, torch.device("cpu")), ring_localisation(N, 2.0))


@dataclass(frozen=True)
class Budget:
    steps: int = 6
    learning_rate: float = 0.1
    clip: float = 1.0
    average: float = 0.0
    checks: int = 2


def descend(layer, there, taken):
    descent = Descent(layer, Budget(), Log(), lambda: layer.weight.sum() * 0)
    for step in descent:
        taken.append(step)
        before = there.trips.copy()
        descent(layer.weight.sum() * (float("nan") if step == 5 else 1.0))
        assert there.trips == before


@pytest.mark.parametrize("device", [torch.device("cpu"), ELSEWHERE])
def test_a_loss_that_is_not_finite_is_named_by_its_step_wherever_it_is_looked_at(device):
    taken = []
    with Elsewhere() as there, pytest.raises(EmubenchError, match="training diverged at step 5 "):
        descend(nn.Linear(1, 1, bias=False).to(device), there, taken)
    assert taken == ([1, 2, 3, 4, 5] if device.type == "cpu" else [1, 2, 3, 4, 5, 6])
