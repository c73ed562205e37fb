"""weak_sindy: an equation's few terms, found by regression in weak form on noisy, gappy samples.

u' = Θ(u) w is multiplied by test functions of compact support, (1 − τ²)^p in time and on rings in space, and integrated
by parts: no sample is differentiated (Messenger & Bortz 2021, doi:10.1016/j.jcp.2021.110525, after SINDy, Brunton,
Proctor & Kutz 2016, doi:10.1073/pnas.1517384113). Terms whose coefficient is not significant are dropped. Forecasts
start from an ensemble filter on the context with the fitted equation as its model.

Differences from the papers: the noise's share in the normal equations is removed, by Hermite polynomials; terms go by
standard errors, not by size. With gaps, only fully observed places are regressed on (derivatives in space: a field
filled by its Gaussian conditional mean), then the coefficients that were kept are refined by Gauss–Newton steps on
short forecasts from the filter's analyses. lorenz63 from x alone: v = x′ and w are eliminated by hand from the form
x″ = −a v + b x + x w, w′ = −c x² + d x v − e w, which is refined likewise. kpz, where a sample interval is too long for
any weak form in time: a conditional mean quadratic in local slopes, with coloured innovations
(``emubench.learning.models.growth_map``).

Knowledge: the form of the equation: at most quadratic, on rings local and the same everywhere, lattice products or
derivatives as the system has them.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.08 0.79 0.90 0.90; kuramoto_sivashinsky
0.79 0.96 0.56 0.14; lorenz63 0.72 0.94 0.61 -0.08; lorenz96 0.92 0.95 0.87 0.84; up to 119 s of training. Intervals:
``baselines/expected.toml``.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import by_parts
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.dynamics.schemes import etdrk4, rk4
from emubench.learning.filters.climate_filter import ClimateFilter, settled
from emubench.learning.models.growth_map import USED, GrowthMap, LocalProducts
from emubench.learning.objectives.weak_form import Exponents, bump, hidden_equation, monomials, normal_equations
from emubench.learning.rings import gaussian_fill, interpolate_ring, neighbourhoods, on_ring
from emubench.learning.training.descent import Best, Log, best_of
from emubench.learning.training.settings import check_least, check_localisation, check_only, check_positive
from emubench.learning.training.validation import SHORTEST, forecast_error

knowledge = "equation form"
FASTEST = 1.0
"""Growth per sample at most of a mode: none grows faster than the fastest that the data resolve."""
RELATIVE = 1e-4
"""Share by which a coefficient is changed to see what it does."""
LOST = 4
"""Forecasts whose squared error is so many times the median's say nothing about the equation."""


@dataclass(frozen=True)
class Config:
    """Library, test functions (half-widths in samples and sites), significance, integrator, filter."""

    radius: int = 2
    orders: int = 0
    half_widths: tuple[int, ...] = (4, 6, 8, 12)
    power: int = 8
    space_half_width: int = 24
    threshold: float = 5.0
    substeps: int = 8
    rounds: int = 0
    twins: int = 32
    ahead: int = 8
    step: float = 0.5
    filtered: tuple[int, ...] = (8, 384)
    members: int = 40
    inflation: float = 1.0
    training_inflation: float = 1.1
    localisation: float = 0.0
    horizon: float = 2.0
    spin_up: int = 400

    def __post_init__(self) -> None:
        check_positive(self, "step", "inflation", "training_inflation", "horizon")
        check_least(self, 0, "radius", "orders", "threshold", "rounds", "localisation", "spin_up")
        check_least(self, 1, "power", "space_half_width", "substeps", "twins", "ahead")
        check_least(self, 2, "half_widths", "members")
        check_least(self, 1, "filtered", count=2)


