"""The contract of a metric: the smallest one keeps it, and one that breaks a clause is told which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emubench import testing
from emubench.data import tasks
from emubench.metrics import LOST, Row, Summary
from emubench.testing.metrics import KINDS, _Scorer, _truth

ROW = Row("mean_error", None, "1", better=-1)
TASK = tasks.get("lorenz63-noisy", "tiny")


class MeanError:
    """The mean absolute error in σ, capped where a forecast is lost; variants below break the contract."""

    split = "test"
    row = ROW

    @classmethod
    def applies(cls, task):
        return True

    @classmethod
    def error(cls, forecast, truth):
        error = ((forecast.mean(0, dtype=torch.float64) - truth.values) / truth.std).abs()
        return error.nan_to_num(LOST).clamp(max=LOST).flatten(1).mean(1, keepdim=True)

    @classmethod
    def summarise(cls, forecast, truth):
        return Summary(cls.error(forecast, truth), (cls.row,))


class WithoutApplies:
    split, summarise = "test", MeanError.summarise


class OtherSplit(MeanError):
    split = "validation"


class Undecided(MeanError):
    @classmethod
    def applies(cls, task):
        return task.system.stochastic or None


class ForNobody(MeanError):
    @classmethod
    def applies(cls, task):
        return False


class Bare(MeanError):
    @classmethod
    def summarise(cls, forecast, truth):
        return cls.error(forecast, truth)


class OneNumber(MeanError):
    """Averages over cases itself."""

    @classmethod
    def error(cls, forecast, truth):
        return super().error(forecast, truth).mean(0, keepdim=True)


class Single(MeanError):
    @classmethod
    def error(cls, forecast, truth):
        return super().error(forecast, truth).float()


class Twins(MeanError):
    @classmethod
    def summarise(cls, forecast, truth):
        return Summary(cls.error(forecast, truth).repeat(1, 2), (ROW, ROW))


class FlatFinish(MeanError):
    @classmethod
    def summarise(cls, forecast, truth):
        return Summary(cls.error(forecast, truth), (ROW,), lambda mean: mean.sum(-1))


class SharedFinish(MeanError):
    """Looks at all resamples together."""

    @classmethod
    def summarise(cls, forecast, truth):
        return Summary(cls.error(forecast, truth), (ROW,), lambda mean: mean / mean.max())


class WrongColumn(MeanError):
    @classmethod
    def summarise(cls, forecast, truth):
        return Summary(cls.error(forecast, truth), (ROW,), headline={"mean_error": 1})


class InPlace(MeanError):
    @classmethod
    def error(cls, forecast, truth):
        return super().error(forecast.nan_to_num_(0.0), truth)


class TruthInPlace(MeanError):
    @classmethod
    def error(cls, forecast, truth):
        truth.values.add_(1e-3)
        return super().error(forecast, truth)


class NanSkipping(MeanError):
    """Averages over what is left: a forecast gets better by failing where it is bad."""

    @classmethod
    def error(cls, forecast, truth):
        error = ((forecast.double().mean(0) - truth.values) / truth.std).abs().clamp(max=LOST)
        return error.flatten(1).nanmean(1, keepdim=True).nan_to_num(LOST)


class PassedOn(MeanError):
    """Passes NaN on."""

    @classmethod
    def error(cls, forecast, truth):
        error = ((forecast.mean(0, dtype=torch.float64) - truth.values) / truth.std).abs().clamp(max=LOST)
        return error.flatten(1).mean(1, keepdim=True)


class WrongSign(MeanError):
    row = ROW._replace(better=1)


class Overstated(MeanError):
    """Says a narrower range than it has."""

    row = ROW._replace(bounds=(0.0, 1.0))


class ZeroIsBest(MeanError):
    """Distance from the climatological mean: standing still there is best."""

    @classmethod
    def error(cls, forecast, truth):
        error = ((forecast.mean(0, dtype=torch.float64) - truth.mean) / truth.std).abs()
        return error.nan_to_num(LOST).clamp(max=LOST).flatten(1).mean(1, keepdim=True)


class CheapEnd(MeanError):
    """Who fails from the start gets away with less than who is far off."""

    @classmethod
    def error(cls, forecast, truth):
        alive = bool(torch.isfinite(forecast[..., 0, :]).any())
        return super().error(forecast, truth) if alive else torch.ones(len(truth.values), 1, dtype=torch.float64)


class Rivals(MeanError):
    """Each case beside the mean of all."""

    @classmethod
    def error(cls, forecast, truth):
        error = super().error(forecast, truth)
        return error / (1 + error.mean())


class FirstMember(MeanError):
    @classmethod
    def error(cls, forecast, truth):
        failed = ~torch.isfinite(forecast).all(0, keepdim=True)
        return super().error(torch.where(failed, float("nan"), forecast[:1]), truth)


class OneSided(MeanError):
    """Only what lies above the truth counts, which a symmetry turns into what lies below."""

    @classmethod
    def error(cls, forecast, truth):
        error = ((forecast.mean(0, dtype=torch.float64) - truth.values) / truth.std).clamp(min=0)
        failed = ~torch.isfinite(forecast).all(0)
        return torch.where(failed, LOST, error).clamp(max=LOST).flatten(1).mean(1, keepdim=True)


class LowPrecision(MeanError):
    """Works in the precision that it is given, with a large offset."""

    @classmethod
    def error(cls, forecast, truth):
        offset = 1e7 * torch.ones((), dtype=forecast.dtype)
        return super().error((forecast + offset) - offset, truth)


BROKEN = [
    (WithoutApplies, "defines no applies"),
    (OtherSplit, "split is 'validation', where one of test, climate, widths belongs"),
    (Undecided, r"applies\(task\) is neither True nor False"),
    (ForNobody, "applies to none of lorenz63-noisy"),
    (Bare, r"summarise\(\) returns Tensor, not a Summary"),
    (OneNumber, r"cases are \(1, 1\) of torch.float64, where \(8, K\)"),
    (Single, r"cases are \(8, 1\) of torch.float32"),
    (Twins, "two have one name"),
    (FlatFinish, r"finish\(\) turns means \(3, 1\) into \(3,\), where \(3, 1\) belongs"),
    (SharedFinish, r"finish\(\) depends on the other means"),
    (WrongColumn, "headline mean_error is column 1 of 1"),
    (InPlace, r"summarise\(\) changes the forecast"),
    (TruthInPlace, r"summarise\(\) changes the truth"),
    (NanSkipping, "failing pays: mean_error goes from"),
    (PassedOn, "mean_error is not a number for a drifting forecast that becomes"),
    (WrongSign, "failing pays: mean_error goes from"),
    (Overstated, r"mean_error is \S+, outside its own range 0 … 1"),
    (ZeroIsBest, "mean_error: the truth scores .*, a .* forecast"),
    (CheapEnd, "failing pays: mean_error is 1 if all fails, .* for a .* forecast"),
    (Rivals, "the scores of a case depend on the others"),
    (FirstMember, "scores depend on the order of the members"),
    (OneSided, "images under a symmetry of the system score otherwise"),
    (LowPrecision, "a forecast in single precision scores otherwise"),
]


def test_the_smallest_metric_keeps_the_contract():
    testing.check_metric(MeanError)
    testing.check_metric(MeanError, tasks.get("lorenz63-partial", "tiny"))


@pytest.mark.parametrize(("cls", "message"), BROKEN, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_broken_clause_is_named(cls, message):
    with pytest.raises(AssertionError, match=f"^{cls.__name__}.*: .*{message}"):
        testing.check_metric(cls, TASK)


def test_failing_may_pay_where_it_is_said_to():
    testing.check_metric(NanSkipping, TASK, exempt={"mean_error"})
    with pytest.raises(AssertionError, match="failing pays"):
        testing.check_metric(NanSkipping, TASK, exempt={"median_error"})


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-partial"])
def test_its_forecasts_are_as_wrong_as_they_are_named(name):
    """What the checks look at: else they could not fail."""
    scorer = _Scorer(MeanError, _truth(tasks.get(name, "tiny"), "test"), "", frozenset())
    errors = {kind: scorer.scores(scorer.forecast(kind))[ROW] for kind in (*KINDS, "truth")}
    assert errors["truth"] == 0
    assert 0.05 < errors["drifting"] < errors["loud"]
    assert 0.8 < errors["noise"] < errors["loud"] < errors["shifted"] < LOST
    assert np.isclose(errors["shifted"], 6, atol=0.1)
    assert 0.5 < errors["frozen"] < 2
