"""neural_ode: a learned vector field, integrated by Runge–Kutta steps and fitted by multiple shooting.

du/dt = f(u) is solved over short segments from estimated starts, and the error of the solution trains f (Chen et al.
2018, arXiv:1806.07366). Where the state is partly observed it is augmented by components that the data never show
(Dupont, Doucet & Teh 2019, arXiv:1904.01681), started by a window encoder. Segments last at most 0.3 Lyapunov times
and grow from one sample during training: over longer ones the error has exploding gradients and many minima.

Differences from the papers: gradients of the steps themselves, written out (the adjoint equation and adaptive steps
are options, by torchdiffeq); each segment starts from what the encoder makes of the noisy window before it, and two
neighbouring segments are asked to meet; f is a small network of products, local and translation-equivariant on rings,
with an optional dissipative linear term (after Linot et al. 2023, doi:10.1016/j.jcp.2022.111838, who learn theirs)
that exponential steps solve exactly (ETDRK4, Cox & Matthews 2002, doi:10.1006/jcph.2002.6995). L-BFGS finishes the
fit; under noise from starts estimated from both sides, by a Wiener filter and then, in turns with the fit, by an
ensemble smoother with the fitted flow as its model. kpz: a neural SDE, the drift plus coloured Gaussian innovations.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.11 0.97 1.04 0.89; kuramoto_sivashinsky
0.21 0.47 0.20 0.11; lorenz63 0.40 0.77 0.52 0.26; lorenz96 0.34 0.82 0.09 0.02; up to 254 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError, unknown
from emubench.core.hardware import sent
from emubench.data.dataset import Observations, windows
from emubench.data.tasks import Task
from emubench.dynamics.schemes import etdrk4_coefficients, etdrk4_step, three_eighths
from emubench.learning.filters.climate_filter import ClimateFilter, settled, settling
from emubench.learning.filters.wiener import smoothed
from emubench.learning.gaps import masked_mse
from emubench.learning.models.flow import LARGEST, POLISHED, FlowConfig, LearnedFlow, check_polish, polish_one_step
from emubench.learning.models.networks import ProductMlp, RingField
from emubench.learning.models.ode_gradients import exponential_segments, segments, supports
from emubench.learning.objectives.innovation import fit_innovation
from emubench.learning.training.descent import Descent, Log, drawn
from emubench.learning.training.polish import polish
from emubench.learning.training.settings import check_least, check_positive

knowledge = "structure"
SOLVERS = ("rk4", "dopri5", "dopri8", "bosh3", "adaptive_heun")
LONGEST = 0.3
"""Lyapunov times that a segment may last: over longer ones gradients explode and minima are many."""
HALF_WIDTH = 4
"""Samples on both sides of one that the Wiener filter sees."""
LAG = 6
"""Samples after one that the smoother sees."""
MEMBERS, INFLATION = 32, 1.2
"""Settings of the smoother; with less inflation it trusts a model that is not yet right, and confirms it."""
Smoother = Callable[[Tensor], tuple[Tensor, Tensor]]
"""States of trajectories ``"B T D"`` and the observations of the same samples, in σ."""


@dataclass(frozen=True)
class Config(FlowConfig):
    """Network, solver and budget; ``substeps`` Runge–Kutta steps per sample interval."""

    substeps: int = 1
    solver: str = "rk4"
    adjoint: bool = False
    """Gradients by the adjoint equation instead of back-propagation through the steps."""
    tolerance: float = 1e-5
    """Relative and absolute, in σ, of the adaptive solvers."""
    damping: float = 0.0
    """Rate γ, per sample interval, of a linear term −γ u (on rings −γ sin⁴(κ/2) for each mode κ), solved exactly."""
    coarse: int = 1
    """With a linear term on rings the field acts on every so-manieth site: enough of them carry the band's modes."""
    continuity: float = 0.0
    """Weight of the gap between the end of a segment and the start of the next."""
    polish: int = 0
    """Iterations of L-BFGS at the end, a multiple of 50; under noise from starts that are estimated from both sides."""
    rounds: int = 0
    """Times that these are estimated anew, by a smoother with the flow as its model, and the fit polished again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver not in SOLVERS:
            raise unknown("solver of neural_ode", self.solver, SOLVERS)
        check_positive(self, "substeps", "tolerance", "coarse")
        check_polish(self.polish)
        check_least(self, 0, "damping", "continuity", "rounds")


def longest_segment(task: Task) -> int:
    """Samples in 0.3 Lyapunov times, at least 1 (systems without a Lyapunov time: 1)."""
    return 1 if task.system.growing else max(1, int(LONGEST / task.lead_time_step))


def default_config(task: Task) -> Config:
    """Settings per system and track; the filter where it helped on contexts of another seed."""
    noisy = task.observation.noise > 0 and not task.system.growing
    stiff = {"damping": 300.0, "coarse": 2}
    clean = {
        "lorenz63": Config(substeps=2, unroll=2, steps=3000, batch=128, learning_rate=5e-3, polish=3000),
        "lorenz96": Config(unroll=2, steps=4000, batch=16, learning_rate=4e-3, polish=500),
        "kuramoto_sivashinsky": Config(radius=8, substeps=2, unroll=2, steps=2000, batch=16, polish=500, **stiff),
        "kpz": Config(width=32, radius=4, unroll=1, steps=1500, batch=16),
    }
    budget = {
        "lorenz63": {"steps": 3000, "batch": 128, "assimilated": True, "polish": 0},
        "lorenz96": {"steps": 2000, "batch": 24, "assimilated": True, "members": 20, "localisation": 5.0, "polish": 0},
        "kuramoto_sivashinsky": {"steps": 2000, "batch": 12, "window": 8, "radius": 6, "substeps": 1, "polish": 0},
    }
    finish = {
        "lorenz63": {"polish": 200, "rounds": 2},
        "kuramoto_sivashinsky": {
            "polish": 100, "rounds": 4, "steps": 1000, "width": 32, "assimilated": True, "members": 24,
            "inflation": 1.1,
        },
    }  # fmt: skip
    config = clean.get(task.system.name, Config(unroll=1))
    if noisy:
        config = dataclasses.replace(config, window=12, unroll=longest_segment(task), continuity=1.0)
        config = dataclasses.replace(config, **budget.get(task.system.name, {}))
    elif task.observation.noise:
        config = dataclasses.replace(config, window=8)
    if not task.full_state:
        config = dataclasses.replace(config, latent=3, window=24)
    if noisy and task.track != "noisy":
        config = dataclasses.replace(config, assimilated=False)
    elif noisy and task.full_state:
        config = dataclasses.replace(config, **finish.get(task.system.name, {}))
    if task.track == "scarce":
        config = dataclasses.replace(config, steps=config.steps // 4)
    return config


class NeuralOde(LearnedFlow):
    """Encoder, vector field and innovations; time is counted in sample intervals."""

    exponential: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.config = config
        if config.coarse > 1 and (self.n % config.coarse or not config.damping or not self.ring):
            raise EmubenchError(f"coarse: {config.coarse} needs damping and a ring of so many times as many sites")
        if config.coarse > 1 and (config.solver != "rk4" or config.adjoint):
            raise EmubenchError(f"coarse: {config.coarse} is for exponential steps alone: --set coarse=1")
        shape = np.sin(np.pi * np.arange(self.n // 2 + 1) / self.n) ** 4 if self.ring else np.ones(1)
        self.symbol = -config.damping * shape
        """The linear term: one rate per mode, off rings one for all components."""
        coefficients = np.stack(etdrk4_coefficients(self.symbol, 1 / config.substeps))
        self.register_buffer("exponential", torch.from_numpy(coefficients).float(), persistent=False)

    def new_field(self, config: FlowConfig) -> nn.Module:
        """A perceptron of products; on rings the same around every site, for kpz of bounded differences."""
        if self.growing:
            return super().new_field(config)
        if not self.ring:
            return ProductMlp(self.n_state, self.n_state, config.width)
        field = RingField(config.radius, config.width)
        field.network = ProductMlp(2 * config.radius + 1, 1, config.width)
        return field

    def tendency(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The field f(u) and the linear term."""
        if not self.config.damping:
            return self.field(state)
        symbol = torch.from_numpy(self.symbol).to(state)
        linear = torch.fft.irfft(symbol * torch.fft.rfft(state), n=self.n) if self.ring else symbol * state
        return self.field(state) + linear

    def written_out(self, state: Tensor) -> bool:
        """Whether the gradient of steps from ``state`` is."""
        config, field = self.config, self.field.network if isinstance(self.field, RingField) else self.field
        fixed = config.solver == "rk4" and not config.adjoint and supports(field, state)
        return fixed and (self.ring if config.damping else not self.has_band)

    @property
    def repeated(self) -> str:
        """A step, for ``--compile``; nothing where its gradient is written out."""
        return "" if self.written_out(self.mean) else "advance"

    def unroll(self, state: Tensor, n_steps: int) -> Float[Tensor, "B T D"]:
        """The next ``n_steps`` states; on a CPU, by fixed steps, with their gradient written out."""
        if not self.written_out(state):
            return super().unroll(state, n_steps)
        config, field = self.config, self.field.network if isinstance(self.field, RingField) else self.field
        network, counts = cast(ProductMlp, field), (n_steps, config.substeps)
        if not config.damping:
            return segments(network, state, *counts, self.ring)
        n_sites, n_modes = self.coarse_grid
        symbols = self.band[:n_modes] * self.exponential[:, :n_modes]
        return exponential_segments(network, self.in_band(state), *counts, symbols, n_sites)

    @property
    def coarse_grid(self) -> tuple[int, int]:
        """Sites on which the field acts, and modes that they carry."""
        n_sites = self.n // self.config.coarse
        return n_sites, (n_sites + 1) // 2 if self.config.coarse > 1 else self.n // 2 + 1

    def advance(self, state: Tensor) -> Tensor:
        """One sample interval."""
        config = self.config
        if config.solver != "rk4" or config.adjoint:
            return self.in_band(by_torchdiffeq(self, state, torch.tensor([0.0, 1.0]))[-1])
        if config.damping:
            return self.exponential_steps(state)
        step = three_eighths(self.tendency, 1 / config.substeps)
        for _ in range(config.substeps):
            state = step(state, None)
        return self.in_band(state)

    def exponential_steps(self, state: Tensor) -> Tensor:
        """One sample interval, the linear term solved exactly; on rings the field sees the band's modes only."""
        if not self.ring:
            coefficients = self.exponential.unbind()
            for _ in range(self.config.substeps):
                state = etdrk4_step(coefficients, self.field, state)
            return state
        n_sites, n_modes = self.coarse_grid
        band, coefficients = self.band[:n_modes], self.exponential[:, :n_modes].unbind()

        def nonlinear(v: Tensor) -> Tensor:
            sites = torch.fft.irfft(v, n=n_sites, norm="forward")
            return band * torch.fft.rfft(self.field(sites), norm="forward")[..., :n_modes]

        v = band * torch.fft.rfft(state, norm="forward")[..., :n_modes]
        for _ in range(self.config.substeps):
            v = etdrk4_step(coefficients, nonlinear, v)
        return torch.fft.irfft(v, n=self.n, norm="forward")