def default_config(task: Task) -> Config:
    """Settings per system, chosen on validation data."""
    config = {
        "lorenz63": Config(substeps=5),
        "lorenz96": Config(substeps=5, members=60, inflation=1.02, localisation=8.0),
        "kuramoto_sivashinsky": Config(radius=0, orders=4, substeps=4),
        "kpz": Config(rounds=3),
    }.get(task.system.name, Config())
    if task.observation.noise == 0:
        substeps = {"lorenz63": 25, "lorenz96": 20, "kuramoto_sivashinsky": 16}.get(task.system.name, 16)
        config = dataclasses.replace(config, horizon=10.0, half_widths=(8, 12, 16), power=12, substeps=substeps)
    if task.observation.fraction < 1:
        config = dataclasses.replace(
            config, rounds=3 if task.system.growing else 6, inflation=max(config.inflation, 1.02)
        )
    if not task.full_state:
        config = dataclasses.replace(config, rounds=24, step=0.4, half_widths=(6, 8), training_inflation=1.2)
        config = dataclasses.replace(config, filtered=(8, 256), inflation=1.02, spin_up=200)
    return config


class TermLibrary:
    """Θ, at most quadratic: monomials of all components; on rings of the values within ``radius``, alike at every site.

    With ``orders`` instead, on rings: 1, ∂ʲu for j = 0 … ``orders``, and ∂ʲ(u²) for j = 0, 1, 2. Term i is monomial
    ``exponents[i]``, differentiated ``orders[i]`` times; the first is not.
    """

    def __init__(self, n: int, ring: bool, radius: int, orders: int = 0) -> None:
        self.n, self.ring, self.radius, self.spatial = n, ring, radius, ring and orders > 0
        if self.spatial:
            terms = [(0, 0), *((1, j) for j in range(orders + 1)), *((2, j) for j in range(3))]
            self.exponents: list[Exponents] = [(power,) for power, _ in terms]
            self.orders = [order for _, order in terms]
        else:
            self.exponents = monomials(2 * radius + 1 if ring else n, 2)
            self.orders = [0] * len(self.exponents)
        variables = [[j + 1 for j, times in enumerate(e) for _ in range(times)] for e in self.exponents]
        self.factors = [[(v + [0, 0])[k] for v in variables] for k in range(2)]  # of each term; 0 stands for 1

    def __len__(self) -> int:
        """How many terms."""
        return len(self.orders)

    def tendency(self, weight: Float[Tensor, "F K"]) -> Callable[[Tensor], Tensor]:
        """u ↦ Θ(u) w for terms without derivatives; on rings (K = 1) only of those whose weight is not zero now."""
        pairs = torch.tensor(self.factors, device=weight.device)
        kept = torch.nonzero(weight[:, 0])[:, 0].tolist()

        def all_terms(u: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
            return nn.functional.pad(u, (1, 0), value=1.0)[..., pairs].prod(-2) @ weight

        def kept_terms(u: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
            padded = [torch.ones_like(u), *(u.roll(self.radius - j, -1) for j in range(2 * self.radius + 1))]
            terms = ((weight[i, 0], padded[self.factors[0][i]] * padded[self.factors[1][i]]) for i in kept)
            return sum((w * product for w, product in terms), torch.zeros_like(u))

        return kept_terms if self.ring else all_terms

    def flow(self, weight: Float[Tensor, "F K"], substeps: int) -> Callable[[Tensor], Tensor]:
        """One unit of time in ``substeps`` Runge–Kutta steps, of Fourier modes exponential where there are derivatives.

        Modes above two thirds of the band are dropped from products, which alias there.
        """
        if not self.spatial:
            step = rk4(self.tendency(weight), 1 / substeps)
        else:
            step = self._exponential(weight[:, 0], 1 / substeps)

        def advance(state: Tensor) -> Tensor:
            v = torch.fft.rfft(state) if self.spatial else state
            for _ in range(substeps):
                v = step(v, None)
            return torch.fft.irfft(v, n=self.n) if self.spatial else v

        return advance

    def _exponential(self, weight: Float[Tensor, " F"], h: float) -> Callable[[Tensor, None], Tensor]:
        k = 2j * torch.pi / self.n * torch.arange(self.n // 2 + 1, device=weight.device)
        symbol, parts = weight.new_zeros(len(k)), weight.new_zeros(3, len(k), dtype=torch.complex128)
        for (exponent,), order, w in zip(self.exponents, self.orders, weight, strict=True):
            if exponent == 1 and order % 2 == 0:
                symbol = symbol + w * (k**order).real
            else:
                parts[exponent] = parts[exponent] + w * k**order
        kept = torch.arange(len(k), device=weight.device) < self.n / 3
        parts[0, 1:] = 0
        parts[0, 0] *= self.n

        def nonlinear(v: Tensor) -> Tensor:
            return kept * (parts[0] + parts[1] * v + parts[2] * torch.fft.rfft(torch.fft.irfft(v, n=self.n) ** 2))

        # half the band is noise to the regression
        return etdrk4(symbol.clamp(min=-700, max=FASTEST).cpu().numpy(), nonlinear, h, torch.float64, weight.device)


class WeakSindy(nn.Module):
    """The equation du/dt = Θ(u) w, time in samples; the state in physical units, float64."""

    coefficients: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        (n,) = task.shape
        ring, self.hidden = on_ring(task), not task.full_state
        if self.hidden and (ring or n != 1):
            raise EmubenchError(f"weak_sindy on {task.name}: components are hidden only where one of three is seen")
        check_localisation(task, config.localisation)
        n_state = 3 if self.hidden else n
        self.n, self.n_seen, self.ring, self.config = n_state, n, ring, config
        self.library = TermLibrary(n_state, ring, config.radius, config.orders)
        self.clean = task.observation.noise == 0 and task.observation.fraction == 1
        self.filter = ClimateFilter(n_state, list(range(n)), config.members, config.inflation, config.localisation)
        self.register_buffer(
            "coefficients", torch.zeros(len(self.library), 1 if ring else n_state, dtype=torch.float64)
        )
        self.register_buffer("low", torch.zeros(n_state, dtype=torch.float64))
        self.register_buffer("high", torch.zeros(n_state, dtype=torch.float64))

    def flow(self) -> Callable[[Tensor], Tensor]:
        """One sample interval, kept within the bounds of the data; some states at a time stay in the cache."""
        step, low, high = self.library.flow(self.coefficients, self.config.substeps), self.low, self.high
        return lambda state: by_parts(lambda part: torch.nan_to_num(step(part)).clamp(low, high), state, 256)

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """Integrate from the analysis mean."""
        advance = self.flow()
        state = context[:, -1] if self.clean else self.filter.analysis(advance, context).mean(0)
        samples = []
        for _ in range(n_steps):
            state = advance(state)
            samples.append(state[:, : self.n_seen])
        return torch.stack(samples, dim=1)[None]


def ring_filters(n_sites: int, half_width: int, power: int, orders: list[int]) -> Float[Tensor, "F N"]:
    """For every order n the weights (−1)ⁿ ψ⁽ⁿ⁾ on the ring: summed with a field, they give ∫ ψ ∂ⁿu dx by parts.

    A half-width of 0 is the site itself, for terms without derivative.
    """
    filters = torch.zeros(len(orders), n_sites, dtype=torch.float64)
    for row, order in zip(filters, orders, strict=True):
        values = bump(half_width, power, order) * (-1) ** order if half_width else torch.ones(1)
        row.index_add_(0, torch.arange(-half_width, half_width + 1) % n_sites, values.double())
    return filters


def eliminate(
    grams: Float[Tensor, "G F F"], moments: Float[Tensor, "G F K"], threshold: float
) -> tuple[Float[Tensor, "F K"], Float[Tensor, "F K"]]:
    """Least squares with backward elimination: coefficients of the terms that matter, and their standard errors.

    The term of least |w| / standard error is dropped until all are above ``threshold``. Standard errors are those of
    the sandwich formula over the blocks G: they need no model of the noise, and count blocks as independent.
    """
    n, n_targets = moments.shape[1:]
    coefficients, errors = grams.new_zeros(2, n, n_targets)
    for k in range(n_targets):
        kept = torch.arange(n)
        while len(kept):
            gram, moment = grams[:, kept][:, :, kept], moments[:, kept, k]
            scale = gram.sum(0).diagonal().abs().sqrt().clamp(min=1e-300)
            inverse = torch.linalg.inv(gram.sum(0) / scale / scale[:, None]) / scale / scale[:, None]
            w = inverse @ moment.sum(0)
            score = moment - gram @ w
            error = (inverse @ (score.T @ score) @ inverse).diagonal().sqrt()
            ratio = w.abs() / error.clamp(min=1e-300)
            weakest = int(ratio.argmin())
            if ratio[weakest] >= threshold:
                coefficients[kept, k], errors[kept, k] = w, error
                break
            kept = torch.cat([kept[:weakest], kept[weakest + 1 :]])
    return coefficients, errors


def fit(emulator: WeakSindy, states: Tensor, noise: float | Tensor, half_width: int, config: Config) -> None:
    """Weak regression on samples ``"B T S"``; on rings of terms without derivatives at fully observed places only."""
    values = targets = states[:, :, None]
    filters = states.new_ones(len(emulator.library.orders), 1)
    if emulator.library.spatial:
        values = targets = states[..., None]
        width = min(config.space_half_width, (emulator.n - 1) // 2)
        filters = ring_filters(emulator.n, width, config.power, emulator.library.orders).to(states.device)
    elif emulator.ring:
        values = neighbourhoods(states, config.radius).movedim(2, 1).flatten(0, 1)[:, :, None]
        whole = ~torch.isnan(values).flatten(1).any(1)
        if not whole.any():  # too few data for a fully observed place: gaps filled in, which biases the start
            return fit(emulator, interpolate_ring(states), noise, half_width, config)
        values = values[whole]
        targets = values[..., config.radius, None]
    equations = normal_equations(values, targets, noise, emulator.library.exponents, filters, half_width, config.power)
    emulator.coefficients.copy_(eliminate(*equations, config.threshold)[0])


def fit_hidden(
    emulator: WeakSindy, observed: Tensor, noise: Tensor, half_width: int, config: Config, seed: int
) -> None:
    """Fit x′ = v, v′ = −a v + b x + x w, w′ = −c x² + d x v − e w to x alone: Lorenz-63's form with w = −σ z."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c, d, e = hidden_equation(observed[..., 0], float(noise), half_width, config.power, config.twins, generator)
    terms = {((0, 1, 0), 0): 1.0, ((0, 1, 0), 1): -a, ((1, 0, 0), 1): b, ((1, 0, 1), 1): 1.0}
    terms |= {((2, 0, 0), 2): -c, ((1, 1, 0), 2): d, ((0, 0, 1), 2): -e}
    for (exponents, k), weight in terms.items():
        emulator.coefficients[emulator.library.exponents.index(exponents), k] = weight


def refine(emulator: WeakSindy, observed: Float[Tensor, "B T C"], config: Config) -> None:
    """A share of a Gauss–Newton step, in place, of the terms that were kept.

    What is fitted are forecasts of ``config.ahead`` samples from the filter's analyses, against what was observed (not
    NaN). A share, because the analyses lean towards the observations and make up for a part of the model's error: whole
    steps overshoot to the other side. Forecasts of trajectories that the filter lost are left out.
    """
    coefficients, noise, ahead = emulator.coefficients, emulator.filter.noise, config.ahead
    active = [(i, k) for i, k in torch.nonzero(coefficients).tolist()]
    if emulator.hidden:  # v is x′ and w has no scale of its own
        active = [(i, k) for i, k in active if coefficients[i, k] != 1]
    if not active:
        return
    begun = torch.arange(settled(observed.shape[1]), observed.shape[1] - ahead, max(1, ahead // 2))
    first = emulator.filter.analyses(emulator.flow(), observed)[:, begun].flatten(0, 1)
    target = torch.stack([observed[:, begun + k].flatten(0, 1) for k in range(1, ahead + 1)], dim=1)

    def run() -> Tensor:
        advance, state, states = emulator.flow(), first, []
        for _ in range(ahead):
            state = advance(state)
            states.append(state[:, : target.shape[-1]])
        return torch.stack(states, dim=1)

    base = run()
    residual = (target - base) / noise
    size = residual.square().flatten(1).nanmean(1)
    kept = ~torch.isnan(residual) & (size < LOST * size.median()).reshape(-1, 1, 1)
    columns = []
    for i, k in active:
        weight = float(coefficients[i, k])
        coefficients[i, k] = weight * (1 + RELATIVE)
        columns.append(((run() - base) / noise)[kept] / (RELATIVE * weight))
        coefficients[i, k] = weight
    step = torch.linalg.lstsq(torch.stack(columns, dim=1), residual[kept][:, None]).solution[:, 0]
    for (i, k), change in zip(active, step.tolist(), strict=True):
        coefficients[i, k] += config.step * change


def set_climate(emulator: WeakSindy, data: Observations, config: Config, generator: torch.Generator) -> None:
    """The filter's first states: the model's own climate, reached from random states."""
    advance = emulator.flow()
    state = torch.randn(4 * config.members, emulator.n, generator=generator, dtype=torch.float64).to(data.mean.device)
    if emulator.library.spatial:
        modes = torch.arange(emulator.n // 2 + 1, device=state.device)
        state = torch.fft.irfft(torch.fft.rfft(state) / (1 + modes**2), n=emulator.n)
    if emulator.hidden:  # w such that x″ is small
        state[:, 0] = data.mean + data.std * state[:, 0]
        state[:, 2] = -emulator.coefficients[emulator.library.exponents.index((1, 0, 0)), 1]
    else:
        state = data.mean + data.std * state / state.std()
    for _ in range(config.spin_up):
        state = advance(state)
    emulator.filter.set_first(state, generator)


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    return (2, 1) if task.system.growing else (4 * min(config.half_widths) + 1, SHORTEST)


def build(task: Task, config: Config) -> WeakSindy | GrowthMap:
    """The emulator before training."""
    if task.system.growing:
        check_only(config, default_config(task), USED, f"on {task.name}")
        kept = {name: getattr(config, name) for name in USED}
        return GrowthMap(task, 4, LocalProducts(4), **kept)
    return WeakSindy(task, config)


@torch.no_grad()
def train(emulator: WeakSindy | GrowthMap, data: Observations, config: Config, seed: int, log: Log) -> None:
    """The weak regression with the half-width of best short forecasts; with gaps then refined by the filter."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(emulator, GrowthMap):
        return emulator.fit(data, generator)
    seen = data.train[~torch.isnan(data.train)]
    reach = 0.5 * (seen.max() - seen.min())
    emulator.low.copy_(seen.min() - reach)
    emulator.high.copy_(seen.max() + reach)
    emulator.filter.noise.copy_(data.noise_std)
    gappy = bool(torch.isnan(data.train).any())
    noise = data.noise_std[0] if emulator.ring else data.noise_std
    states = gaussian_fill(data.train, float(noise)) if gappy and emulator.library.spatial else data.train

    def error() -> float:
        return forecast_error(emulator, data, 1 if emulator.clean else 48, config.horizon, often=16)

    def loss(half_width: float) -> float:
        if emulator.hidden:
            fit_hidden(emulator, states, noise, int(half_width), config, seed)
        else:
            fit(emulator, states, 0.0 * noise if gappy and emulator.library.spatial else noise, int(half_width), config)
        set_climate(emulator, data, config, generator)
        return error()

    fitted = [w for w in config.half_widths if 4 * w < data.train.shape[1]]
    loss(best_of(tuple(map(float, fitted)), loss))
    best = Best(emulator)
    best.keep(error())
    for done in range(0 if emulator.clean else config.rounds):
        emulator.filter.inflation = config.training_inflation  # while the model is far from right
        refine(emulator, data.train[: config.filtered[0], : config.filtered[1]], config)
        emulator.filter.inflation = config.inflation
        set_climate(emulator, data, config, generator)
        best.keep(value := error())
        log(done + 1, config.rounds, validation=value)
    best.restore()
