"""resnet_ode: residual blocks with tied weights, read as Euler steps of one stationary flow.

A sample interval is K blocks u ← u + f(u)/K with one and the same f: a residual network is the Euler scheme of
du/dt = f(u), and tying the blocks makes the flow stationary (He et al. 2016, doi:10.1109/CVPR.2016.90; Lu et al. 2018,
arXiv:1710.10121; Rousseau, Drumetz & Fablet 2019, doi:10.1007/s10851-019-00890-3). Started by a window encoder,
trained on masked, noisy windows by the error of short rollouts. As options: untied blocks, and a residual branch of
bounded Lipschitz constant, which makes every block invertible (Behrmann et al. 2019, arXiv:1811.00995). Without noise
L-BFGS can finish the fit (``polish``).

Differences from the papers: f is a small gated network (local and translation-equivariant on rings, where He used
convolutions for images), no batch normalisation, multi-step loss. kpz: the flow is the conditional mean, and spatially
coloured Gaussian innovations make the ensemble.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.12 1.01 1.07 0.94; kuramoto_sivashinsky
0.16 0.24 0.21 0.12; lorenz63 0.33 0.38 0.16 0.14; lorenz96 0.14 0.56 0.11 0.00; up to 163 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.models.flow import FlowConfig, LearnedFlow, check_polish, polish_one_step, rollout_loss
from emubench.learning.objectives.innovation import fit_innovation
from emubench.learning.rings import neighbourhoods, on_ring
from emubench.learning.training.descent import Descent, Log, drawn
from emubench.learning.training.settings import check_least, check_unused

knowledge = "structure"


@dataclass(frozen=True)
class Config(FlowConfig):
    """A flow of ``substeps`` tied residual blocks per sample interval."""

    substeps: int = 4
    tied: bool = True
    """One field for all blocks of a sample interval; else one for each."""
    lipschitz: float = 0.0
    """Largest Lipschitz constant of a block's residual branch, below 1 (0: not bounded)."""
    polish: int = 0
    """Iterations of L-BFGS at the end, on ``POLISHED`` windows without noise: a multiple of 50."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "substeps")
        if not 0 <= self.lipschitz < 1:
            raise EmubenchError(f"lipschitz: {self.lipschitz} where a number of at least 0 and under 1 belongs")
        check_polish(self.polish)


def default_config(task: Task) -> Config:
    """Settings per system, chosen on validation data; noisy contexts get a longer window and rollout."""
    config = {
        "lorenz63": Config(substeps=5, width=128, unroll=2, steps=4000, batch=256, polish=2000),
        "lorenz96": Config(substeps=4, width=64, radius=2, unroll=2, batch=64),
        "kuramoto_sivashinsky": Config(substeps=2, width=64, radius=16, unroll=2, batch=32, training_noise=0.02),
        "kpz": Config(substeps=2, width=32, radius=4, unroll=1, window=1, steps=1500, batch=16),
    }.get(task.system.name, Config())
    if task.observation.noise and not task.system.growing:
        config = dataclasses.replace(config, window=12, unroll=6, width=64, polish=0)
        config = dataclasses.replace(
            config, **{"steps": 1200, "batch": 48} if on_ring(task) else {"steps": 4000, "batch": 128}
        )
    elif task.observation.noise:
        config = dataclasses.replace(config, window=8)
    if not task.full_state:
        config = dataclasses.replace(config, latent=3, window=24)
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 4)
    return config


class _Scaled(nn.Module):
    """Scales a weight down to operator norm 1 where it is larger."""

    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.norm(weight).clamp(min=1.0)


class LipschitzField(nn.Module):
    """A field whose Lipschitz constant in the Euclidean norm is at most ``bound``: ``bound · W₃ φ(W₂ φ(W₁ u))``.

    Every W has operator norm at most 1, found exactly at every call (not estimated, as by power iteration), and
    φ(x) = silu(x)/1.1 is 1-Lipschitz (Chen et al. 2019, arXiv:1906.02735). With a ``radius`` it acts on rings, where W₁
    is a circular convolution; with ``growing`` of differences to the site, so that a shift of all heights changes
    nothing. At first it is zero.
    """

    def __init__(self, n: int, width: int, bound: float, radius: int | None = None, growing: bool = False) -> None:
        super().__init__()
        self.bound, self.radius, self.growing = bound, radius, growing
        n_in, n_out = (n, n) if radius is None else (2 * radius + 1, 1)
        self.first, self.hidden, self.out = nn.Linear(n_in, width), nn.Linear(width, width), nn.Linear(width, n_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        first = spectral_norm if radius is None else self.convolution_norm
        for layer, norm in ((self.first, first), (self.hidden, spectral_norm), (self.out, spectral_norm)):
            nn.utils.parametrize.register_parametrization(layer, "weight", _Scaled(norm))

    def convolution_norm(self, weight: Float[Tensor, "W w"]) -> Tensor:
        """Operator norm of the circular convolution, on rings of any length: the largest norm of its symbol.

        Found at 64 (2r + 1) wavenumbers; between these a trigonometric polynomial of degree r is larger by less than
        one part in 1000, which is added.
        """
        size = 64 * weight.shape[1]
        symbol = torch.fft.rfft(weight, n=size)
        if self.growing:
            centre = torch.exp(
                -2j * torch.pi * torch.arange(size // 2 + 1, device=weight.device) * (weight.shape[1] // 2) / size
            )
            symbol = symbol - weight.sum(1, keepdim=True) * centre.to(symbol)
        return 1.001 * symbol.abs().square().sum(0).max().sqrt()

    def forward(self, u: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Apply to states, or around every site of rings."""
        x = u
        if self.radius is not None:
            x = neighbourhoods(u, self.radius)
            x = x - u[..., None] if self.growing else x
        x = nn.functional.silu(self.first(x)) / 1.1
        y = self.bound * self.out(nn.functional.silu(self.hidden(x)) / 1.1)
        return y if self.radius is None else y[..., 0]


