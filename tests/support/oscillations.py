"""Points that turn on circles, whose tendency is known."""

from __future__ import annotations

import numpy as np
import torch

from emubench.core.random import stream


def oscillations(omega: float, n: int, length: int, seed: int = 0) -> torch.Tensor:
    """Points on circles, turning by ``omega`` per sample "B T 2"."""
    phase = torch.from_numpy(stream(seed, "phase").uniform(0, 2 * np.pi, (n, 1))) + omega * torch.arange(length)
    return torch.stack([phase.cos(), phase.sin()], dim=-1)


def turn(omega: float, states: torch.Tensor) -> torch.Tensor:
    return omega * torch.stack([-states[..., 1], states[..., 0]], dim=-1)
