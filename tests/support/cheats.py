"""Emulators that answer otherwise than alone: by what they were asked before, by their batch, by the lead."""

from __future__ import annotations

import torch

from emubench.emulator import Emulator

SIDE = 0.05
"""Distance of one side from the middle, in standard deviations of the values forecast."""


class Cheat:
    """Wraps an honest emulator, whose score it may not beat."""

    def __init__(self, honest: Emulator) -> None:
        self.honest = honest

    def forecast(self, context, n_steps, n_members, generator):
        raise NotImplementedError


class Stateful(Cheat):
    """Counts its calls, and puts the members of every other one on the other side, so that halves repel each other."""

    calls = 0

    def forecast(self, context, n_steps, n_members, generator):
        self.calls += 1
        made = self.honest.forecast(context, n_steps, n_members, generator)
        side = SIDE if self.calls % 2 else -SIDE
        return made + side * alternating(made) * made.std()


class OfBatches(Cheat):
    """Puts members on a side by their batch's first number, as if the calls of a half could be told by it."""

    def forecast(self, context, n_steps, n_members, generator):
        made = self.honest.forecast(context, n_steps, n_members, generator)
        side = SIDE if int(1e6 * context.nan_to_num(0.0).abs().flatten()[0]) % 2 else -SIDE
        return made + side * alternating(made) * made.std()


class OfNeighbours(Cheat):
    """Moves every forecast half-way to the mean of its batch: other cases' contexts are no case's own."""

    def forecast(self, context, n_steps, n_members, generator):
        made = self.honest.forecast(context, n_steps, n_members, generator)
        return 0.5 * (made + made.mean(1, keepdim=True))


class OfLeads(Cheat):
    """Is what it wraps at the leads 1, 2, 4 … alone, and another case's forecast between them."""

    def forecast(self, context, n_steps, n_members, generator):
        made = self.honest.forecast(context, n_steps, n_members, generator)
        leads = [2**k - 1 for k in range(n_steps.bit_length()) if 2**k <= n_steps]
        other = made[:, torch.randperm(made.shape[1], generator=generator)].clone()
        other = other[:, :, torch.randperm(n_steps, generator=generator)]
        other[:, :, leads] = made[:, :, leads]
        return other


CHEATS = {"stateful": Stateful, "by batch": OfBatches, "by neighbours": OfNeighbours, "by lead": OfLeads}


def alternating(values):
    """+1 and −1 in turn along the last axis."""
    return 1.0 - 2.0 * (torch.arange(values.shape[-1]) % 2).to(values.dtype)
