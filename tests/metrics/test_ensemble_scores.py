"""Scores of ensembles against their definitions, closed forms and another library; and what dependent members gain."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scoringrules
import torch

from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.metrics import Truth, crps, energy_score, rank_histogram, spread_skill
from emubench.metrics._ensemble import LEADS, at_leads

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def truth(data) -> Truth:
    """The test split of kpz-noisy, tiny."""
    task = tasks.get("kpz-noisy", "tiny")
    values, start, _ = scoring.load_truth(task, data, "test")
    return Truth(task, values, start)


def outcome(module, forecast, truth: Truth) -> dict[str, float]:
    """Whole-forecast scores by name."""
    summary = module.summarise(forecast, truth)
    values = summary.finish(summary.cases.mean(0))
    assert len(values) == len(summary.rows)
    return {row.metric: float(v) for row, v in zip(summary.rows, values, strict=True) if row.lead_time is None}


def draws(m: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- continuous ranked probability score ------------------------------------------------------------------------------


def crps_by_definition(members: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    half = (len(members) + 1) // 2
    across = (members[:half, None] - members[None, half:]).abs().mean((0, 1))
    return (members - y).abs().mean(0) - across / 2


@pytest.mark.parametrize("m", [2, 3, 16, 51])
def test_crps_is_that_of_its_definition(m):
    generator = torch.Generator().manual_seed(m)
    members = torch.randn(m, 5, 7, generator=generator, dtype=torch.float64).exp()
    y = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    found = crps.crps(members, y)
    torch.testing.assert_close(found, crps_by_definition(members, y))
    halves = members.split((m + 1) // 2)
    mixed = torch.cat([half[torch.randperm(len(half), generator=generator)] for half in halves])
    torch.testing.assert_close(crps.crps(mixed, y), found)


@pytest.mark.parametrize("m", [2, 4, 16])
def test_crps_of_a_perfect_ensemble_does_not_depend_on_its_size(m):
    n = 200_000
    generator = torch.Generator().manual_seed(m)
    members, y = torch.randn(m, n, generator=generator), torch.randn(n, generator=generator)
    scores = crps.crps(members.double(), y.double())
    assert float(scores.mean()) == pytest.approx(1 / math.pi**0.5, abs=5 * float(scores.std()) / n**0.5)


def test_crps_of_one_member_is_its_error():
    y = torch.tensor([1.0, -2.0])
    assert crps.crps(torch.tensor([[3.0, -2.5]]), y).tolist() == [2.0, 0.5]


def ensemble(truth: Truth, m: int = 4, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return truth.values + spread * torch.randn(m, *truth.values.shape, generator=generator, dtype=torch.float64)


def test_crps_looks_at_deviations_from_the_mean_height(truth):
    forecast = ensemble(truth)
    lift = 0.1 * torch.arange(1.0, 129.0, dtype=torch.float64)[:, None]
    flat, lifted = outcome(crps, forecast, truth), outcome(crps, forecast + lift, truth)
    for name in ("crps", "crps_flat", "crps_stationary"):
        assert lifted[name] == pytest.approx(flat[name], rel=1e-9)
    assert lifted["crps_mean_height"] == pytest.approx(0.1 * sum(LEADS) / len(LEADS), abs=0.2)
    assert flat["crps_mean_height"] < 0.2


def test_crps_of_flat_and_stationary_starts_are_told_apart(truth):
    forecast = truth.values[None].clone()
    site = torch.zeros(256, dtype=torch.float64)
    site[::2], site[1::2] = 1.0, -1.0
    forecast[:, truth.start == 1] += site
    found = outcome(crps, forecast, truth)
    assert found["crps_flat"] == pytest.approx(1)
    assert found["crps_stationary"] == pytest.approx(0, abs=1e-12)
    assert found["crps"] == pytest.approx(0.5)


def test_crps_has_the_leads_1_2_4_to_128(truth):
    rows = crps.summarise(ensemble(truth), truth).rows
    assert [r.lead_time for r in rows if r.lead_time] == [1, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize("bad", [NAN, INF, 1e308])
def test_crps_of_a_failed_member_is_the_cap_from_then_on(truth, bad):
    forecast = ensemble(truth)
    before = crps.summarise(forecast, truth).cases
    forecast[2, 5, 6:, 17] = bad  # from lead 7 on
    after = crps.summarise(forecast, truth).cases
    cap = 10 * float(truth.std.mean())
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[5, 1:4], after[5, 1:4])  # leads 1, 2, 4
    assert after[5, 4:9].tolist() == pytest.approx([cap] * 5)
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("m", [2, 4, 6])
def test_the_mean_over_all_halves_is_the_fair_crps_of_scoringrules(m):
    """Every pair is across halves in the same share of all ways to halve the members."""
    members, y = draws(m, 40), draws(40, seed=1)
    theirs = scoringrules.crps_ensemble(y.numpy(), members.numpy(), m_axis=0, estimator="fair", backend="numpy")
    ways = [[*half, *sorted({*range(m)} - {*half})] for half in itertools.combinations(range(m), m // 2)]
    ours = torch.stack([crps.crps(members[way], y) for way in ways]).mean(0)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10)


def paired(half: torch.Tensor) -> torch.Tensor:
    return torch.cat([half[::2], -half[::2]])


def centred(half: torch.Tensor) -> torch.Tensor:
    return (half - half.mean(0)) * math.sqrt(len(half) / (len(half) - 1))  # still standard normal


@pytest.mark.parametrize("repel", [paired, centred])
def test_members_of_a_half_that_repel_each_other_gain_nothing(repel):
    """By the fair estimator antithetic pairs gain 2.8 % at M = 16, members that sum to zero 3.3 %; here, nothing."""
    m, n = 16, 200_000
    whole, y = draws(m, n), draws(n, seed=1)
    members = torch.cat([repel(half) for half in whole.split(m // 2)])
    scores = crps.crps(members, y)
    error = float(scores.std()) / n**0.5
    assert float(scores.mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=4 * error)
    assert 4 * error < 0.01 / math.sqrt(math.pi)
    fair = scoringrules.crps_ensemble(y.numpy(), repel(whole).numpy(), m_axis=0, estimator="fair", backend="numpy")
    assert fair.mean() * math.sqrt(math.pi) == pytest.approx({paired: 0.9724, centred: 0.9672}[repel], abs=4 * error)


# --- energy score -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3, 16])
def test_the_energy_score_is_that_of_scoringrules(m):
    members, y = draws(m, 30, 7).exp(), draws(30, 7, seed=1)
    theirs = scoringrules.es_ensemble(
        y.numpy(), members.numpy(), m_axis=0, v_axis=-1, estimator="fair", backend="numpy"
    )
    ours = energy_score.fair_energy_score(members, y) * 7**0.5
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10)


def test_the_energy_score_of_one_site_is_the_crps():
    members, y = draws(2, 20, 1), draws(20, 1, seed=1)
    ours = energy_score.fair_energy_score(members, y)
    torch.testing.assert_close(ours, crps.crps(members, y)[:, 0])


@pytest.mark.parametrize("m", [2, 16])
def test_the_energy_score_of_a_perfect_ensemble_does_not_depend_on_its_size(m):
    n, d = 20_000, 8
    scores = energy_score.fair_energy_score(draws(m, n, d), draws(n, d, seed=1))
    chi = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))  # E‖x‖ in d dimensions
    expected = chi / math.sqrt(2 * d)  # √2 E‖x‖ − √2 E‖x‖/2, per √d
    assert float(scores.mean()) == pytest.approx(expected, abs=5 * float(scores.std()) / n**0.5)


def test_of_one_member_the_energy_score_is_the_root_mean_square_error(truth):
    forecast = ensemble(truth, 1)
    given = at_leads(forecast, truth)
    rms = (given.members[0] - given.truth).square().mean(-1).sqrt()
    assert outcome(energy_score, forecast, truth)["energy_score"] == pytest.approx(float(rms.mean()))
    assert outcome(crps, forecast, truth)["crps"] == pytest.approx(
        float((given.members[0] - given.truth).abs().mean()), rel=1e-9
    )


def test_the_energy_score_sees_wrong_correlations_and_the_crps_does_not():
    m, n, d = 16, 4000, 8
    same, apart = draws(m, n, 1).expand(m, n, d), draws(m, n, d, seed=2)
    y = draws(n, 1, seed=1).expand(n, d)  # all sites alike
    right, wrong = (energy_score.fair_energy_score(x, y) for x in (same, apart))
    assert float((wrong - right).mean()) > 5 * float((wrong - right).std()) / n**0.5
    blind = crps.crps(same, y).mean(-1) - crps.crps(apart, y).mean(-1)
    assert abs(float(blind.mean())) < 3 * float(blind.std()) / n**0.5


# --- spread and skill -------------------------------------------------------------------------------------------------


def law(truth: Truth, m: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, Truth]:
    """Members around a centre, and a truth around the same one: one law if ``spread`` is 1."""
    shape, values = truth.values.shape, truth.values
    made = Truth(truth.task, values + draws(1, *shape, seed=seed + 1)[0], truth.start)
    return values + spread * draws(m, *shape, seed=seed), made


@pytest.mark.parametrize("m", [2, 4, 16])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_the_spread_skill_ratio_has_its_closed_form(truth, m, spread):
    found = outcome(spread_skill, *law(truth, m, spread))["spread_skill_ratio"]
    expected = math.sqrt((m + 1) / m * spread**2 / (1 + spread**2 / m))
    assert expected == 1 or spread != 1
    assert found == pytest.approx(expected, rel=0.01)


def test_one_member_has_no_spread(truth):
    assert outcome(spread_skill, ensemble(truth, 1), truth)["spread_skill_ratio"] == 0


def test_a_failed_case_has_no_spread_and_the_largest_error(truth):
    forecast, made = law(truth, 4, 1.0)
    forecast[0, 0] = NAN
    summary = spread_skill.summarise(forecast, made)
    n = len(LEADS)
    assert (summary.cases[0, :n] == 0).all()
    assert summary.cases[0, n:].tolist() == pytest.approx([(10 * float(truth.std.mean())) ** 2] * n)
    ratio = summary.finish(summary.cases.mean(0))
    assert (ratio < 0.2).all()


# --- rank histogram ---------------------------------------------------------------------------------------------------


def test_ranks_count_the_members_below():
    members = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    for y, rank in ((-1.0, 0), (0.5, 1), (1.5, 2), (9.0, 3)):
        found = rank_histogram.rank_frequencies(members, torch.tensor([y], dtype=torch.float64))
        assert found.tolist() == [float(k == rank) for k in range(4)]


@pytest.mark.parametrize(
    ("y", "expected"),
    [(1.0, [0, 1 / 3, 1 / 3, 1 / 3, 0]), (2.0, [0, 0, 0, 1 / 2, 1 / 2]), (0.0, [1 / 2, 1 / 2, 0, 0, 0])],
)
def test_ties_are_shared_out_evenly(y, expected):
    members = torch.tensor([0.0, 1.0, 1.0, 2.0], dtype=torch.float64)[:, None]
    found = rank_histogram.rank_frequencies(members, torch.tensor([y], dtype=torch.float64))
    assert found.tolist() == pytest.approx(expected, abs=1e-15)


def test_sharing_out_is_the_mean_of_breaking_ties_at_random():
    rng = np.random.default_rng(0)
    members, y = rng.integers(4, size=(6, 50)), rng.integers(4, size=50)
    found = rank_histogram.rank_frequencies(torch.from_numpy(members).double(), torch.from_numpy(y).double())
    broken = np.zeros(7)
    for _ in range(2000):
        order = rng.random((7, 50))  # the truth's place among its equals
        below = (members < y) | ((members == y) & (order[:6] < order[6]))
        broken += np.bincount(below.sum(0), minlength=7) / 50 / 2000
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.numpy(), broken, atol=0.005)


@pytest.mark.parametrize("m", [4, 16])
def test_ranks_of_one_law_are_uniform(truth, m):
    found = outcome(rank_histogram, *law(truth, m, 1.0))["reliability_index"]
    n = 16 * 256  # ranks per lead; deviations from h̄ leave sites all but independent
    assert found == pytest.approx(math.sqrt(2 * m / (math.pi * n)), rel=0.5)


@pytest.mark.parametrize(("spread", "worst"), [(0.1, True), (10.0, False)])
def test_the_reliability_index_of_a_wrong_spread_is_large(truth, spread, worst):
    forecast, made = law(truth, 16, spread)
    assert outcome(rank_histogram, forecast, made)["reliability_index"] > 0.5
    ranks, _ = rank_histogram.frequencies(forecast, made)
    ends = float(ranks[..., [0, -1]].sum(-1).mean())
    assert (ends > 0.8) if worst else (ends < 0.02)


def test_failed_cases_get_the_worst_index(truth):
    forecast, made = law(truth, 4, 1.0)
    good = outcome(rank_histogram, forecast, made)["reliability_index"]
    forecast[1, :8, 0] = INF
    half = outcome(rank_histogram, forecast, made)["reliability_index"]
    forecast[:] = NAN
    lost = outcome(rank_histogram, forecast, made)["reliability_index"]
    assert lost == pytest.approx(2 * 4 / 5)
    assert half == pytest.approx(0.5 * lost, abs=good)
