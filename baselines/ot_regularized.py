"""ot_regularized: forecasts trained by their error and, further ahead, by optimal transport to what was observed.

Beyond the horizon of prediction a squared error asks for the mean, which damps a model; transport asks for the right
crests in about the right places, and for the right distribution. Two debiased Sinkhorn losses join the error of short
rollouts: on rings between forecast and observed field as densities (convolutional Wasserstein, Solomon et al. 2015,
doi:10.1145/2766963), and between point clouds of summary features of rolled-out and observed data (Jiang, Lu, Orlova &
Willett 2023, arXiv:2306.01187). The flow is that of ``resnet_ode``: tied residual blocks, a window encoder.

Differences from the papers: a signed field u becomes two measures, exp(u) and exp(−u), normalised, so that crests and
troughs both are transported; clouds have few dimensions (states, values beside each other, values of one component in
time), for in many a cloud of some hundred points is far from any other; they are those of rollouts that have forgotten
their start, with gradients through the last samples alone; forecasts get observation noise as the data have it, so that
both sides are alike. ``--set field_weight=0 --set cloud_weight=0`` is the same network without transport. kpz: heights
are compared less their mean, and features of slopes; coloured Gaussian innovations make the ensemble.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.12 1.01 1.06 0.91; kuramoto_sivashinsky
0.11 0.22 0.20 0.12; lorenz63 0.17 0.37 0.21 0.15; lorenz96 0.12 0.54 0.07 0.00; up to 217 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent, surely
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.models.flow import LARGEST, FlowConfig, LearnedFlow, rollout_loss
from emubench.learning.objectives.innovation import fit_innovation
from emubench.learning.rings import interpolate_ring, on_ring
from emubench.learning.training.descent import Descent, Log, drawn
from emubench.learning.training.settings import check_least, check_positive

knowledge = "structure"
SoftMin = Callable[[Tensor], Tensor]
"""h ↦ −log ∑ⱼ exp(hⱼ − cᵢⱼ/ε): from one side to the other."""
MAX_RANGE = 24.0
"""Largest cost, in ε, that the heat kernel resolves: its smallest value is e^−24 of its largest, rounding e^−36."""


@dataclass(frozen=True)
class Config(FlowConfig):
    """A flow of ``substeps`` tied residual blocks per sample interval, and the transport terms."""

    substeps: int = 4
    ahead: int = 12
    """Samples of the rollouts that are compared by transport, beyond those of the prediction loss."""
    spin: int = 48
    """Samples that rollouts go on for, without gradients, before their clouds are compared."""
    runs: int = 16
    """Rollouts in a step."""
    field_weight: float = 0.1
    field_blur: float = 0.1
    """√ε of the transport of fields, as a share of the ring."""
    cloud_weight: float = 0.1
    cloud_blur: float = 0.5
    """√ε of the transport of clouds, in σ."""
    points: int = 128
    """Points of a cloud."""
    iterations: int = 20
    """Most iterations of Sinkhorn's algorithm; after 20 the loss of clouds is some 2 % low at the default blur."""
    lags: tuple[int, ...] = (0, 2, 4, 8)
    """Samples before, whose values are the features of a component in time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "substeps", "ahead", "spin", "runs", "field_blur", "cloud_blur", "points", "iterations")
        check_least(self, 0, "field_weight", "cloud_weight", "lags")
        if max(self.lags) >= self.ahead:
            raise EmubenchError(f"lags: {self.lags} where samples of a rollout of {self.ahead} belong")


def default_config(task: Task) -> Config:
    """Settings per system, chosen on validation data and on contexts of another seed."""
    config = {
        "lorenz63": Config(substeps=4, width=64, steps=2500, batch=128, learning_rate=3e-3, runs=64),
        "lorenz96": Config(substeps=3, width=48, steps=1000, batch=32, runs=8),
        "kuramoto_sivashinsky": Config(
            substeps=2, width=64, radius=16, steps=1600, batch=32, training_noise=0.02, runs=4
        ),
        "kpz": Config(substeps=2, width=32, radius=4, steps=1000, batch=12, runs=2),
    }.get(task.system.name, Config())
    if task.observation.noise:
        longer = {"window": 8, "unroll": 1} if task.system.growing else {"window": 12, "unroll": 6}
        config = dataclasses.replace(config, **longer)
    elif task.system.growing:
        config = dataclasses.replace(config, unroll=1)
    else:  # what is left to predict is small beside the transport of finite clouds
        config = dataclasses.replace(config, unroll=2, field_weight=1e-3, cloud_weight=1e-3)
    if not task.full_state:
        config = dataclasses.replace(config, latent=3, window=24)
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 4)
    return config


class OtFlow(LearnedFlow):
    """Encoder, tied residual blocks and innovations."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.substeps = config.substeps

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval: K Euler steps of the flow."""
        for _ in range(self.substeps):
            state = state + self.field(state) / self.substeps
        return self.in_band(state)


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    n = config.window + config.unroll + config.ahead
    return n, n


def build(task: Task, config: Config) -> OtFlow:
    """The emulator before training."""
    if on_ring(task) and config.field_weight:
        try:
            heat_kernel(task.shape[0], config.field_blur**2)
        except EmubenchError as error:
            raise EmubenchError(f"field_blur: {config.field_blur}, whose square is ε: {error}") from None
    return OtFlow(task, config)


# --- entropic transport -----------------------------------------------------------------------------------------------


def potentials(
    log_a: Tensor, log_b: Tensor, to_a: SoftMin, to_b: SoftMin, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """f/ε and g/ε of the dual problem, by averaged steps of Sinkhorn's iteration; batched over leading axes.

    Each step is the mean of the old potential and the alternate's answer, which converges fast where both measures are
    the same; the last one is whole. It stops when no potential moves by more than ``tolerance``, in ε.
    """
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    done = log_a.new_zeros(()).bool()
    for _ in range(max_iterations):
        new_f, new_g = (f + to_a(log_b + g)) / 2, (g + to_b(log_a + f)) / 2
        moved = torch.maximum((new_f - f).abs().max(), (new_g - g).abs().max())
        f, g, done = torch.where(done, f, new_f), torch.where(done, g, new_g), done | (moved < tolerance)
        if surely(done):
            break
    f = to_a(log_b + g)
    return f, to_b(log_a + f)


def dual_value(a: Tensor, b: Tensor, f: Tensor, g: Tensor, to_a: SoftMin, eps: float) -> Tensor:
    """⟨a, f⟩ + ⟨b, g⟩ − ε (⟨a ⊗ b, exp((f ⊕ g − c)/ε)⟩ − 1), with f and g given in ε.

    At the optimal potentials it is OT_ε(a, b), the least ⟨P, c⟩ + ε KL(P | a ⊗ b) over couplings P of a and b, with
    half the squared distance as cost c. They are constants, for there its derivatives by them are zero.
    """
    f, g = f.detach(), g.detach()
    mass = (a * torch.exp(f - to_a(b.clamp(min=1e-300).log() + g))).sum(-1)
    return eps * ((a * f).sum(-1) + (b * g).sum(-1) - mass + 1)


# --- point clouds ---------------------------------------------------------------------------------------------------


def cloud_cost(x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"]) -> Float[Tensor, "... n m"]:
    """Half the squared distances."""
    products = x @ y.mT
    return 0.5 * x.square().sum(-1)[..., :, None] + 0.5 * y.square().sum(-1)[..., None, :] - products


def cloud_transport(
    x: Float[Tensor, "... n d"],
    y: Float[Tensor, "... m d"],
    eps: float,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> Float[Tensor, "..."]:
    """OT_ε between clouds of equally weighted points.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> round(float(cloud_transport(x, x + 3, 0.01)), 2)        # moved by 3: 3²/2, and ε log 2 for the entropy
    4.51
    """
    cost = cloud_cost(x, y) / eps
    a, b = (cost.new_full((*cost.shape[:-2], n), 1 / n) for n in cost.shape[-2:])

    def to_a(h: Tensor) -> Tensor:
        return -torch.logsumexp(h[..., None, :] - cost, dim=-1)

    def to_b(h: Tensor) -> Tensor:
        return -torch.logsumexp(h[..., :, None] - cost, dim=-2)

    with torch.no_grad():
        f, g = potentials(a.log(), b.log(), to_a, to_b, tolerance, max_iterations)
    return dual_value(a, b, f, g, to_a, eps)


# --- densities on a ring ----------------------------------------------------------------------------------------------


def heat_kernel(n_sites: int, eps: float, device: torch.device | str = "cpu") -> Float[Tensor, " K"]:
    """Fourier multiplier exp(−ε k²/2) of the periodic heat kernel on a ring of length 1, exp(−d²/2ε) near its middle.

    Raises :class:`EmubenchError` where ε is so small that rounding would drown the kernel's far side, or so small
    beside the squared distance of two sites that the grid doesn't resolve it.
    """
    least = max(0.125 / MAX_RANGE, 1 / n_sites**2)
    if not eps >= least:
        raise EmubenchError(
            f"eps: {eps:g} where at least {least:.3g} belongs, on a ring of {n_sites} sites and length 1"
        )
    k = 2 * math.pi * torch.arange(n_sites // 2 + 1, dtype=torch.float64, device=device)
    return torch.exp(-0.5 * eps * k**2)


def ring_softmin(multiplier: Tensor, n_sites: int) -> SoftMin:
    """−log of the heat kernel applied to exp h, with the largest of h taken out: memory is linear in the grid."""

    def apply(h: Tensor) -> Tensor:
        top = h.detach().amax(-1, keepdim=True)
        spread = torch.fft.irfft(multiplier * torch.fft.rfft(torch.exp(h - top)), n=n_sites)
        return -(spread.clamp(min=1e-300).log() + top)

    return apply


def ring_transport(
    a: Float[Tensor, "... N"],
    b: Float[Tensor, "... N"],
    eps: float,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> Float[Tensor, "..."]:
    """OT_ε between densities (positive, of sum 1) on a ring of length 1, its kernel the heat kernel; in float64.

    The cost that this kernel stands for is −ε log of it, half the squared distance but for a constant where ways
    around the ring compete.
    """
    n = a.shape[-1]
    soft = ring_softmin(heat_kernel(n, eps, a.device), n)
    a, b = a.double(), b.double()
    with torch.no_grad():
        log_a, log_b = (v.clamp(min=1e-300).log() for v in torch.broadcast_tensors(a.detach(), b.detach()))
        f, g = potentials(log_a, log_b, soft, soft, tolerance, max_iterations)
    return dual_value(a, b, f, g, soft, eps)


def divergence(
    transport: Callable[..., Tensor], x: Tensor, y: Tensor, eps: float, tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> Float[Tensor, "..."]:  # fmt: skip
    """The debiased Sinkhorn divergence by :func:`cloud_transport` or :func:`ring_transport`, 0 where x and y are equal.

    ε is in units of squared distance. Between narrow densities it is half their squared distance.
    """
    settings = eps, tolerance, max_iterations
    own = transport(x, x, *settings) + transport(y, y, *settings)
    return transport(x, y, *settings) - own / 2


def densities(field: Float[Tensor, "... N"], sharpness: float = 1.0) -> Float[Tensor, "two ... N"]:
    """What a signed field is as masses: exp(± sharpness · u), each normalised, one for its crests, one for its troughs.

    >>> densities(torch.tensor([0.0, 0.0])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    return torch.stack([torch.softmax(sign * sharpness * field, dim=-1) for sign in (1, -1)])


# --- losses -----------------------------------------------------------------------------------------------------------


def field_loss(forecast: Float[Tensor, "B T N"], observed: Float[Tensor, "B T N"], config: Config) -> Tensor:
    """Convolutional transport between the fields' densities, gaps filled from their neighbours on both sides."""
    seen = ~torch.isnan(observed)
    filled = (interpolate_ring(torch.where(seen, u, torch.nan)) for u in (forecast, observed))
    ours, theirs = (densities(u - u.mean(-1, keepdim=True)) for u in filled)
    return divergence(ring_transport, ours, theirs, config.field_blur**2, 1e-3, config.iterations).mean()


def features(runs: Float[Tensor, "B T S"], lags: tuple[int, ...], ring: bool, growing: bool) -> list[Tensor]:
    """Clouds "P F" of few dimensions: states, and for each component its values ``lags`` samples before.

    On rings one point per site: its value and its two neighbours', and its own at the lags. kpz: slopes for values.
    """
    values = runs.roll(-1, -1) - runs if growing else runs
    length = runs.shape[1] - max(lags)
    delays = torch.stack([values[:, max(lags) - lag :][:, :length] for lag in lags], dim=-1)
    now = delays[..., lags.index(min(lags))]
    if not ring:
        return [now.flatten(0, 1), *delays.flatten(0, 1).unbind(1)]
    beside = torch.stack([now, now.roll(-1, -1), now.roll(-2, -1)], dim=-1)
    return [beside.flatten(0, -2), delays.flatten(0, -2)]


def cloud_loss(
    flow: OtFlow, runs: Tensor, observed: Tensor, config: Config, generator: torch.Generator, gappy: bool = True
) -> Tensor:
    """Mean Sinkhorn divergence between the clouds of rollouts and of observations, each at random times and sites.

    Points of which a part was not observed (NaN) are left out: of ``gappy`` data, whose host has to know how many.
    """
    pairs = zip(*(features(u, config.lags, flow.ring, flow.growing) for u in (runs, observed)), strict=True)
    losses = []
    for ours, theirs in pairs:
        theirs = theirs[~torch.isnan(theirs).any(-1)] if gappy else theirs
        if len(theirs):
            x, y = (drawn(cloud, config.points, generator) for cloud in (ours, theirs))
            losses.append(divergence(cloud_transport, x, y, config.cloud_blur**2, 1e-3, config.iterations))
    return torch.stack(losses).mean() if losses else runs.sum() * 0


def rollout(flow: OtFlow, state: Float[Tensor, "B D"], n_steps: int, generator: torch.Generator) -> Tensor:
    """The next ``n_steps`` states "B T D", within the bounds of a climate; for kpz with innovations, unbounded."""
    states = []
    for _ in range(n_steps):
        state = flow.step(state[None], generator)[0]
        if not flow.growing:  # in mid-training the climate may not be bounded yet
            state = torch.nan_to_num(state).clamp(-LARGEST, LARGEST)
        states.append(state)
    return torch.stack(states, dim=1)


@torch.no_grad()
def spun(flow: OtFlow, state: Float[Tensor, "B D"], n_steps: int, generator: torch.Generator) -> Float[Tensor, "B D"]:
    """The state ``n_steps`` samples later; of a height its shape."""
    state = rollout(flow, state, n_steps, generator)[:, -1]
    return state - state.mean(-1, keepdim=True) if flow.growing else state


def transport_loss(
    flow: OtFlow, batch: Tensor, config: Config, noise: Tensor, generator: torch.Generator, gappy: bool = True
) -> Tensor:
    """Both terms, with noise as observed, for rollouts from the encoded windows: fields soon after, clouds later.

    Clouds have forgotten where they began, so they are compared with any observations, and gradients go through their
    last ``ahead`` samples alone: through chaos for longer they would explode.
    """
    w, skip = flow.window, config.unroll

    def noisy(states: Tensor) -> Tensor:
        values = states[..., : flow.n]
        return values + noise * sent(torch.randn(values.shape, generator=generator), values.device)

    states, loss = rollout(flow, flow.encode(batch[:, :w]), skip + config.ahead, generator), batch.new_zeros(())
    if flow.ring and config.field_weight:
        shown = slice(skip, None, 2)
        loss = config.field_weight * field_loss(noisy(states[:, shown]), batch[:, w:][:, shown], config)
    if config.cloud_weight:
        runs = rollout(flow, spun(flow, states[:, -1], config.spin, generator), config.ahead, generator)
        loss = loss + config.cloud_weight * cloud_loss(flow, noisy(runs), batch, config, generator, gappy)
    return loss


def train(emulator: OtFlow, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on prediction error and transport; the best weights on noisy validation data, by the same sum."""
    generator = torch.Generator().manual_seed(seed)
    emulator.prepare(data)
    noise = (data.noise_std / data.std).float()
    transport = config.field_weight > 0 or config.cloud_weight > 0
    pool, check = (emulator.pool(part, config.window + config.unroll) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    length = config.window + config.unroll + config.ahead
    long, long_check = (emulator.pool(part, length) for part in (data.train, data.validation))
    long_check = long_check[:: max(1, len(long_check) // (4 * config.runs))]
    gappy = bool(torch.isnan(long).any() | torch.isnan(long_check).any())

    def validation() -> Tensor:
        loss, own = rollout_loss(emulator, check, config.unroll), torch.Generator().manual_seed(seed)
        if transport:
            loss = loss + transport_loss(emulator, long_check, config, noise, own, gappy)
        return loss

    descent = Descent(emulator, config, log, validation, generator)
    for step in descent:
        batch = drawn(pool, config.batch, generator)
        loss = rollout_loss(emulator, batch, config.unroll, config.training_noise)
        if transport and step >= config.steps // 2:  # of a flow that forecasts already
            runs = drawn(long, config.runs, generator)
            loss = loss + transport_loss(emulator, runs, config, noise, generator, gappy)
        descent(loss)
    if emulator.growing:
        fit_innovation(emulator, pool, data, generator)
