"""Weights that are tied, complex, or views: counted once, written, and read again."""

import os
import stat

import pytest
import torch
from torch import nn

from emubench.emulator import load_weights, n_parameters, save_weights


class Tied(nn.Module):
    """A decoder with its encoder's weight, a buffer that is a view, a complex filter."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.dec.weight = self.enc.weight
        self.filter = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.register_buffer("scale", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("scale_again", self.scale.T)
        self.register_buffer("count", torch.tensor(7))


def test_complex_weights_count_two_and_tied_ones_once():
    assert n_parameters(Tied()) == 9 + 2 * 4 + 6
    assert n_parameters(nn.BatchNorm1d(5)) == 4 * 5


def test_tied_weights_and_views_are_written_and_read(tmp_path):
    path, made, other = tmp_path / "model.safetensors", Tied(), Tied()
    save_weights(made, path)
    load_weights(other, path)
    for name, tensor in made.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    assert other.dec.weight is other.enc.weight
    assert n_parameters(other) == n_parameters(made)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_weights_have_the_mode_that_the_umask_says(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_weights(nn.Linear(2, 2), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o666 & ~mask
