"""A learned vector field as an emulator: delay coordinates, integrators, the filter that starts it from noisy data.

Where :mod:`emubench.learning.models.flow` leaves the step of a flow to its subclasses, here it is an integrator of
``tendency``: a polynomial of degree 2 beside a network, on stiff rings with a linear term for every spatial mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.hardware import in_parts
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.dynamics.schemes import etdrk4, rk4
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.models.flow import LARGEST, FlowConfig, LearnedFlow
from emubench.learning.models.networks import QuadraticMlp, RingField
from emubench.learning.rings import neighbourhoods, signal_band
from emubench.learning.training.settings import check_positive


@dataclass(frozen=True)
class FieldConfig(FlowConfig):
    """Integrator and coordinates; ``latent`` is the number of delay coordinates added to what is observed."""

    substeps: int = 2
    stiff: bool = False
    """Rings: a linear term per spatial mode, integrated exactly."""
    spacing: int = 2
    """Samples between delay coordinates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "substeps", "spacing")


class FieldFlow(LearnedFlow):
    """The field, its integrator, and the filter that starts it; time is counted in sample intervals."""

    scale: Tensor
    seen: Tensor

    def __init__(self, task: Task, config: FieldConfig) -> None:
        super().__init__(task, config)
        self.config, self.filter = config, None
        if not self.growing:
            self.encoder = None
        modes = torch.arange(self.n // 2 + 1 if config.stiff else 0)
        self.register_buffer("scale", 10 * (1 + (modes / 3.5) ** 4), persistent=False)
        self.register_buffer("seen", torch.ones(len(modes), dtype=torch.bool), persistent=False)
        """Modes whose linear term can be fitted; on to the end of the band it is drawn on from the last of them."""
        self.symbol = nn.Parameter(torch.zeros(len(modes)))
        self._kept: tuple[tuple[int, torch.device], Callable[[Tensor], Tensor]] | None = None
        self.climate = None
        if config.assimilated:
            settings = config.members, config.inflation, config.localisation
            self.climate = ClimateFilter(self.n_state, list(range(self.n)), *settings)

    @property
    def repeated(self) -> str:
        """The rate, which is trained without an integrator; of a growing height its step."""
        return "advance" if self.growing else "tendency"

    def new_field(self, config: FlowConfig) -> nn.Module:
        """A polynomial of degree 2 beside a gated perceptron, on rings around every site; kpz has no polynomial."""
        if self.growing:
            return super().new_field(config)
        if self.ring:
            return RingField(config.radius, config.width, QuadraticMlp)
        return QuadraticMlp(self.n_state, self.n_state, config.width)

    @property
    def quadratic(self) -> QuadraticMlp:
        """The network of the field, on rings that of a neighbourhood."""
        return cast(QuadraticMlp, self.field.network if self.ring else self.field)

    @property
    def reach(self) -> int:
        """Samples over which the delay coordinates of a state extend."""
        return self.config.spacing * (self.n_state // self.n - 1)

    def lifted(self, values: Float[Tensor, "B T S"]) -> Float[Tensor, "B T2 D"]:
        """Delay coordinates, the present first; the values themselves where the state is observed."""
        last = values.shape[1] - self.reach
        starts = range(self.reach, -1, -self.config.spacing)
        return torch.cat([values[:, s : s + last] for s in starts], dim=-1)

    def tendency(self, state: Tensor) -> Tensor:
        """The rate f(u), within the spatial modes in which the data show a signal."""
        rate = self.field(state)
        if self.config.stiff:
            rate = rate + torch.fft.irfft(self.scale * self.symbol * torch.fft.rfft(state), n=self.n)
        return self.in_band(rate)

    def prepare(self, data: Observations) -> None:
        """Take over the scales and the band, and the modes that stand out of the noise themselves."""
        super().prepare(data)
        if self.config.stiff:
            self.seen = signal_band(self.normalised(data.train), data, hidden=False) > 0

    def library(
        self, states: Float[Tensor, "B T D"], noise: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, "B T X F"]:
        """What the field is linear in: monomials (off rings the same for all components), the modes of stiff rings.

        From products is taken what white ``noise``, in σ and on rings within the band, adds to their means.
        """
        places = neighbourhoods(states, self.config.radius) if self.ring else states[:, :, None]
        monomials = self.quadratic.monomials(places)
        if noise is not None:
            i, j = self.quadratic.pairs
            first = torch.eye(self.n_state, device=states.device)[0]
            row = torch.fft.irfft(self.band, n=self.n) if self.ring else first
            excess = row[j - i] * noise[i] * noise[j]
            monomials = monomials - nn.functional.pad(excess, (monomials.shape[-1] - len(i), 0))
        if not self.config.stiff:
            return monomials
        modes = torch.eye(len(self.band), device=states.device)[self.seen]
        waves = torch.fft.irfft(modes[:, None, None] * torch.fft.rfft(states), n=self.n)
        return torch.cat([self.in_band(monomials.mT).mT, waves.movedim(0, -1)], dim=-1)

    @torch.no_grad()
    def set_linear(self, found: Float[Tensor, "F K"]) -> None:
        """Take over coefficients of the library, half of the way if there are some already."""
        weights, kept = self.quadratic.weight, self.seen
        share = 0.5 if bool(weights.any()) else 1.0
        weights.lerp_(found[: len(weights)], share)
        if self.config.stiff:
            self.symbol[kept] = self.symbol[kept].lerp(found[len(weights) :, 0] / self.scale[kept], share)
            last = int(kept.nonzero()[-1])  # hidden modes are damped like it, and by e per sample at least
            self.symbol[last + 1 :] = torch.minimum(self.symbol[last], -1 / self.scale[last + 1 :])

    def flow(self) -> Callable[[Tensor], Tensor]:
        """One sample interval: Runge–Kutta, of stiff fields exponential; states stay within ``LARGEST`` σ."""
        h = 1 / self.config.substeps
        inner = self._exponential(h) if self.config.stiff else rk4(self.tendency, h)

        def advance(state: Tensor) -> Tensor:
            state = self.in_band(state)
            for _ in range(self.config.substeps):
                state = inner(state, None)
            return torch.nan_to_num(state).clamp(-LARGEST, LARGEST)

        return advance

    def _exponential(self, h: float) -> Callable[[Tensor, None], Tensor]:
        # no mode grows faster than the fastest that the data resolve; as a constant the symbol sets the scheme's
        # coefficients, what of it is learned by one_step goes the explicit way
        symbol = (self.scale * self.symbol).clamp(min=-700, max=1)
        learned = symbol - symbol.detach()

        def nonlinear(v: Tensor) -> Tensor:
            return self.band * torch.fft.rfft(self.field(torch.fft.irfft(v, n=self.n))) + learned * v

        step = etdrk4(symbol.detach().double().cpu().numpy(), nonlinear, h, torch.float32, symbol.device)
        return lambda u, _: torch.fft.irfft(step(torch.fft.rfft(u), None), n=self.n)

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval; kpz: the conditional mean."""
        if self.growing:
            return state + self.field(state)
        if torch.is_grad_enabled():
            return self.flow()(state)
        made_for = self.symbol._version, self.symbol.device
        if self._kept is None or self._kept[0] != made_for:  # a scheme's coefficients cost a step
            self._kept = made_for, self.flow()
        return self._kept[1](state)

    def model(self) -> Callable[[Tensor], Tensor]:
        """The flow on ensembles ``"M B D"`` in float64, a few states at a time to stay in the cache."""
        advance = self.flow()

        def run(ensemble: Tensor) -> Tensor:
            parts = in_parts(ensemble.flatten(0, 1).float(), 256 if self.ring else 4096)
            return torch.cat([advance(part) for part in parts]).view(ensemble.shape).double()

        return run

    @torch.no_grad()
    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """The filter's mean; without noise the last sample (with its delays), kpz: what the encoder says."""
        if self.growing:
            return super().start(context, n_members, generator)
        u = self.normalised(context)
        if self.climate is None:
            return self.lifted(u)[None, :, -1]
        return self.climate.analysis(self.model(), u.double()).mean(0, keepdim=True).float()
