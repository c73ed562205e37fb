"""analogue: what followed the most similar windows of the training data, copied, and looked up anew at the copy's end.

The method of analogues (Lorenz 1969, doi:10.1175/1520-0469(1969)26<636:APARBN>2.0.CO;2), without anything that is
learned: v(t + τ) = Σ wᵢ lᵢ(tᵢ + τ), with tᵢ the times at which the training data lᵢ were nearest to the last samples
before t, in the mean square over what is observed, and wᵢ as one over that distance (Shepard 1968,
doi:10.1145/800186.810616). The best of each stretch of the data competes, for its neighbours in time say the same. The
data are seen under every symmetry of the system; on rings under all translations, by circular correlation.

Noisy and gappy data: the library is smoothed in time by local cubics, on rings in space by its Gaussian conditional
mean, which fills its gaps. kpz: a member copies one analogue, drawn by the weights. What it lacked of the last sample
is added, mode by mode times its autocorrelation: of independent fields that makes draws given this sample, as in
conditional simulation (Journel & Huijbregts 1978).

Knowledge: structure (the system's symmetries). How many samples a window has, and how many analogues count, is chosen
on noisy validation data; the data themselves are the weights.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -1.82 -1.38 -0.15 -4.82;
kuramoto_sivashinsky 0.10 0.29 0.31 0.08; lorenz63 0.16 0.56 0.60 0.23; lorenz96 -0.01 -0.03 -0.01 -0.01; up to 25 s of
training. Intervals: ``baselines/expected.toml``.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.data.dataset import Observations
from emubench.data.observation import observed_symmetry
from emubench.data.tasks import Task
from emubench.learning.gaps import fill_gaps
from emubench.learning.least_squares import local_cubic
from emubench.learning.rings import gaussian_fill, interpolate_ring, on_ring
from emubench.learning.training.descent import Best, Log
from emubench.learning.training.settings import check_least, check_positive
from emubench.learning.training.validation import forecast_error

knowledge = "structure"
LOOKED_THROUGH = ("translation", "shift")
"""Symmetries whose images need no library of their own: every translation is tried, and heights are from their mean."""


@dataclass(frozen=True)
class Config:
    """The library and its use; of ``windows`` and ``neighbours`` the validation forecasts choose."""

    trajectories: int = 32
    """Training trajectories that are kept."""
    windows: tuple[int, ...] = (2, 4, 8)
    """Samples that are compared."""
    neighbours: tuple[int, ...] = (1, 2, 4, 8)
    hold: int = 64
    """Samples that are copied before analogues are looked up anew."""
    stretch: int = 128
    """Samples of a trajectory of which only the best window competes."""
    thin: int = 4
    """Of the windows every so many are looked at when a copy has ended."""
    half_width: int = 0
    """Samples on either side of the smoothing in time of noisy data (0: none)."""
    horizon: float = 1.0
    """Length of the validation forecasts, in units of lead time."""

    def __post_init__(self) -> None:
        check_positive(self, "trajectories", "hold", "stretch", "thin", "horizon")
        check_least(self, 1, "windows", "neighbours")
        check_least(self, 0, "half_width")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data of another seed."""
    if task.system.growing:
        return Config(trajectories=4, windows=(1, 2, 4), neighbours=(16,), hold=128, horizon=16.0)
    if task.observation.noise == 0:
        return Config()
    if task.system.name == "kuramoto_sivashinsky":
        return Config(windows=(4, 8, 16))
    return Config(windows=(4, 8, 16, 24), neighbours=(1, 2, 4, 8, 16), half_width=2)


