"""A map from one sample to the next, linear in chosen features of local values, fitted in closed form.

u(t + 1) = w · f(u(t), u(t − 1) …), on rings with f the same at every site of the values around it; ridge regression
shrinks w towards persistence. Units may be stacked: each further one sees the forecast of the one before it as another
field, and corrects it (the depth of Mandal & Gottwald 2025, doi:10.1038/s41467-025-61195-1).

Three ways against noise in the regressors, which biases least squares: features that know their unbiased moments
(polynomials) are regressed on observations as they are; others on smoothed ones; and both can be fitted anew on
analyses of an ensemble filter with the map itself as the model (Brajard et al. 2020, doi:10.1016/j.jocs.2020.101171).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import in_parts, sent
from emubench.data.dataset import Observations, windows
from emubench.data.tasks import Task
from emubench.emulator import step_forecast
from emubench.learning.filters.climate_filter import ClimateFilter
from emubench.learning.least_squares import cubic_weights, local_cubic, solve_factor, solve_moments, triangular_factor
from emubench.learning.rings import gaussian_fill, interpolate_ring, neighbourhoods, on_ring, signal_band
from emubench.learning.training.descent import Best, Log
from emubench.learning.training.settings import check_least, check_localisation, check_positive
from emubench.learning.training.validation import SHORTEST, forecast_error

SPLIT = 4096
"""Rows regressed on at a time."""
CACHED = 1024
"""Places forecast at a time: their features stay in the cache."""


@dataclass(frozen=True)
class MapConfig:
    """Window, regression, filter; of the settings that are tuples the validation forecasts choose."""

    delays: int = 1
    radii: tuple[int, ...] = (2,)
    """Sites on either side that each unit sees (rings); as many units as there are numbers."""
    directions: int = 0
    """Principal directions of the window kept as inputs (0: the values themselves)."""
    ridges: tuple[float, ...] = (1e-12,)
    """Strengths of the penalty, in units of each feature's mean square."""
    training_noises: tuple[float, ...] = (0.0,)
    """Added to the regressors, in σ; of noisy ones so much is not corrected for."""
    near: int = 0
    """Sites on either side that the first fit of gappy fields takes, where few places are whole (0: the radius)."""
    rows: int = 60_000
    rounds: int = 0
    """Fits on the filter's analyses of ``filtered`` (trajectories, samples), after the first one."""
    filtered: tuple[int, ...] = (16, 256)
    members: int = 40
    inflations: tuple[float, ...] = (1.05,)
    localisation: float = 0.0
    half_width: int = 0
    """Samples on either side of a smoothing of noisy series before the first fit (0: none)."""
    smooth: bool = False
    """Keep a ring within the spatial modes in which the data show a signal."""
    horizon: float = 2.0
    """Length of the validation forecasts, in units of lead time."""

    def __post_init__(self) -> None:
        check_positive(self, "delays", "rows", "horizon")
        check_least(self, 0, "radii", "ridges", "training_noises", "inflations")
        check_least(self, 0, "directions", "near", "rounds", "half_width", "localisation")
        check_least(self, 2, "members")
        check_least(self, 1, "filtered", count=2)
        if not min(self.inflations) > 0:
            raise EmubenchError(f"inflations: {self.inflations} where numbers above 0 belong")


def least_of_map(task: Task, config: MapConfig) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have: a window and the sample that follows."""
    if task.system.growing:
        return 2, 1
    clean = task.observation.noise == 0 and task.observation.fraction == 1
    smoothed = 0 if clean else 2 * config.half_width
    return smoothed + config.delays + 1, SHORTEST * config.delays if clean else SHORTEST


class Features(nn.Module):
    """Features of inputs ``"... I"``: the constant, the inputs, then others, ``size`` in all."""

    size: int
    unbiased = False
    """Whether these features know their unbiased :meth:`moments`."""

    def draw(self, x: Float[Tensor, "R I"], generator: torch.Generator) -> None:
        """Draw or scale what is not fitted, given inputs as they will come."""

    def combine(self, x: Float[Tensor, "R I"], weight: Float[Tensor, "F K"]) -> Float[Tensor, "R K"]:
        """The features times ``weight``."""
        return self(x) @ weight

    def moments(self, x: Float[Tensor, "R I"], y: Float[Tensor, "R K"], variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of f fᵀ and f yᵀ at what ``x`` observes with independent Gaussian errors of ``variance`` "I"."""
        raise NotImplementedError


