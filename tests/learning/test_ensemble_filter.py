"""The ensemble filters against the exact Kalman filter, and what they bring the oracle."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from emubench import baselines, systems
from emubench.core.random import stream
from emubench.data import dataset, tasks
from emubench.dynamics.simulate import simulate
from emubench.evaluation import scoring
from emubench.learning.filters.ensemble import (
    Filter,
    assimilate,
    filtered_start,
    gaspari_cohn,
    localised_update,
    ring_localisation,
    rotation,
    transform_update,
)
from emubench.runs import jobs, stages
from tests.support.steppers import MapStepper, true_stepper

NAN = float("nan")


def gaussian_ensemble(covariance: torch.Tensor, mean: torch.Tensor, m: int, b: int = 1, seed: int = 0) -> torch.Tensor:
    """Members ``"M B D"`` with exactly this sample mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(m, b, len(mean), generator=generator, dtype=torch.float64)
    z = z - z.mean(0)
    whiten = torch.linalg.cholesky(torch.einsum("mbi,mbj->bij", z, z) / (m - 1))
    z = torch.linalg.solve_triangular(whiten, z.movedim(0, -1), upper=False).movedim(-1, 0)
    return mean + z @ torch.linalg.cholesky(covariance).T


def moments(ensemble: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    anomalies = ensemble - ensemble.mean(0)
    return ensemble.mean(0), torch.einsum("mbi,mbj->bij", anomalies, anomalies) / (len(ensemble) - 1)


def kalman(mean, covariance, observed, noise, h) -> tuple[torch.Tensor, torch.Tensor]:
    """The textbook update; NaN rows of the observation left out."""
    seen = ~torch.isnan(observed)
    h, r = h[seen], torch.diag(noise[seen] ** 2)
    gain = covariance @ h.T @ torch.linalg.inv(h @ covariance @ h.T + r)
    return mean + gain @ (observed[seen] - h @ mean), covariance - gain @ h @ covariance


COVARIANCE = torch.tensor([[2.0, 0.8, 0.1], [0.8, 1.0, -0.3], [0.1, -0.3, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
OBSERVED = [[1.7, -1.0, 0.0], [1.7, NAN, 0.0], [NAN, NAN, 2.0], [NAN, NAN, NAN]]


# --- one update -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("m", [5, 40])
def test_the_transform_update_is_exactly_the_kalman_update(observed, m):
    ensemble = gaussian_ensemble(COVARIANCE, MEAN, m)
    noise, y = torch.tensor([0.5, 0.1, 2.0], dtype=torch.float64), torch.tensor(observed, dtype=torch.float64)
    mean, covariance = moments(transform_update(ensemble, ensemble, y[None], noise))
    exact_mean, exact_covariance = kalman(MEAN, COVARIANCE, y, noise, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(mean[0], exact_mean)
    torch.testing.assert_close(covariance[0], exact_covariance)


def test_the_transform_update_reaches_components_that_are_never_seen():
    ensemble = gaussian_ensemble(COVARIANCE, MEAN, 12)
    noise, y = torch.tensor([0.3], dtype=torch.float64), torch.tensor([2.5], dtype=torch.float64)
    mean, covariance = moments(transform_update(ensemble, ensemble[..., :1], y[None], noise))
    exact_mean, exact_covariance = kalman(MEAN, COVARIANCE, y, noise, torch.eye(3, dtype=torch.float64)[:1])
    torch.testing.assert_close(mean[0], exact_mean)
    torch.testing.assert_close(covariance[0], exact_covariance)


@pytest.mark.parametrize("observed", OBSERVED)
def test_the_localised_update_without_taper_is_exactly_the_kalman_update(observed):
    ensemble = gaussian_ensemble(COVARIANCE, MEAN, 30)
    noise, y = torch.tensor([0.5, 0.4, 2.0], dtype=torch.float64), torch.tensor(observed, dtype=torch.float64)
    whole = torch.ones(3, 3, dtype=torch.float64)
    mean, covariance = moments(localised_update(ensemble, ensemble, y[None], noise, whole))
    exact_mean, exact_covariance = kalman(MEAN, COVARIANCE, y, noise, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(mean[0], exact_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance[0], exact_covariance, rtol=1e-5, atol=1e-5)


def test_a_localised_state_of_several_fields_moves_those_that_are_never_seen():
    """Two fields on a ring of three sites, the second not in the prediction: the joint Kalman update."""
    joint = torch.block_diag(COVARIANCE, COVARIANCE)
    joint[:3, 3:] = joint[3:, :3] = 0.7 * COVARIANCE
    centre = torch.cat([MEAN, -MEAN])
    ensemble = gaussian_ensemble(joint, centre, 30)
    noise, y = torch.full((3,), 0.5, dtype=torch.float64), torch.tensor(OBSERVED[0], dtype=torch.float64)
    whole = torch.ones(3, 3, dtype=torch.float64)
    mean, covariance = moments(localised_update(ensemble, ensemble[..., :3], y[None], noise, whole))
    exact_mean, exact_covariance = kalman(centre, joint, y, noise, torch.eye(6, dtype=torch.float64)[:3])
    torch.testing.assert_close(mean[0], exact_mean)
    torch.testing.assert_close(covariance[0], exact_covariance)


def test_a_site_beyond_the_taper_is_left_alone():
    n = 24
    generator = torch.Generator().manual_seed(0)
    ensemble = torch.randn(6, 2, n, generator=generator, dtype=torch.float64)  # few members: spurious covariances
    observed = torch.full((2, n), NAN, dtype=torch.float64)
    observed[:, 3] = 4.0
    taper = ring_localisation(n, 2.0)
    moved = (localised_update(ensemble, ensemble, observed, torch.ones(n, dtype=torch.float64), taper) - ensemble).abs()
    far = taper[3] == 0
    assert far.sum() >= 8
    assert moved[..., far].max() < 1e-6
    assert moved[..., 3].min() > 1e-3


@pytest.mark.parametrize("update", ["transform", "localised"])
def test_cases_are_independent_and_nothing_is_changed_in_place(update):
    generator = torch.Generator().manual_seed(0)
    ensemble = torch.randn(10, 4, 8, generator=generator, dtype=torch.float64)
    observed = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    observed[0, ::2], observed[1] = NAN, NAN
    noise, taper = torch.full((8,), 0.3, dtype=torch.float64), ring_localisation(8, 2.0)
    before = ensemble.clone()

    def analysis(e, y):
        return transform_update(e, e, y, noise) if update == "transform" else localised_update(e, e, y, noise, taper)

    whole = analysis(ensemble, observed)
    assert torch.equal(ensemble, before)
    for b in range(4):
        torch.testing.assert_close(analysis(ensemble[:, b : b + 1], observed[b : b + 1]), whole[:, b : b + 1])
    torch.testing.assert_close(whole[:, 1], ensemble[:, 1], rtol=1e-6, atol=1e-6)  # nothing observed


# --- a whole filter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True])
def test_the_filter_is_the_kalman_filter_of_a_linear_model(gaps):
    turn = 0.3
    model = 0.98 * torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0.2, 0, 1]], dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(3)
    noise, components = torch.tensor([0.4, 0.6], dtype=torch.float64), [0, 2]
    state, context = MEAN.clone(), []
    for _ in range(30):
        context.append(state[components] + noise * torch.randn(2, generator=generator, dtype=torch.float64))
        state = model @ state
    observed = torch.stack(context)
    if gaps:
        observed[torch.rand(30, 2, generator=generator) < 0.5] = NAN
        observed[5:8] = NAN
    ensemble = gaussian_ensemble(COVARIANCE, torch.zeros(3, dtype=torch.float64), 8)
    found = assimilate(lambda e: e @ model.T, ensemble, observed[None], noise, lambda e: e[..., components])
    mean, covariance = torch.zeros(3, dtype=torch.float64), COVARIANCE
    for t in range(30):
        if t:
            mean, covariance = model @ mean, model @ covariance @ model.T
        mean, covariance = kalman(mean, covariance, observed[t], noise, torch.eye(3, dtype=torch.float64)[components])
    found_mean, found_covariance = moments(found)
    torch.testing.assert_close(found_mean[0], mean)
    torch.testing.assert_close(found_covariance[0], covariance)


@pytest.mark.parametrize("taper", [None, ring_localisation(6, 2.0)])
@pytest.mark.parametrize("inflation", [1.0, 1.1])
def test_the_filter_of_a_case_does_not_depend_on_the_others(taper, inflation):
    generator = torch.Generator().manual_seed(0)
    ensemble = torch.randn(12, 3, 6, generator=generator, dtype=torch.float64)
    context = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
    context[1, :5] = NAN  # starts late, as a flat interface does
    context[2, :, ::2] = NAN
    noise = torch.full((6,), 0.5, dtype=torch.float64)

    def run(chosen):
        parts = ensemble[:, chosen], context[chosen]
        return assimilate(lambda e: 0.9 * e.roll(1, -1), *parts, noise, lambda e: e, inflation, taper)

    whole = run([0, 1, 2])
    for b in range(3):
        torch.testing.assert_close(run([b]), whole[:, b : b + 1], rtol=1e-6, atol=1e-6)


# --- rotations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [2, 3, 40])
def test_a_rotation_keeps_mean_and_covariance(members):
    generator = torch.Generator().manual_seed(0)
    ensemble = torch.randn(members, 4, 3, generator=generator, dtype=torch.float64)
    turn = rotation(members, generator)
    turned = torch.tensordot(turn, ensemble, 1)
    for found, wanted in zip(moments(turned), moments(ensemble), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    assert members == 2 or (turned - ensemble).abs().max() > 0.1
    assert not torch.equal(turn, rotation(members, generator)) or members == 2


@pytest.mark.parametrize("taper", [None, ring_localisation(6, 2.0)])
def test_a_linear_filter_has_the_same_moments_with_rotations_as_without(taper):
    """And its members are others, a fact that a model which is not linear would show."""
    generator = torch.Generator().manual_seed(0)
    ensemble = torch.randn(12, 3, 6, generator=generator, dtype=torch.float64)
    context = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
    context[1, :5] = NAN
    noise = torch.full((6,), 0.5, dtype=torch.float64)

    def run(chosen, rotations):
        parts = lambda e: 0.9 * e.roll(1, -1), ensemble[:, chosen], context[chosen], noise, lambda e: e, 1.02, taper
        return assimilate(*parts, rotations=rotations)

    plain, turned = run([0, 1, 2], None), run([0, 1, 2], torch.Generator().manual_seed(1))
    for found, wanted in zip(moments(turned), moments(plain), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert (turned - plain).abs().max() > 0.1
    for b in range(3):  # no case depends on the others
        torch.testing.assert_close(run([b], torch.Generator().manual_seed(1)), turned[:, b : b + 1])


def test_a_filter_without_rotations_draws_nothing_and_leaves_its_bytes(data):
    """Trained weights follow from these starts."""
    task = tasks.get("lorenz63-noisy", "tiny")
    contexts = dataset.load(task, data).contexts["test"]
    noise = torch.from_numpy(task.observation.noise_std(task.system))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    settings = Filter(10), Filter(10, rotate=True)
    starts = [
        filtered_start(true_stepper(task.system), contexts, noise, one, generator)
        for one, generator in zip(settings, generators, strict=True)
    ]
    drawn = torch.Generator().manual_seed(0)
    torch.randn(10 * len(contexts), 16, 3, generator=drawn, dtype=contexts.dtype)  # the members' own noise, alone
    assert torch.equal(generators[0].get_state(), drawn.get_state())
    assert not torch.equal(generators[1].get_state(), drawn.get_state())
    assert not torch.equal(*starts)


# --- published figures ------------------------------------------------------------------------------------------------


def cycled_error(system, every: float, variance: float, settings: Filter) -> float:
    """Error of the analysis mean in state units, all components seen: 48 runs of 300 cycles past their first 100."""
    system = dataclasses.replace(system, sample_interval=every, solver_step=every / 25)
    states = np.stack([system.draw(stream(5, "cycles", i), system.starts[0]) for i in range(48)])
    spin_up = round(20 / every)
    truth = torch.from_numpy(simulate(system, states, spin_up + 400, None)[:, spin_up:].copy())
    generator, deviation = torch.Generator().manual_seed(0), variance**0.5
    noise = torch.full(truth.shape[2:], deviation, dtype=torch.float64)
    context = truth + deviation * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    means: list[torch.Tensor] = []

    def advance(ensemble):
        flat = simulate(system, ensemble.flatten(0, 1).numpy(), 1, None)[:, -1]
        return torch.from_numpy(flat).reshape(ensemble.shape)

    first = truth[:, 0].repeat(settings.members, 1, 1)
    ensemble = first + deviation * torch.randn(first.shape, generator=generator, dtype=torch.float64)
    parts = advance, ensemble, context, noise, lambda e: e, settings.inflation
    assimilate(*parts, record=lambda e: means.append(e.mean(0)), rotations=generator if settings.rotate else None)
    return float((torch.stack(means, 1) - truth)[:, 100:].square().mean(-1).sqrt().mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "every", "variance", "settings", "published"),
    [
        ("lorenz63", 0.25, 2.0, Filter(10, 1.02, rotate=True), (0.54, 0.60)),
        ("lorenz96", 0.05, 1.0, Filter(28, 1.02, rotate=True), (0.18, 0.22)),
    ],
)
def test_the_transform_filter_with_rotations_reaches_published_errors(name, every, variance, settings, published):
    """DAPPER's settings of perfect models, all observed; its tables give the errors of square-root filters."""
    error = cycled_error(systems.get(name), every, variance, settings)
    assert published[0] <= round(error, 2) <= published[1]
    if name == "lorenz63":  # where skewness counts
        assert cycled_error(systems.get(name), every, variance, dataclasses.replace(settings, rotate=False)) > 0.65


# --- localisation -----------------------------------------------------------------------------------------------------


def test_gaspari_cohn_falls_smoothly_from_one_to_zero():
    x = torch.linspace(0, 12, 100_001, dtype=torch.float64)
    y = gaspari_cohn(x, 3.0)
    assert y[0] == 1
    assert (y.diff() < 1e-14).all()
    assert (y >= 0).all()
    assert (y[x >= 2 * 3 * (10 / 3) ** 0.5] == 0).all()
    assert y[x < 10.9].min() > 0
    assert y.diff().abs().max() < 1e-3  # the two pieces meet
    assert float(gaspari_cohn(torch.tensor(3.0), 3.0)) == pytest.approx(math.exp(-0.5), abs=0.03)
    curvature = 1 - float(gaspari_cohn(torch.tensor(0.01, dtype=torch.float64), 3.0))
    assert curvature == pytest.approx(0.5 * (0.01 / 3) ** 2, rel=0.01)  # as a Gaussian of that radius


RADII = [(n, r) for n in (24, 40, 64, 256) for r in (1.0, 3.0, 4.0, 8.0, 12.0)]


@pytest.mark.parametrize(("n_sites", "radius"), RADII)
def test_localisation_on_a_ring_is_a_covariance(n_sites, radius):
    taper = ring_localisation(n_sites, radius)
    assert torch.equal(taper, taper.T)
    assert (taper.diagonal() == 1).all()
    assert torch.equal(taper.roll((1, 1), (0, 1)), taper)  # all sites are alike
    assert (taper[0, : n_sites // 2].diff() <= 0).all()
    assert torch.linalg.eigvalsh(taper).min() > -1e-12


# --- the oracle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["lorenz63-noisy", "lorenz63-partial", pytest.param("lorenz96-noisy", marks=pytest.mark.slow)]
)
def test_the_oracle_beats_persistence_by_more_than_the_intervals(data, tmp_path, name):
    rows = {}
    for baseline in ("oracle", "persistence"):
        run = stages.train(jobs.Job(baseline, name, "tiny"), data, tmp_path)
        scores = stages.score(run, data)
        rows[baseline] = next(r for r in scores.rows if r.metric == "valid_prediction_time")
    assert rows["oracle"].low > rows["persistence"].high
    assert rows["oracle"].value > 1.5


def test_the_oracle_s_analysis_is_far_better_than_its_last_observation(data):
    task = tasks.get("lorenz96-noisy", "tiny")
    contexts = dataset.load(task, data).contexts["test"]
    module = baselines.get("oracle")
    analysis = module.build(task, module.Config()).start(contexts, np.random.default_rng(0)).mean(0)
    values, _, _ = scoring.load_truth(task, data, "test")
    with dataset.open_truth(task, data) as file:
        last = torch.from_numpy(file["test/truth"][:, 63])
    sigma = float(task.system.std[0])
    error = float((analysis - last).square().mean().sqrt()) / sigma
    assert error < 0.05
    assert float((contexts[:, -1] - last).square().mean().sqrt()) / sigma == pytest.approx(0.1, rel=0.1)


# --- any Stepper ------------------------------------------------------------------------------------------------------


def last_error(state, task, data) -> float:
    """Root mean square error of states at the last context sample, in σ."""
    with dataset.open_truth(task, data) as file:
        last = torch.from_numpy(file["test/truth"][:, task.context - 1])
    return float(((state - last) / torch.from_numpy(task.system.std)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lorenz63-noisy", Filter(40)), pytest.param("lorenz96-noisy", Filter(60, 1.02, 8.0), marks=pytest.mark.slow)],
)
def test_a_stepper_that_is_the_true_system_starts_as_well_as_the_oracle(data, name, settings):
    task = tasks.get(name, "tiny")
    contexts = dataset.load(task, data).contexts["test"]
    noise = torch.from_numpy(task.observation.noise_std(task.system))
    generator = torch.Generator().manual_seed(0)
    analysis = filtered_start(true_stepper(task.system), contexts, noise, settings, generator)
    module = baselines.get("oracle")
    oracle = module.build(task, module.Config()).start(contexts, np.random.default_rng(0))
    ours, reference = (last_error(e.mean(0), task, data) for e in (analysis, oracle))
    assert analysis.shape == (settings.members, *contexts[:, -1].shape)
    assert ours < 1.3 * reference
    assert ours < 0.5 * last_error(contexts[:, -1], task, data)


def test_a_filtered_start_reaches_what_a_stepper_keeps_out_of_sight():
    """A rotation of which only one component is read: the filter finds the other."""
    turn = torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]], dtype=torch.float64)

    class Hidden(MapStepper):
        def start(self, context, n_members, generator):
            x = context[:, -1]
            return torch.cat([x, 3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)], dim=-1)[None]

        def read(self, state):
            return state[..., :1]

    generator = torch.Generator().manual_seed(0)
    state, samples = torch.randn(32, 2, generator=generator, dtype=torch.float64), []
    for _ in range(40):
        samples.append(state[:, :1] + 0.1 * torch.randn(32, 1, generator=generator, dtype=torch.float64))
        state = state @ turn.T
    last = state @ turn
    noise = torch.tensor([0.1], dtype=torch.float64)
    analysis = filtered_start(Hidden(lambda u: u @ turn.T), torch.stack(samples, 1), noise, Filter(20), generator)
    error = (analysis.mean(0) - last).square().mean(0).sqrt()
    # a harmonic fitted to the n = 25 samples seen, of noise σ: both coordinates to σ √(2/n)
    torch.testing.assert_close(error, torch.full((2,), 0.1 * (2 / 25) ** 0.5, dtype=torch.float64), rtol=0.3, atol=0)
