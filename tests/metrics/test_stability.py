"""Stability against definitions, closed forms and other implementations; its invariances; and survival."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal, stats

from emubench import metrics
from emubench.data import reference, tasks
from emubench.evaluation import scoring
from emubench.metrics import Pool, Truth, _features, _spectra, stability, survival

NAN, INF = float("nan"), float("inf")
ASPECTS = ("w1", "spatial_spectrum", "temporal_spectrum", "patches")
REFERENCE = {
    "d_floor": {"tiny": {"w1": 0.05, "spatial_spectrum": 0.1, "temporal_spectrum": 0.15, "patches": 0.03}},
    "d_zero": {"w1": 0.82, "spatial_spectrum": 12.8, "temporal_spectrum": 5.0, "patches": 0.6},
}
ALL = ["lorenz63-noisy", "lorenz63-partial", "lorenz96-partial", "kuramoto_sivashinsky-noisy", "kpz-noisy"]


@pytest.fixture(scope="module")
def truth_of(data):
    """The truth of a task's climate split, at most 300 samples of rings, with pool and reference values."""
    made = {}

    def get(name: str) -> Truth:
        if name not in made:
            task = tasks.get(name, "tiny")
            values, start, _ = scoring.load_truth(task, data, "climate")
            values = values[:, :300] if task.system.grid else values
            made[name] = Truth(task, values, start, Pool(task, values[start == 0]), REFERENCE)
        return made[name]

    return get


def outcome(module, forecast, truth: Truth) -> dict[str, float]:
    """Whole-forecast scores by name."""
    summary = module.summarise(forecast, truth)
    values = summary.finish(summary.cases.mean(0))
    assert len(values) == len(summary.rows)
    return {row.metric: float(v) for row, v in zip(summary.rows, values, strict=True) if row.lead_time is None}


# --- distances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz63-partial", "lorenz96-noisy"])
def test_w1_is_that_of_scipy(truth_of, name):
    truth = truth_of(name)
    values = 1.2 * truth.values[:2] - 0.7
    found = stability.w1_distance(values, truth)
    pool = truth.pool.values
    for case, distance in zip(values, found, strict=True):
        if truth.task.system.grid:
            theirs = [stats.wasserstein_distance(case.flatten(), pool.flatten()) / float(truth.std[0])]
        else:
            theirs = [
                stats.wasserstein_distance(case[:, c], pool[..., c].flatten()) / float(truth.std[c])
                for c in range(case.shape[1])
            ]
        assert float(distance) == pytest.approx(np.mean(theirs), rel=1e-3)


def test_w1_of_a_shift_is_the_shift(truth_of):
    truth = truth_of("lorenz96-noisy")
    alone = Truth(truth.task, truth.values[:1], truth.start[:1], Pool(truth.task, truth.values[:1]))
    found = [float(stability.w1_distance(alone.values + c * truth.std, alone)[0]) for c in (0.0, 0.5, -2.0)]
    assert found == pytest.approx([0, 0.5, 2])


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 3.0])
def test_the_spectrum_distance_of_a_scaled_field_is_the_log_of_its_square(truth_of, factor):
    truth = truth_of("lorenz96-noisy")
    power = _spectra.spatial_power(factor * truth.values, (40,)).mean(0, keepdim=True)
    found = _spectra.spectrum_distance(power, truth.pool.spatial_power)
    assert float(found) == pytest.approx(abs(math.log(factor**2)), abs=1e-9)


