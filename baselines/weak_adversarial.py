"""weak_adversarial: a learned vector field whose weak form holds against the test functions that an adversary finds.

du/dt = f(u) times φ, by parts: ∫ (φ′ u + φ f(u)) dt = 0 for every smooth φ of compact support, so noisy data are summed
and never differentiated. f descends in the squares of these integrals, an adversary that combines bumps of several
widths (and on rings of several extents) into φ ascends (Zang, Bao, Ye & Zhou 2020, doi:10.1016/j.jcp.2020.109409).
Forecasts integrate f from the analysis of an ensemble filter with f as its model.

Differences from the paper: dynamics from data, not one boundary value problem; f is a polynomial of degree 2 plus a
network. Where f is linear in its coefficients the weak form is solved at once; field and adversary play on from there.
Noise in the argument of f would bias it. Without gaps the closed form takes twins y ± ε of the data, ε as large as
the noise, whose errors are independent: products of one's features with the other's have no bias (after Leiner et al.
2023, doi:10.1080/01621459.2023.2270748). Elsewhere f takes estimates of the states: by a Wiener filter, then, for
``rounds`` closed forms, by a fixed-lag ensemble smoother with the present f. Safeguards of the game: residuals are
divided by the norm of their test function, under which noise looks the same to all; coefficients are bounded and the
bumps fixed; half of the loss is that of the bumps themselves; the adversary sees the state before the window, so it
can't fit its noise. ``--set objective=one_step`` fits the same field on the same data to the next sample. lorenz63
from x alone: f acts on delay coordinates. kpz: a weak form in space, of the next sample's residual, with innovations.

Knowledge: structure (a polynomial of degree 2 beside a network; locality and translation on rings; on kpz shift of
height).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.10 0.95 1.06 0.87; kuramoto_sivashinsky
0.35 0.61 0.18 -0.05; lorenz63 0.33 0.67 0.29 0.18; lorenz96 0.48 0.89 0.67 0.27; up to 154 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError, unknown
from emubench.core.hardware import sent
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.filters.climate_filter import SPIN_UP, ClimateFilter, settled, settling
from emubench.learning.filters.wiener import smoothed
from emubench.learning.gaps import fill_gaps
from emubench.learning.models.field_flow import FieldConfig, FieldFlow
from emubench.learning.models.flow import jittered, one_step_loss, rollout_loss
from emubench.learning.models.networks import GatedMlp
from emubench.learning.objectives.innovation import fit_innovation
from emubench.learning.objectives.weak_windows import DIFFERENCE, Family, bump_family, fit_linear, residuals
from emubench.learning.rings import interpolate_ring, neighbourhoods, on_ring
from emubench.learning.training.checkpoint import Checkpoint, adam_memory, named, recall_adam
from emubench.learning.training.descent import Best, Descent, Log, drawn
from emubench.learning.training.settings import check_least, check_positive, check_unused
from emubench.learning.training.validation import forecast_error

knowledge = "structure"
OBJECTIVES = ("weak", "one_step")
IN_TIME = ("half_widths", "ridge", "smoothing", "segment", "pool", "rounds", "twins", "filtered", "lag", "trusted")
"""Settings of the weak form in time and of what it takes for states."""


@dataclass(frozen=True)
class Config(FieldConfig):
    """Field, test functions, adversary, and the estimates of the states; ``steps`` before the first round."""

    objective: str = "weak"
    ridge: float = 1e-4
    """Penalty of the quadratic part's closed form, in units of its features' squares."""
    half_widths: tuple[int, ...] = (4, 6, 8)
    """Half-widths of the bumps in time, in samples."""
    power: int = 4
    space: tuple[int, ...] = ()
    """Half-widths of the bumps in space, in sites (0: a site itself)."""
    rate_noise: float = 0.02
    """Standard deviation of the field's errors, in σ per sample, by which residuals are weighted."""
    adversary: float = 0.5
    """The adversary's share of the loss."""
    ascent: float = 3e-3
    """The adversary's learning rate."""
    smoothing: int = 4
    """Half-width of the Wiener filter, in samples (0: the data are taken as they are)."""
    segment: int = 48
    """Samples on end in a batch."""
    pool: int = 256
    """Stretches of so many samples that the closed form is fitted to."""
    rounds: int = 3
    """Times that the model smooths the data and the quadratic part is fitted anew."""
    twins: int = 0
    """Data without gaps: stretches that the closed form is fitted to, each split into twins (0: estimates instead)."""
    filtered: tuple[int, ...] = (8, 384)
    """Trajectories and samples that are smoothed."""
    lag: int = 5
    trusted: float = 0.3
    """Residuals count where all neighbours are known to so many σ; everywhere if nowhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise unknown("objective of weak_adversarial", self.objective, OBJECTIVES)
        if not 0 <= self.adversary <= 1:
            raise EmubenchError(f"adversary: {self.adversary} where a share between 0 and 1 belongs")
        check_positive(self, "rate_noise", "segment", "pool", "ascent")
        check_least(self, 2, "half_widths", "power")
        check_least(self, 0, "ridge", "smoothing", "rounds", "twins", "trusted")
        check_least(self, 1, "lag")
        check_least(self, 1, "filtered", count=2)
        if self.space:
            check_least(self, 0, "space")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data and on contexts of another seed."""
    config = {
        "lorenz63": Config(width=32, batch=64, steps=400, filtered=(16, 512)),
        "lorenz96": Config(width=24, batch=12, steps=250, ridge=1e-3, localisation=8.0, members=30),
        "kuramoto_sivashinsky": Config(
            width=24, radius=4, batch=12, steps=250, stiff=True, space=(12, 20), ridge=1e-6, members=24,
            filtered=(8, 256),
        ),
        "kpz": Config(width=32, radius=4, unroll=1, steps=1000, batch=16, space=(0, 2, 6), rounds=0),
    }.get(task.system.name, Config())  # fmt: skip
    if not task.system.growing:
        config = dataclasses.replace(config, learning_rate=1e-3)
    config = dataclasses.replace(config, average=0.98, checks=10)
    if task.observation.noise == 0:
        longer = {"steps": 4 * config.steps, "smoothing": 0, "rounds": 0}
        finer = {"half_widths": (6, 8, 10), "power": 8, "ridge": 1e-8}
        return dataclasses.replace(config, **longer, **({} if task.system.growing else finer))
    if task.system.growing:
        return dataclasses.replace(config, window=8)
    config = dataclasses.replace(config, assimilated=True)
    if not task.full_state:
        delays = {"latent": 2, "spacing": 3, "smoothing": 8}
        config = dataclasses.replace(config, **delays, width=64, steps=8000, rounds=0)
    if task.observation.fraction < 1:
        config = dataclasses.replace(config, rounds=6)
    elif task.full_state:
        config = dataclasses.replace(config, rounds=0, twins=768 if on_ring(task) else 4096)
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 2)
    return config


