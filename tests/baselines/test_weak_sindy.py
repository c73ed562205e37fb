"""Weak-form regression: exact moments, terms found, no bias under noise; the equations of the systems recovered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emubench import baselines, systems
from emubench.data import dataset, tasks
from emubench.data.dataset import Observations
from emubench.dynamics.simulate import simulate
from emubench.evaluation import scoring
from emubench.learning.objectives.weak_form import (
    bump,
    evaluate,
    hidden_equation,
    monomials,
    noise_covariance,
    normal_equations,
    smooth,
    unbiased_powers,
)
from emubench.learning.rings import gaussian_fill, interpolate_ring
from emubench.learning.training.descent import Log

weak_sindy = baselines.get("weak_sindy")
eliminate, ring_filters = weak_sindy.eliminate, weak_sindy.ring_filters


def samples(name: str, n: int, length: int, seed: int = 0) -> torch.Tensor:
    """Noise-free trajectories on the attractor ``"B T S"``."""
    system, rng = systems.get(name), np.random.default_rng(seed)
    state = simulate(system, np.stack([system.draw(rng, system.starts[0]) for _ in range(n)]), 200)[:, -1]
    return torch.from_numpy(simulate(system, state, length))


def fitted(name: str, observed: torch.Tensor, noise: float, half_width: int):
    """The emulator after the weak regression alone, and its coefficients per time, {(exponents, order, k): w}."""
    task = tasks.get(f"{name}-{'noisy' if noise else 'clean'}", "tiny")
    emulator = weak_sindy.build(task, weak_sindy.default_config(task))
    std = torch.from_numpy(task.system.std)
    sigma = noise * (std[0] if emulator.ring else std)
    weak_sindy.fit(emulator, observed, sigma, half_width, emulator.config)
    rates = emulator.coefficients / task.system.sample_interval
    terms = list(zip(emulator.library.exponents, emulator.library.orders, strict=True))
    found = {(*terms[i], k): float(rates[i, k]) for i, k in torch.nonzero(rates).tolist()}
    return emulator, found


LORENZ63 = {
    ((1, 0, 0), 0, 0): -10.0,
    ((0, 1, 0), 0, 0): 10.0,
    ((1, 0, 0), 0, 1): 28.0,
    ((0, 1, 0), 0, 1): -1.0,
    ((1, 0, 1), 0, 1): -1.0,
    ((1, 1, 0), 0, 2): 1.0,
    ((0, 0, 1), 0, 2): -8 / 3,
}
LORENZ96 = {
    ((0, 0, 0, 0, 0), 0, 0): 8.0,
    ((0, 0, 1, 0, 0), 0, 0): -1.0,
    ((0, 1, 0, 1, 0), 0, 0): 1.0,
    ((1, 1, 0, 0, 0), 0, 0): -1.0,
}
DX = 22 / 64
KURAMOTO = {((1,), 2, 0): -1 / DX**2, ((1,), 4, 0): -1 / DX**4, ((2,), 1, 0): -0.5 / DX}
TRUE = {"lorenz63": LORENZ63, "lorenz96": LORENZ96, "kuramoto_sivashinsky": KURAMOTO}


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_the_test_function(order):
    """Against finite differences on a grid so fine that they are right to four digits."""
    m, p = 2000, 8
    fine = np.gradient(bump(m, p, order - 1).numpy())
    assert np.allclose(bump(m, p, order).numpy(), fine, atol=3e-3 * np.abs(fine).max())
    assert bump(m, p, order)[[0, -1]].abs().max() == 0
    assert float(bump(m, p, order).sum()) == pytest.approx(0, abs=1e-12)


def test_powers_of_noisy_values_are_unbiased():
    generator, x, sigma = torch.Generator().manual_seed(0), 1.3, 0.7
    noisy = x + sigma * torch.randn(400_000, generator=generator, dtype=torch.float64)
    powers = unbiased_powers(noisy, sigma**2, 4)
    error = powers.std(1) / 400_000**0.5
    for n in range(5):
        assert abs(float(powers[n].mean()) - x**n) <= 4 * float(error[n]) + 1e-12
    assert abs(float((noisy**4).mean()) - x**4) > 40 * float(error[4])  # the naive power is biased


def test_monomials_are_counted_and_evaluated():
    exponents = monomials(3, 2)
    assert len(exponents) == len(set(exponents)) == 10
    values = torch.tensor([[2.0, 3.0, 5.0]])
    powers = torch.stack([values**n for n in range(3)])
    assert evaluate(powers, exponents)[0].tolist() == [1, 2, 3, 5, 4, 6, 10, 9, 15, 25]


def test_the_noise_covariance_is_that_of_repeated_noise():
    """The estimate from one noisy copy, averaged, against the covariance over copies of one and the same field."""
    generator, sigma = torch.Generator().manual_seed(1), torch.tensor([0.3, 0.6])
    clean = torch.randn(1, 16, 1, 2, generator=generator, dtype=torch.float64)
    copies = clean + sigma * torch.randn(20_000, 16, 1, 2, generator=generator, dtype=torch.float64)
    exponents = monomials(2, 2)
    features = evaluate(unbiased_powers(copies, sigma**2, 2), exponents)
    centred = features - features.mean(0)
    covariance = torch.einsum("rtxf,rtxg->fg", centred, centred) / (len(copies) * 16)
    scale = (covariance.diagonal()[:, None] * covariance.diagonal()).sqrt()
    estimates = noise_covariance(copies, sigma**2, exponents)
    error = estimates.std(0) / len(copies) ** 0.5
    assert ((estimates.mean(0) - covariance).abs() < 6 * error + 1e-2 * scale + 1e-12).all()


def test_ring_filters_integrate_by_parts():
    """∑ (−1)ⁿ ψ⁽ⁿ⁾ sin(kx) = ∑ ψ ∂ⁿ sin(kx), exact up to the aliasing of ψ."""
    n, k = 64, 2 * np.pi * 3 / 64
    x = torch.arange(n, dtype=torch.float64)
    derivatives = [(k * x).sin(), k * (k * x).cos(), -(k**2) * (k * x).sin(), -(k**3) * (k * x).cos()]
    filters = ring_filters(n, 24, 8, [0, 1, 2, 3])
    for order in range(4):
        assert float(filters[order] @ derivatives[0]) == pytest.approx(float(filters[0] @ derivatives[order]), abs=1e-7)
    assert torch.equal(ring_filters(5, 0, 8, [0])[0], torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64))


def test_smooth_is_a_correlation():
    values = torch.arange(10.0, dtype=torch.float64)[None]
    assert smooth(values, torch.tensor([1.0, 0.0, -1.0])).tolist() == [[-2.0] * 8]


def test_elimination_keeps_what_is_there_and_drops_what_is_not():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 40, 6, generator=generator, dtype=torch.float64)
    y = 2 * x[..., 1] - 0.5 * x[..., 4] + 0.1 * torch.randn(50, 40, generator=generator, dtype=torch.float64)
    grams, moments = x.mT @ x, (x.mT @ y[..., None])
    coefficients, errors = eliminate(grams, moments, 5.0)
    assert torch.nonzero(coefficients[:, 0])[:, 0].tolist() == [1, 4]
    assert (coefficients[[1, 4], 0] - torch.tensor([2.0, -0.5])).abs().max() < 4 * errors.max()
    assert errors[1, 0] == pytest.approx(0.1 / 2000**0.5, rel=0.3)
    everything, _ = eliminate(grams, moments, 0.0)
    assert (everything != 0).all()
    nothing, _ = eliminate(grams, moments, 1e9)
    assert not nothing.any()


# --- the systems ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "half_width", "precision"),
    [("lorenz63", 12, 3e-5), ("lorenz96", 12, 1e-6), ("kuramoto_sivashinsky", 12, 1e-5)],
)
def test_clean_data_give_the_equation(name, half_width, precision):
    _, found = fitted(name, samples(name, 4, 512), 0.0, half_width)
    assert found.keys() == TRUE[name].keys()
    for term, value in TRUE[name].items():
        assert found[term] == pytest.approx(value, rel=precision)


@pytest.mark.parametrize("name", ["lorenz63", "lorenz96", "kuramoto_sivashinsky"])
def test_noisy_data_give_the_same_equation_without_bias(name):
    """10 % noise: each coefficient, averaged over independent noise, lies within its scatter of the truth."""
    clean, true = samples(name, *((24, 512) if name == "lorenz63" else (3, 256))), TRUE[name]
    std = torch.from_numpy(systems.get(name).std)
    generator, runs = torch.Generator().manual_seed(3), []
    for _ in range(6):
        noisy = clean + 0.1 * std * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        _, found = fitted(name, noisy, 0.1, 6)
        assert found.keys() == true.keys()
        runs.append([found[term] / true[term] for term in true])
    ratios = np.array(runs)
    error = ratios.std(0, ddof=1) / len(ratios) ** 0.5
    assert (np.abs(ratios.mean(0) - 1) < 5 * error + 1e-3).all(), (ratios.mean(0), error)
    assert (np.abs(ratios - 1) < 0.1).all()


def test_uncorrected_normal_equations_are_biased():
    """What the correction is for: without it, lorenz63's coefficients are off by many of its standard errors."""
    clean, std = samples("lorenz63", 24, 512), torch.from_numpy(systems.get("lorenz63").std)
    noisy = clean + 0.2 * std * torch.randn(
        clean.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    exponents = monomials(3, 2)
    kept = [i for i, e in enumerate(exponents) if e in ((0, 1, 0), (1, 0, 0), (1, 0, 1))]
    estimates = {}
    for noise in (0.0 * std, 0.2 * std):
        states = noisy[:, :, None]
        grams, moments = normal_equations(states, states, noise, exponents, torch.ones(10, 1).double(), 6, 8)
        w, error = eliminate(grams[:, kept][:, :, kept], moments[:, kept], 0.0)
        estimates[float(noise.max())] = w[:, 1] / 0.05, error[:, 1] / 0.05
    order = [exponents[i] for i in kept]
    true = torch.tensor([LORENZ63[e, 0, 1] for e in order], dtype=torch.float64)
    (naive, _), (right, error) = estimates.values()
    assert ((right - true).abs() < 4 * error).all()
    assert ((naive - true).abs() > 8 * error).any()


def test_the_fitted_flow_is_the_systems_flow():
    for name in TRUE:
        data = samples(name, 2, 256)
        emulator, _ = fitted(name, data, 0.0, 12)
        emulator.low.fill_(-100)
        emulator.high.fill_(100)
        error = (emulator.flow()(data[:, 10]) - data[:, 11]).abs().max()
        assert error < 1e-4 * float(data.std()), name


def test_one_component_of_lorenz63_gives_its_hidden_equation():
    """x alone, 10 % noise: x″ = −11 x′ + 270 x − 10 x z, as x″ = −a x′ + b x + x w; rough, to be refined."""
    x = samples("lorenz63", 16, 1024, seed=5)[..., :1]
    noise = torch.tensor([0.1 * 7.924])
    observed = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, c, d, e = hidden_equation(observed[..., 0], float(noise), 8, 8, 32, torch.Generator().manual_seed(0))
    dt = 0.05
    assert a / dt == pytest.approx(11, rel=0.35)
    assert b / dt**2 == pytest.approx(270, rel=0.5)
    assert c / dt**3 == pytest.approx(10, rel=0.35)
    assert d / dt**2 == pytest.approx(-1, rel=0.5)
    assert e / dt == pytest.approx(8 / 3, rel=1.0)


@pytest.mark.slow
def test_refining_moves_wrong_coefficients_towards_the_truth(data):
    """lorenz96 with half of the sites: from 5 % wrong coefficients."""
    task = tasks.get("lorenz96-partial", "tiny")
    observations: Observations = dataset.load(task, data)
    config = weak_sindy.default_config(task)
    emulator = weak_sindy.build(task, config)
    for (exponents, _, k), value in LORENZ96.items():
        emulator.coefficients[emulator.library.exponents.index(exponents), k] = 0.95 * value * 0.05
    emulator.low.fill_(-30)
    emulator.high.fill_(30)
    emulator.filter.noise.copy_(observations.noise_std)
    emulator.filter.inflation = config.training_inflation

    def off() -> float:
        return max(
            abs(float(emulator.coefficients[emulator.library.exponents.index(e), k]) / (0.05 * v) - 1)
            for (e, _, k), v in LORENZ96.items()
        )

    with torch.no_grad():
        for _ in range(4):
            weak_sindy.set_climate(emulator, observations, config, torch.Generator().manual_seed(0))
            weak_sindy.refine(emulator, observations.train[:, :160], config)
    assert off() < 0.035


def test_gaps_of_a_smooth_field_are_filled(data):
    task = tasks.get("kuramoto_sivashinsky-partial", "tiny")
    clean = dataset.load(tasks.get("kuramoto_sivashinsky-clean", "tiny"), data).train
    observed = dataset.load(task, data).train
    errors = [float((f - clean).square().mean()) for f in (gaussian_fill(observed, 0.1186), interpolate_ring(observed))]
    assert errors[0] < 0.75 * errors[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("lorenz96-noisy", 2.8), ("kuramoto_sivashinsky-noisy", 3.0)])
def test_training_reaches_the_perfect_model(data, name, least):
    """Tiny data are enough for the equation: the valid prediction time is that of the true model within its error."""
    task = tasks.get(name, "tiny")
    observations = dataset.load(task, data)
    emulator = weak_sindy.build(task, weak_sindy.default_config(task))
    weak_sindy.train(emulator, observations, emulator.config, 0, Log())
    result = scoring.evaluate(emulator, task, data)
    score = next(r.value for r in result.scores.rows if r.metric == "valid_prediction_time")
    assert score is not None
    assert score > least
