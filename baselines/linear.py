"""linear: the best linear forecast from a short delay window, from second moments of the observed data alone.

On rings everything is translation-invariant: covariances C(Δx, Δt) are averaged over the pairs that were observed, so
gaps cost data and no bias; the window's state is their Gaussian conditional mean given what a context shows, and a
ridge map per Fourier mode, iterated, forecasts it. Off rings: one ridge map over the window. kpz: a direct Gaussian
regression per lead and per Fourier mode, with its residual variance as the ensemble's spread.

Knowledge: structure (translation symmetry on rings). Ridge strengths are chosen on noisy validation data.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -0.04 -0.04 -0.03 -0.01;
kuramoto_sivashinsky 0.00 0.00 0.00 0.00; lorenz63 0.00 0.00 -0.02 -0.03; lorenz96 0.00 0.00 0.00 0.00; up to 19 s of
training. Intervals: ``baselines/expected.toml``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emubench.core.hardware import sent
from emubench.data.dataset import Observations, windows
from emubench.data.tasks import Task
from emubench.learning.gaps import fill_gaps, masked_mse
from emubench.learning.rings import on_ring
from emubench.learning.training.descent import Log, best_of
from emubench.learning.training.settings import check_least

knowledge = "structure"
comes_to_rest = True


@dataclass(frozen=True)
class Config:
    """Delay window; ridge strengths tried, in units of the data's variance; smoothing of gappy growth data."""

    delays: int = 4
    ridges: tuple[float, ...] = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    max_lead: int = 128
    smooth: float = 0.25
    check_steps: int = 4

    def __post_init__(self) -> None:
        check_least(self, 1, "delays", "max_lead", "check_steps")
        check_least(self, 0, "ridges", "smooth")


# --- off rings --------------------------------------------------------------------------------------------------------


