"""analogue and parroting: exact copies where the answer is known, distances against a direct count."""

import math
from dataclasses import replace

import pytest
import torch

from baselines import analogue, parroting
from emubench.data.dataset import Observations
from emubench.data.tasks import Task, get
from emubench.learning.training.descent import Log


def observations(task: Task, train: torch.Tensor) -> Observations:
    """Data of which the training and the validation trajectories are the same."""
    select = task.observation.select
    scales = {"std": torch.from_numpy(select(task.system.std)), "mean": torch.from_numpy(select(task.system.mean))}
    return Observations(task, "0", "", train, train, {}, noise_std=torch.zeros(task.shape), **scales)


def smooth_ring(n_trajectories: int, length: int, n: int) -> torch.Tensor:
    """Fields that never come back: waves of incommensurable speeds."""
    rng = torch.Generator().manual_seed(1)
    t, x = torch.arange(length, dtype=torch.float64)[:, None], torch.arange(n) * (2 * math.pi / n)
    phases = 6 * torch.rand(n_trajectories, 3, 1, 1, generator=rng, dtype=torch.float64)
    waves = [torch.sin((k + 1) * x + 0.1 * math.sqrt(2 + 3 * k) * t + phases[:, k]) for k in range(3)]
    return torch.stack(waves).sum(0)


def trained(name: str, train: torch.Tensor, **settings) -> tuple[analogue.Analogue, Task]:
    task = get(name, "tiny")
    config = replace(analogue.Config(), windows=(4,), neighbours=(1,), hold=32, **settings)
    emulator = analogue.build(task, config)
    with torch.no_grad():
        analogue.train(emulator, observations(task, train), config, 0, Log())
    return emulator, task


@pytest.mark.parametrize("act", ["same", "translated", "reflected"])
def test_an_image_of_the_training_data_is_continued_exactly(act):
    train = smooth_ring(4, 256, 64)
    acts = {"same": lambda u: u, "translated": lambda u: u.roll(9, -1), "reflected": lambda u: -u.flip(-1).roll(4, -1)}
    seen = acts[act](train[1:3])
    emulator, _ = trained("kuramoto_sivashinsky-clean", train)
    forecast = emulator.forecast(seen[:, 40:104], 32, 1, torch.Generator())[0]
    assert torch.allclose(forecast, seen[:, 104:136], atol=1e-5)


def test_a_copy_goes_on_as_long_as_its_trajectory_does_and_then_finds_another():
    train = smooth_ring(4, 256, 64)
    emulator, _ = trained("kuramoto_sivashinsky-clean", train, thin=1)
    forecast = emulator.forecast(train[:1, 40:104], 300, 1, torch.Generator())[0]
    assert torch.allclose(forecast[:, :112], train[:1, 104:216], atol=1e-5)
    assert forecast.abs().max() <= train.abs().max() + 1e-5


def test_lorenz63_is_seen_under_its_rotation():
    t = torch.arange(256, dtype=torch.float64)
    train = torch.stack([5 * torch.sin(0.1 * math.sqrt(2) * t) + 8, torch.cos(0.1 * t) + 9, 20 + torch.sin(t)], -1)
    seen = train[None].expand(4, -1, -1) * torch.tensor([-1.0, -1.0, 1.0])
    emulator, _ = trained("lorenz63-clean", train[None].expand(4, -1, -1))
    forecast = emulator.forecast(seen[:1, 40:104], 32, 1, torch.Generator())[0]
    assert torch.allclose(forecast, seen[:1, 104:136], atol=1e-9)


def test_distances_on_a_ring_with_gaps_are_those_of_a_direct_count():
    emulator, _ = trained("lorenz96-partial", smooth_ring(4, 256, 40))
    rng = torch.Generator().manual_seed(2)
    query = torch.randn(3, 4, 40, generator=rng)
    query[:, :, torch.randperm(40, generator=rng)[:20]] = torch.nan
    windows = torch.randn(5, 4, 40, generator=rng)
    distance, shift = emulator.distances(query, windows)
    turned = torch.stack([windows.roll(-s, -1) for s in range(40)])
    direct = (query[:, None, None] - turned).square().nanmean((3, 4)).min(1)
    assert torch.allclose(distance, direct.values, rtol=1e-4)
    assert torch.equal(shift, direct.indices)


def test_what_a_member_lacked_fades_as_the_correlation_of_its_modes():
    fields = torch.randn(3, 64, 16, generator=torch.Generator().manual_seed(3)).cumsum(1)
    found = analogue.autocorrelation(fields, 2)
    modes = torch.fft.rfft(fields)
    pairs = torch.stack([modes[:, :62], modes[:, 2:]]).movedim(-1, 0).flatten(2)
    norms = pairs.abs().square().sum(-1).prod(-1).sqrt()
    assert torch.allclose(found[1], ((pairs[:, 0].conj() * pairs[:, 1]).real.sum(-1) / norms).clamp(0, 1), atol=1e-5)


def test_a_symmetry_that_mixes_what_is_never_observed_is_left_out(monkeypatch):
    task = get("lorenz63-partial", "tiny")
    mixing = {"turn": lambda u: u.roll(1, -1), **task.system.symmetries()}
    monkeypatch.setattr(type(task.system), "symmetries", lambda system: mixing)
    (act,) = analogue.build(task, analogue.Config()).acts
    assert act(torch.tensor([2.0])).tolist() == [-2.0]


def test_a_periodic_context_is_continued_exactly():
    t = torch.arange(164, dtype=torch.float64)
    series = torch.stack([torch.sin(2 * math.pi * t / 20), torch.cos(2 * math.pi * t / 20), t % 5], -1)[None]
    emulator = parroting.build(get("lorenz63-clean", "tiny"), parroting.Config())
    forecast = emulator.forecast(series[:, :64], 100, 1, torch.Generator())[0]
    assert torch.allclose(forecast, series[:, 64:], atol=1e-9)


def test_a_periodic_interface_that_rises_goes_on_rising():
    t = torch.arange(128, dtype=torch.float64)[:, None]
    x = torch.arange(256) * (2 * math.pi / 256)
    heights = (torch.sin(x + 2 * math.pi * t / 16) + 0.25 * t)[None]
    emulator = parroting.build(get("kpz-clean", "tiny"), parroting.Config())
    forecast = emulator.forecast(heights[:, :64], 64, 4, torch.Generator())
    assert torch.allclose(forecast[0], heights[:, 64:], atol=1e-9)