def spectral_norm(weight: Float[Tensor, "o i"]) -> Tensor:
    """The largest singular value."""
    return torch.linalg.matrix_norm(weight, 2)


class ResnetOde(LearnedFlow):
    """Encoder, tied residual blocks and innovations."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.substeps, self.lipschitz = config.substeps, config.lipschitz
        self.others = nn.ModuleList([] if config.tied else [self.new_field(config) for _ in range(config.substeps - 1)])

    def new_field(self, config: FlowConfig) -> nn.Module:
        """The residual branch of a block, times the number of blocks."""
        if not isinstance(config, Config) or not config.lipschitz:
            return super().new_field(config)
        bound, radius = config.lipschitz * config.substeps, config.radius if self.ring else None
        return LipschitzField(self.n_state, config.width, bound, radius, self.growing)

    @property
    def fields(self) -> list[nn.Module]:
        """The fields of the blocks of one sample interval, in their order."""
        return [self.field, *self.others] if self.others else [self.field] * self.substeps

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval: K Euler steps of the flow."""
        if self.lipschitz:
            with nn.utils.parametrize.cached():
                return self.blocks(state)
        return self.in_band(self.blocks(state))

    def blocks(self, state: Tensor) -> Tensor:
        """One residual block after the other."""
        for field in self.fields:
            state = state + self.residual(field, state)
        return state

    def residual(self, field: nn.Module, state: Tensor) -> Tensor:
        """The residual branch; bounded ones keep within the band, which could not be undone after the blocks."""
        step = field(state) / self.substeps
        return self.in_band(step) if self.lipschitz else step

    @torch.no_grad()
    def inverse(self, state: Float[Tensor, "B D"], tolerance: float = 1e-7) -> Float[Tensor, "B D"]:
        """The state one sample interval earlier, by the fixed-point iteration x ← y − g(x) in each block.

        The residual branch g contracts by ``lipschitz`` at least, and so does the error with every iteration, down to
        ``tolerance`` times the first. Raises :class:`EmubenchError` where g is not bounded.
        """
        if not self.lipschitz:
            raise EmubenchError("only blocks of a bounded residual branch have an inverse: --set lipschitz=0.9")
        with nn.utils.parametrize.cached():
            for field in reversed(self.fields):
                image = state
                for _ in range(math.ceil(math.log(tolerance) / math.log(self.lipschitz))):
                    state = image - self.residual(field, state)
        return state


@torch.no_grad()
def numerical_order(flow: ResnetOde, state: Float[Tensor, "B D"]) -> float:
    """Order of the blocks as a scheme for the flow that they stand for: 1 where K blocks are close to it, as Euler's.

    log₂ of the difference between K and 2K blocks over that between 2K and 4K, with tied weights.
    """
    if flow.others:
        raise EmubenchError("untied blocks are steps of no stationary flow: --set tied=true")
    ends = []
    for refined in (1, 2, 4):
        u, n = state, refined * flow.substeps
        for _ in range(n):
            u = u + flow.field(u) / n
        ends.append(u)
    coarse, fine = ((a - b).square().mean().sqrt() for a, b in pairwise(ends))
    return float(torch.log2(coarse / fine))


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    n = config.window + config.unroll
    return n, n


def build(task: Task, config: Config) -> ResnetOde:
    """The emulator before training."""
    if task.observation.noise:
        check_unused(config, default_config(task), ["polish"], f"on {task.name}, whose data are noisy")
    return ResnetOde(task, config)


def train(emulator: ResnetOde, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on the masked error of short rollouts from encoded windows; the best weights on noisy validation data."""
    generator = torch.Generator().manual_seed(seed)
    emulator.prepare(data)
    pool, check = (emulator.pool(part, config.window + config.unroll) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    descent = Descent(emulator, config, log, lambda: rollout_loss(emulator, check, config.unroll), generator)
    for _ in descent:
        batch = drawn(pool, config.batch, generator)
        descent(rollout_loss(emulator, batch, config.unroll, config.training_noise))
    if config.polish and emulator.encoder is None:
        polish_one_step(emulator, pool, check, config.polish, generator, log)
    if emulator.growing:
        fit_innovation(emulator, pool, data, generator)
