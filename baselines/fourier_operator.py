"""fourier_operator: a Fourier neural operator that maps a field to the field one sample interval later.

Layers x ← φ(Wx + F⁻¹ R_k F x) act on the lowest modes by matrices R_k, one for each wavenumber, and pointwise by W: an
operator between functions, whatever their grid (Li et al. 2021, arXiv:2010.08895, section 4). It learns the change of
the field; longer forecasts repeat it.

Differences from the paper: no grid coordinate among the inputs, so that the operator is the same everywhere on a ring;
the lifted field is a product of two linear ones, for the equations have products; started by a window encoder, trained
on masked, noisy windows by the error of short rollouts, with modes that the data do not show set to zero. kpz: it sees
only bounded differences of heights, stands beside a local linear term, and coloured Gaussian innovations make the
ensemble. lorenz63 is a field of three channels on a grid of one point: what is left of the operator is a perceptron.

Knowledge: structure (translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.09 0.95 1.05 0.74; kuramoto_sivashinsky
0.20 0.25 0.21 0.13; lorenz63 0.23 0.40 0.17 0.10; lorenz96 0.17 0.51 0.07 0.00; up to 206 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.models.flow import FlowConfig, LearnedFlow, rollout_loss
from emubench.learning.models.networks import GrowthField
from emubench.learning.objectives.innovation import fit_innovation
from emubench.learning.training.descent import Descent, Log, drawn
from emubench.learning.training.settings import check_least

knowledge = "structure"


@dataclass(frozen=True)
class Config(FlowConfig):
    """An operator of ``layers`` layers of ``width`` channels; ``radius`` is the encoder's, for kpz its inputs' too."""

    modes: int = 16
    """Wavenumbers 0 … modes − 1 have matrices of their own; the others pass through the pointwise part alone."""
    layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "modes", "layers")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data and on contexts of another seed."""
    config = {
        "lorenz63": Config(width=64, modes=1, unroll=2, steps=6000, batch=256),
        "lorenz96": Config(width=32, modes=21, unroll=2, steps=4000, batch=32),
        "kuramoto_sivashinsky": Config(width=32, radius=8, unroll=4, steps=3000, batch=32),
        # slopes spread over √2 sites in a sample; with radius 2 the R_k stood in for the rest, and fronts ran away
        "kpz": Config(width=24, radius=5, unroll=1, steps=1500, batch=16),
    }.get(task.system.name, Config())
    if task.observation.noise and not task.system.growing:
        config = dataclasses.replace(config, window=12, unroll=6, steps=config.steps // 2)
    elif task.observation.noise:  # over one sample, noise teaches long waves to grow
        config = dataclasses.replace(config, window=8, unroll=8 if task.track == "scarce" else 4)
    if not task.full_state:
        config = dataclasses.replace(config, latent=3, window=24)
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 4)
        if task.system.growing:  # 256 samples hold each long wave a few times over: too few for a matrix each
            config = dataclasses.replace(config, modes=2)
    return config


class FourierLayer(nn.Module):
    """``Wx + F⁻¹ R_k F x`` over the sites of a ring; modes from the first on, as many as the grid has."""

    def __init__(self, n_in: int, n_out: int, modes: int) -> None:
        super().__init__()
        self.pointwise = nn.Linear(n_in, n_out)
        self.weight = nn.Parameter(torch.randn(modes, n_in, n_out, 2) / (2 * n_in) ** 0.5)

    def forward(self, x: Float[Tensor, "B N i"]) -> Float[Tensor, "B N o"]:
        """Apply to channels on a grid of any length."""
        low = torch.fft.rfft(x, dim=1, norm="forward")[:, : len(self.weight)]
        matrices = torch.view_as_complex(self.weight)[: low.shape[1]]
        mixed = torch.einsum("bki,kio->bko", low, matrices)
        return self.pointwise(x) + torch.fft.irfft(mixed, n=x.shape[1], dim=1, norm="forward")


class FourierOperator(nn.Module):
    """Lift by a product, ``layers`` layers, project; at first it is zero."""

    def __init__(self, n_in: int, n_out: int, config: Config) -> None:
        super().__init__()
        width, modes = config.width, config.modes
        self.gate, self.value = (FourierLayer(n_in, width, modes) for _ in range(2))
        self.layers = nn.ModuleList([FourierLayer(width, width, modes) for _ in range(config.layers)])
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, n_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "B N i"]) -> Float[Tensor, "B N o"]:
        """Apply to channels on a grid of any length."""
        x = self.gate(x) * self.value(x)
        for layer in self.layers:
            x = nn.functional.gelu(layer(x))
        return self.out(nn.functional.gelu(self.hidden(x)))


class FieldOperator(nn.Module):
    """The operator on a ring of one channel, or on one point of many."""

    def __init__(self, n_state: int, ring: bool, config: Config) -> None:
        super().__init__()
        self.axis, channels = (-1, 1) if ring else (-2, n_state)
        self.operator = FourierOperator(channels, channels, config)

    def forward(self, u: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Change of the state."""
        return self.operator(u.unsqueeze(self.axis)).squeeze(self.axis)


class FourierFlow(LearnedFlow):
    """Encoder, operator and innovations."""

    def new_field(self, config: FlowConfig) -> nn.Module:
        """The operator; for kpz on bounded differences of heights."""
        assert isinstance(config, Config)
        if not self.growing:
            return FieldOperator(self.n_state, self.ring, config)
        field = GrowthField(config.radius, config.width)
        field.network = FourierOperator(2 * config.radius + 1, 1, config)
        return field

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval."""
        return self.in_band(state + self.field(state))


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    n = config.window + config.unroll
    return n, n


def build(task: Task, config: Config) -> FourierFlow:
    """The emulator before training."""
    return FourierFlow(task, config)


def train(emulator: FourierFlow, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on the masked error of short rollouts from encoded windows; the best weights on noisy validation data."""
    generator = torch.Generator().manual_seed(seed)
    emulator.prepare(data)
    pool, check = (emulator.pool(part, config.window + config.unroll) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    descent = Descent(emulator, config, log, lambda: rollout_loss(emulator, check, config.unroll), generator)
    for _ in descent:
        batch = drawn(pool, config.batch, generator)
        descent(rollout_loss(emulator, batch, config.unroll, config.training_noise))
    if emulator.growing:
        fit_innovation(emulator, pool, data, generator, fewer=2)  # all would take longer than the steps
