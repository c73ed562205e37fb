"""A fitted stochastic map of a growing interface: conditional mean of the next sample, and coloured innovations.

h(t + 1) = h(t) + w · [s, f(s)] + η, with s the slopes around each site, so that a shift of all heights changes nothing,
f any features of them, fitted by ridge regression; η is Gaussian, white in time, with a spectrum in space. Noisy and
gappy heights are first replaced by the analyses of an ensemble filter with the map itself as the model, and the fit is
repeated (Brajard et al. 2020, doi:10.1016/j.jocs.2020.101171).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.hardware import by_parts
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.emulator import step_forecast
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.rings import coloured, correlate_ring, interpolate_ring, neighbourhoods, pair_spectrum

BOUND = 2.0
"""Slopes in σ at which features saturate: outside, the linear part rules, which damps what is steep."""
MAX_ROWS = 100_000
USED = ("rounds", "members", "filtered")
"""Settings of a baseline that a :class:`GrowthMap` takes, besides those of its features."""


class RingFeatures(nn.Module):
    """Local features "... N F", ``size`` of them at every site, of bounded slopes "... N" between sites i and i + 1."""

    size: int

    def combine(self, slopes: Float[Tensor, "B N"], weight: Float[Tensor, " F"]) -> Float[Tensor, "B N"]:
        """The features times ``weight``."""
        raise NotImplementedError


class GrowthMap(nn.Module):
    """The map as a Stepper: linear in the 2 ``radius`` slopes around a site, and in ``features``.

    Noisy data are fitted ``rounds`` times on the analyses of ``filtered`` (trajectories, samples) with ``members``.
    """

    weight: Tensor
    scale: Tensor
    spectrum: Tensor

    def __init__(
        self,
        task: Task,
        radius: int,
        features: RingFeatures,
        ridge: float = 1e-6,
        rounds: int = 3,
        members: int = 40,
        filtered: tuple[int, ...] = (8, 384),
    ) -> None:
        super().__init__()
        (self.n,) = task.shape
        self.radius, self.features, self.ridge = radius, features, ridge
        self.rounds, self.filtered = rounds, filtered
        self.clean = task.observation.noise == 0 and task.observation.fraction == 1
        self.filter = ClimateFilter(self.n, list(range(self.n)), members, 1.0, 12.0, growing=True)
        self.register_buffer("weight", torch.zeros(2 * radius + features.size, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("spectrum", torch.zeros(self.n // 2 + 1, dtype=torch.float64))

    def inputs(self, h: Float[Tensor, "... N"]) -> Float[Tensor, "... N F"]:
        """Slopes around every site in σ, and features of them."""
        slopes, bounded = self.slopes(h)
        return torch.cat([neighbourhoods(slopes, self.radius)[..., :-1], self.features(bounded)], dim=-1)

    def slopes(self, h: Float[Tensor, "... N"]) -> tuple[Float[Tensor, "... N"], Float[Tensor, "... N"]]:
        """Slopes between sites i and i + 1, in σ; and these bounded."""
        slopes = (h.roll(-1, -1) - h) / self.scale
        return slopes, BOUND * torch.tanh(slopes / BOUND)

    def mean(self, h: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Expected heights one sample later; a few rings at a time, to stay in the cache."""
        return by_parts(lambda part: part + self.increment(part), h, 32)

    def increment(self, h: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The inputs times the weights."""
        slopes, bounded = self.slopes(h)
        linear, rest = self.weight.tensor_split([2 * self.radius])
        kernel = nn.functional.pad(linear, (0, 1))[None]
        return correlate_ring(slopes[:, None], kernel) + self.features.combine(bounded, rest)

    # --- the Stepper protocol ---

    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """Analysis members ``"M B N"`` at the last context sample."""
        if self.clean:
            return context[None, :, -1].expand(n_members, -1, -1)
        own = torch.Generator().manual_seed(0)  # a case's analysis depends on nothing but its context
        ensemble = self.filter.analysis(lambda h: self._shared_step(h, own), context)
        return ensemble[torch.arange(n_members) % len(ensemble)]

    def _shared_step(self, h: Float[Tensor, "M B N"], generator: torch.Generator) -> Tensor:
        """A step in which all cases get the same innovations."""
        return self.mean(h) + coloured(self.spectrum, (len(h), 1, self.n), generator)

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """One sample interval."""
        return self.mean(state) + coloured(self.spectrum, state.shape, generator)

    def read(self, state: Tensor) -> Tensor:
        """The heights."""
        return state

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Roll the map out."""
        return step_forecast(self, context, n_steps, n_members, generator)

    # --- fitting ---

    @torch.no_grad()
    def fit(self, data: Observations, generator: torch.Generator) -> None:
        """Ridge regression on what is observed, then on the analyses of the filter, ``rounds`` times."""
        heights = data.train if self.clean else interpolate_ring(data.train)
        noise = float(data.noise_std.mean())
        slopes = heights.roll(-1, -1) - heights
        self.scale.copy_(slopes.std())
        self._regress(heights, data.train, generator)
        forecasts = torch.cat([self.mean(h[None]) for h in heights[:, :-1]])
        residual = (data.train[:, 1:] - forecasts)[:, ::8]
        self.spectrum.copy_((pair_spectrum(residual) - noise**2).clamp(min=0))
        if self.clean:
            return
        self.filter.noise.copy_(data.noise_std)
        level = heights - heights.mean(-1, keepdim=True)
        self.filter.set_first(level[:, len(level[0]) // 2 :: 16].flatten(0, 1), generator)
        context = data.train[: self.filtered[0], : self.filtered[1]]
        for _ in range(self.rounds):
            self._regress(self._filtered(context, noise, generator), context, generator)
        self._filtered(context, noise, generator)

    def _filtered(self, context: Tensor, noise: float, generator: torch.Generator) -> Float[Tensor, "B T N"]:
        """Analyses of ``context``; η's spectrum is scaled to make the filter's own forecast errors as expected."""
        skip, t, power = min(16, context.shape[1] // 4), 0, self.spectrum.new_zeros(2, len(self.spectrum))

        def advance(ensemble: Tensor) -> Tensor:
            nonlocal t
            t, new = t + 1, self.step(ensemble, generator)
            if t >= skip:
                centre = new.mean(0)
                power[0] += pair_spectrum(context[:, t] - centre) - noise**2
                spread = torch.fft.rfft(new - centre).abs().square().mean((0, 1))
                power[1] += spread / self.n * len(new) / (len(new) - 1)
            return new

        analyses = self.filter.analyses(advance, context)
        self.spectrum *= (power[0] / power[1]).clamp(min=0.25, max=4.0)
        return analyses

    def _regress(self, heights: Tensor, observed: Tensor, generator: torch.Generator) -> None:
        """Fit w to the increments that follow ``heights``, where their ends were observed."""
        t = torch.arange(heights.shape[1] - 1)[:: max(1, heights[..., 0].numel() * self.n // MAX_ROWS)]
        b = torch.arange(len(heights))[:, None]
        x, y = self.inputs(heights[b, t]), heights[b, t + 1] - heights[b, t]
        seen = ~torch.isnan(observed[b, t + 1])
        x, y = x[seen], y[seen]
        gram = x.T @ x / len(x)
        penalty = self.ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        self.weight.copy_(torch.linalg.solve(gram + penalty, x.T @ y / len(x)))


class LocalProducts(RingFeatures):
    """1 and the products of slopes up to ``reach`` sites apart, all within ``radius``."""

    def __init__(self, radius: int, reach: int = 2) -> None:
        super().__init__()
        self.radius, self.counts = radius, [2 * radius - d for d in range(reach + 1)]
        self.size = 1 + sum(self.counts)

    def forward(self, slopes: Float[Tensor, "... N"]) -> Float[Tensor, "... N F"]:
        """The constant, squares, then products of neighbours …"""
        near = [neighbourhoods(product, self.radius) for product in self.products(slopes)]
        kept = [values[..., :count] for values, count in zip(near, self.counts, strict=True)]
        return torch.cat([torch.ones_like(slopes)[..., None], *kept], dim=-1)

    def products(self, slopes: Float[Tensor, "... N"]) -> list[Float[Tensor, "... N"]]:
        """Products of each slope with itself, with the next …"""
        return [slopes * slopes.roll(-d, -1) for d in range(len(self.counts))]

    def combine(self, slopes: Float[Tensor, "B N"], weight: Float[Tensor, " F"]) -> Float[Tensor, "B N"]:
        """The features times ``weight``, each product as a correlation with a kernel."""
        width = 2 * self.radius + 1
        kernels = [nn.functional.pad(w, (0, width - len(w))) for w in weight[1:].split(self.counts)]
        return weight[0] + correlate_ring(torch.stack(self.products(slopes), dim=1), torch.stack(kernels))
