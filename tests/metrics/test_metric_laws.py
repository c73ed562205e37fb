"""Laws of every metric: failing never pays, and a case's scores do not depend on the other cases nor on any order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emubench import metrics
from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.metrics import Pool, Row, Truth

NAN, INF = float("nan"), float("inf")
TASKS = ["lorenz63-noisy", "lorenz96-partial", "kpz-noisy"]
PAIRS = [(m, t) for m in metrics.names() for t in TASKS if metrics.get(m).applies(tasks.get(t))]
ASPECTS = ("w1", "spatial_spectrum", "temporal_spectrum", "patches")
EXEMPT = {"dead_fraction"}
"""Who fails instead of standing still is no longer dead. Scores that are best in between are not tested either."""
FORECASTS = ["drifting", "noise", "loud", "shifted", "frozen"]


@pytest.fixture(scope="module")
def truth_of(data):
    """The truth of a task's split, of 2 or 8 cases and at most 300 samples, to be quick; of climates 80."""
    made = {}

    def get(name: str, split: str) -> Truth:
        if (name, split) not in made:
            task = tasks.get(name, "tiny")
            values, start, _ = scoring.load_truth(task, data, split)
            n = 2 if task.system.stochastic else 8
            values, start = values[:n, : 80 if split == "climate" else 300], start[:n]
            pool = Pool(task, values[start == 0]) if split == "climate" else None
            made[name, split] = Truth(task, values, start, pool, reference(pool))
        return made[name, split]

    def reference(pool: Pool | None) -> dict:
        floors, anchors = dict.fromkeys(ASPECTS, 0.05), dict.fromkeys(ASPECTS, 1.0)
        return {"d_floor": {"tiny": floors}, "d_zero": anchors} if pool else {}

    return get


def make(kind: str, truth: Truth, m: int) -> torch.Tensor:
    """A forecast ``"M B T *S"``, sound but more or less wrong."""
    generator = torch.Generator().manual_seed(FORECASTS.index(kind))
    shape = (m, *truth.values.shape)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64) * truth.std
    if kind == "noise":
        return truth.mean + noise
    if kind == "loud":
        return truth.mean + 3 * noise
    if kind == "shifted":
        return (truth.values + 6 * truth.std)[None] + 0.1 * noise
    if kind == "frozen":
        return truth.values[None, :, :1].expand(shape).clone()
    time = torch.arange(truth.values.shape[1], dtype=torch.float64).reshape(-1, *[1] * (truth.values.ndim - 2))
    return truth.values[None] + 0.02 * torch.exp(0.05 * time).clamp(max=100) * noise


def scores(module, forecast, truth: Truth) -> dict[Row, float]:
    summary = module.summarise(forecast, truth)
    values = summary.finish(summary.cases.mean(0)).tolist()
    return dict(zip(summary.rows, values, strict=True))


@pytest.mark.parametrize(("metric", "name"), PAIRS)
@pytest.mark.parametrize("kind", FORECASTS)
@settings(max_examples=6)
@given(choice=st.data())
def test_failing_never_pays(truth_of, metric, name, kind, choice):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    m = truth.task.n_members(module.split)
    forecast = make(kind, truth, m)
    before = scores(module, forecast, truth)
    cases = choice.draw(st.lists(st.integers(0, len(truth.values) - 1), min_size=1, max_size=4), label="cases")
    first = choice.draw(st.integers(0, truth.values.shape[1] - 1), label="first failed sample")
    bad = choice.draw(st.sampled_from([NAN, INF, -INF, 1e308]), label="value")
    member = choice.draw(st.integers(0, m - 1), label="member")
    for case in cases:
        forecast[member, case, first:] = bad
    after = scores(module, forecast, truth)
    for key, value in before.items():
        assert after[key] == after[key], f"{key} is not a number"
        if key.metric not in EXEMPT:
            gain = key.better * (after[key] - value)
            assert gain <= 1e-9 * (1 + abs(value)), f"{key}: {value} became {after[key]}"


@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_a_forecast_that_fails_everywhere_scores_worst(truth_of, metric, name):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    m = truth.task.n_members(module.split)
    failed = scores(module, torch.full((m, *truth.values.shape), NAN, dtype=torch.float64), truth)
    for kind in FORECASTS:
        for key, value in scores(module, make(kind, truth, m), truth).items():
            if key.metric not in EXEMPT:
                assert key.better * (failed[key] - value) <= 1e-9, f"{kind}: {key}"


@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_cases_do_not_depend_on_their_order_nor_on_each_other(truth_of, metric, name):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    forecast = make("drifting", truth, truth.task.n_members(module.split))
    forecast[0, 1, 50:] = NAN
    whole = module.summarise(forecast, truth).cases
    order = torch.randperm(len(truth.values), generator=torch.Generator().manual_seed(0))
    for chosen in (order, order[:1], order[1:]):
        part = Truth(truth.task, truth.values[chosen], truth.start[chosen], truth.pool, truth.reference)
        cases = module.summarise(forecast[:, chosen], part).cases
        torch.testing.assert_close(cases, whole[chosen], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("metric", "name"), [(m, t) for m, t in PAIRS if metrics.get(m).split == "test"])
def test_members_do_not_depend_on_their_order(truth_of, metric, name):
    """But for which halves there are."""
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    forecast = make("drifting", truth, 4)
    one, other = (module.summarise(forecast[order], truth).cases for order in ([0, 1, 2, 3], [3, 2, 0, 1]))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("metric", "name", "symmetry"), [(m, t, s) for m, t in PAIRS for s in tasks.get(t).system.symmetries()]
)
def test_images_of_forecast_and_truth_under_a_symmetry_score_the_same(truth_of, metric, name, symmetry):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    forecast = make("drifting", truth, truth.task.n_members(module.split))
    forecast[0, 1, 50:] = NAN
    act = truth.task.system.symmetries()[symmetry]
    mirrored = Truth(truth.task, act(truth.values), truth.start, truth.pool, truth.reference)
    assert not torch.equal(mirrored.values, truth.values)
    images, plain = scores(module, act(forecast), mirrored), scores(module, forecast, truth)
    assert images == pytest.approx(plain, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_single_precision_scores_the_same(truth_of, metric, name):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    forecast = make("drifting", truth, truth.task.n_members(module.split)).float()
    single, double = scores(module, forecast, truth), scores(module, forecast.double(), truth)
    assert single == pytest.approx(double, rel=1e-6)


@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_nothing_is_changed_in_place(truth_of, metric, name):
    module = metrics.get(metric)
    truth = truth_of(name, module.split)
    forecast = make("drifting", truth, truth.task.n_members(module.split))
    copies = forecast.clone(), truth.values.clone()
    module.summarise(forecast, truth)
    assert torch.equal(forecast, copies[0])
    assert torch.equal(truth.values, copies[1])
