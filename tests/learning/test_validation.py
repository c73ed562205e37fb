"""The error of short forecasts: against figures worked out by hand."""

import dataclasses

import pytest
import torch

from emubench.data import dataset, tasks
from emubench.learning.training.validation import forecast_error


class Constant:
    """Forecasts one value for ever, and remembers what it was asked."""

    def __init__(self, value: float) -> None:
        self.value, self.shapes = value, []

    def forecast(self, context, n_steps, n_members, generator):
        self.shapes.append((*context.shape, n_steps))
        return torch.full((1, len(context), n_steps, context.shape[-1]), self.value, dtype=torch.float64)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_forecast_that_is_not_finite_counts_as_wrong(data, value):
    loaded = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    assert forecast_error(Constant(value), loaded, 4, 1.0) == 4.0


@pytest.mark.parametrize(("off", "error"), [(1.5, 2.25), (-0.5, 0.25), (3.0, 4.0)])
def test_the_error_is_that_of_what_was_observed_in_standard_deviations(data, off, error):
    loaded = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    truth = (loaded.mean + off * loaded.std).expand(loaded.validation.shape).clone()
    truth[:, ::2] = float("nan")
    constant = Constant(0.0)
    shifted = dataclasses.replace(loaded, validation=truth - loaded.mean)
    assert forecast_error(constant, shifted, 4, 1.0) == pytest.approx(error, rel=1e-12)


def test_contexts_and_horizons_fit_into_short_data(data):
    loaded = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    length, asked = loaded.validation.shape[1], Constant(0.0)
    forecast_error(asked, loaded, 10 * length, 1e6, often=2)
    ((cases, context, _, steps),) = asked.shapes
    assert (context, steps) == (length // 3, length - length // 3)
    assert cases <= 8


def test_a_growing_height_is_compared_less_its_mean(data):
    """Two forecasts that differ by a height err by the same."""
    loaded = dataset.load(tasks.get("kpz-clean", "tiny"), data)
    low, high = (forecast_error(Constant(value), loaded, 4, 1.0) for value in (0.0, 50.0))
    assert low == pytest.approx(high, rel=1e-12)