class Window(nn.Module):
    """What a place sees of some fields: on rings every site the values around it, else one place everything.

    With ``directions`` the values are replaced by so many of their principal ones, each in units of its deviation.
    """

    basis: Tensor
    scale: Tensor

    def __init__(self, n: int, ring: bool, channels: int, radius: int, directions: int = 0) -> None:
        super().__init__()
        if ring and 2 * radius >= n:
            raise EmubenchError(f"radii: {radius} where at most {(n - 1) // 2} belongs, on a ring of {n} sites")
        self.ring, self.radius, self.width = ring, radius, 2 * radius + 1 if ring else n
        self.n_values = channels * self.width
        if directions > self.n_values:
            raise EmubenchError(f"directions: {directions} where at most {self.n_values} belong, of so many values")
        self.size = directions or self.n_values
        self.register_buffer("basis", torch.zeros(self.n_values if directions else 0, self.size, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(self.size, dtype=torch.float64))

    def values(self, fields: Float[Tensor, "B C N"]) -> Float[Tensor, "P V"]:
        """The values themselves; in memory all places of one value are side by side."""
        if not self.ring:
            return fields.flatten(1)
        return neighbourhoods(fields, self.radius).permute(1, 3, 0, 2).reshape(self.n_values, -1).T

    def forward(self, fields: Float[Tensor, "B C N"]) -> Float[Tensor, "P I"]:
        """The inputs of every place."""
        values = self.values(fields)
        return ((self.basis / self.scale).T @ values.T).T if len(self.basis) else values

    def set_basis(self, fields: Float[Tensor, "B C N"], noise: float) -> None:
        """Principal directions of the values; their deviations are those without the noise."""
        if len(self.basis):
            values = self.values(fields)
            values = values[~torch.isnan(values).any(1)]
            power, vectors = torch.linalg.eigh(values.T @ values / len(values))
            self.basis.copy_(vectors.flip(1)[:, : self.size])
            power = power.flip(0)[: self.size]
            self.scale.copy_((power - noise**2).clamp(min=1e-6 * float(power[0])).sqrt())

    def centre(self) -> Float[Tensor, "I K"]:
        """Weights of the inputs that repeat the centre of the last field (off rings: all of it)."""
        eye = torch.eye(self.n_values, dtype=torch.float64, device=self.scale.device)[:, self.n_values - self.width :]
        chosen = eye[:, self.radius, None] if self.ring else eye
        return (self.basis.T @ chosen) * self.scale[:, None] if len(self.basis) else chosen


class Scaled(Protocol):
    """Buffers of an emulator: the mean and deviation of the data, bounds of its states, spatial modes that it keeps."""

    mean: Tensor
    std: Tensor
    bound: Tensor
    band: Tensor


def take_scales(emulator: Scaled, data: Observations, mean: Tensor, std: Tensor) -> Float[Tensor, "B T N"]:
    """Set the scales; states may exceed what was observed by a quarter. Return the training observations in σ."""
    emulator.mean.copy_(mean)
    emulator.std.copy_(std)
    observed = (data.train - emulator.mean) / emulator.std
    emulator.bound.fill_(1.25 * float(observed[~torch.isnan(observed)].abs().max()))
    if len(emulator.band):
        emulator.band.copy_(signal_band(observed, data))
    return observed


class Unit(nn.Module):
    """Features of what each place sees, and their weights."""

    weight: Tensor

    def __init__(self, n: int, window: Window, features: Features) -> None:
        super().__init__()
        self.n, self.window, self.features = n, window, features
        self.register_buffer("weight", torch.zeros(features.size, 1 if window.ring else n, dtype=torch.float64))

    def skip(self) -> Float[Tensor, "F K"]:
        """Weights that repeat the newest field."""
        weight = torch.zeros_like(self.weight)
        weight[1 : 1 + self.window.size] = self.window.centre()
        return weight

    def forward(self, fields: Float[Tensor, "B C N"]) -> Float[Tensor, "B N"]:
        """The next sample."""
        parts = [self.features.combine(x, self.weight) for x in in_parts(self.window(fields), CACHED)]
        return torch.cat(parts).view(len(fields), self.n)


class RidgeMap(nn.Module):
    """The map as a Stepper; its states are windows "d N", newest last, of deviations in σ, float64."""

    units: list[Unit]
    mean: Tensor
    std: Tensor
    bound: Tensor
    band: Tensor
    inflation: Tensor

    def __init__(self, task: Task, config: MapConfig, features: Callable[[int], Features]) -> None:
        super().__init__()
        check_localisation(task, config.localisation)
        (self.n,), self.ring, self.config, self.delays = task.shape, on_ring(task), config, config.delays
        self.clean = task.observation.noise == 0 and task.observation.fraction == 1
        directions = config.directions if self.ring else 0
        seen = [Window(self.n, self.ring, config.delays + (k > 0), r, directions) for k, r in enumerate(config.radii)]
        stack = nn.ModuleList(Unit(self.n, window, features(window.size)) for window in seen)
        self.units = stack  # type: ignore[assignment]
        newest = list(range((config.delays - 1) * self.n, config.delays * self.n))
        self.filter = ClimateFilter(len(newest) * config.delays, newest, config.members, 1.0, config.localisation)
        for name in ("mean", "std", "bound"):
            self.register_buffer(name, torch.ones(self.n, dtype=torch.float64))
        self.register_buffer("band", torch.ones(self.n // 2 + 1 if config.smooth else 0, dtype=torch.float64))
        self.register_buffer("inflation", torch.ones((), dtype=torch.float64))

    def advance(self, window: Float[Tensor, "B d N"]) -> Float[Tensor, "B N"]:
        """The next sample, kept within the band and the bounds of the data."""
        new = torch.nan_to_num(self.stacked(window, len(self.units)))
        if len(self.band):
            new = torch.fft.irfft(self.band * torch.fft.rfft(new), n=self.n)
        return new.clamp(-self.bound, self.bound)

    def stacked(self, window: Float[Tensor, "B d N"], n_units: int) -> Float[Tensor, "B N"]:
        """Forecast of the first ``n_units`` units; of none the newest sample."""
        new = window[:, -1]
        for k in range(n_units):
            new = self.units[k](torch.cat([window, new[:, None]], dim=1) if k else window)
        return new

    # --- the Stepper protocol, in physical units at its ends ---

    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """The window ``"1 B D"`` at the last context sample: the analysis mean."""
        seen = (context - self.mean) / self.std
        if self.clean and not torch.isnan(seen[:, -self.delays :]).any():
            return seen[:, -self.delays :].flatten(1)[None]
        self.filter.inflation = float(self.inflation)
        return self.filter.analysis(self.step, seen).mean(0, keepdim=True)

    def step(self, state: Float[Tensor, "M B D"], generator: torch.Generator | None = None) -> Float[Tensor, "M B D"]:
        """One sample interval for flattened windows."""
        window = state.reshape(-1, self.delays, self.n)
        return torch.cat([window[:, 1:], self.advance(window)[:, None]], dim=1).view(state.shape)

    def read(self, state: Tensor) -> Tensor:
        """Scored components."""
        return state[..., -self.n :] * self.std + self.mean

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Roll the map out."""
        return step_forecast(self, context, n_steps, n_members, generator)

    # --- fitting ---

    @torch.no_grad()
    def fit(self, data: Observations, generator: torch.Generator, log: Log) -> None:
        """Fit on the observations, then ``rounds`` times on the filter's analyses; the best by validation stays."""
        observed = take_scales(self, data, data.mean, data.std)
        self.filter.noise.copy_((data.noise_std / data.std).clamp(min=1e-3))  # no observation is perfect to a filter
        states, noise = self.first_states(observed, float((data.noise_std / data.std).mean()))
        stretches = windows(states, self.delays + 1)
        pairs = stretches[:, :-1], stretches[:, -1]
        filled = interpolate_ring(states) if self.ring else torch.nan_to_num(states)
        self.filter.set_first(windows(filled, self.delays, stride=7).flatten(1), generator)
        best = Best(self)
        for done in range(1 + (0 if self.clean else self.config.rounds)):
            if done:
                pairs, noise = self.analysed(observed), 0.0
            error = self.fit_best(pairs, noise, data, generator)
            best.keep(error)
            log(done + 1, self.config.rounds + 1, validation=error)
        best.restore()

    def analysed(self, observed: Float[Tensor, "B T N"]) -> tuple[Tensor, Tensor]:
        """Analyses "R d N" and the analyses "R N" that follow.

        These lean to the map's own forecasts, so that each round goes a part of the way; with the noisy observations
        as targets rounds go further, but diverge.
        """
        rows, length = self.config.filtered
        self.filter.inflation = float(self.inflation)
        analyses = self.filter.analyses(self.step, observed[:rows, :length]).unflatten(-1, (self.delays, self.n))
        skip = min(24, analyses.shape[1] // 4)
        return analyses[:, skip:-1].flatten(0, 1), analyses[:, skip + 1 :, -1].flatten(0, 1)

    def first_states(self, observed: Float[Tensor, "B T N"], noise: float) -> tuple[Tensor, float]:
        """What the first fit is made of, and the noise that it has to correct for."""
        if self.clean:
            return observed, 0.0
        left, states, half_width = noise, observed, self.config.half_width
        if half_width:
            states = local_cubic(observed, half_width)
            left = noise * float(cubic_weights(half_width)[half_width]) ** 0.5
        gappy = self.ring and bool(torch.isnan(observed).any())
        if self.config.smooth and (gappy or half_width):
            return gaussian_fill(states, left), 0.0
        seen = self.units[0].window(states.flatten(0, 1)[::16, None])
        if gappy and bool(torch.isnan(seen[:, ~self.far()]).any(1).all()):
            return interpolate_ring(states), left  # no place is observed all over: a biased start
        return states, 0.0 if half_width else left

    def places(
        self, pairs: tuple[Tensor, Tensor], unit: int, generator: torch.Generator, jitter: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Inputs ``"R I"`` of a unit and the values ``"R K"`` that follow, at places that are observed all over."""
        (past, new), count = pairs, max(1, self.config.rows // (self.n if self.ring else 1))
        if torch.isnan(past).any():  # a small share of the places is observed all over
            count *= 32
        chosen = torch.randperm(len(past), generator=generator)[:count]
        past, new = past[chosen], new[chosen]
        if jitter:
            past = past + jitter * sent(torch.randn(past.shape, generator=generator, dtype=past.dtype), past.device)
        fields = torch.cat([past, self.stacked(past, unit)[:, None]], dim=1) if unit else past
        x, y = self.units[unit].window(fields), new.reshape(-1, self.units[unit].weight.shape[1])
        if unit == 0 and torch.isnan(past).any():
            x = torch.where(self.far(), 0.0, x)
        whole = ~(torch.isnan(x).any(1) | torch.isnan(y).any(1))
        return x[whole][: self.config.rows], y[whole][: self.config.rows]

    def far(self) -> Float[Tensor, " I"]:
        """Inputs of the first unit that the first fit of gappy fields leaves out."""
        window, near = self.units[0].window, self.config.near if self.config.near else self.n
        return (torch.arange(window.size, device=window.scale.device) % window.width - window.radius).abs() > near

    def fit_best(
        self, pairs: tuple[Tensor, Tensor], noise: float, data: Observations, generator: torch.Generator
    ) -> float:
        """Take the weights with the training noise, ridges and inflation of least validation error; return that."""
        best = Best(self)
        for training_noise in self.config.training_noises:
            error = float("inf")
            for k, unit in enumerate(self.units):
                own = Best(self)
                for weight in self.candidates(k, pairs, noise, training_noise, generator):
                    unit.weight.copy_(weight)
                    for later in self.units[k + 1 :]:
                        later.weight.copy_(later.skip())  # until it is fitted, it repeats what it is given
                    for inflation in self.config.inflations[: 1 if self.clean else None]:
                        self.inflation.fill_(inflation)
                        own.keep(forecast_error(self, data, self.delays if self.clean else 48, self.config.horizon))
                own.restore()
                error = own.error
            best.keep(error)
        best.restore()
        return best.error

    def candidates(
        self, k: int, pairs: tuple[Tensor, Tensor], noise: float, training_noise: float, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Weights of unit ``k`` for each ridge."""
        unit, sample = self.units[k], pairs[0][:: max(1, len(pairs[0]) // 2048)]
        unit.window.set_basis(torch.cat([sample, self.stacked(sample, k)[:, None]], dim=1) if k else sample, noise)
        exact = noise > 0 and unit.features.unbiased and k == 0
        x, y = self.places(pairs, k, generator, 0.0 if exact else training_noise)
        unit.features.draw(x[:20_000], generator)
        if exact:
            variance = (noise**2 - training_noise**2) / unit.window.scale**2
            gram, moment = unit.features.moments(x, y, torch.where((x == 0).all(0), 0.0, variance))
            yield from (solve_moments(gram, moment, unit.skip(), ridge) for ridge in self.config.ridges)
        else:
            parts = zip(x.split(SPLIT), y.split(SPLIT), strict=True)
            factor = triangular_factor(torch.cat([unit.features(p), q], dim=1) for p, q in parts)
            yield from (solve_factor(factor, unit.skip(), ridge) for ridge in self.config.ridges)
