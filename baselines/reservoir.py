"""reservoir: an echo state network, a fixed random recurrent network of which only the readout is fitted.

r(t + 1) = tanh(A r(t) + B x(t) + b), u(t + 1) = w · [1, x(t), r(t + 1)], with x the values of u; A, B and b are fixed,
and w is a ridge regression (Jaeger & Haas 2004, doi:10.1126/science.1091277). On rings every site has a reservoir that
sees the values around it, all with the same weights (Pathak et al. 2018, doi:10.1103/PhysRevLett.120.024102). A context
drives it; then it runs on its own forecasts.

Differences from the papers: A is a cycle through all nodes, of one weight (Rodan & Tiňo 2011,
doi:10.1109/TNN.2010.2089641), which costs no matrix product; a reservoir per site, not per group of sites, so that the
map commutes with every translation; the readout sees the values too. Noisy and gappy data: while it is driven, the
network's own forecast is moved towards what is observed by a fixed gain, and stays where nothing is; the readout is
first fitted on smoothed series, then on such driven states. kpz: local slopes drive it, the readout is the growth.

Knowledge: structure (locality and translation on rings, shift of height for kpz; none on lorenz63).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -0.14 -0.13 0.60 0.50; kuramoto_sivashinsky
0.07 0.10 0.09 0.03; lorenz63 0.97 0.44 0.30 0.15; lorenz96 0.17 0.39 0.05 0.04; up to 10 s of training. Intervals:
``baselines/expected.toml``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import in_parts, sent, surely
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.emulator import step_forecast
from emubench.learning.least_squares import local_cubic, solve_factor, triangular_factor
from emubench.learning.models.growth_map import BOUND
from emubench.learning.models.operators import tanh_
from emubench.learning.models.ridge_map import Window, take_scales
from emubench.learning.rings import coloured, gaussian_fill, interpolate_ring, on_ring, pair_spectrum
from emubench.learning.training.descent import Best, Log
from emubench.learning.training.settings import check_least, check_positive
from emubench.learning.training.validation import SHORTEST, forecast_error

knowledge = "structure"
Model = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Memory and values ``"B N"`` to both, one sample later."""