def test_modes_without_power_are_capped_from_below():
    truth_power = torch.tensor([1.0, 1e-3, 1e-12], dtype=torch.float64)
    power = torch.tensor([[1.0, 1e-3, 1e-30], [1.0, 1e-3, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = _spectra.spectrum_distance(power, truth_power).tolist()
    six, three = math.log(1e6), math.log(1e3)
    assert found == pytest.approx([0, six / 3, (six + three) / 3])


def test_parseval_holds_for_the_spatial_power(truth_of):
    values = truth_of("lorenz96-noisy").values[:2]
    power = _spectra.spatial_power(values, (40,))
    total = (2 * power.sum(-1) - power[:, -1]) / 40  # the mode N/2 counts once
    variance = ((values - values.mean(-1, keepdim=True)) ** 2).sum(-1).mean(-1)
    torch.testing.assert_close(total, variance)


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy"])
def test_temporal_power_is_welchs_of_scipy(truth_of, name):
    truth = truth_of(name)
    ring, case = truth.task.system.grid, truth.values[0]
    found = _spectra.temporal_power(case[None], ring)[0]
    length = _spectra.segment_length(len(case))
    fluctuation = (case - case.mean(0)).numpy()
    _, theirs = signal.welch(fluctuation, nperseg=length, detrend=False, scaling="spectrum", axis=0)
    theirs = theirs[1:] * (length / 2) ** 2  # of amplitude 1, halved by the window
    theirs[:-1] /= 2  # they add the power of negative frequencies
    expected = theirs.mean(1, keepdims=True) if ring else theirs
    assert found.shape == (length // 2, 1 if ring else 3)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_constant_has_no_temporal_power(truth_of):
    still = truth_of("lorenz63-noisy").values[:1, :1].expand(1, 500, 3)
    assert float(_spectra.temporal_power(still, ()).max()) < 1e-20


def test_patches_are_neighbours_in_space_and_time():
    ring = (10.0 * torch.arange(5) + torch.arange(4)[:, None] / 10)[None]
    found = _features.patches(ring, (5,), 10**6)
    assert found.shape == (9, 2 * 5)
    assert found[:, 3].tolist() == pytest.approx([30.0, 40.0, 0.0, 30.1, 40.1, 0.1, 30.2, 40.2, 0.2])
    assert _features.patches(ring, (5,), 5).shape == (9, 5)  # every site, every other sample
    state = torch.arange(12.0).reshape(1, 4, 3)
    assert _features.patches(state, (), 100).T.tolist() == [[*range(9)], [*range(3, 12)]]


@pytest.mark.parametrize("name", ["lorenz63-partial", "kuramoto_sivashinsky-noisy"])
def test_patch_distance_is_scipys_along_every_direction(truth_of, name):
    truth = truth_of(name)
    ring, values = truth.task.system.grid, 1.2 * truth.values[:2] - 0.7
    theirs = []
    for case in values:
        case_features = _features.patches(case[None], ring, _features.CASE_FEATURES)
        pool_features = _features.patches(truth.pool.values, ring, _features.POOL_FEATURES)
        pairs = zip(truth.pool.projection @ case_features, truth.pool.projection @ pool_features, strict=True)
        theirs.append(np.mean([stats.wasserstein_distance(a, b) for a, b in pairs]))
    assert stability.patch_distance(values, truth).tolist() == pytest.approx(theirs, rel=2e-3)


@pytest.mark.parametrize("name", ALL)
def test_whitened_patches_have_variances_up_to_one(truth_of, name):
    pool = truth_of(name).pool
    variances = pool.sorted_projections.var(dim=1)
    assert float(variances.max()) < 1 + 1e-9
    assert float(variances.mean()) > 0.3  # 1 but for what the damping takes
    assert pool.projection.shape[0] == _features.N_PROJECTIONS
    again = Pool(pool.task, pool.values)
    assert torch.equal(again.projection, pool.projection)


# --- invariances ------------------------------------------------------------------------------------------------------

SYMMETRIES = [(n, s) for n in ALL for s in tasks.get(n).system.symmetries()]


@pytest.mark.parametrize(("name", "symmetry"), SYMMETRIES)
def test_an_image_under_a_symmetry_scores_the_same(truth_of, name, symmetry):
    truth = truth_of(name)
    run = 1.1 * (truth.values - truth.mean) + truth.mean
    run[0, 100:] = 50 * truth.std  # lost
    run[1, -truth.task.test_steps :] = run[1, -1]  # dead, unless its end is cut
    full = torch.zeros(*run.shape[:2], *truth.task.system.shape, dtype=torch.float64)
    kept = list(truth.task.observation.components or range(full.shape[-1]))
    full[..., kept] = run
    image = truth.task.system.symmetries()[symmetry](full)[..., kept]
    assert not torch.equal(image, run)
    for module in (stability, survival):
        assert outcome(module, image[None], truth) == pytest.approx(outcome(module, run[None], truth), rel=1e-9)


@pytest.mark.parametrize(("name", "n"), [("lorenz63-noisy", 2), ("lorenz96-noisy", 1), ("kpz-noisy", 2)])
def test_only_symmetries_that_move_the_features_cost_time(truth_of, name, n):
    assert len(truth_of(name).pool.images) == n


def test_symmetries_that_need_hidden_components_are_left_out():
    class Swapping:
        """x and y change places; or x its sign."""

        shape = (3,)

        def symmetries(self):
            return {"swap": lambda u: u[..., [1, 0, 2]], "sign": lambda u: u * u.new_tensor([-1.0, 1.0, 1.0])}

    class Partial:
        system, shape = Swapping(), (1,)
        observation = tasks.get("lorenz63-partial").observation

    (only,) = _features.scored_symmetries(Partial())
    assert only(torch.tensor([[2.0]])).tolist() == [[-2.0]]


@pytest.mark.parametrize("name", ["lorenz96-partial", "kuramoto_sivashinsky-noisy"])
@pytest.mark.parametrize("kind", ["time", "space"])
def test_what_runs_backwards_or_is_mirrored_has_other_patches_and_the_same_spectra(truth_of, name, kind):
    truth = truth_of(name)
    plain = stability.distances(truth.values, truth).mean(0)
    turned = stability.distances(truth.values.flip(1 if kind == "time" else 2), truth).mean(0)
    np.testing.assert_allclose(turned[:2], plain[:2], rtol=1e-6)
    assert float(turned[2]) == pytest.approx(float(plain[2]), rel=0.5)
    assert float(turned[3]) > 2.5 * float(plain[3])


@pytest.mark.parametrize("name", ALL)
def test_single_precision_scores_the_same(truth_of, name):
    truth = truth_of(name)
    run = (1.1 * (truth.values - truth.mean) + truth.mean)[None]
    assert outcome(stability, run.float(), truth) == pytest.approx(outcome(stability, run, truth), rel=1e-4)


# --- lost and dead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz63-partial", "lorenz96-partial", "kpz-noisy"])
def test_the_truth_itself_survives_with_small_distances(truth_of, name):
    truth = truth_of(name)
    found = outcome(stability, truth.values[None], truth)
    assert found["surviving_fraction"] == 1
    assert found["dead_fraction"] == 0
    assert found["w1_distance"] < 0.15
    assert found.get("spatial_spectrum_distance", 0.0) < 0.6


@pytest.mark.parametrize("name", ["lorenz63-noisy", "lorenz96-noisy", "kpz-noisy"])
@pytest.mark.parametrize("kind", ["zeros", "mean", "frozen", "dying"])
def test_what_stands_still_is_dead(truth_of, name, kind):
    truth = truth_of(name)
    run = truth.values.clone()
    n = 256 if truth.task.system.stochastic else truth.task.test_steps
    if kind == "frozen":
        run[:] = run[:, :1].clone()
    elif kind == "dying":
        run[:, -n:] = run[:, -n : -n + 1].clone()
    else:
        run[:] = 0.0 if kind == "zeros" else truth.mean
    found = outcome(stability, run[None], truth)
    assert found["dead_fraction"] == 1
    assert found["surviving_fraction"] == 1
    assert found["skill_stability"] == 0


@pytest.mark.parametrize("name", ["lorenz63-noisy", "kpz-noisy"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e308, "11 sigma"])
@pytest.mark.parametrize("half", [False, True])
def test_what_blows_up_is_lost_not_averaged_away(truth_of, name, bad, half):
    truth = truth_of(name)
    run = truth.values.clone()
    value = float(truth.mean[0] + 11 * truth.std[0]) if bad == "11 sigma" else bad
    if half:
        run[:2, run.shape[1] // 2 :] = value
        if truth.task.system.stochastic:
            run[:2, run.shape[1] // 2 :, ::2] *= -1  # not a shift of all heights
    else:
        run[:2, -1, 0] = value * (2 if truth.task.system.stochastic else 1)  # a single value
        run[:2, -1, 0] += 100 if truth.task.system.stochastic else 0
    found = outcome(stability, run[None], truth)
    assert found["surviving_fraction"] == 0.75
    assert found["dead_fraction"] == 0
    assert all(math.isfinite(v) for v in found.values())
    assert found["w1_distance"] > outcome(stability, truth.values[None], truth)["w1_distance"]


def test_a_lifted_interface_is_as_stable(truth_of):
    truth = truth_of("kpz-noisy")
    plain = outcome(stability, truth.values[None], truth)
    lifted = outcome(stability, truth.values[None] + 1e4, truth)
    assert lifted == pytest.approx(plain, rel=1e-6, abs=1e-9)


def test_distances_are_means_over_the_cases_that_start_stationary(truth_of):
    truth = truth_of("kpz-noisy")
    run = 1.3 * truth.values
    run[truth.start == 1] *= 2  # has no bearing
    each = stability.distances(metrics.deviation(run[truth.start == 0], truth.task), truth)
    found = outcome(stability, run[None], truth)
    assert [found[f"{a}_distance"] for a in ASPECTS] == pytest.approx(each.mean(0).tolist())
    each[0] = stability.distances(torch.zeros_like(run[:1]), truth)[0]
    run[0] = NAN  # a lost case counts as one that stands still
    found = outcome(stability, run[None], truth)
    assert [found[f"{a}_distance"] for a in ASPECTS] == pytest.approx(each.mean(0).tolist())


def test_the_skill_of_a_distance():
    d = torch.tensor([0.0, 0.01, 0.1, 1.0, 10.0], dtype=torch.float64)
    assert stability.skill(d, 0.01, 1.0).tolist() == pytest.approx([1, 1, 0.5, 0, 0])


def test_skill_stability_is_its_worst_aspect_times_the_share_that_lives(truth_of):
    truth = truth_of("lorenz96-noisy")
    run = 1.1 * (truth.values - truth.mean) + truth.mean
    run[0, 100:] = NAN
    run[1] = truth.mean
    found = outcome(stability, run[None], truth)
    floor, zero = REFERENCE["d_floor"]["tiny"], REFERENCE["d_zero"]
    s = [
        min(1, max(0, 1 - math.log(max(found[f"{n}_distance"], floor[n]) / floor[n]) / math.log(zero[n] / floor[n])))
        for n in ASPECTS
    ]
    assert [found[f"{n}_skill"] for n in ASPECTS] == pytest.approx(s)
    assert found["skill_stability"] == pytest.approx(0.75 * min(s))
    assert 0 < found["skill_stability"] < 0.75


def test_worse_climates_score_worse(truth_of):
    truth = truth_of("lorenz96-noisy")
    runs = [truth.mean + a * (truth.values - truth.mean) for a in (1.0, 1.15, 1.4, 2.2)]
    skills = [outcome(stability, run[None], truth)["skill_stability"] for run in runs]
    assert skills == sorted(skills, reverse=True)
    assert skills[0] > 0.8
    assert skills[0] > skills[1] > skills[2] > skills[3]


def test_floors_are_those_of_the_size_whatever_its_training_split(truth_of):
    truth = truth_of("lorenz63-noisy")
    for size, known in (("tiny", True), ("tiny-48x512", True), ("standard", False)):
        task = tasks.get("lorenz63-noisy", size)
        found = stability.scale(Truth(task, truth.values, truth.start, truth.pool, REFERENCE))
        assert (found is not None) == known
    partial = {"d_floor": {"tiny": {"w1": 0.05}}, "d_zero": {"w1": 0.8}}  # of another version
    assert stability.scale(Truth(truth.task, truth.values, truth.start, truth.pool, partial)) is None


def test_measured_noise_floors_are_near_those_of_independent_truth(data):
    task = tasks.get("lorenz96-noisy", "tiny")
    values, start, _ = scoring.load_truth(task, data, "climate")
    found, frozen = stability.measured(Truth(task, values, start, Pool(task, values))), reference.get(task.name)
    for name in ASPECTS:  # of eight cases beside 512
        assert found["d_floor"]["tiny"][name] == pytest.approx(frozen["d_floor"]["tiny"][name], rel=0.25)
        assert found["d_zero"][name] == pytest.approx(frozen["d_zero"][name], rel=0.01)
    assert stability.measured(Truth(task, values[:1], start[:1], Pool(task, values[:1]))) == {}  # one case has no other


@pytest.mark.parametrize(("scale", "skill"), [(1.0, 1.0), (0.0, 0.0)])
def test_a_task_without_frozen_noise_floors_has_a_stability(data, monkeypatch, scale, skill):
    task = tasks.get("lorenz63-noisy", "tiny")
    monkeypatch.setattr(scoring.reference, "get", lambda name: {})
    truth = {split: scoring.load_truth(task, data, split).values for split in task.splits}
    found = scoring.score(task, data, lambda split, cases: scale * truth[split][None, cases])
    (row,) = (row for row in found.scores.rows if row.metric == "skill_stability")
    assert row.value == pytest.approx(skill)


# --- survival ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lorenz63-noisy", "kpz-noisy"])
@pytest.mark.parametrize("bad", [NAN, INF, 1e5])
def test_survival_counts_the_cases_not_yet_lost(truth_of, name, bad):
    truth = truth_of(name)
    run = truth.values.clone()
    n, step = run.shape[1], truth.task.lead_time_step
    run[0] = run[1, n // 2 :] = NAN
    run[0, 0, 0] = bad
    run[1, n // 2, 0] = bad
    run[2, n // 4, 0] = bad  # and back again: lost is lost
    summary = survival.summarise(run[None], truth)
    values = dict(zip(summary.rows, summary.finish(summary.cases.mean(0)).tolist(), strict=True))
    curve = {row.lead_time: v for row, v in values.items() if row.metric == "surviving_fraction"}
    assert list(curve) == sorted(curve)
    assert max(curve) == pytest.approx(n * step)
    for lead, share in curve.items():
        samples = round(lead / step)
        assert share == (5 + (samples <= n // 2) + (samples <= n // 4)) / 8
    escapes = [0, n // 2, n // 4, *[n] * 5]
    (time,) = (v for row, v in values.items() if row.metric == "time_to_escape")
    assert time == pytest.approx(np.mean(escapes) * step)
    assert curve[max(curve)] == outcome(stability, run[None], truth)["surviving_fraction"]


def test_who_never_escapes_gets_the_horizon(truth_of):
    truth = truth_of("lorenz96-partial")
    found = outcome(survival, truth.values[None], truth)
    assert found == {"time_to_escape": pytest.approx(300 * truth.task.lead_time_step)}