class WeakFlow(FieldFlow):
    """The field with the settings of its training."""

    config: Config


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    if task.system.growing:
        return config.window + 1, config.window + 1
    tested = 2 * max(config.half_widths) + 1 if config.objective == "weak" else len(DIFFERENCE.values[0])
    reach = config.spacing * config.latent
    n = reach + lead_of(config) + tested + 2 * config.smoothing
    if config.assimilated and (config.rounds or config.twins):
        n = max(n, 4 * reach, settling(lead_of(config) + tested + config.lag, max(SPIN_UP, reach)))
    return n, n


def build(task: Task, config: Config) -> WeakFlow:
    """The emulator before training."""
    if config.twins and (task.observation.fraction < 1 or not task.full_state):
        raise EmubenchError(f"twins: {config.twins} on {task.name}, whose data have gaps: 0 belongs")
    if task.observation.fraction < 1 and not config.smoothing and not task.system.growing:
        raise EmubenchError(f"smoothing: 0 on {task.name}, whose data have gaps that it fills: at least 1 belongs")
    if config.rounds and not config.assimilated and not task.system.growing:
        raise EmubenchError(f"rounds: {config.rounds} need the filter: --set assimilated=true, or rounds=0")
    unused = ["unroll"] if task.system.growing else ["unroll", "window"]
    check_unused(config, default_config(task), unused, "where a weak form takes the place of rollouts")
    if task.system.growing:
        check_unused(config, default_config(task), IN_TIME, f"on {task.name}, whose weak form is one in space")
    return WeakFlow(task, config)


