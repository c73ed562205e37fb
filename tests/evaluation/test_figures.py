"""What is collected for plots: densities, spectra, bands, ranks, heights against closed forms; sizes and failures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emubench.data import dataset, tasks
from emubench.evaluation.figures import BINS, HEIGHT_LEADS, REACH, Collector, growth_times
from emubench.evaluation.scoring import forecast_shapes, load_truth, score_forecast
from emubench.files.run_files import Comparison, Figures
from emubench.leaderboard.plots import tracy_widom
from emubench.metrics import Pool, Truth

NAN = float("nan")


@pytest.fixture(scope="module")
def truths(data):
    """The truth of both splits of a task, the climate of kpz cut short."""

    def get(name: str) -> dict[str, Truth]:
        task, found = tasks.get(name, "tiny"), {}
        for split in ("test", "climate"):
            values, start, _ = load_truth(task, data, split)
            values = values[:, :600] if split == "climate" and task.system.stochastic else values
            pool = Pool(task, values[start == 0]) if split == "climate" else None
            found[split] = Truth(task, values, start, pool)
        return found

    return get


def collect(truths: dict[str, Truth], change=lambda values: values, members: int = 1) -> Figures:
    """The figures of a run that is the truth, changed."""
    collector = Collector(truths["test"].task)
    for split, truth in truths.items():
        run = change(truth.values.clone())[None]
        collector.add(split, run.expand(members if split == "test" else 1, *run.shape[1:]), truth)
    content = collector.content()
    json.dumps(content, allow_nan=False)
    return Figures.model_validate(content)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz63-partial", "lorenz96-partial", "kpz-noisy"])
def test_the_truth_itself_lies_on_the_truth_and_in_the_band(truths, name):
    figures = collect(truths(name))
    ring = bool(tasks.get(name).system.grid)
    components = 1 if ring else tasks.get(name).shape[0]
    assert len(figures.density) == len(figures.temporal_spectrum) == components
    assert (figures.spatial_spectrum is not None) == ring
    assert figures.lost == 0
    for curve in [*figures.density, *figures.temporal_spectrum, *([figures.spatial_spectrum] if ring else [])]:
        assert curve.run == curve.truth
        assert all(lo <= t <= hi for lo, t, hi in zip(curve.low, curve.truth, curve.high, strict=True))


def test_densities_are_densities_of_sigmas(truths):
    figures = collect(truths("lorenz63-noisy"), lambda values: values * 0 + torch.tensor([0.0, 0.0, 23.55]))
    task = tasks.get("lorenz63-noisy", "tiny")
    for c, curve in enumerate(figures.density):
        width = 2 * REACH / BINS
        assert sum(curve.truth) * width == pytest.approx(1, abs=1e-4)
        mean = sum(x * d for x, d in zip(curve.x, curve.truth, strict=True)) * width
        known = truths("lorenz63-noisy")["climate"].values[..., c].mean() - task.system.mean[c]
        assert mean == pytest.approx(float(known) / task.system.std[c], abs=1e-3)
        assert curve.run is not None
        assert np.count_nonzero(curve.run) == 1  # a constant


def test_a_sine_is_a_line_at_its_frequency(truths):
    found = truths("lorenz96-noisy")
    step, frequency = found["test"].task.lead_time_step, 1.7

    def wave(values: torch.Tensor) -> torch.Tensor:
        t = torch.arange(values.shape[1], dtype=torch.float64) * step
        x = 2 * math.pi * torch.arange(40) / 40
        return 2.34 + torch.sin(2 * math.pi * frequency * t[:, None] + 5 * x).expand_as(values)

    figures = collect(found, wave)
    (temporal,), spatial = figures.temporal_spectrum, figures.spatial_spectrum
    assert temporal.x[int(np.argmax(temporal.run))] == pytest.approx(frequency, abs=temporal.x[0])
    assert spatial is not None
    assert spatial.x[int(np.argmax(spatial.run))] == 5


def test_bands_shrink_as_the_root_of_the_number_of_cases_and_hold_another_sample(data):
    task = tasks.get("lorenz96-noisy", "tiny")
    values, start, _ = load_truth(task, data, "climate")
    halves = [values[:4], values[4:]]
    figures = collect({s: Truth(task, halves[1], start[4:], Pool(task, halves[0])) for s in ("test", "climate")})
    spatial = figures.spatial_spectrum
    assert spatial is not None
    inside = [lo <= v <= hi for lo, v, hi in zip(spatial.low, spatial.run or [], spatial.high, strict=True)]
    assert np.mean(inside) > 0.8  # 99 % but for the error of a standard deviation of four
    whole = collect({s: Truth(task, values, start, Pool(task, values)) for s in ("test", "climate")}).spatial_spectrum
    assert whole is not None
    widths = [np.mean(np.log(np.array(c.high) / np.array(c.low))) for c in (spatial, whole)]
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(2), rel=0.35)


def test_lost_runs_are_counted_and_left_out(truths):
    def lose(values: torch.Tensor) -> torch.Tensor:
        values[:2, -1, 0] = NAN
        return values

    figures = collect(truths("lorenz63-noisy"), lose)
    assert figures.lost == 2 / 8
    assert figures.density[0].run is not None
    figures = collect(truths("lorenz63-noisy"), lambda values: values * NAN)
    assert figures.lost == 1
    assert all(curve.run is None for curve in (*figures.density, *figures.temporal_spectrum))


def test_chunks_add_up(truths):
    found = truths("kpz-noisy")
    whole, parts = Collector(found["test"].task), Collector(found["test"].task)
    for split, truth in found.items():
        forecast = (truth.values + 0.1 * torch.randn(truth.values.shape, generator=torch.manual_seed(0)))[None]
        whole.add(split, forecast, truth)
        for cases in (slice(0, 3), slice(3, None)):
            part = Truth(truth.task, truth.values[cases], truth.start[cases], truth.pool)
            parts.add(split, forecast[:, cases], part)
    one, two = (Figures.model_validate(c.content()) for c in (whole, parts))
    for a, b in zip(one.rank_histogram, two.rank_histogram, strict=True):
        assert a.frequency == pytest.approx(b.frequency, rel=1e-5)
    for a, b in zip([*one.heights, *one.density], [*two.heights, *two.density], strict=True):
        assert a.run == pytest.approx(b.run, rel=1e-5)


def test_heights_are_those_of_flat_cases_in_units_of_their_growth(truths):
    found = truths("kpz-noisy")
    figures = collect(found, members=4)
    assert [curve.time for curve in figures.heights] == [16, 64, 128]
    assert growth_times(found["test"].task)[1] == (64, pytest.approx((1.5 * 64) ** (1 / 3)))
    flat = found["test"].values[found["test"].start == 1][:, HEIGHT_LEADS[0] - 1]
    first = figures.heights[0]
    width = first.x[1] - first.x[0]
    mean, square = (sum(x**k * d for x, d in zip(first.x, first.truth, strict=True)) * width for k in (1, 2))
    assert mean == pytest.approx(0, abs=0.01)
    assert square == pytest.approx(float(flat.var()) / (1.5 * 16) ** (2 / 3), abs=0.02)
    assert square == pytest.approx(tracy_widom.VARIANCE * tracy_widom.FLAT_SCALE**2, rel=0.4)  # 8 interfaces
    assert first.run == first.truth
    assert not collect(truths("lorenz96-noisy")).heights


def test_a_wrong_velocity_shifts_the_heights(truths):
    figures = collect(truths("kpz-noisy"), lambda values: values + 2.0)
    curve, width = figures.heights[0], figures.heights[0].x[1] - figures.heights[0].x[0]
    mean = sum(x * d for x, d in zip(curve.x, curve.run or [], strict=True)) * width
    assert mean == pytest.approx(2 / (1.5 * 16) ** (1 / 3), abs=0.02)


def test_ranks_are_kept_per_lead(truths):
    figures = collect(truths("kpz-noisy"), lambda values: values.roll(1, 0), members=3)
    assert [ranks.lead_time for ranks in figures.rank_histogram] == [1, 2, 4, 8, 16, 32, 64, 128]
    for ranks in figures.rank_histogram:
        assert len(ranks.frequency) == 4
        assert sum(ranks.frequency) == pytest.approx(1, abs=1e-5)
        assert sum(ranks.frequency[1:3]) < 1e-9  # equal members: the truth is below or above all


def test_members_are_kept_by_their_mean_and_spread_and_the_context_with_its_gaps(truths):
    truth = truths("kpz-noisy")["test"]
    forecast = torch.stack([truth.values + shift * torch.sign(torch.arange(256.0) - 127.5) for shift in (-1.0, 3.0)])
    context = torch.arange(100.0)[:, None].repeat(1, 256)
    context[-1, 0] = NAN
    collector = Collector(truth.task)
    collector.add("test", forecast, truth, context)
    figures = Figures.model_validate(collector.content())
    assert figures.lead_time == [2.0 * k for k in range(1, 65)]
    assert np.allclose(figures.spread, 2.0, atol=1e-3)
    deviations = truth.values[0, 1:128:2] - truth.values[0, 1:128:2].mean(1, keepdim=True)
    assert np.allclose(np.array(figures.mean)[:, 128:], deviations[:, 128:] + 1, atol=1e-3)
    assert [row[1] for row in figures.context] == [99.0 - 2 * k for k in range(16)][::-1]
    assert figures.context[-1][0] is None


@pytest.mark.parametrize("name", ["lorenz96-partial", "lorenz63-noisy"])
def test_the_context_of_a_forecast_file_is_kept_too(data, tmp_path, name):
    task = tasks.get(name, "tiny")
    shapes = forecast_shapes(task)
    np.savez(tmp_path / "forecast.npz", **{split: np.zeros(shape, "f4") for split, shape in shapes.items()})
    found = Figures.model_validate(score_forecast(tmp_path / "forecast.npz", task, data).figures)
    shown = np.array(found.context, dtype=float)
    context = dataset.load(task, data).context("test")[0].numpy()
    assert len(shown) == min(task.context, len(found.lead_time) // 4)
    np.testing.assert_allclose(shown, context[-len(shown) :], atol=1e-3)


def test_figures_stay_small(truths):
    for name, most in (("kpz-noisy", 0.7e6), ("lorenz63-noisy", 0.2e6)):
        assert len(collect(truths(name)).model_dump_json()) < most


@pytest.mark.parametrize(
    "change", [{"run": [1.0]}, {"low": []}, {"truth": [NAN, 1.0]}, {"x": [0.0] * 5000}, {"surprise": 1}]
)
def test_broken_curves_are_refused(change):
    sound = {"x": [0.0, 1.0], "run": [1.0, 1.0], "truth": [1.0, 1.0], "low": [0.0, 0.0], "high": [2.0, 2.0]}
    assert Comparison.model_validate(sound).run == [1.0, 1.0]
    with pytest.raises(ValidationError):
        Comparison.model_validate(sound | change)
