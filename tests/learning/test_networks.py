"""Fields on rings: spectra of gappy fields, and draws that have a given one."""

from __future__ import annotations

import torch

from emubench.learning.rings import coloured, pair_spectrum

SPECTRUM = 4.0 / (1.0 + torch.arange(17.0, dtype=torch.float64) ** 2)
"""Of a ring of 32 sites."""


def test_a_coloured_field_has_the_spectrum_asked_for():
    fields = coloured(SPECTRUM, (4, 5000, 32), torch.Generator().manual_seed(0))
    assert fields.shape == (4, 5000, 32)
    power = torch.fft.rfft(fields).abs().square().mean((0, 1)) / 32
    # of 20 000 draws: each mode has two degrees of freedom, the first and the last one
    assert torch.allclose(power, SPECTRUM, rtol=0.06)
    assert torch.allclose(pair_spectrum(fields), power)


def test_the_spectrum_of_gappy_fields_is_that_of_whole_ones():
    generator = torch.Generator().manual_seed(1)
    fields = coloured(SPECTRUM, (20_000, 32), generator)
    gappy = torch.where(torch.rand(fields.shape, generator=generator) < 0.5, fields, torch.nan)
    assert torch.allclose(pair_spectrum(gappy), SPECTRUM, atol=0.08)
