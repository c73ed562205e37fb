"""The error of short forecasts: against figures worked out by hand."""

import pytest
import torch

from emubench import dataset
from emubench import task as tasks
from emubench.validation import forecast_error


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


def test_the_mean_as_a_forecast_errs_by_the_variance(data):
    loaded = dataset.load(tasks.get("lorenz96-partial", "tiny"), data)
    found = forecast_error(Constant(float(loaded.mean.mean())), loaded, 4, 1.0)
    values = loaded.validation[~torch.isnan(loaded.validation)]
    expected = ((values - loaded.mean.mean()) / loaded.std.mean()).square().clamp(max=4).mean()
    assert found == pytest.approx(float(expected), rel=0.25)


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
