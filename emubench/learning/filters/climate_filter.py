"""The ensemble filter of a fitted model whose states are not windows: it starts from the model's own climate."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.learning.filters.ensemble import Advance, assimilate, flat_until_seen, ring_localisation
from emubench.learning.gaps import last_observed

SPIN_UP = 32
"""Samples after which a filter has forgotten its first states."""


def settled(length: int, spin_up: int = SPIN_UP) -> int:
    """Samples of ``length`` that a filter's states are not taken from: a spin-up, or a quarter where that is less."""
    return min(spin_up, length // 4)


def settling(left: int, spin_up: int = SPIN_UP) -> int:
    """The least length of which ``left`` samples remain after :func:`settled`.

    >>> settling(7), 9 - settled(9)
    (9, 7)
    """
    return next(length for length in itertools.count(left) if length - settled(length, spin_up) >= left)


class ClimateFilter(nn.Module):
    """The filter of a fitted model, as part of an emulator: what it starts from is saved with the weights.

    ``first`` are states "M D" of the model's climate, one per member, the same for every case; ``radius`` localises on
    rings (0: the transform filter). A ``growing`` height has no climate: its members are shapes, put at the height
    that a case first shows, and a case with an unobserved beginning is flat until then, as the task defines it.
    """

    first: Tensor
    noise: Tensor
    components: Tensor
    taper: Tensor | None

    def __init__(
        self,
        n_state: int,
        components: list[int],
        members: int,
        inflation: float,
        radius: float = 0.0,
        growing: bool = False,
    ) -> None:
        super().__init__()
        self.inflation, self.growing = inflation, growing
        self.register_buffer("components", torch.tensor(components), persistent=False)
        self.register_buffer("first", torch.zeros(members, n_state, dtype=torch.float64))
        self.register_buffer("noise", torch.zeros(len(components), dtype=torch.float64))
        self.register_buffer("taper", ring_localisation(n_state, radius) if radius else None, persistent=False)

    def set_first(self, states: Float[Tensor, "L D"], generator: torch.Generator) -> None:
        """Draw the members' first states from ``states``."""
        self.first.copy_(states[torch.randint(len(states), (len(self.first),), generator=generator)])

    def analysis(
        self, advance: Advance, context: Float[Tensor, "B T C"], record: Callable[[Tensor], None] | None = None
    ) -> Float[Tensor, "M B D"]:
        """The ensemble at the last sample of ``context``; ``record`` is shown that of every sample."""
        ensemble = self.first[:, None].expand(-1, len(context), -1).clone()
        before = flat_until_seen(context) if self.growing else None
        if self.growing:
            level = context.nanmean(-1, keepdim=True).flip(1)  # the first that is seen
            ensemble += last_observed(level, context.new_zeros(1))
        given = context, self.noise, self._observe, self.inflation, self.taper
        return assimilate(advance, ensemble, *given, before, record)

    def _observe(self, ensemble: Tensor) -> Tensor:
        return ensemble[..., self.components]

    def analyses(self, advance: Advance, context: Float[Tensor, "B T C"]) -> Float[Tensor, "B T D"]:
        """The ensemble means at all samples of ``context``: noisy, gappy observations turned into states."""
        means: list[Tensor] = []
        self.analysis(advance, context, lambda ensemble: means.append(ensemble.mean(0)))
        return torch.stack(means, dim=1)

    def smoothed(self, advance: Advance, context: Float[Tensor, "B T C"], lag: int) -> Float[Tensor, "B T2 D"]:
        """Means of the states given the observations up to ``lag`` samples after them: ``lag`` fewer than the context.

        A fixed-lag smoother (Evensen & van Leeuwen 2000, doi:10.1175/1520-0493(2000)128<1852:AEKSFN>2.0.CO;2): the
        state is joined by those before it, which every analysis corrects by their covariance with what it sees.
        """
        n, means = self.first.shape[-1], []

        def shifted(ensemble: Tensor) -> Tensor:
            new = advance(ensemble[..., :n])
            centre = new.mean(0)
            return torch.cat([centre + self.inflation * (new - centre), ensemble[..., :-n]], dim=-1)

        def record(ensemble: Tensor) -> None:
            means.append(ensemble[..., -n:].mean(0))

        ensemble = self.first[:, None].repeat(1, len(context), lag + 1)
        assimilate(shifted, ensemble, context, self.noise, self._observe, 1.0, self.taper, record=record)
        return torch.stack(means[lag:], dim=1)
