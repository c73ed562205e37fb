"""The statistics of growth: 512 stationary cases against the exact law, and growth from flat against the solver's."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch

from benchmarks.maintain import freeze
from emubench import baselines, metrics, systems
from emubench.core.random import stream
from emubench.data import reference, tasks, widths
from emubench.dynamics.simulate import simulate
from emubench.evaluation import scoring
from emubench.metrics import Truth, growth, saturation
from emubench.systems.kpz import KPZ

LEADS = tasks.WIDTH_LEADS
NAN = float("nan")


def scored(module, forecast, truth: Truth) -> dict:
    summary = module.summarise(forecast, truth)
    value, low, high = scoring.bootstrap(summary, scoring.resample(truth.start))
    return {(r.metric, r.lead_time): tuple(map(float, v)) for r, *v in zip(summary.rows, value, low, high, strict=True)}


def value_of(scores: dict, metric: str, lead: float | None = None) -> float:
    return scores[metric, lead][0]


# --- the contexts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kpz-clean", "kpz-noisy", "kpz-partial"])
def test_contexts_are_observations_of_stationary_interfaces(name):
    task = tasks.get(name, "tiny")
    context = widths.contexts(task, "0")
    assert context.shape == (64, 64, 256)
    assert tasks.get(name).cases("widths") == 512
    hidden = torch.isnan(context)
    assert float(hidden.double().mean()) == (0.5 if name == "kpz-partial" else 0)
    assert (hidden == hidden[:, :1]).all()
    first, last = (context[:, t] - context[:, t].nanmean(-1, keepdim=True) for t in (0, -1))
    for sample in (first, last):
        noise = float(task.observation.noise_std(task.system)[0]) ** 2
        assert float(sample.square().nanmean()) == pytest.approx(255.996 / 12 + noise, rel=0.2)
    assert float(context[:, -1].nanmean() - context[:, 0].nanmean()) == pytest.approx(63, rel=0.03)  # it grows


def test_contexts_depend_on_seed_task_and_number_alone():
    noisy = widths.contexts(tasks.get("kpz-noisy", "tiny"), "0")
    assert torch.equal(noisy, widths.contexts(tasks.get("kpz-noisy", "tiny"), "0"))
    assert not torch.equal(noisy, widths.contexts(tasks.get("kpz-noisy", "tiny"), "1"))
    clean = widths.contexts(tasks.get("kpz-clean", "tiny"), "0")
    assert 0.4 < float((noisy - clean).std()) < 0.5  # one truth, observed with noise
    first = widths.contexts(tasks.get("kpz-clean", "tiny-4x128"), "0")
    assert torch.equal(first, clean)


def test_a_sealed_dataset_has_contexts_too():
    task = tasks.get("kpz-noisy", "tiny")
    sealed = [widths.contexts(task, f"sealed:{letter * 64}") for letter in "ab"]
    assert sealed[0].shape == (64, 64, 256)
    assert not torch.equal(*sealed)


def test_only_growth_has_widths():
    for name in tasks.names():
        task = tasks.get(name)
        assert ("widths" in task.splits) == name.startswith("kpz")
    assert tasks.get("kpz-noisy").leads("widths") == LEADS
    assert tasks.get("kpz-noisy").leads("test") == tuple(range(1, 129))


def test_the_width_has_forgotten_the_start_by_the_first_lead():
    system, n = systems.get("kpz"), 128
    rngs = [stream(3, "forget", i) for i in range(n)]
    first = np.stack([system.draw(rng, "stationary") for rng in rngs])
    last = simulate(system, first, LEADS[0], rngs)[:, -1]
    slowest = [abs(np.fft.rfft(h)[:, 1]) ** 2 for h in (first, last)]
    assert abs(np.corrcoef(*slowest)[0, 1]) < 2.5 / n**0.5  # of 384 runs: 0.07 (after 128 samples 0.36)


# --- saturation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact() -> Truth:
    """512 draws of the exact law."""
    values = widths.truth(tasks.get("kpz-noisy"), "5")
    return Truth(tasks.get("kpz-noisy"), values, torch.zeros(len(values), dtype=torch.long))


def test_the_exact_law_has_its_own_width_slopes_and_shape(exact):
    scores = scored(saturation, exact.values[None] + 1e3, exact)
    value, low, high = scores["width_ratio", None]
    assert value == pytest.approx(1, abs=0.05)
    assert low < 1 < high
    assert high - low == pytest.approx(2 * 1.96 * (0.4 / (512 * 4)) ** 0.5, rel=0.15)  # W² of one bridge: ± √0.4
    assert value_of(scores, "slope_spectrum_distance") < 0.05
    assert abs(value_of(scores, "width_skewness")) < 0.1
    assert abs(value_of(scores, "width_excess_kurtosis")) < 0.2
    for lead in LEADS:
        assert value_of(scores, "width_ratio", lead) == pytest.approx(1, abs=0.09)


def test_the_mean_power_of_slopes_is_that_of_independent_ones_in_every_mode(exact):
    h = exact.values[:, -1]
    power = torch.fft.rfft(h.roll(-1, -1) - h).abs().square()[:, 1:] / 256
    assert float(power.mean()) == pytest.approx(1, abs=0.02)
    assert (power.mean(0) - 1).abs().max() < 5 / 512**0.5


@pytest.mark.parametrize("factor", [0.7, 1.1])
def test_a_scaled_interface_has_scaled_width_and_slopes(exact, factor):
    plain, found = (scored(saturation, f * exact.values[None], exact) for f in (1.0, factor))
    assert value_of(found, "width_ratio") == pytest.approx(factor**2 * value_of(plain, "width_ratio"))
    expected = abs(2 * math.log(factor))
    assert value_of(found, "slope_spectrum_distance") == pytest.approx(expected, abs=0.05)
    for name in ("width_skewness", "width_excess_kurtosis"):
        assert value_of(found, name) == pytest.approx(value_of(plain, name))


def test_a_smoothed_interface_keeps_its_width_and_loses_its_slopes(exact):
    smooth = (exact.values + exact.values.roll(1, -1)) / 2
    scores = scored(saturation, smooth[None], exact)
    assert value_of(scores, "width_ratio") == pytest.approx(1, abs=0.05)
    assert value_of(scores, "slope_spectrum_distance") > 0.3


def test_a_skewed_interface_is_seen(exact):
    x = exact.values / exact.values.std()
    scores = scored(saturation, (x + 0.1 * (x**2 - 1))[None], exact)
    assert value_of(scores, "width_skewness") > 0.2


def test_octaves_cover_every_mode_once():
    power = torch.arange(1.0, 129.0)[None]
    found = saturation.octaves(power)[0]
    assert found.tolist()[:4] == [1, 2.5, 5.5, 11.5]
    assert len(found) == 7
    assert float(found[-1]) == pytest.approx(np.arange(64, 129).mean())


@pytest.mark.parametrize("bad", [NAN, float("inf"), 1e308, 500.0])
def test_a_failed_case_counts_ten_widths_from_then_on(exact, bad):
    run = exact.values[None].clone()
    run[0, 7, 1:, 0] = bad
    before, after = (saturation.summarise(f, exact).cases for f in (exact.values[None], run))
    assert torch.equal(after[:7], before[:7])
    assert after[7, 0] == before[7, 0]
    assert after[7, 1:4].tolist() == [100] * 3
    assert (after[7, 6:] > 75).all()
    assert torch.isfinite(after).all()


# --- growth -----------------------------------------------------------------------------------------------------------


def solver_cases(n: int, m: int, noise: float = 1.0) -> tuple[torch.Tensor, Truth]:
    """``m`` independent members of ``n`` flat cases at 128 leads, by the solver; the truth is beside the point."""
    task = tasks.get("kpz-clean", "tiny")
    system = KPZ(noise=noise, climate=task.system.climate)
    rngs = [stream(11, "growth test", i) for i in range(n * m)]
    h = simulate(system, np.zeros((n * m, 256)), 135, rngs)[:, 7:]
    values = torch.from_numpy(h.reshape(m, n, 128, 256))
    return values, Truth(task, values[0], torch.ones(n, dtype=torch.long))


@pytest.mark.slow
def test_the_solver_grows_like_the_solver_and_noisier_growth_is_faster():
    ratios = {}
    for noise in (1.0, 1.3):
        run, truth = solver_cases(64, 2, noise)
        scores = scored(growth, run, truth)
        ratios[noise] = {lead: scores["growth_ratio", lead][0] for lead in (1, 8, 128)}
        value, low, high = scores["growth_ratio", None]
        if noise == 1.0:
            assert value == pytest.approx(1, abs=0.06)
            assert low < 1 < high
            assert value_of(scores, "growth_skewness", 8) == pytest.approx(0.3, abs=0.12)
            assert abs(value_of(scores, "growth_excess_kurtosis", 8)) < 0.5
    # W² grows as (λ A² t)^⅔, so with the 4/3rd power of the noise
    assert ratios[1.3][8] / ratios[1.0][8] == pytest.approx(1.3 ** (4 / 3), rel=0.08)


def test_stationary_cases_do_not_count_for_growth():
    run, truth = solver_cases(4, 1)
    mixed = Truth(truth.task, truth.values.repeat(2, 1, 1), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]))
    wild = torch.cat([run, 1e4 * run], dim=1)
    assert scored(growth, wild, mixed).keys() == scored(growth, run, truth).keys()
    alone, found = (growth.summarise(f, t) for f, t in ((run, truth), (wild, mixed)))
    a, b = (s.finish(s.cases.mean(0)) for s in (alone, found))
    torch.testing.assert_close(a, b)


def test_persistence_does_not_grow():
    run, truth = solver_cases(32, 1)
    still = run[:, :, :1].expand(run.shape)
    ratios = [value_of(scored(growth, still, truth), "growth_ratio", lead) for lead in (1, 16, 128)]
    assert ratios[0] == pytest.approx(1, abs=0.2)
    assert ratios[0] > 1.5 * ratios[1] > 1.5 * ratios[2]


@pytest.mark.parametrize("bad", [NAN, 1e308])
def test_a_failed_case_is_counted_not_skipped(bad):
    run, truth = solver_cases(8, 2)
    run[1, 3, 20:, 5] = bad
    scores = scored(growth, run, truth)
    assert all(math.isfinite(v) for row in scores.values() for v in row)
    assert value_of(scores, "growth_ratio", 16) < 3
    assert value_of(scores, "growth_ratio", 128) > 10


def test_the_frozen_growth_is_that_of_tracy_and_widom_on_a_ring():
    frozen = reference.get("kpz-noisy")["growth"]
    assert frozen["lead"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert frozen == reference.get("kpz-scarce")["growth"]
    for lead, variance, error in zip(
        frozen["lead"], frozen["variance"], frozen["variance_standard_error"], strict=True
    ):
        law = 0.63805 * (1.5 * (lead + 7)) ** (2 / 3)
        assert variance == pytest.approx(law, rel=0.06)
        assert error < 0.01 * variance
    assert frozen["skewness"] == pytest.approx([0.2935] * 8, abs=0.04)
    assert frozen["excess_kurtosis"] == pytest.approx([0.1652] * 8, abs=0.06)
    again = freeze.growth_moments(tasks.get("kpz-noisy"), (1, 2, 4), 256, 4)
    assert again["variance"] == pytest.approx(frozen["variance"][:3], rel=0.06)
    assert again["mean"] == pytest.approx(frozen["mean"][:3], rel=0.02)


# --- the door ---------------------------------------------------------------------------------------------------------


def test_contexts_of_growth_have_a_third_group_that_asks_for_four_leads(emubench, data, tmp_path):
    path = tmp_path / "c.h5"
    finished = emubench("contexts", "kpz-partial", "--size", "tiny", "--data", data, "--file", path)
    assert finished.status == 0
    with h5py.File(path) as file:
        assert set(file) == {"test", "climate", "widths"}
        assert file["widths/lead_time"][:].tolist() == [256, 512, 768, 1024]
        shown = file["widths/context"][:]
    assert np.array_equal(shown, widths.contexts(tasks.get("kpz-partial", "tiny"), "0").numpy(), equal_nan=True)
    assert "whole" in emubench("verify", path).out


def test_a_forecast_file_of_growth_without_widths_is_refused(refused, data, tmp_path):
    task = tasks.get("kpz-noisy", "tiny")
    shapes = scoring.forecast_shapes(task)
    assert shapes["widths"] == (1, 64, 4, 256)
    np.savez(tmp_path / "f.npz", **{s: np.zeros(shapes[s], "f4") for s in ("test", "climate")})
    line = refused("score", "--forecast", tmp_path / "f.npz", "--task", task.name, "--size", "tiny", "--data", data)
    assert "forecast of split widths is missing (shape (1, 64, 4, 256))" in line


@pytest.mark.slow
def test_the_oracle_saturates(data):
    task = tasks.get("kpz-clean", "tiny")
    module = baselines.get("oracle")
    result = scoring.evaluate(module.build(task, module.Config()), task, data)
    rows = {(r.metric, r.lead_time): r for r in result.scores.rows}
    assert rows["width_ratio", None].n_cases == 64
    assert rows["width_ratio", None].low < 1.1
    assert rows["width_ratio", None].high > 0.9
    assert rows["slope_spectrum_distance", None].value < 0.15
    assert rows["growth_ratio", 8.0].value == pytest.approx(1, abs=0.35)  # 8 flat cases
    assert result.timing["widths_seconds"] > 0
    assert result.scores.truth_sha256 == scoring.truth_digest(task, data)
    json.dumps(result.figures, allow_nan=False)


def test_every_metric_names_a_split_that_is_forecast():
    for name in metrics.names():
        module = metrics.get(name)
        for task in map(tasks.get, ("lorenz63-noisy", "kpz-noisy")):
            assert not module.applies(task) or module.split in task.splits