class DelayMap(nn.Module):
    """x(t+1) = A [x(t), x(t−1) …] + mean, iterated; x are deviations from the mean in σ."""

    mean: Tensor
    std: Tensor
    weight: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        n = task.shape[0]
        self.delays = config.delays
        for name, shape in (("mean", (n,)), ("std", (n,)), ("weight", (config.delays * n, n))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Iterate the map from the last window."""
        window = (context[:, -self.delays :] - self.mean) / self.std
        samples = []
        for _ in range(n_steps):
            new = torch.nan_to_num(window.flatten(1)) @ self.weight
            window = torch.cat([window[:, 1:], new[:, None]], dim=1)
            samples.append(new)
        return (torch.stack(samples, dim=1) * self.std + self.mean)[None]


def fit_delay_map(emulator: DelayMap, data: Observations, config: Config) -> None:
    """Ridge regression on the noisy windows; the strength by the error of a short validation forecast."""
    d, n_check = config.delays, config.check_steps
    emulator.mean.copy_(data.mean)
    emulator.std.copy_(data.std)
    pairs = (windows(data.train, d + 1) - data.mean) / data.std
    x, y = pairs[:, :d].flatten(1), pairs[:, d]
    check = windows(data.validation, d + n_check)
    gram, moment = x.T @ x / len(x), x.T @ y / len(x)

    def solve(ridge: float) -> Tensor:
        return torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), moment)

    def loss(ridge: float) -> float:
        emulator.weight.copy_(solve(ridge))
        return float(masked_mse(emulator.forecast(check[:, :d], n_check, 1, torch.Generator())[0], check[:, d:]))

    emulator.weight.copy_(solve(best_of(config.ridges, loss)))


# --- rings ------------------------------------------------------------------------------------------------------------


class GaussianRing(nn.Module):
    """Conditional mean of the window given the context, then per-mode maps: iterated, or direct per lead for growth."""

    mean: Tensor
    noise: Tensor
    covariance: Tensor
    maps: Tensor
    spread: Tensor
    height: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        (n,), d = task.shape, config.delays
        self.delays, self.growing, self.n_sites = d, task.system.growing, n
        self.n_leads = lead_limit(task, config) if self.growing else 1
        for name, shape in (
            ("mean", ()),
            ("noise", ()),
            ("covariance", (d, d, n)),  # of the noise-free window: mean of x_i(x) x_j(x + Δ), oldest first
            ("spread", (self.n_leads, n // 2 + 1)),  # residual variance per lead and mode
            ("height", (self.n_leads, 2)),  # mean and standard deviation of the growth of the mean height
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("maps", torch.zeros(self.n_leads, d, n // 2 + 1, 2, dtype=torch.float64))

    def prior(self) -> Tensor:
        """Covariance of all sites of the window, ``"dN dN"``."""
        shifted = [self.covariance.roll(x, -1) for x in range(self.n_sites)]  # each i, j, x'
        return torch.stack(shifted, dim=1).flatten(2).flatten(0, 1)  # (i, x), (j, x')

    def gain(self, prior: Tensor, seen: Tensor) -> Tensor:
        """Weights ``"n dN"`` of the n seen values in the conditional mean of the whole window."""
        (index,) = torch.nonzero(seen, as_tuple=True)
        jitter = self.noise**2 + 1e-9 * self.covariance[-1, -1, 0]
        joint = prior[index][:, index] + jitter * torch.eye(len(index)).to(prior)
        return torch.cholesky_solve(prior[index], torch.linalg.cholesky(joint))

    def window_state(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian conditional mean of the last window ``"B d N"`` given what is observed of it; the mean removed."""
        seen = context[:, -self.delays :]
        level = seen[:, -1].nanmean(-1) if self.growing else self.mean.expand(len(seen))
        values, mask = fill_gaps((seen - level[:, None, None]).flatten(1))
        prior, states = self.prior(), torch.empty_like(values)
        masks, group = torch.unique(mask, dim=0, return_inverse=True)
        for g, m in enumerate(masks):
            states[group == g] = values[group == g][:, m.bool()] @ self.gain(prior, m)
        return states.reshape(len(seen), self.delays, self.n_sites), level

    def start_error(self, masks: Tensor) -> Tensor:
        """Error covariance of :meth:`window_state` per mode ``"K d d"``, averaged over ``masks`` "n d N"."""
        prior, d, n = self.prior(), self.delays, self.n_sites
        errors = [prior - prior[:, m.bool()] @ self.gain(prior, m) for m in masks.flatten(1)]
        error = torch.stack(errors).mean(0).reshape(d, n, d, n)
        by_distance = torch.stack([error[:, x].roll(-x, -1) for x in range(n)]).mean(0)
        return torch.fft.rfft(by_distance).movedim(-1, 0)

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Iterated (deterministic) or direct per lead with Gaussian spread (growth)."""
        window, level = self.window_state(context)
        if self.growing:
            return self._direct(window, level, n_steps, n_members, generator)
        modes, samples, maps = torch.fft.rfft(window), [], torch.view_as_complex(self.maps[0])
        for _ in range(n_steps):
            new = (modes * maps).sum(1)
            modes = torch.cat([modes[:, 1:], new[:, None]], dim=1)
            samples.append(new)
        return (torch.fft.irfft(torch.stack(samples, 1), n=self.n_sites) + self.mean)[None]

    def _direct(
        self, window: Tensor, level: Tensor, n_steps: int, n_members: int, generator: torch.Generator
    ) -> Tensor:
        lead = torch.arange(n_steps, device=level.device).clamp(max=self.n_leads - 1)
        maps = torch.view_as_complex(self.maps)
        modes = torch.einsum("bdk,ldk->blk", torch.fft.rfft(window), maps)[:, lead]
        modes[:, n_steps if n_steps <= self.n_leads else self.n_leads :] = 0
        shape = (n_members, len(window), n_steps)
        white = torch.randn(*shape, self.n_sites, generator=generator, dtype=torch.float64)
        walk = sent(torch.randn(shape, generator=generator, dtype=torch.float64), level.device)
        noise = torch.fft.rfft(sent(white, level.device))
        fields = torch.fft.irfft(modes + self.spread[lead].sqrt() * noise, n=self.n_sites)
        beyond = (torch.arange(1, n_steps + 1, device=level.device) / (lead + 1)).double()
        drift = self.height[lead, 0] * beyond
        wander = self.height[lead, 1] * beyond.sqrt() * walk
        return fields + (level[:, None] + drift + wander)[..., None]


def pair_covariances(fields: Tensor, n_lags: int, smooth: Tensor, max_snapshots: int = 8192) -> Tensor:
    """C_τ(Δx), the mean of u(x, t) u(x + Δx, t + τ) over observed pairs: fields ``"B T N"``, NaN gaps → ``"τ N"``.

    Mean square − half the mean squared difference of the pairs (a variogram, as in geostatistics), smoothed over Δx by
    the matrix ``smooth``: without gaps and smoothing this is the mean product. All lags share their first times t.
    """
    values, seen = fill_gaps(fields)
    span = fields.shape[1] - n_lags + 1
    first = torch.arange(0, span, max(1, len(fields) * span // max_snapshots))
    modes, square_modes, seen_modes = (torch.fft.rfft(v) for v in (values, values**2, seen))
    mean_squares = (values**2).sum((0, 2)) / seen.sum((0, 2)).clamp(min=1)

    def correlate(u: Tensor, v: Tensor, lag: int) -> Tensor:
        return torch.fft.irfft((u[:, first].conj() * v[:, first + lag]).sum((0, 1)), n=fields.shape[-1])

    covariances = []
    for lag in range(n_lags):
        pairs = correlate(seen_modes, seen_modes, lag).round().clamp(min=1)
        squares = correlate(square_modes, seen_modes, lag) + correlate(seen_modes, square_modes, lag)
        half_squared_difference = (squares / 2 - correlate(modes, modes, lag)) / pairs
        mean_square = (mean_squares[first].mean() + mean_squares[first + lag].mean()) / 2
        covariances.append(mean_square - smooth @ half_squared_difference)
    return torch.stack(covariances)


def smoothing(n_sites: int, share: float) -> Tensor:
    """Gaussian averages over distances Δx of width ``share`` · |Δx| on the ring; the identity for ``share`` = 0.

    Each distance is met by other pairs of sites, so that with gaps the large scales of a rough interface would leak
    into its small ones.
    """
    if share == 0:
        return torch.eye(n_sites, dtype=torch.float64)
    x = torch.arange(n_sites, dtype=torch.float64)
    distance = torch.minimum(x, n_sites - x)
    apart = (x[:, None] - x).abs()
    apart = torch.minimum(apart, n_sites - apart)
    weights = torch.exp(-0.5 * (apart / (share * distance + 0.05)[:, None]) ** 2)
    return weights / weights.sum(1, keepdim=True)


def window_gram(lags: Tensor) -> Tensor:
    """Covariance of the window's modes ``"K d d"`` (oldest first) from lag covariances ``"d N"``, made semi-definite.

    Entry (i, j) is the mean of conj(x_i) x_j; gaps in the data can leave the raw estimate slightly indefinite.
    """
    hat, d = torch.fft.rfft(lags), len(lags)
    rows = [torch.stack([hat[j - i] if j >= i else hat[i - j].conj() for j in range(d)]) for i in range(d)]
    values, vectors = torch.linalg.eigh(torch.stack(rows).movedim(-1, 0))
    return (vectors * values.clamp(min=0)[:, None]) @ vectors.mH


def regress(gram: Tensor, moment: Tensor, ridge: float, noise: Tensor) -> Tensor:
    """Coefficients a with (G + ridge · (power + noise²) · I) a = c per mode: ``"K d d", "K d" → "d K"``."""
    power = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    # a mode without power gets no forecast; the ring's peak power keeps its matrix invertible
    strength = ridge * (power + noise**2) + 1e-14 * power.max()
    eye = torch.eye(gram.shape[-1]).to(gram) * strength[:, None, None]
    return torch.linalg.solve(gram + eye, moment[..., None])[..., 0].T


def stabilised(coefficients: Tensor) -> Tensor:
    """Per-mode maps ``"d K"`` (oldest first), those with a growing root scaled back to the unit circle."""
    d, n_modes = coefficients.shape
    companion = coefficients.new_zeros(n_modes, d, d)
    companion[:, :-1, 1:] = torch.eye(d - 1).to(coefficients)
    companion[:, -1] = coefficients.T
    radius = torch.linalg.eigvals(companion).abs().amax(-1).clamp(min=1.0)
    return coefficients / radius ** torch.arange(d, 0, -1, device=radius.device)[:, None]


def lead_limit(task: Task, config: Config) -> int:
    """Leads that the training trajectories are long enough for."""
    return min(config.max_lead, task.train.length // 2)


def fit_ring(emulator: GaussianRing, data: Observations, config: Config) -> None:
    """Moments of the observed pairs, less the noise at zero distance; ridge by a short validation forecast."""
    d = config.delays
    emulator.noise.copy_(data.noise_std.mean())
    emulator.mean.copy_(torch.zeros(()) if emulator.growing else data.train.nanmean())
    level = data.train.nanmean(-1, keepdim=True) if emulator.growing else emulator.mean
    fields = data.train - level
    n_leads, gappy = emulator.n_leads, bool(torch.isnan(fields).any())
    smooth = smoothing(emulator.n_sites, config.smooth if emulator.growing and gappy else 0.0).to(fields)
    lags = pair_covariances(fields, n_leads + d, smooth)
    lags[0, 0] -= emulator.noise**2
    gram = window_gram(lags[:d])
    emulator.covariance.copy_(torch.fft.irfft(gram.movedim(0, -1), n=emulator.n_sites))
    cross = torch.stack([lags[lead : lead + d].flip(0) for lead in range(1, n_leads + 1)])
    moments = torch.fft.rfft(cross).mT  # lead, mode, delay
    n_check = 64 if emulator.growing else config.check_steps
    n_check = min(n_check, n_leads, data.validation.shape[1] - d) if emulator.growing else n_check
    check = windows(data.validation, d + n_check, stride=max(1, data.validation.shape[1] // 32))

    def set_maps(ridge: float) -> None:
        maps = torch.stack([regress(gram, c, ridge, emulator.noise) for c in moments])
        emulator.maps.copy_(torch.view_as_real(maps if emulator.growing else stabilised(maps[0])[None]))

    def loss(ridge: float) -> float:
        set_maps(ridge)
        mean = emulator.forecast(check[:, :d], n_check, 1, torch.Generator())[0]  # the spread is still zero
        target = check[:, d:]
        if emulator.growing:
            mean, target = mean - mean.mean(-1, keepdim=True), target - target.nanmean(-1, keepdim=True)
        return float(masked_mse(mean, target))

    set_maps(best_of(config.ridges, loss))
    if emulator.growing:
        fit_spread(emulator, data, gram, moments)


def fit_spread(emulator: GaussianRing, data: Observations, gram: Tensor, moments: Tensor) -> None:
    """Spread: expected squared error of the fitted maps per lead and mode. Height: growth of the mean observed."""
    seen = ~torch.isnan(data.train[:4, -emulator.delays :])
    total = gram + emulator.start_error(seen.double())
    variance = gram[:, -1, -1].real
    heights = data.train.nanmean(-1)
    for lead, c in enumerate(moments):
        a = torch.view_as_complex(emulator.maps[lead]).T
        explained = 2 * (a.conj() * c).sum(-1).real - torch.einsum("ki,kij,kj->k", a.conj(), total, a).real
        emulator.spread[lead] = (variance - explained).clamp(min=0)
        emulator.spread[lead, 0] = 0.0
        risen = heights[:, lead + 1 :] - heights[:, : -lead - 1]
        emulator.height[lead, 0], emulator.height[lead, 1] = risen.mean(), risen.std()


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    if task.system.growing:
        return max(3, 2 * config.delays - 1), config.delays + 1
    return config.delays + 1, config.delays + config.check_steps


def build(task: Task, config: Config) -> DelayMap | GaussianRing:
    """The emulator before training."""
    return GaussianRing(task, config) if on_ring(task) else DelayMap(task, config)


def train(emulator: DelayMap | GaussianRing, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Closed form; the seed plays no part."""
    fit_ring(emulator, data, config) if isinstance(emulator, GaussianRing) else fit_delay_map(emulator, data, config)