class Analogue(nn.Module):
    """The library ``"R T N"`` in σ, and the weights of a window's lags and of the ranks of analogues."""

    library: Tensor
    mean: Tensor
    std: Tensor
    lags: Tensor
    ranks: Tensor
    memory: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.ring, self.growing, self.in_law = on_ring(task), task.system.growing, task.system.scored_in_law
        self.config, self.longest = config, max(config.windows)
        rows = min(config.trajectories, task.train.trajectories)
        length = max(1, task.train.length - 2 * config.half_width)
        self.hold = max(1, min(config.hold, (length - self.longest) // 2))
        kind = torch.float32 if self.ring else torch.float64
        self.register_buffer("library", torch.zeros(rows, length, *task.shape, dtype=kind))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.ones(task.shape, dtype=torch.float64))
        self.register_buffer("lags", torch.ones(self.longest, dtype=kind))
        self.register_buffer("ranks", torch.ones(max(config.neighbours), dtype=kind))
        modes = (self.hold, task.shape[-1] // 2 + 1) if self.ring and self.in_law else (0, 0)
        self.register_buffer("memory", torch.zeros(modes, dtype=kind))
        self.acts = []
        for name, act in task.system.symmetries().items():
            with contextlib.suppress(EmubenchError):  # one that mixes what is never observed shows nothing of the rest
                if not name.startswith(LOOKED_THROUGH):
                    self.acts.append(observed_symmetry(act, task.observation, task.system))

    def images(self) -> Iterator[Float[Tensor, "R T N"]]:
        """The library as it is, and under every symmetry but translation."""
        yield self.library
        for act in self.acts:
            physical = self.library * self.std + self.mean
            yield ((act(physical) - self.mean) / self.std).to(self.library)

    def candidates(self, query: Float[Tensor, "B W N"], image: Tensor, thin: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best window of every stretch of an image ``"R T N"``: its distance, place in the image and shift."""
        last = image.shape[1] - self.hold
        found = []
        for first in range(0, len(image), block := 1 if self.ring else len(image)):
            windows = image[first : first + block, :last].unfold(1, self.longest, thin).mT  # R L W N
            if self.growing:
                windows = windows - windows[:, :, -1:].mean(-1, keepdim=True)
            rows, n = windows.shape[:2]
            distance, shift = self.distances(query, windows.flatten(0, 1))
            time = torch.arange(n, device=image.device) * thin
            place = (torch.arange(first, first + rows, device=image.device)[:, None] * image.shape[1] + time).flatten()
            length = max(1, self.config.stretch // thin)
            parts = torch.nn.functional.pad(distance.view(-1, rows, n), (0, -n % length), value=torch.inf)
            best, at = parts.view(len(query), rows, -1, length).min(-1)
            at = at + torch.arange(at.shape[2], device=at.device) * length
            at = (at + torch.arange(rows, device=at.device)[:, None] * n).flatten(1)
            found.append((best.flatten(1), place[at], shift.gather(1, at)))
        distance, place, shift = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return distance, place, shift

    def distances(self, query: Float[Tensor, "B W N"], windows: Float[Tensor, "L W N"]) -> tuple[Tensor, Tensor]:
        """Mean square difference where ``query`` is seen, least over translations ``"B L"``, and where it is least."""
        values, seen = fill_gaps(query)
        weight = seen * self.lags[:, None]
        weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=1)
        known = (weight * values**2).sum((1, 2))[:, None]
        if not self.ring:
            mixed = (weight * values).flatten(1) @ windows.flatten(1).T
            square = weight.flatten(1) @ windows.flatten(1).T ** 2
            return (known - 2 * mixed + square).clamp(min=0), torch.zeros_like(mixed, dtype=torch.long)
        n = query.shape[-1]

        def modes(fields: Tensor) -> Tensor:  # K first
            return torch.fft.rfft(fields).movedim(-1, 0)

        both = modes(weight * values).conj() @ modes(windows).mT * -2 + modes(weight).conj() @ modes(windows**2).mT
        apart, shift = torch.fft.irfft(both.movedim(0, -1), n=n).min(-1)
        return (known + apart).clamp(min=0), shift

    def nearest(self, query: Float[Tensor, "B W N"], thin: int, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """What followed the analogues ``"B K H N"``, with the sample before it, and their weights ``"B K"``."""
        images = list(self.images())
        found = [self.candidates(query, image, thin) for image in images]
        distance, place, shift = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        image = torch.arange(distance.shape[1], device=distance.device) // found[0][0].shape[1]
        distance, best = distance.topk(min(len(ranks), distance.shape[1]), largest=False)
        weights = ranks[: best.shape[1]] / (distance + 1e-9)
        rows = torch.stack(images).flatten(0, 2)  # image, trajectory and time
        start = image[best] * len(rows) // len(images) + place.gather(1, best) + self.longest - 1
        follow = rows[start[..., None] + torch.arange(self.hold + 1, device=start.device)]
        if self.growing:
            follow = follow - follow[:, :, :1].mean(-1, keepdim=True)
        if self.ring:
            sites = torch.arange(follow.shape[-1], device=start.device) + shift.gather(1, best)[..., None]
            follow = follow.gather(-1, (sites % follow.shape[-1])[:, :, None].expand_as(follow))
        return follow, weights / weights.sum(1, keepdim=True)

    def copied(
        self, query: Float[Tensor, "B W N"], thin: int, ranks: Tensor, members: int, generator: torch.Generator
    ) -> Tensor:
        """The next samples ``"M B H N"``: the weighted mean of analogues; where scored in law each member's own."""
        level = torch.zeros_like(query[:, -1])
        if self.growing:
            level = query[:, -1].nanmean(-1, keepdim=True).expand_as(level)
        follow, weights = self.nearest(query - level[:, None], thin, ranks)
        if not self.in_law:
            return (weights[..., None, None] * follow[:, :, 1:]).sum(1)[None]
        drawn = sent(torch.rand(members, len(query), 1, generator=generator), query.device)
        pick = (weights.cumsum(1) < drawn).sum(-1).clamp(max=weights.shape[1] - 1)  # M B
        own = follow[torch.arange(len(query), device=query.device), pick]
        if not self.ring:
            return own[:, :, 1:]
        apart = torch.fft.rfft(interpolate_ring(query[:, -1] - level) - own[:, :, 0])
        kept = torch.fft.irfft(self.memory * apart[:, :, None], n=query.shape[-1])
        return level[:, None] + own[:, :, 1:] + kept

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Copy, and look up the copy's end, until all samples are there."""
        missing = (0, 0, max(0, self.longest - context.shape[1]), 0)  # of a short context: not observed
        last = torch.nn.functional.pad(context[:, -self.longest :], missing, value=torch.nan)
        query = ((last - self.mean) / self.std).to(self.library)
        members, again = n_members if self.in_law else 1, None if self.in_law else 1
        run = self.copied(query, 1, self.ranks, members, generator)
        past = torch.cat([query.expand(members, *query.shape), run], dim=2)
        while past.shape[2] - self.longest < n_steps:
            ends = past[:, :, -self.longest :].flatten(0, 1)
            new = self.copied(ends, self.config.thin, self.ranks[:again], 1, generator)[0]
            past = torch.cat([past, new.view(members, -1, *new.shape[1:])], dim=2)
        return past[:, :, self.longest : self.longest + n_steps] * self.std + self.mean


def prepared(emulator: Analogue, data: Observations) -> Float[Tensor, "R T N"]:
    """The training data in σ, smoothed where they are noisy, their gaps filled."""
    ring, config = emulator.ring, emulator.config
    emulator.mean.copy_(torch.zeros_like(data.mean) if emulator.growing else data.mean)
    emulator.std.copy_(data.std)
    kept = (data.train[: len(emulator.library)] - emulator.mean) / emulator.std
    if config.half_width:
        kept = local_cubic(kept, config.half_width)
    noise = float((data.noise_std / data.std).mean()) / (2 if config.half_width else 1)
    if not ring or (noise == 0 and data.task.observation.fraction == 1):
        return kept
    level = kept.nanmean(-1, keepdim=True) if emulator.growing else torch.zeros(())
    return gaussian_fill(kept - level, noise) + level


def autocorrelation(fields: Float[Tensor, "R T N"], n_lags: int) -> Float[Tensor, "H K"]:
    """Of every spatial mode, at lags from 1: the correlation of samples so far apart, between 0 and 1."""
    modes, n = torch.fft.rfft(fields), fields.shape[1] - n_lags
    first, found = modes[:, :n], []
    for lag in range(1, n_lags + 1):
        later = modes[:, lag : lag + n]
        power = first.abs().square().sum((0, 1)) * later.abs().square().sum((0, 1))
        found.append((first.conj() * later).real.sum((0, 1)) / power.sqrt().clamp(min=1e-30))
    return torch.stack(found).clamp(0, 1)


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    return max(config.windows) + 2 + 2 * config.half_width, 3


def build(task: Task, config: Config) -> Analogue:
    """The emulator before training."""
    return Analogue(task, config)


def train(emulator: Analogue, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Keep the data; choose the window and the number of analogues. The seed plays no part."""
    emulator.library.copy_(prepared(emulator, data))
    if len(emulator.memory):
        level = emulator.library.mean(-1, keepdim=True) if emulator.growing else 0.0
        emulator.memory.copy_(autocorrelation(emulator.library - level, len(emulator.memory)))
    best, context = Best(emulator), 3 * emulator.longest
    tried = list(product(config.windows, config.neighbours))
    for done, (window, count) in enumerate(tried):
        emulator.lags.copy_(torch.arange(emulator.longest) >= emulator.longest - window)
        emulator.ranks.copy_(torch.arange(len(emulator.ranks)) < count)
        error = forecast_error(emulator, data, context, config.horizon, 8 if emulator.ring else 32)
        log(done + 1, len(tried), window=window, neighbours=count, validation=error)
        best.keep(error)
    best.restore()
