"""The echo state network: it forgets where it began, commutes with translation, keeps its gaps, recovers known maps."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.data import dataset, tasks
from emubench.emulator import load_weights, save_weights
from emubench.learning.rings import coloured
from emubench.learning.training.descent import Log

reservoir = baselines.get("reservoir")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test_reservoir").standard_normal(shape))


def built(name: str, data, **settings):
    """An emulator before its fit, drawn and scaled; and the task's observations."""
    given = dataset.load(tasks.get(name, "tiny"), data)
    config = dataclasses.replace(reservoir.default_config(given.task), **settings)
    emulator = reservoir.build(given.task, config)
    reservoir.prepare(emulator, given, torch.Generator().manual_seed(0))
    emulator.weight.zero_()
    emulator.gain.fill_(1.0)
    return emulator, given


def trained(name: str, given: dataset.Observations, **settings):
    config = dataclasses.replace(reservoir.default_config(given.task), **settings)
    emulator = reservoir.build(given.task, config)
    reservoir.train(emulator, given, config, 0, Log())
    return emulator


def forecast(emulator, context: Tensor, n_steps: int, n_members: int = 1) -> Tensor:
    with torch.no_grad():
        return emulator.forecast(context, n_steps, n_members, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("memory", [0.1, 0.6, 0.9])
def test_it_forgets_where_it_began_at_least_as_fast_as_its_memory(data, memory):
    """Echo states: two starts under the same inputs approach each other by the weight of the cycle a sample."""
    emulator, _ = built("lorenz63-noisy", data, size=50, memory=memory)
    first, second = normal(0, 1, 50).tanh(), normal(1, 1, 50).tanh()
    begun = float((first - second).norm())
    for k in range(1, 40):
        x = normal(2 + k, 1, 3)
        first, second = emulator.listen(first, x), emulator.listen(second, x)
        assert float((first - second).norm()) <= memory**k * begun + 1e-15


def test_the_cycle_is_a_matrix_of_that_spectral_radius(data):
    emulator, _ = built("lorenz63-noisy", data, size=12, memory=0.7)
    nodes, x = normal(50, 4, 12), normal(51, 4, 3)
    cycle = 0.7 * np.roll(np.eye(12), 1, axis=1)
    assert np.abs(np.linalg.eigvals(cycle)).max() == pytest.approx(0.7)
    by_hand = np.tanh(nodes.numpy() @ cycle + x.numpy() @ emulator.inner.numpy() + emulator.offset.numpy())
    np.testing.assert_allclose(emulator.listen(nodes, x).numpy(), by_hand, atol=1e-14)


def test_the_readout_is_the_ridge_regression_of_numpy(data):
    """Rows gathered here step by step, along the driven trajectories, against the normal equations."""
    emulator, given = built("lorenz63-clean", data, size=6)
    given = dataclasses.replace(given, train=given.train[:, :80])
    emulator = trained("lorenz63-clean", given, size=6, ridges=(1e-3,), horizon=0.5, spin_up=10)
    u = ((given.train - given.mean) / given.std).numpy()
    inner, offset, memory = emulator.inner.numpy(), emulator.offset.numpy(), emulator.config.memory
    features, targets = [], []
    for series in u:
        r = np.zeros(6)
        for t in range(len(series) - 1):
            r = np.tanh(memory * np.roll(r, 1) + series[t] @ inner + offset)
            if t + 1 > 10:
                features.append(np.concatenate([[1.0], series[t], r]))
                targets.append(series[t + 1])
    f, y = np.array(features), np.array(targets)
    prior = np.zeros((10, 3))
    prior[1:4] = np.eye(3)  # towards persistence
    penalty = 1e-3 * np.diag((f**2).mean(0))
    w = prior + np.linalg.solve(f.T @ f / len(f) + penalty, f.T @ (y - f @ prior) / len(f))
    np.testing.assert_allclose(emulator.weight.numpy(), w, atol=1e-9)


def test_a_linear_map_is_reproduced(data):
    skew = torch.tensor([[0.0, 0.3, -0.1], [-0.3, 0.0, 0.2], [0.1, -0.2, 0.0]], dtype=torch.float64)
    samples = [normal(52, 8, 3)]
    for _ in range(127):
        samples.append(samples[-1] @ torch.linalg.matrix_exp(skew))
    given = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    train = torch.stack(samples, dim=1) * given.std + given.mean
    given = dataclasses.replace(given, train=train, validation=train[:2])
    emulator = trained("lorenz63-clean", given, size=20, ridges=(1e-20,), horizon=0.5)
    found = forecast(emulator, train[:, :30], 60)[0]
    torch.testing.assert_close(found, train[:, 30:90], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lorenz96-clean", "kuramoto_sivashinsky-clean", "kpz-clean"])
def test_reservoirs_on_rings_commute_with_translation(data, name):
    emulator, given = built(name, data, size=10)
    emulator.weight.copy_(0.05 * normal(53, *emulator.weight.shape))
    emulator.window.set_basis(((given.train - emulator.mean) / emulator.std)[:, ::8].flatten(0, 1)[:, None], 0.0)
    emulator.spectrum.zero_()
    context = given.contexts["test"][:4:2]
    found = forecast(emulator, context, 6)
    torch.testing.assert_close(forecast(emulator, context.roll(7, -1), 6), found.roll(7, -1), rtol=0, atol=1e-8)


def test_a_shift_of_a_growing_height_changes_nothing_else(data):
    emulator, given = built("kpz-clean", data, size=10)
    emulator.weight.copy_(0.05 * normal(54, *emulator.weight.shape))
    context = given.contexts["test"][:2]
    shifted = forecast(emulator, context + 1000.0, 6, 2)
    torch.testing.assert_close(shifted, forecast(emulator, context, 6, 2) + 1000.0, rtol=0, atol=1e-8)


def test_what_drives_moves_the_forecast_by_the_gain_and_only_where_it_is_seen(data):
    emulator, given = built("lorenz96-partial", data, size=10)
    emulator.weight.copy_(0.1 * normal(55, *emulator.weight.shape))
    seen = ((given.train - emulator.mean) / emulator.std)[:2, :12]
    hidden = torch.isnan(seen[:, 0])
    for gain in (0.25, 1.0):
        emulator.gain.fill_(gain)
        drawn = list(emulator.drive(seen))
        for t in range(1, 12):
            expected = emulator.advance(*drawn[t - 1])[1]
            now = drawn[t][1]
            assert torch.equal(now[hidden], expected[hidden])
            wanted = expected + gain * (seen[:, t] - expected)
            torch.testing.assert_close(now[~hidden], wanted[~hidden])


def test_unseen_beginnings_are_flat_and_single_gaps_are_bridged(data):
    emulator, given = built("kpz-noisy", data, size=5)
    context = given.contexts["test"][:1].clone()
    context[:, :20] = float("nan")
    drawn = [values for _, values in emulator.drive(context / emulator.std)]
    assert all((values == 0).all() for values in drawn[:20])
    torch.testing.assert_close(drawn[20], context[:, 20] / emulator.std)
    context[:, 30] = float("nan")  # a sample that is lost altogether: the network goes on by itself
    ((_, last),) = deque(emulator.drive(context / emulator.std), maxlen=1)
    assert torch.isfinite(last).all()


def test_innovations_have_the_spectrum_that_forecasts_miss(data):
    """Heights of independent coloured growth: the readout's is the mean, the innovations' spectrum is the colour's."""
    given = dataset.load(tasks.get("kpz-clean", "tiny"), data)
    n = given.train.shape[-1]
    power = 1 / (1 + torch.arange(n // 2 + 1).double() / 8) ** 2
    steps = torch.fft.irfft(power.sqrt() * torch.fft.rfft(normal(56, 4, 256, n)), n=n)
    heights = steps.cumsum(1)
    given = dataclasses.replace(given, train=heights, validation=heights[:2])
    emulator = trained("kpz-clean", given, size=4, ridges=(1e-2,), driven=(4, 256))
    found = emulator.spectrum * emulator.std[0] ** 2
    assert float((found[2:60] / power[2:60]).mean()) == pytest.approx(1, abs=0.05)
    members = forecast(emulator, heights[:1, :64], 1, 400)[:, 0, 0] - heights[0, 63]
    spread = torch.fft.rfft(members - members.mean(0)).abs().square().mean(0) / n
    assert float((spread[2:60] / power[2:60]).mean()) == pytest.approx(1, abs=0.1)


def test_weights_survive_saving(data, tmp_path):
    given = dataset.load(tasks.get("lorenz96-partial", "tiny"), data)
    emulator = trained("lorenz96-partial", given, size=10, horizon=0.2, ridges=(1e-2,))
    save_weights(emulator, tmp_path / "model.safetensors")
    fresh = reservoir.build(given.task, emulator.config)
    load_weights(fresh, tmp_path / "model.safetensors")
    context = given.contexts["test"][:3]
    assert torch.equal(forecast(emulator, context, 9), forecast(fresh, context, 9))


def test_noise_free_lorenz63_is_forecast_for_several_lyapunov_times(data):
    given = dataset.load(tasks.get("lorenz63-clean", "tiny"), data)
    emulator = trained("lorenz63-clean", given, size=150, horizon=4.0)
    window = given.validation[:, :164].unfold(1, 164, 1)[:, 0].mT
    error = (forecast(emulator, window[:, :64], 66)[0] - window[:, 64:130]) / given.std
    assert error.square().mean(-1).sqrt().max() < 0.5  # three Lyapunov times


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": 1.0}, "memory: 1.0 where at least 0 and under 1"),
        ({"size": 0}, "size: 0 where a positive number"),
        ({"gains": (0.0,)}, "gains"),
        ({"driven": (3,)}, "driven"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(EmubenchError, match=message):
        reservoir.Config(**settings)


def test_what_a_forecast_misses_less_the_noise_is_the_innovation():
    """h(t + 1) = h(t)/2 + η, observed with white noise where the forecast starts from the truth."""
    generator, noise = torch.Generator().manual_seed(2), 0.5
    spectrum = 4.0 / (1.0 + torch.arange(17.0, dtype=torch.float64) ** 2)
    now = torch.randn(8000, 32, generator=generator, dtype=torch.float64)
    after = now / 2 + coloured(spectrum, now.shape, generator)
    seen = after + noise * torch.randn(now.shape, generator=generator, dtype=torch.float64)

    def model(memory: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return memory, values / 2

    driven = [((torch.zeros(0), n), s) for n, s in zip(now.split(2000), seen.split(2000), strict=True)]
    assert torch.allclose(reservoir.missed_spectrum(model, driven, noise), spectrum, rtol=0.05, atol=0.02)
