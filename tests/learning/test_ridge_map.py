"""Maps fitted in closed form: least squares against numpy's, unbiased moments, windows; exact maps are recovered."""

from __future__ import annotations

import dataclasses
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from torch import Tensor

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import dataset, tasks
from emubench.emulator import load_weights, save_weights
from emubench.learning.least_squares import cubic_weights, local_cubic, solve_factor, solve_moments, triangular_factor
from emubench.learning.models.growth_map import MAX_ROWS
from emubench.learning.models.ridge_map import Window
from emubench.learning.training.descent import Log

polynomial, random_features = baselines.get("polynomial"), baselines.get("random_features")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test_ridge_map").standard_normal(shape))


# --- least squares ----------------------------------------------------------------------------------------------------


def ridge_by_numpy(f: np.ndarray, y: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """The minimum of |y − f w|²/n + ridge Σ ⟨f²⟩ (w − prior)², by the normal equations."""
    penalty = ridge * np.diag((f**2).mean(0))
    gram = f.T @ f / len(f)
    return prior + np.linalg.solve(gram + penalty, f.T @ (y - f @ prior) / len(f))


@pytest.mark.parametrize("ridge", [1e-12, 1e-3, 1.0])
def test_ridge_regression_is_numpys(ridge):
    f, prior = normal(0, 500, 7) * torch.tensor([1, 10, 0.1, 1, 1, 3, 1]), normal(1, 7, 2)
    y = f @ normal(2, 7, 2) + 0.1 * normal(3, 500, 2)
    expected = torch.from_numpy(ridge_by_numpy(f.numpy(), y.numpy(), prior.numpy(), ridge))
    factor = triangular_factor(torch.cat([f, y], dim=1).split(64))
    torch.testing.assert_close(solve_factor(factor, prior, ridge), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solve_moments(f.T @ f / 500, f.T @ y / 500, prior, ridge), expected)


def test_blocks_of_rows_make_no_difference_even_shorter_than_wide():
    rows = normal(4, 100, 12)
    factors = [triangular_factor(rows.split(n)) for n in (100, 40, 5)]
    for factor in factors:
        torch.testing.assert_close(factor.T @ factor, rows.T @ rows / 100)
    with pytest.raises(EmubenchError, match="nothing to fit"):
        triangular_factor([])


def test_orthogonal_factors_keep_the_digits_that_normal_equations_lose():
    t = torch.linspace(-1, 1, 400, dtype=torch.float64)
    f = torch.stack([t**k for k in range(18)], dim=1)  # condition number 10^6: its square takes twelve digits
    w, zero = normal(5, 18, 1), torch.zeros(18, 1, dtype=torch.float64)
    y = f @ w
    by_factor = solve_factor(triangular_factor([torch.cat([f, y], dim=1)]), zero, 1e-26)
    by_moments = solve_moments(f.T @ f, f.T @ y, zero, 1e-15)
    assert (by_factor - w).abs().max() < 1e-8
    assert (by_moments - w).abs().max() > 1e-6


def test_a_large_ridge_gives_persistence():
    window = Window(8, True, 2, 2)
    unit_weight = torch.zeros(1 + window.size, 1, dtype=torch.float64)
    unit_weight[1:] = window.centre()
    fields = normal(6, 3, 2, 8)
    values = window(fields) @ unit_weight[1:]
    torch.testing.assert_close(values.view(3, 8), fields[:, -1])  # the newest field is the last


# --- windows ----------------------------------------------------------------------------------------------------------


def test_principal_directions_are_those_of_the_covariance():
    fields = normal(7, 400, 1, 16).cumsum(-1)
    fields = fields - fields.mean(-1, keepdim=True)
    window = Window(16, True, 1, 3, directions=4)
    window.set_basis(fields, noise=0.0)
    assert window(fields).shape == (400 * 16, 4)
    second = window(fields).T @ window(fields) / (400 * 16)
    torch.testing.assert_close(second, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(window.basis.T @ window.basis, torch.eye(4, dtype=torch.float64))
    explained = window.scale.square().sum() / window.values(fields).square().mean(0).sum()
    assert 0.8 < explained <= 1
    restored = (window(fields) @ window.centre()).view(400, 16)  # the centre is repeated as far as they carry it
    assert (restored - fields[:, 0]).square().mean() < 0.3 * fields.square().mean()
    whole = Window(16, True, 1, 3, directions=7)
    whole.set_basis(fields, noise=0.0)
    torch.testing.assert_close((whole(fields) @ whole.centre()).view(400, 16), fields[:, 0])


def test_a_window_wider_than_the_ring_is_refused():
    with pytest.raises(EmubenchError, match="radii: 4 where at most 3 belongs, on a ring of 8 sites"):
        Window(8, True, 1, 4)
    with pytest.raises(EmubenchError, match="directions: 8 where at most 7 belong"):
        Window(16, True, 1, 3, directions=8)


def test_local_cubic_keeps_cubics_and_takes_noise_away():
    t = torch.arange(40, dtype=torch.float64)
    cubic = (1 + t - 0.1 * t**2 + 0.002 * t**3).reshape(1, 40, 1)
    torch.testing.assert_close(local_cubic(cubic, 4), cubic[:, 4:-4])
    assert float(cubic_weights(4)[4]) == pytest.approx(59 / 231)  # of the well-known nine-point weights
    noise = normal(8, 1, 20_000, 1)
    assert float(local_cubic(noise, 4).var()) == pytest.approx(59 / 231, rel=0.05)


# --- monomials --------------------------------------------------------------------------------------------------------


def every(n_inputs: int, degree: int):
    return polynomial.monomials(n_inputs, polynomial.Config(degree=degree), 10**6)


def test_monomials_are_all_products():
    monomials = every(3, 3)
    found = monomials(torch.tensor([[2.0, 3.0, 5.0]]).double())
    assert monomials.size == 20 == found.shape[-1]
    expected = sorted([1, 2, 3, 5, 4, 6, 10, 9, 15, 25, 8, 12, 20, 18, 30, 50, 27, 45, 75, 125])
    assert sorted(found[0].tolist()) == expected
    weight, x = normal(9, 20, 2), normal(10, 30, 3)
    torch.testing.assert_close(monomials.combine(x, weight), monomials(x) @ weight)


def test_monomials_within_a_reach():
    config = polynomial.Config(degree=3, reach=(2, 1, 0), radii=(2,))
    terms = polynomial.monomials(5, config, 5).terms
    assert terms == [(), (0,), (1,), (2,), (3,), (4,), *combinations_with_replacement((1, 2, 3), 2), (2, 2, 2)]
    with pytest.raises(EmubenchError, match="reach"):
        polynomial.Config(degree=3, reach=(1, 2, 0))
    with pytest.raises(EmubenchError, match="over 20000 monomials"):
        every(40, 5)


def test_moments_of_noisy_values_are_those_of_the_noise_free_ones():
    """Averaged over the noise, E[f fᵀ] and E[f yᵀ] at the true values; the plain ones are off by many errors."""
    x, sigma = normal(11, 50, 2), torch.tensor([0.3, 0.6]).double()
    y, monomials = x[:, :1] * x[:, 1:], every(2, 2)
    f = monomials(x)
    copies = 4000
    noisy = x.repeat(copies, 1) + sigma * normal(12, 50 * copies, 2)
    parts = [monomials.moments(p, y.repeat(copies // 20, 1), sigma**2) for p in noisy.split(50 * copies // 20)]
    for found, expected in zip(zip(*parts, strict=True), (f.T @ f / 50, f.T @ y / 50), strict=True):
        stacked = torch.stack(found)
        error = stacked.std(0) / 20**0.5
        assert ((stacked.mean(0) - expected).abs() < 5 * error + 1e-12).all()
    naive = monomials(noisy)
    assert (naive.T @ naive / len(noisy) - f.T @ f / 50).abs().max() > 0.3
    plain = monomials.moments(x, y, torch.zeros(2).double())
    torch.testing.assert_close(plain[0], f.T @ f / 50)


def test_moments_with_less_than_no_noise_are_those_of_jittered_inputs():
    x, monomials = normal(13, 20, 2), every(2, 2)
    jittered = monomials(x.repeat(20_000, 1) + 0.2 * normal(14, 400_000, 2))
    gram, _ = monomials.moments(x, x[:, :1], torch.full((2,), -0.04).double())
    torch.testing.assert_close(gram, jittered.T @ jittered / len(jittered), rtol=0.03, atol=0.01)


def test_no_random_feature_is_linear_or_saturated_over_the_data():
    features = random_features.RandomFeatures(5, 400)
    x = normal(15, 2000, 5)
    features.draw(x, torch.Generator().manual_seed(4))
    argument = (x @ features.inner + features.offset).abs()
    assert argument.min() > random_features.LEAST - 1e-9
    assert argument.max() < random_features.MOST + 1e-9
    found = features(x)
    assert found.shape == (2000, 406)
    assert torch.equal(found[:, 1:6], x)  # the skip connection
    assert torch.equal(found[:, 0], torch.ones(2000).double())


# --- whole maps -------------------------------------------------------------------------------------------------------


def observations(data, name: str, train: Tensor) -> dataset.Observations:
    """The task's, with other training and validation samples, given in σ about its mean."""
    loaded = dataset.load(tasks.get(name, "tiny"), data)
    train = train * loaded.std + loaded.mean
    return dataclasses.replace(loaded, train=train, validation=train[:2])


def trajectories(step, start: Tensor, length: int) -> Tensor:
    samples = [start]
    for _ in range(length - 1):
        samples.append(step(samples[-1]))
    return torch.stack(samples, dim=1)


def fitted(module, name: str, given: dataset.Observations, **settings):
    task = tasks.get(name, "tiny")
    plain = {} if task.system.stochastic else {"ridges": (1e-18,), "horizon": 0.5, "training_noises": (0.0,)}
    if "reach" in {f.name for f in dataclasses.fields(module.Config)}:
        plain["reach"] = ()
    config = dataclasses.replace(module.default_config(task), **(plain | settings))
    emulator = module.build(task, config)
    module.train(emulator, given, config, 0, Log())
    return emulator


def forecast(emulator, context: Tensor, n_steps: int) -> Tensor:
    with torch.no_grad():
        return emulator.forecast(context, n_steps, 1, torch.Generator())[0]


@pytest.mark.parametrize(
    ("module", "more"),
    [(random_features, {"width": 40}), (random_features, {"width": 20, "radii": (0, 0)}), (polynomial, {"degree": 3})],
)
def test_a_linear_map_is_reproduced_exactly(data, module, more):
    skew = torch.tensor([[0.0, 0.3, -0.1], [-0.3, 0.0, 0.2], [0.1, -0.2, 0.0]], dtype=torch.float64)
    rotation = 0.99 * torch.linalg.matrix_exp(skew)
    given = observations(data, "lorenz63-clean", trajectories(lambda u: u @ rotation, normal(16, 8, 3), 128))
    emulator = fitted(module, "lorenz63-clean", given, **more)
    found = forecast(emulator, given.train[:, :1], 100)
    torch.testing.assert_close(found, given.train[:, 1:101], rtol=0, atol=1e-6)


def henon(u: Tensor) -> Tensor:
    """Hénon's map, its second component a delay of the first, and a third that follows both."""
    x, y, _ = u.unbind(-1)
    return torch.stack([1 - 1.4 * x**2 + y, 0.3 * x, x * y], dim=-1)


def test_a_quadratic_map_is_reproduced_exactly(data):
    train = trajectories(henon, 0.1 * normal(17, 16, 3).clamp(-2, 2), 128)[:, 8:]
    given = observations(data, "lorenz63-clean", train)
    emulator = fitted(polynomial, "lorenz63-clean", given, degree=2)
    found = forecast(emulator, given.train[:, :1], 20)  # its error doubles with every sample or two
    torch.testing.assert_close(found, given.train[:, 1:21], rtol=0, atol=1e-5)
    linear = fitted(polynomial, "lorenz63-clean", given, degree=1)
    assert (forecast(linear, given.train[:, :1], 20) - given.train[:, 1:21]).abs().max() > 1


def coupled(u: Tensor) -> Tensor:
    return 0.5 * u + 0.2 * u.roll(1, -1) - 0.1 * u * u.roll(-2, -1) + 0.1


def test_a_local_quadratic_map_on_a_ring_is_reproduced_exactly(data):
    given = observations(data, "lorenz96-clean", trajectories(coupled, normal(18, 8, 40), 64))
    emulator = fitted(polynomial, "lorenz96-clean", given, degree=2, radii=(2,))
    found = forecast(emulator, given.train[:, :1], 12)
    torch.testing.assert_close(found, given.train[:, 1:13], rtol=0, atol=1e-7)


def test_a_second_unit_composes_maps_that_one_alone_does_not_hold(data):
    """Two steps of a quadratic map are of degree 4, and reach twice as far; two quadratic units come closer."""
    train = trajectories(lambda u: coupled(coupled(u)), normal(19, 32, 40), 16)
    given = observations(data, "lorenz96-clean", train)
    errors = []
    for radii in ((2,), (2, 2)):
        emulator = fitted(polynomial, "lorenz96-clean", given, degree=2, radii=radii)
        errors.append(float((forecast(emulator, given.train[:, :1], 1) - given.train[:, 1:2]).square().mean()))
    assert errors[1] < 0.2 * errors[0]


def test_noise_in_the_regressors_is_corrected_for(data):
    """A noisy orbit of a turning map: least squares shrink its coefficients, the corrected fit doesn't."""
    angle = torch.tensor(0.7)
    rotation = torch.eye(3).double()
    rotation[:2, :2] = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
    loaded = dataset.load(tasks.get("lorenz63-noisy", "tiny"), data)
    train = trajectories(lambda u: u @ rotation, normal(20, 64, 3), 128)
    given = observations(data, "lorenz63-noisy", train + 0.1 * normal(21, *train.shape))
    given = dataclasses.replace(given, noise_std=0.1 * loaded.std)
    settings = {"degree": 1, "rounds": 0, "inflations": (1.0,), "ridges": (0.0,)}
    found = {e: fitted(polynomial, "lorenz63-noisy", given, training_noises=(e,), **settings) for e in (0.0, 0.1)}
    error = {e: (m.units[0].weight[1:] - rotation).abs().max() for e, m in found.items()}
    assert error[0.0] < 3e-3
    assert error[0.1] > 8e-3  # of a variance of one, one hundredth is noise


@pytest.mark.parametrize(
    ("module", "more"),
    [(random_features, {"width": 30, "radii": (2, 1)}), (polynomial, {"degree": 2, "radii": (2,)})],
)
def test_maps_on_rings_commute_with_translation(data, module, more):
    for name in ("lorenz96-partial", "kuramoto_sivashinsky-partial"):
        loaded = dataset.load(tasks.get(name, "tiny"), data)
        small = {"rows": 2000, "rounds": 1, "filtered": (1, 24), "members": 6, "localisation": 0.0, "horizon": 0.1}
        small["directions"] = 4 if loaded.task.shape == (64,) else 0
        emulator = fitted(module, name, loaded, ridges=(1e-3,), **small, **more)
        state = emulator.start(loaded.contexts["test"][:2], 1, torch.Generator())
        turned = emulator.step(state.roll(7, -1), torch.Generator())
        torch.testing.assert_close(turned, emulator.step(state, torch.Generator()).roll(7, -1), rtol=0, atol=1e-10)


def test_weights_and_filter_survive_saving(data, tmp_path):
    loaded = dataset.load(tasks.get("lorenz63-partial", "tiny"), data)
    small = {"rounds": 1, "filtered": (1, 48), "members": 8}
    emulator = fitted(polynomial, "lorenz63-partial", loaded, ridges=(1e-3,), inflations=(1.3,), **small)
    save_weights(emulator, tmp_path / "model.safetensors")
    fresh = polynomial.build(loaded.task, emulator.config)
    load_weights(fresh, tmp_path / "model.safetensors")
    context = loaded.contexts["test"][:3]
    assert torch.equal(forecast(emulator, context, 9), forecast(fresh, context, 9))
    assert float(fresh.inflation) == 1.3


def test_a_gap_in_a_noise_free_context_is_bridged_by_the_filter(data):
    given = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    emulator = fitted(polynomial, "lorenz63-clean", given, degree=3, inflations=(1.02,), members=20)
    context = given.contexts["test"][:4].clone()
    context[:, -1, 1] = float("nan")
    whole, gappy = (
        emulator.read(emulator.start(c, 1, torch.Generator()))[0] for c in (given.contexts["test"][:4], context)
    )
    torch.testing.assert_close(whole, given.contexts["test"][:4, -1])
    assert ((gappy - whole) / given.std).abs().max() < 0.2


# --- growing interfaces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [polynomial, random_features])
def test_the_mean_of_a_growth_map_is_its_inputs_times_its_weights(baseline):
    task = tasks.get("kpz-clean", "tiny")
    emulator, h = baseline.build(task, baseline.default_config(task)), normal(8, 3, 5, *task.shape).cumsum(-1)
    emulator.weight.copy_(normal(9, len(emulator.weight)))
    emulator.scale.fill_(1.3)
    if baseline is random_features:
        emulator.features.random.draw(normal(10, 64, 2 * emulator.radius), torch.Generator().manual_seed(0))
    torch.testing.assert_close(emulator.mean(h), h + emulator.inputs(h) @ emulator.weight, rtol=1e-12, atol=1e-12)
    turned, raised = emulator.mean(h.roll(3, -1)), emulator.mean(h + 7.0)
    torch.testing.assert_close(turned, emulator.mean(h).roll(3, -1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(raised, emulator.mean(h) + 7.0, rtol=1e-12, atol=1e-12)


def grown_mean(h: np.ndarray) -> np.ndarray:
    """Diffusion of heights and a product of neighbouring slopes, bounded as the map bounds them."""
    right = np.roll(h, -1, -1) - h
    left = np.roll(right, 1, -1)
    return h + 0.2 * (right - left) + 0.5 * np.tanh(left / 2) * np.tanh(right / 2)


def test_a_quadratic_growth_map_recovers_the_mean_and_the_innovations_of_one(data):
    given = dataset.load(tasks.get("kpz-clean", "tiny"), data)
    rng, n, sigma = stream(11, "test_ridge_map"), given.train.shape[-1], 0.56  # slopes of deviation near 1
    h = [np.zeros((8, n))]
    for _ in range(450):
        h.append(grown_mean(h[-1]) + sigma * rng.standard_normal((8, n)))
    series = np.stack(h[50:], axis=1)
    grown = dataclasses.replace(given, train=torch.from_numpy(series))
    emulator = fitted(polynomial, "kpz-clean", grown)
    off = emulator.mean(grown.train).numpy() - grown_mean(series)
    # as many weights as there are cost σ √(weights / rows) on average
    assert off.std() < 1.5 * sigma * (len(emulator.weight) / MAX_ROWS) ** 0.5
    assert emulator.spectrum[1:].sqrt().mean() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ridges", (), "ridges: "),
        ("rows", 0, "rows: 0 where"),
        ("inflations", (0.0,), "inflation"),
        ("members", 1, "members: 1 where a number of at least 2 belongs"),
        ("filtered", (1,), "2 numbers of at least 1 belong"),
        ("degree", 6, "degree: 6 where 1 to 5 belongs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(key, value, message):
    with pytest.raises(EmubenchError, match=message):
        polynomial.Config(**{key: value})
