"""polynomial: the next sample as a polynomial of the last ones, fitted in closed form.

u(t + 1) = w · [monomials of x up to a degree], with x the state, on rings the values around a site: the baseline that
knows no more than that many equations are polynomial and local. With delays and products it is the nonlinear vector
autoregression of Gauthier et al. 2021, doi:10.1038/s41467-021-25801-2.

Differences from the paper: monomials are local and alike at all sites of a ring, their reach shrinking with the degree,
or on smooth fields of the principal directions of the values around a site. Under noise the normal equations are made
of Hermite polynomials, whose mean over the noise is the monomial of the noise-free value: the fit is closed and without
bias at any noise that is known (errors in variables). Gappy fields: places observed all over, or fields filled in, then
fits repeated on analyses of an ensemble filter with the map as its model, which also starts the forecasts. lorenz63
from x alone: a window of delays. kpz, as in ``weak_sindy``: products of local slopes give the conditional mean, with
coloured innovations (``emubench.learning.models.growth_map``).

Knowledge: structure (polynomial terms; locality and translation on rings, shift of height for kpz).

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz 1.08 0.77 0.88 0.89; kuramoto_sivashinsky
0.20 0.18 0.17 0.02; lorenz63 0.37 0.64 0.26 0.11; lorenz96 0.20 0.68 0.43 0.08; up to 104 s of training. Intervals:
``baselines/expected.toml``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, islice

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.models.growth_map import USED, GrowthMap, LocalProducts
from emubench.learning.models.ridge_map import Features, MapConfig, RidgeMap, least_of_map
from emubench.learning.objectives.weak_form import unbiased_powers
from emubench.learning.rings import on_ring
from emubench.learning.training.descent import Log
from emubench.learning.training.settings import check_least, check_only

knowledge = "structure"
Term = tuple[int, ...]
"""The inputs multiplied, in order; the empty one is the constant."""
MOST_TERMS = 20_000


@dataclass(frozen=True)
class Config(MapConfig):
    """The map's; the degree; on rings the sites on either side that monomials of degree 1, 2, … take."""

    degree: int = 3
    reach: tuple[int, ...] = ()
    """Empty: the radius at every degree."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reach:
            check_least(self, 0, "reach")
        if not 1 <= self.degree <= 5:
            raise EmubenchError(f"degree: {self.degree} where 1 to 5 belongs")
        if self.reach and (sorted(self.reach, reverse=True) != list(self.reach) or len(self.reach) != self.degree):
            raise EmubenchError(f"reach: {self.reach} where one number per degree belongs, none above the one before")
        if self.reach and self.directions:
            raise EmubenchError("reach and directions: directions have no places")


def default_config(task: Task) -> Config:
    """Settings per system and track, chosen on validation data and on data of another seed."""
    system, track = task.system.name, task.track
    noisy, gappy = task.observation.noise > 0, task.observation.fraction < 1
    if task.system.growing:
        return Config(radii=(4,), rounds=2, filtered=(4, 256))
    if system == "lorenz96":
        if not noisy:
            return Config(degree=5, reach=(5, 5, 5, 4, 2), radii=(5,), horizon=6.0)
        base = Config(degree=3, radii=(4,), rows=600_000, ridges=(1e-6,), inflations=(1.06, 1.12), localisation=5.0)
        if not gappy:
            return base
        base = replace(base, radii=(3,), near=2, rows=60_000, inflations=(1.1,), horizon=1.5, rounds=6)
        if track == "scarce":
            return replace(base, degree=2, radii=(2,), ridges=(1e-3, 1e-2, 1e-1), filtered=(1, 256))
        return replace(base, ridges=(1e-3,), filtered=(16, 96))
    if system == "kuramoto_sivashinsky":
        base = Config(degree=4, directions=9, radii=(16,), ridges=(1e-6,), smooth=True)
        if not noisy:
            return replace(base, radii=(20,), ridges=(1e-8,), training_noises=(0.003, 0.006), horizon=4.0)
        base = replace(base, half_width=2, training_noises=(0.02,), members=24, inflations=(1.1,), rounds=2)
        if track == "scarce":
            return replace(base, degree=3, directions=7, training_noises=(0.06,), filtered=(1, 256))
        return replace(base, filtered=(16, 96), degree=3 if gappy else 4)
    if not noisy:
        return Config(degree=5, radii=(0,), ridges=(1e-18, 1e-14, 1e-10), horizon=8.0)
    base = Config(degree=5, radii=(0,), ridges=(1e-5, 1e-4, 1e-3, 3e-3), inflations=(1.02, 1.1), rounds=4)
    if not task.full_state:
        base = replace(base, degree=3, delays=6, half_width=4, ridges=(1e-4, 1e-3, 1e-2), inflations=(1.05, 1.2))
        base = replace(base, horizon=1.5, rounds=2)
    return replace(base, delays=4, filtered=(1, 256)) if track == "scarce" else base


class Monomials(Features):
    """x → the products ``terms`` of its values: the constant, the values, then the rest."""

    unbiased = True
    halves: Tensor
    """Places of what each term is made of: its first factors, and the last, as many as half the degree."""

    def __init__(self, terms: list[Term]) -> None:
        super().__init__()
        self.terms, self.size, self.degree = terms, len(terms), max(map(len, terms))
        half = self.degree // 2
        place: dict[Term, int] = {term: i for i, term in enumerate(terms)}
        self.n_last = sum(len(t) <= half for t in terms)
        split = [max(0, len(t) - half) for t in terms]
        halves = [[place[t[:i]], place[t[i:]]] for t, i in zip(terms, split, strict=True)]
        self.register_buffer("halves", torch.tensor(halves).T, persistent=False)
        place = {(): 0}
        for degree in range(1, 1 + self.degree):
            chosen = [t for t in terms if len(t) == degree]
            made_of = torch.tensor([[place[t[:-1]] for t in chosen], [t[-1] for t in chosen]])
            self.register_buffer(f"factors_{degree}", made_of, persistent=False)
            place = {t: i for i, t in enumerate(chosen)}

    def forward(self, x: Float[Tensor, "R I"]) -> Float[Tensor, "R F"]:
        """All terms: those of a degree are those of one less times their last factor."""
        return torch.cat(list(self.by_degree(x))).T

    def by_degree(self, x: Float[Tensor, "R I"]) -> Iterator[Float[Tensor, "F2 R"]]:
        """The terms of degree 0, 1, …"""
        x = x.T.contiguous()
        block = torch.ones_like(x[:1])
        yield block
        for degree in range(1, 1 + self.degree):
            shorter, last = self.get_buffer(f"factors_{degree}")
            block = block.index_select(0, shorter) * x.index_select(0, last)  # copies whole rows
            yield block

    def combine(self, x: Float[Tensor, "R I"], weight: Float[Tensor, "F K"]) -> Float[Tensor, "R K"]:
        """The features times ``weight``, as a bilinear form of the terms of half the degree: others are not made."""
        first = torch.cat(list(islice(self.by_degree(x), 1 + self.degree - self.degree // 2)))
        form = weight.new_zeros(weight.shape[1], len(first), self.n_last)
        form[:, *self.halves] = weight.T
        rest = (form.flatten(0, 1) @ first[: self.n_last]).view(-1, *first.shape)
        return (first * rest).sum(1).T

    def moments(self, x: Float[Tensor, "R I"], y: Float[Tensor, "R K"], variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of f fᵀ and f yᵀ at the noise-free inputs: a product of two monomials is one of twice the degree."""
        doubled = sorted({tuple(sorted(a + b)) for a in self.terms for b in self.terms}, key=lambda t: (len(t), t))
        place = {term: i for i, term in enumerate(doubled)}
        table = torch.tensor([[place[tuple(sorted(a + b))] for b in self.terms] for a in self.terms])
        means, moment = x.new_zeros(len(doubled)), x.new_zeros(self.size, y.shape[1])
        split = max(64, 2**23 // len(doubled))
        for part, goal in zip(x.split(split), y.split(split), strict=True):
            means += products(part, variance, doubled).sum(1)
            moment += products(part, variance, self.terms) @ goal
        return means[table] / len(x), moment / len(x)


def products(x: Float[Tensor, "R I"], variance: float | Tensor, terms: list[Term]) -> Float[Tensor, "F R"]:
    """The terms of what ``x`` observes with errors of ``variance``, unbiased (0: of ``x`` itself).

    Each is a shorter one, in the list or not, times a power (a Hermite polynomial) of its last factor.
    """
    powers = unbiased_powers(x.T, torch.as_tensor(variance, dtype=x.dtype).reshape(-1, 1), max(map(len, terms)))
    known: dict[Term, Tensor] = {(): powers[0, 0]}

    def value(term: Term) -> Tensor:
        if term not in known:
            times = term.count(term[-1])
            rest, last = term[:-times], powers[times, term[-1]]
            known[term] = value(rest) * last if rest else last
        return known[term]

    return torch.stack([value(term) for term in terms])


def monomials(n_inputs: int, config: Config, width: int) -> Monomials:
    """All up to the degree; with a ``reach`` those whose sites, in windows of ``width``, lie within it."""
    terms: list[Term] = [()]
    for degree in range(1, config.degree + 1):
        near = config.reach[degree - 1] if config.reach else width
        allowed = [i for i in range(n_inputs) if degree == 1 or abs(i % width - width // 2) <= near]
        terms += combinations_with_replacement(allowed, degree)
        if len(terms) > MOST_TERMS:
            raise EmubenchError(f"degree: {config.degree} of {n_inputs} inputs gives over {MOST_TERMS} monomials")
    return Monomials(terms)


def least(task: Task, config: Config) -> tuple[int, int]:
    """Samples that trajectories for training and for validation must have."""
    return least_of_map(task, config)


def build(task: Task, config: Config) -> RidgeMap | GrowthMap:
    """The emulator before training."""
    if task.system.growing:
        check_only(config, default_config(task), ("radii", *USED), f"on {task.name}")
        kept = {name: getattr(config, name) for name in USED}
        return GrowthMap(task, config.radii[0], LocalProducts(config.radii[0]), **kept)
    if not on_ring(task) and config.reach:
        raise EmubenchError(f"reach: {config.reach} off a ring, where none belongs")
    width = 2 * config.radii[0] + 1 if on_ring(task) and not config.directions else 10**6
    return RidgeMap(task, config, lambda n_inputs: monomials(n_inputs, config, width))


def train(emulator: RidgeMap | GrowthMap, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Closed form; the seed draws the places regressed on and the filter's members."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(emulator, GrowthMap):
        return emulator.fit(data, generator)
    emulator.fit(data, generator, log)
