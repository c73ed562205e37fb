"""The whole spectrum of an emulator: lorenz96, 40 exponents, 4 replicas × 100 Lyapunov times; at most 3 minutes.

    pytest benchmarks/test_emulator_spectrum.py

The emulator has two convolutions of 32 channels over five sites, in single precision. A tenth of the run is timed, as
every sample costs the same. Also printed: the share of the QR factorisations, which a longer ``qr_interval`` saves.
"""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from emubench import systems
from emubench.core.random import stream
from emubench.dynamics import lyapunov
from emubench.evaluation.error_growth import emulator_spectrum

LIMIT = 180.0
SYSTEM = systems.get("lorenz96")
N_REPLICAS, DURATION, SHARE = 4, 100.0, 0.1


class Convolutions(nn.Module):
    """u ← u + 3.6 W₂ tanh(W₁ u / 3.6), with circular convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv1d(1, 32, 5, padding=2, padding_mode="circular")
        self.second = nn.Conv1d(32, 1, 5, padding=2, padding_mode="circular")

    def start(self, context, n_members, generator):
        return context[:, -1].float()[None]

    def step(self, state, generator):
        x = state.reshape(-1, 1, state.shape[-1]) / 3.6
        return 3.6 * (0.9 * x + self.second(torch.tanh(2 * self.first(x)))).reshape(state.shape)

    def read(self, state):
        return state


def run(share: float) -> lyapunov.Spectrum:
    """``share`` of the benchmark: settling of a quarter included."""
    context = 3.6 * torch.from_numpy(stream(0, "benchmark").standard_normal((N_REPLICAS, 1, 40)))
    duration = share * DURATION * SYSTEM.time_unit
    return emulator_spectrum(Convolutions(), context, SYSTEM.sample_interval, duration=duration, n_blocks=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_spectrum_of_an_emulator(benchmark, threads, monkeypatch, capsys):
    before, in_qr = torch.get_num_threads(), [0.0]
    orthonormal = lyapunov._orthonormal

    def timed(tangents, project):
        begun = time.perf_counter()
        result = orthonormal(tangents, project)
        in_qr[0] += time.perf_counter() - begun
        return result

    monkeypatch.setattr(lyapunov, "_orthonormal", timed)
    torch.set_num_threads(threads)
    try:
        spectrum = benchmark.pedantic(run, args=(SHARE,), rounds=1, iterations=1)
    finally:
        torch.set_num_threads(before)
    seconds = benchmark.stats.stats.min
    with capsys.disabled():
        print(f"\n{threads} threads: {seconds / SHARE:.0f} s for the whole run, {in_qr[0] / seconds:.0%} in QR")
    assert spectrum.rates.shape == (N_REPLICAS, 2, 40)
    assert seconds / SHARE < LIMIT