def by_torchdiffeq(flow: NeuralOde, state: Float[Tensor, "B D"], times: Float[Tensor, " T"]) -> Float[Tensor, "T B D"]:
    """The solution at ``times`` by torchdiffeq, with the flow's solver, tolerance and kind of gradient."""
    import torchdiffeq

    config = flow.config
    arguments: dict[str, Any] = {"method": config.solver, "rtol": config.tolerance, "atol": config.tolerance}
    if config.solver == "rk4":
        arguments["options"] = {"step_size": 1 / config.substeps}
    if config.adjoint:
        arguments["adjoint_params"] = tuple(flow.field.parameters())
    solve = torchdiffeq.odeint_adjoint if config.adjoint else torchdiffeq.odeint
    return cast(Tensor, solve(lambda _, u: flow.tendency(u), state, times.to(state), **arguments))


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    noisy, left = task.observation.noise > 0, 1 + config.unroll
    n = config.window + (2 if config.continuity and noisy else 1) * config.unroll
    if config.polish and noisy:
        n = max(n, left + 2 * HALF_WIDTH, settling(left + LAG) if config.rounds else 0)
    return n, n


def build(task: Task, config: Config) -> NeuralOde:
    """The emulator before training."""
    if config.unroll > (most := longest_segment(task)) and not task.system.growing:
        raise EmubenchError(f"unroll: segments of {config.unroll} samples, where at most {most} belong on {task.name}")
    if config.polish and task.observation.noise and not task.full_state:
        raise EmubenchError(f"polish: {config.polish} on {task.name}, whose state is not observed whole: 0 belongs")
    return NeuralOde(task, config)