@dataclass(frozen=True)
class Config:
    """The network, and what it is fitted with; of ``ridges`` and ``gains`` the validation forecasts choose."""

    size: int = 300
    """Nodes of a reservoir."""
    memory: float = 0.1
    """Weight between neighbours in the cycle of nodes: its spectral radius."""
    input_scale: float = 0.15
    radius: int = 3
    directions: int = 0
    """Principal directions of the values around a site that it sees (0: the values)."""
    spin_up: int = 24
    """Samples that drive a reservoir before it is fitted."""
    driven: tuple[int, ...] = (32, 512)
    """Trajectories and samples that drive it for the fit."""
    training_noise: float = 0.0
    ridges: tuple[float, ...] = (1e-6,)
    gains: tuple[float, ...] = (1.0,)
    passes: int = 1
    half_width: int = 0
    """Samples on either side of a smoothing of noisy series for the first pass (0: none)."""
    smooth: bool = False
    """Keep a ring within the spatial modes in which the data show a signal."""
    horizon: float = 2.0
    """Length of the validation forecasts, in units of lead time."""

    def __post_init__(self) -> None:
        check_positive(self, "size", "spin_up", "passes", "horizon", "input_scale")
        check_least(self, 0, "radius", "directions", "training_noise", "ridges", "half_width")
        check_least(self, 1, "driven", count=2)
        if not 0 <= self.memory < 1:
            raise EmubenchError(f"memory: {self.memory} where at least 0 and under 1 belongs: else it never forgets")
        if not self.gains or not all(0 < gain <= 1 for gain in self.gains):
            raise EmubenchError(f"gains: {self.gains} where numbers above 0 and at most 1 belong")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data and on data of another seed."""
    noisy, gappy, scarce = task.observation.noise > 0, task.observation.fraction < 1, task.track == "scarce"
    if task.system.growing:
        base = Config(size=24, input_scale=0.3, driven=(16, 120), horizon=16.0)
        gaps = {"radius": 2, "driven": (32, 256), "ridges": (1e-4,)} if gappy else {}
        return replace(base, gains=(0.5, 0.7, 0.9), **gaps) if noisy else base
    if task.system.name == "lorenz96":
        if not noisy:
            return Config(size=600, input_scale=0.07, radius=4, driven=(8, 160), ridges=(1e-14,), horizon=6.0)
        base = Config(size=200, input_scale=0.1, half_width=2, ridges=(1e-6, 1e-4), gains=(0.3, 0.6))
        if not gappy:
            return replace(base, driven=(16, 200))
        return replace(base, size=100, radius=2, driven=(32, 256), ridges=(1e-4, 1e-2, 1e-1), horizon=1.5)
    if task.system.name == "kuramoto_sivashinsky":
        base = Config(size=400, memory=0.05, input_scale=0.2, radius=20, directions=10, smooth=True, driven=(12, 120))
        if not noisy:
            return replace(base, training_noise=0.02, ridges=(1e-10,), horizon=4.0)
        base = replace(base, size=200, directions=8, half_width=2, training_noise=0.03, gains=(0.3, 0.6))
        return replace(base, ridges=(1e-4, 1e-2) if scarce else (1e-6, 1e-4), driven=(32, 256) if scarce else (12, 120))
    if not noisy:
        return Config(ridges=(1e-24, 1e-18), horizon=12.0)
    base = Config(size=200, memory=0.1, input_scale=0.3, half_width=2, ridges=(1e-8, 1e-6, 1e-4), gains=(0.2, 0.4, 0.7))
    if task.full_state:
        return base
    base = replace(base, memory=0.7, input_scale=0.5, half_width=4, passes=2, gains=(0.3, 0.5, 1.0), horizon=1.5)
    if scarce:
        return replace(base, size=300, input_scale=0.3, passes=3, ridges=(1e-4, 1e-3, 1e-2, 1e-1))
    return replace(base, ridges=(1e-8, 1e-5, 1e-3))


# --- nudging ----------------------------------------------------------------------------------------------------------


def nudged(
    model: Model, memory: Tensor, seen: Float[Tensor, "B T N"], gain: float | Tensor, ring: bool, growing: bool
) -> Iterator[tuple[Tensor, Float[Tensor, "B N"]]]:
    """Memory and values at every sample: v = forecast + ``gain`` · (seen − forecast), the forecast where NaN is seen.

    The cheapest assimilation there is, without ensemble or covariances (Hoke & Anthes 1976, in continuous time,
    doi:10.1175/1520-0493(1976)104<1551:TIONMB>2.0.CO;2). Before anything of a case was seen its values are zero: the
    mean, or the flat start of a ``growing`` height. The first sample that is seen is taken as it is, its gaps filled by
    :func:`first_guess`.
    """
    forecast = torch.zeros_like(seen[:, 0])
    begun = torch.zeros_like(forecast[:, :1], dtype=torch.bool)
    for now in seen.unbind(1):
        sight = ~torch.isnan(now)
        values = forecast + gain * torch.where(sight, now - forecast, 0.0)
        if not surely(begun.all()):
            values = torch.where(begun, values, first_guess(now, ring, growing))
            begun = begun | sight.any(-1, keepdim=True)
        yield memory, values
        memory, forecast = model(memory, values)


def first_guess(sample: Float[Tensor, "B N"], ring: bool, growing: bool) -> Float[Tensor, "B N"]:
    """``sample`` with its gaps filled: on rings linearly between neighbours, else by zero; nothing seen gives zeros.

    Of a ``growing`` height the gaps are filled about its own level.

    >>> nan = float("nan")
    >>> first_guess(torch.tensor([[1.0, nan, 3.0, nan], [nan] * 4]), ring=True, growing=False).tolist()
    [[1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    """
    level = sample.nanmean(-1, keepdim=True) if growing else torch.zeros_like(sample[:, :1])
    filled = interpolate_ring(sample - level) if ring else torch.nan_to_num(sample)
    return filled + torch.nan_to_num(level)


def missed_spectrum(
    model: Model, driven: Iterable[tuple[tuple[Tensor, Tensor], Tensor]], noise: float
) -> Float[Tensor, " K"]:
    """Power spectrum of what forecasts of one sample miss of the next observation, less that of its white ``noise``.

    ``driven`` has memory and values at a sample, as :func:`nudged` gives them, and the observation after it.
    """
    missed = torch.stack([after - model(*now)[1] for now, after in driven])
    return (pair_spectrum(missed) - noise**2).clamp(min=0)


# --- the network ------------------------------------------------------------------------------------------------------


class Reservoir(nn.Module):
    """A Stepper whose state is nodes and values, flat; in σ (kpz: heights over the deviation of slopes), float64."""

    mean: Tensor
    std: Tensor
    bound: Tensor
    band: Tensor
    spectrum: Tensor
    gain: Tensor
    inner: Tensor
    offset: Tensor
    weight: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        (self.n,), self.ring, self.growing, self.config = task.shape, on_ring(task), task.system.growing, config
        self.clean = task.observation.noise == 0 and task.observation.fraction == 1
        self.window = Window(self.n, self.ring, 1, config.radius, config.directions if self.ring else 0)
        self.places, n_modes = (self.n if self.ring else 1), self.n // 2 + 1
        shapes = {"mean": (self.n,), "std": (self.n,), "bound": (), "gain": (), "offset": (config.size,)}
        shapes |= {"band": (n_modes if config.smooth else 0,), "spectrum": (n_modes if self.growing else 0,)}
        shapes |= {"inner": (self.window.size, config.size)}
        shapes |= {"weight": (1 + self.window.size + config.size, 1 if self.ring else self.n)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))

    def inputs(self, values: Float[Tensor, "B N"]) -> Float[Tensor, "P I"]:
        """What each reservoir sees: values, or of a growing height the slopes to the right of the sites around."""
        return self.window((values.roll(-1, -1) - values if self.growing else values)[:, None])

    def listen(self, nodes: Float[Tensor, "... S"], x: Float[Tensor, "P I"]) -> Float[Tensor, "P S"]:
        """The nodes one sample later."""
        x = BOUND * torch.tanh(x / BOUND) if self.growing else x
        drive = torch.addmm(self.offset, x, self.inner)
        before = drive.view(nodes.shape)
        before[..., 1:].add_(nodes[..., :-1], alpha=self.config.memory)
        before[..., :1].add_(nodes[..., -1:], alpha=self.config.memory)
        return tanh_(drive)

    def advance(self, nodes: Float[Tensor, "... S"], values: Float[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
        """Nodes and expected values one sample later, kept within the band and the bounds of the data."""
        x, size = self.inputs(values), self.window.size
        nodes = self.listen(nodes, x)
        new = self.weight[0] + x @ self.weight[1 : 1 + size] + nodes @ self.weight[1 + size :]
        new = torch.nan_to_num(new.view(values.shape))
        if len(self.band):
            new = torch.fft.irfft(self.band * torch.fft.rfft(new), n=self.n)
        return nodes, values + new.clamp(-10, 10) if self.growing else new.clamp(-self.bound, self.bound)

    def drive(self, seen: Float[Tensor, "B T N"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Nodes and estimated values at every sample."""
        nodes = seen.new_zeros(len(seen) * self.places, self.config.size)
        return nudged(self.advance, nodes, seen, self.gain, self.ring, self.growing)

    # --- the Stepper protocol, in physical units at its ends ---

    def start(self, context: Tensor, n_members: int, generator: torch.Generator) -> Tensor:
        """Nodes and values ``"1 B D"`` (kpz: ``"M B D"``) at the last context sample, after the context has driven."""
        ((nodes, values),) = deque(self.drive((context - self.mean) / self.std), maxlen=1)
        state = torch.cat([nodes.reshape(len(context), -1), values], dim=1)
        return state.expand(n_members if self.growing else 1, -1, -1)

    def step(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """One sample interval; for kpz with a fresh innovation. A few cases at a time stay in the cache."""
        new = torch.empty_like(state)
        parts = (in_parts(states, 8) for states in (state.flatten(0, 1), new.view(-1, state.shape[-1])))
        for part, target in zip(*parts, strict=True):
            nodes, values = self.advance(part[:, : -self.n].unflatten(1, (self.places, -1)), part[:, -self.n :])
            target[:, : -self.n], target[:, -self.n :] = nodes.view(len(part), -1), values
        if self.growing:
            new[..., -self.n :] += coloured(self.spectrum, (*state.shape[:2], self.n), generator)
        return new

    def read(self, state: Tensor) -> Tensor:
        """Scored components."""
        return state[..., -self.n :] * self.std + self.mean

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Drive, then roll out."""
        return step_forecast(self, context, n_steps, n_members, generator)


def prepare(emulator: Reservoir, data: Observations, generator: torch.Generator) -> Float[Tensor, "B T N"]:
    """Take over the data's scales and draw the network; return the training observations in σ."""
    mean, std = data.mean, data.std
    if emulator.growing:
        slopes = data.train.roll(-1, -1) - data.train
        variance = slopes[~torch.isnan(slopes)].var() - 2 * data.noise_std.mean() ** 2
        mean, std = torch.zeros(()), variance.sqrt()
    observed = take_scales(emulator, data, mean, std)
    for buffer, largest in ((emulator.inner, emulator.config.input_scale), (emulator.offset, 1.0)):
        buffer.copy_(largest * (2 * torch.rand(buffer.shape, generator=generator, dtype=torch.float64) - 1))
    return observed[: emulator.config.driven[0], : emulator.config.driven[1]]


def first_states(emulator: Reservoir, observed: Float[Tensor, "B T N"], noise: float) -> Float[Tensor, "B T N"]:
    """What the first pass is made of: smoothed series, the gaps of smooth fields filled in."""
    half_width = 0 if emulator.clean else emulator.config.half_width
    states = local_cubic(observed, half_width) if half_width else observed
    if emulator.config.smooth and not emulator.clean:
        return gaussian_fill(states, noise / (2 if half_width else 1))
    hidden = torch.isnan(emulator.window.values(states[:, :1])).any(1)
    return interpolate_ring(states) if hidden.all() else states  # no place is observed all over: a biased start


def rows(
    emulator: Reservoir, states: Float[Tensor, "B T N"], first: bool, generator: torch.Generator
) -> Iterator[Float[Tensor, "R Q"]]:
    """Rows [1, inputs, nodes, what follows] of driven places, in the first pass of those observed all over."""
    drawn = torch.randn(states.shape, generator=generator, dtype=states.dtype)
    jitter = emulator.config.training_noise * sent(drawn, states.device)
    driving = jitter + (interpolate_ring(states) if first and torch.isnan(states).any() else states)
    known = ~torch.isnan(emulator.window.values(states[:, :1])).any(1) if first else states.new_ones(1).bool()
    x = previous = torch.zeros(0)
    for t, (nodes, values) in enumerate(emulator.drive(driving)):
        if t > emulator.config.spin_up:
            after = (states[:, t] - previous if emulator.growing else states[:, t]).reshape(len(x), -1)
            new = torch.cat([torch.ones_like(x[:, :1]), x, nodes, after], dim=1)
            yield new[known & ~torch.isnan(after).any(1)]
        x, previous = emulator.inputs(values), values


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    smoothed = 0 if task.observation.noise == 0 and task.observation.fraction == 1 else 2 * config.half_width
    return config.spin_up + 2 + smoothed, SHORTEST


def build(task: Task, config: Config) -> Reservoir:
    """The emulator before training."""
    return Reservoir(task, config)


@torch.no_grad()
def train(emulator: Reservoir, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Drive the network, fit the readout; where noise is, again on states that its own forecasts helped to drive."""
    generator = torch.Generator().manual_seed(seed)
    observed, prior = prepare(emulator, data, generator), torch.zeros_like(emulator.weight)
    noise = float((data.noise_std / emulator.std).mean())
    states = first_states(emulator, observed, noise)
    emulator.window.set_basis(states.flatten(0, 1)[::8, None], 0.0)
    if not emulator.growing:
        prior[1 : 1 + emulator.window.size] = emulator.window.centre()
    emulator.weight.copy_(prior)
    best = Best(emulator)
    for done in range(config.passes):
        factor, own = triangular_factor(rows(emulator, states, done == 0, generator)), Best(emulator)
        for ridge in config.ridges:
            emulator.weight.copy_(solve_factor(factor, prior, ridge))
            for gain in config.gains:
                emulator.gain.fill_(gain)
                own.keep(forecast_error(emulator, data, 48, config.horizon))
        own.restore()
        best.keep(own.error)
        log(done + 1, config.passes, validation=own.error)
        states = observed
    best.restore()
    if emulator.growing:
        driven = islice(zip(emulator.drive(observed), observed[:, 1:].unbind(1), strict=False), config.spin_up, None)
        emulator.spectrum.copy_(missed_spectrum(emulator.advance, driven, noise))
