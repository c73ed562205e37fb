"""random_features: one linear map of fixed random features and the values themselves, fitted in closed form.

u(t + 1) = w · [1, x, tanh(A x + b)], with x the state, on rings the values around a site; A and b are drawn so that
over the data no feature is linear or saturated, 0.4 < |a·x + b| < 3.5. Ridge regression does the rest (Mandal &
Gottwald 2025, doi:10.1038/s41467-025-61195-1: skip connection, localisation, depth, training noise).

Differences from the paper: a direction's scale and offset are drawn within their bounds directly, without hit and run;
a deeper unit sees the forecast of the one before it beside the state; on smooth fields x are the principal directions
of the values around a site; least squares by orthogonal factors, worth eight digits where data have no noise. Noisy
and gappy data, not in the paper: a first fit on smoothed series, then fits on analyses of an ensemble filter with the
map as its model, which also starts the forecasts. lorenz63 from x alone: x is a window of delays. kpz: features of
local slopes give the conditional mean, with coloured innovations.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 0.87 0.73 0.78 0.82; kuramoto_sivashinsky
0.14 0.07 0.07 0.01; lorenz63 0.98 0.74 0.34 0.20; lorenz96 0.24 0.30 0.27 0.00; up to 38 s of training. Intervals:
``baselines/expected.toml``.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.models.growth_map import BOUND, USED, GrowthMap, RingFeatures
from emubench.learning.models.operators import tanh_
from emubench.learning.models.ridge_map import Features, MapConfig, RidgeMap, least_of_map
from emubench.learning.rings import neighbourhoods
from emubench.learning.training.descent import Log
from emubench.learning.training.settings import check_only, check_positive

knowledge = "structure"
LEAST, MOST = 0.4, 3.5
"""Range of |a·x + b| over the data in which tanh is neither linear nor saturated."""


@dataclass(frozen=True)
class Config(MapConfig):
    """The map's, and how many features each unit has; ``radii`` has one number per unit, also off rings."""

    width: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data and on data of another seed."""
    system, track = task.system.name, task.track
    noisy, gappy = task.observation.noise > 0, task.observation.fraction < 1
    if task.system.growing:
        return Config(radii=(3,), width=48, ridges=(1e-5,), rounds=2, filtered=(4, 256))
    if system == "lorenz96":
        if not noisy:
            return Config(radii=(4, 2), width=800, ridges=(1e-14,), horizon=6.0)
        base = Config(radii=(4,), width=300, half_width=2, ridges=(1e-6, 1e-3), rows=100_000, localisation=5.0)
        if not gappy:
            return replace(base, inflations=(1.1,))
        base = replace(base, radii=(2,), width=100, inflations=(1.1,), horizon=1.5, rounds=4)
        if track == "scarce":
            return replace(base, ridges=(1e-3, 1e-2, 1e-1), filtered=(1, 256))
        return replace(base, ridges=(1e-6, 1e-3), filtered=(16, 96))
    if system == "kuramoto_sivashinsky":
        base = Config(radii=(20,), directions=10, width=1000, ridges=(1e-10,), smooth=True, horizon=4.0)
        if not noisy:
            return replace(base, training_noises=(0.005, 0.01, 0.02))
        base = replace(base, width=300, radii=(16,), directions=9, half_width=2, horizon=2.0, ridges=(1e-8, 1e-5))
        base = replace(base, training_noises=(0.03,), members=24, inflations=(1.1,), rounds=1)
        return replace(base, filtered=(1, 256), directions=7) if track == "scarce" else replace(base, filtered=(16, 96))
    if not noisy:
        return Config(radii=(0,), width=500, ridges=(1e-24, 1e-20), horizon=15.0)
    base = Config(radii=(0,), width=200, half_width=2, ridges=(1e-8, 1e-6, 1e-4), inflations=(1.02, 1.1), rounds=4)
    if not task.full_state:
        base = replace(base, delays=10, half_width=4, ridges=(1e-8, 1e-5, 1e-3), horizon=1.5, rounds=0)
        return replace(base, ridges=(1e-5, 1e-3, 1e-1)) if track == "scarce" else base
    return base


class RandomFeatures(Features):
    """The features [1, x, tanh(A x + b)] of x."""

    inner: Tensor
    offset: Tensor

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.size = 1 + n_inputs + width
        self.register_buffer("inner", torch.zeros(n_inputs, width, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros(width, dtype=torch.float64))

    @torch.no_grad()
    def draw(self, x: Float[Tensor, "R I"], generator: torch.Generator) -> None:
        """Directions uniform on the sphere; a scale and an offset that keep |a·x + b| within bounds over ``x``."""
        n_inputs, width = self.inner.shape
        direction = torch.randn(n_inputs, width, generator=generator, dtype=torch.float64).to(x.device)
        direction /= direction.norm(dim=0)
        along = x @ direction
        low, high = along.amin(0), along.amax(0)
        share, place = torch.rand(2, width, generator=generator, dtype=torch.float64).to(x.device)
        span = (MOST - LEAST) * share
        scale = span / (high - low).clamp(min=1e-9)
        begun = LEAST + place * (MOST - LEAST - span)
        sign = 2.0 * torch.randint(2, (width,), generator=generator).to(x.device) - 1
        self.inner.copy_(sign * scale * direction)
        self.offset.copy_(sign * (begun - scale * low))

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... F"]:
        """Features of the last axis."""
        return torch.cat([torch.ones_like(x[..., :1]), x, tanh_(x @ self.inner + self.offset)], dim=-1)

    def combine(self, x: Float[Tensor, "R I"], weight: Float[Tensor, "F K"]) -> Float[Tensor, "R K"]:
        """The features times ``weight``, without joining them first."""
        first, linear, rest = weight.tensor_split([1, 1 + x.shape[1]])
        return first + x @ linear + tanh_(torch.addmm(self.offset, x, self.inner)) @ rest


class SlopeFeatures(RingFeatures):
    """Random features of the slopes around every site of a ring."""

    def __init__(self, radius: int, width: int) -> None:
        super().__init__()
        self.radius, self.random = radius, RandomFeatures(2 * radius, width)
        self.size = self.random.size

    def forward(self, slopes: Float[Tensor, "... N"]) -> Float[Tensor, "... N F"]:
        """Features of the ``2 radius`` slopes around each site."""
        return self.random(neighbourhoods(slopes, self.radius)[..., :-1])

    def combine(self, slopes: Float[Tensor, "B N"], weight: Float[Tensor, " F"]) -> Float[Tensor, "B N"]:
        """The features times ``weight``."""
        near = neighbourhoods(slopes, self.radius)[..., :-1].reshape(-1, 2 * self.radius)
        return self.random.combine(near, weight[:, None]).view(slopes.shape)


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    return least_of_map(task, config)


def build(task: Task, config: Config) -> RidgeMap | GrowthMap:
    """The emulator before training."""
    if task.system.growing:
        radius = config.radii[0]
        check_only(config, default_config(task), ("radii", "width", "ridges", *USED), f"on {task.name}")
        kept = {name: getattr(config, name) for name in USED}
        return GrowthMap(task, radius, SlopeFeatures(radius, config.width), config.ridges[0], **kept)
    return RidgeMap(task, config, lambda n_inputs: RandomFeatures(n_inputs, config.width))


def train(emulator: RidgeMap | GrowthMap, data: Observations, config: Config, seed: int, log: Log) -> None:
    """The features are drawn over the data's range; closed form."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(emulator, GrowthMap):
        assert isinstance(emulator.features, SlopeFeatures)
        slopes = torch.randn(4096, 2 * config.radii[0], generator=generator, dtype=torch.float64).to(data.mean.device)
        emulator.features.random.draw(BOUND * torch.tanh(slopes / BOUND), generator)
        return emulator.fit(data, generator)
    emulator.fit(data, generator, log)