def train(emulator: NeuralOde, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Adam on the error of two neighbouring segments; the best weights on noisy validation data."""
    generator = torch.Generator().manual_seed(seed)
    emulator.prepare(data)
    segments = 2 if config.continuity and emulator.encoder is not None else 1
    length = config.window + segments * config.unroll
    pool, check = (emulator.pool(part, length) for part in (data.train, data.validation))
    check = check[:: max(1, len(check) // 256)]
    descent = Descent(emulator, config, log, lambda: shooting_loss(emulator, check, config.unroll, segments), generator)
    for step in descent:
        horizon = min(config.unroll, 1 + 2 * config.unroll * step // config.steps)  # grown when half of it is done
        batch = drawn(pool, config.batch, generator)
        descent(shooting_loss(emulator, batch, horizon, segments, config.training_noise))
    if config.polish and emulator.encoder is None:
        polish_one_step(emulator, pool, check, config.polish, generator, log)
    elif config.polish:
        polish_segments(emulator, data, config.unroll, config.polish, generator, log, config.rounds)
    if emulator.growing:
        fit_innovation(emulator, pool, data, generator)


def shooting_loss(
    flow: NeuralOde, batch: Float[Tensor, "B L S"], horizon: int, segments: int, noise: float = 0.0
) -> Tensor:
    """Masked error of ``segments`` forecasts of ``horizon`` samples on end, and the gaps between them.

    ``noise``, in σ, is added to their starts.
    """
    config, w = flow.config, flow.window
    starts = [flow.encode(batch[:, i * horizon : i * horizon + w]) for i in range(segments)]
    begun = torch.cat(starts)
    if noise:
        begun = begun + noise * sent(torch.randn(begun.shape), begun.device)
    states = flow.unroll(begun, horizon)
    targets = torch.cat([batch[:, w + i * horizon : w + (i + 1) * horizon] for i in range(segments)])
    loss = masked_mse(states[..., : flow.n], targets)
    if segments == 1 or not flow.training:
        return loss
    gaps = states[: -len(batch), -1] - torch.cat(starts[1:])
    return loss + config.continuity * gaps.square().mean()


# --- segments from both sides -----------------------------------------------------------------------------------------


def by_wiener(flow: LearnedFlow, noise: Float[Tensor, " D"]) -> Smoother:
    """Linear estimates from the data's own second moments."""

    def estimate(observed: Tensor) -> tuple[Tensor, Tensor]:
        return smoothed(observed, noise, HALF_WIDTH, flow.ring)[0], observed[:, HALF_WIDTH:-HALF_WIDTH]

    return estimate


def by_flow(flow: LearnedFlow, noise: Float[Tensor, " D"], generator: torch.Generator) -> Smoother:
    """Estimates of a fixed-lag smoother; its first members are drawn from Wiener estimates."""

    def advance(ensemble: Float[Tensor, "M B D"]) -> Tensor:
        states = flow.unroll(flow.in_band(ensemble.flatten(0, 1).float()), 1)[:, 0]
        return torch.nan_to_num(states).clamp(-LARGEST, LARGEST).double().view(ensemble.shape)

    def estimate(observed: Tensor) -> tuple[Tensor, Tensor]:
        climate = ClimateFilter(flow.n, list(range(flow.n)), MEMBERS, INFLATION).to(observed.device)
        climate.noise.copy_(noise)
        climate.set_first(by_wiener(flow, noise)(observed)[0].flatten(0, 1), generator)
        first = settled(observed.shape[1])
        states = climate.smoothed(advance, observed, LAG)[:, first:]
        return states, observed[:, first : first + states.shape[1]]

    return estimate


def polish_segments(
    flow: LearnedFlow, data: Observations, horizon: int, n_iterations: int, generator: torch.Generator, log: Log,
    rounds: int = 0,
) -> None:  # fmt: skip
    """Finish the field's fit on segments of ``horizon`` samples from Wiener estimates, then ``rounds`` times from the
    smoother's; ``n_iterations`` each.
    """
    noise = (data.noise_std / data.std).double()
    if flow.encoder is not None:
        flow.encoder.requires_grad_(False)
    for i in range(1 + rounds):
        estimate = by_flow(flow, noise, generator) if i else by_wiener(flow, noise)
        pools = [two_sided_segments(flow, part, estimate, horizon, generator) for part in (data.train, data.validation)]

        def loss(pool: Tensor) -> Tensor:
            start, targets = flow.in_band(pool[:, 0, : flow.n]), pool[:, 1:, flow.n :]
            return masked_mse(flow.unroll(start, horizon), targets)

        polish(flow, lambda: loss(pools[0]), lambda: loss(pools[1]), n_iterations, log)  # noqa: B023


@torch.no_grad()
def two_sided_segments(
    flow: LearnedFlow, part: Tensor, estimate: Smoother, horizon: int, generator: torch.Generator
) -> Float[Tensor, "P L E"]:
    """A draw of segments, states beside observations: ``POLISHED`` of them, on rings 16 sites for each of these.

    Of no more trajectories than hold so many end to end: estimates cost more than the draw.
    """
    n = 16 * POLISHED // flow.n if flow.ring else POLISHED
    few = math.ceil(n / max(1, part.shape[1] // (1 + horizon)))
    part = part[torch.randperm(len(part), generator=generator)[:few]]
    pool = windows(torch.cat(estimate(flow.normalised(part).double()), -1).float(), 1 + horizon)
    return pool[torch.randperm(len(pool), generator=generator)[:n]]