# --- estimates of the states ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoothed:
    """Estimated states û and what takes the derivative's place, u; ``weight`` 1 where the residual counts, else 0."""

    states: Float[Tensor, "B T D"]
    observed: Float[Tensor, "B T D"]
    weight: Float[Tensor, "B D"]

    def draw(self, n: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """û, u and weights of ``n`` stretches of ``length`` samples, or of as many as there are."""
        length = min(length, self.states.shape[1])
        b = torch.randint(len(self.states), (n,), generator=generator)
        t = torch.randint(self.states.shape[1] - length + 1, (n, 1), generator=generator) + torch.arange(length)
        b, t = (sent(at, self.states.device) for at in (b, t))
        return self.states[b[:, None], t], self.observed[b[:, None], t], self.weight[b][:, None]


def by_wiener(flow: WeakFlow, observation: Tensor, data: Observations, half_width: int, trusted: float) -> Smoothed:
    """Linear estimates from ``half_width`` samples on both sides (0: the data themselves).

    Gaps of u are filled by them, and count where all neighbours are known to ``trusted`` σ; everywhere if nowhere.
    """
    u, w = flow.normalised(observation).double(), half_width
    if not w:
        u = flow.lifted(u).float()
        return Smoothed(u, u, torch.ones_like(u[:, 0]))
    states, variance = smoothed(u, data.noise_std / data.std, w, flow.ring)
    u, weight = u[:, w:-w], torch.ones_like(u[:, 0]).float()
    if torch.isnan(u).any():
        known = neighbourhoods(variance.sqrt(), flow.config.radius).amax(-1) < trusted
        weight = known.float() if known.any() else weight
        u = torch.where(torch.isnan(u), states, u)
    lifted = flow.in_band(flow.lifted(states).float())
    return Smoothed(lifted, flow.lifted(u).float(), weight.repeat(1, flow.n_state // flow.n))


@torch.no_grad()
def by_model(flow: WeakFlow, observation: Tensor, filtered: tuple[int, ...], lag: int) -> Smoothed:
    """What the fixed-lag smoother makes of a part (trajectories, samples) of the data, with the flow as its model.

    Residuals count where data were observed.
    """
    n, length = filtered
    climate = cast(ClimateFilter, flow.climate)
    u = flow.normalised(observation[:n, :length]).double()
    skip = settled(u.shape[1], max(SPIN_UP, flow.reach))
    states = climate.smoothed(flow.model(), u, lag)[:, skip:]
    observed = flow.lifted(u)[:, -states.shape[1] - lag : -lag]
    seen = ~torch.isnan(observed)
    observed = torch.where(seen, observed, states).float()
    return Smoothed(flow.in_band(states.float()), observed, seen[:, 0].float())


# --- the game of field and adversary ----------------------------------------------------------------------------------


class Adversary(nn.Module):
    """Combines the family's functions by what the state was before the window.

    ``n_groups`` is 1 where one network serves all components (sites of a ring, each with its own input), else their
    number. Coefficients are bounded: (½ + tanh) of each function's own norm; at first all are ½.
    """

    def __init__(self, n_in: int, n_groups: int, family: Family, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.family, self.n_groups = family, n_groups
        self.network = GatedMlp(n_in, n_groups * len(family.gram), width)
        with torch.no_grad():
            for weight in self.network.parameters():  # its own draws: the field's stay those of a run without it
                bound = n_in**-0.5 if weight.shape[-1] == n_in else width**-0.5
                weight.uniform_(-bound, bound, generator=generator)
            self.network.out.weight.zero_()
            self.network.out.bias.zero_()

    def forward(self, seen: Float[Tensor, "... I"]) -> Float[Tensor, "... F"]:
        """Coefficients of the functions, for every component."""
        raw = self.network(seen)
        raw = raw if self.n_groups == 1 else raw.unflatten(-1, (self.n_groups, -1))
        return (0.5 + torch.tanh(raw)) / self.family.gram.diagonal().sqrt()


class Game:
    """Alternating ascent and descent: a call takes one step of the adversary, and returns the loss of the model.

    That loss is ``share`` of the adversary's and the rest of the fixed bumps', which no adversary can look away from.
    """

    def __init__(self, adversary: Adversary, rate: float, share: float) -> None:
        self.adversary, self.family, self.share = adversary, adversary.family, share
        self.optimizer = torch.optim.Adam(adversary.parameters(), lr=rate)

    def memory(self) -> dict[str, Tensor]:
        """The adversary's weights and its optimiser's memory, for a checkpoint."""
        return named("adversary", self.adversary.state_dict()) | adam_memory(self.optimizer, "ascent")

    def recall(self, checkpoint: Checkpoint) -> None:
        """Set them back to what the checkpoint holds."""
        self.adversary.load_state_dict(checkpoint.take("adversary", self.adversary.state_dict()))
        recall_adam(self.optimizer, checkpoint, "ascent")

    def __call__(self, residual: Float[Tensor, "B T D F"], seen: Tensor, weight: Tensor) -> Tensor:
        """The loss from the residuals, what the adversary may see, and the weights "B 1 D" of the windows."""
        combined = self.adversary(seen)
        ascent = self.family.combined_loss(residual.detach(), combined, weight)
        self.optimizer.zero_grad()
        (-ascent).backward()
        self.optimizer.step()
        tested = self.family.combined_loss(residual, combined.detach(), weight)
        return self.share * tested + (1 - self.share) * self.family.fixed_loss(residual, weight)


# --- training ---------------------------------------------------------------------------------------------------------


def new_game(flow: WeakFlow, noise: float, generator: torch.Generator) -> Game:
    """The family of test functions and the adversary, which sees neighbourhoods on rings, else whole states."""
    config = flow.config
    times = () if flow.growing else config.half_widths
    family = bump_family(times, config.power, config.space, noise, config.rate_noise).to(flow.mean.device)
    n_in, groups = (2 * config.radius + 1, 1) if flow.ring else (flow.n_state,) * 2
    adversary = Adversary(n_in, groups, family, 32, generator).to(flow.mean.device)
    return Game(adversary, config.ascent, config.adversary)


def lead_of(config: Config) -> int:
    """So far before a window that û, estimated from later data too, doesn't know the window's noise."""
    return max(config.smoothing + 1, config.lag if config.assimilated else 0)


def weak_residuals(flow: WeakFlow, family: Family, states: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals "B T2 D F" around every other sample, and the states before their windows, for the adversary."""
    config, lead = flow.config, lead_of(flow.config)
    residual = residuals(family, observed[:, lead:], flow.tendency(states[:, lead:]), stride=2)
    before = states[:, : 2 * residual.shape[1] : 2]
    return residual, neighbourhoods(before, config.radius) if flow.ring else before


def fit_quadratic(flow: WeakFlow, estimates: Smoothed, family: Family, noise: Tensor | None = None) -> None:
    """The closed form on draws of the estimates, or of data with ``noise``, in σ, whose twins it takes."""
    config, generator = flow.config, torch.Generator().manual_seed(0)
    n = max(1, (config.pool if noise is None else config.twins) // config.batch)
    draws = (estimates.draw(config.batch, config.segment, generator) for _ in range(n))
    sites = max(1, max(config.space, default=0) // 4)  # residuals of closer bumps are hardly others
    family = DIFFERENCE.to(flow.mean.device) if config.objective == "one_step" else family
    fit_linear(flow, draws, family, config.ridge, sites, noise, generator)


def descend(flow: WeakFlow, train: Smoothed, check: Smoothed, game: Game, generator: torch.Generator, log: Log) -> None:
    """Descents of the field, each after an ascent of the adversary; the best weights on noisy validation data."""
    config = flow.config
    length = min(config.segment, train.states.shape[1], check.states.shape[1])
    shown = check.draw(2 * config.batch, length, torch.Generator().manual_seed(1))

    def validation() -> Tensor:
        states, observed, weight = shown
        if config.objective == "one_step":
            return one_step_loss(flow, states, observed, weight)
        return game.family.fixed_loss(weak_residuals(flow, game.family, states, observed)[0], weight)

    rival = game if config.objective == "weak" else None
    for _ in (descent := Descent(flow, config, log, validation, generator, rival)):
        states, observed, weight = train.draw(config.batch, length, generator)
        states = jittered(states, config.training_noise, generator)
        if config.objective == "one_step":
            descent(one_step_loss(flow, states, observed, weight))
        else:
            descent(game(*weak_residuals(flow, game.family, states, observed), weight))


def error(flow: WeakFlow, data: Observations) -> float:
    """The error of forecasts over 1.5 units of lead time, by which closed forms and the game are compared."""
    return forecast_error(flow, data, SPIN_UP + 16, 1.5, often=16)


def train(emulator: WeakFlow, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Closed form of the quadratic part, in rounds; then Adam on the game of field and adversary; the best stay."""
    generator, noise = torch.Generator().manual_seed(seed), data.noise_std / data.std
    emulator.prepare(data)
    game = new_game(emulator, float(noise.mean()), generator)
    if emulator.growing:
        return train_growth(emulator, data, game, generator, log)
    parts = data.train, data.validation
    shown, check = (by_wiener(emulator, part, data, config.smoothing, config.trusted) for part in parts)
    if config.twins:
        unsmoothed = by_wiener(emulator, data.train, data, 0, config.trusted)
        fit_quadratic(emulator, unsmoothed, game.family, noise.float())
    else:
        fit_quadratic(emulator, shown, game.family)
    if emulator.climate is not None:
        emulator.climate.noise.copy_(noise)
        emulator.climate.set_first(shown.states[:, ::8].flatten(0, 1).double(), generator)
    best = Best(emulator)
    best.keep(error(emulator, data))
    for done in range(1, config.rounds + 1):
        fit_quadratic(emulator, by_model(emulator, data.train, config.filtered, config.lag), game.family)
        best.keep(value := error(emulator, data))
        log(done, config.rounds, validation=value)
    best.restore()
    if emulator.climate is not None and (config.rounds or config.twins):  # else the closed form is no model yet
        shown, check = (by_model(emulator, part, config.filtered, config.lag) for part in parts)
    descend(emulator, shown, check, game, generator, log)
    best.keep(error(emulator, data))
    best.restore()


def train_growth(flow: WeakFlow, data: Observations, game: Game, generator: torch.Generator, log: Log) -> None:
    """kpz: the residual of the next sample, whose mean is 0 given the past, against test functions in space."""
    config = flow.config
    pool, check = (flow.pool(part, config.window + 1) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    rival = game if config.objective == "weak" else None
    for _ in (descent := Descent(flow, config, log, lambda: rollout_loss(flow, check, 1), generator, rival)):
        batch = drawn(pool, config.batch, generator)
        if config.objective == "one_step":
            descent(rollout_loss(flow, batch, 1, config.training_noise))
            continue
        target, seen = fill_gaps(batch[:, -1:])
        start = jittered(flow.encode(batch[:, :-1]), config.training_noise, generator)
        error = (target - flow.advance(start)[:, None]) * seen
        last = interpolate_ring(batch[:, -2:-1])
        slopes = neighbourhoods(last, config.radius) - last[..., None]
        descent(game(residuals(game.family, 0 * error, error), slopes, batch.new_ones(())))
    fit_innovation(flow, pool, data, generator)
