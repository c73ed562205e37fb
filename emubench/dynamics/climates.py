"""What one measures of a system before believing it: agreement time of two solvers, leading exponent, climate."""

import dataclasses
import logging
import math

import numpy as np
import torch
from jaxtyping import Float

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics.first_passage import THRESHOLD, FirstPassage, crossing
from emubench.dynamics.lyapunov import TWIN_RESOLUTION, need_deterministic, on_attractor
from emubench.dynamics.simulate import simulate
from emubench.dynamics.solvers import resample
from emubench.dynamics.spectrum import Estimate
from emubench.dynamics.system import Climate, System

log = logging.getLogger(__name__)


def agreement_time(
    system: System, finer: System | None = None, *, n_cases: int = 64, horizon: float = 30.0, seed: int = 0
) -> FirstPassage:
    """How long two solver settings agree, in units of lead time (Lyapunov times): how far the truth can be believed.

    From ``n_cases`` states on the attractor both are run. The time is the first crossing of 0.5 by √(mean over
    components of (difference/σ)²), linearly interpolated between samples, at most ``horizon``. ``finer`` is a system
    with the same state and sample interval, or one of :meth:`System.refinements`. If not given, it is ``system`` with
    a quarter of the solver step.
    """
    if system.stochastic:
        raise EmubenchError(f"{system.name}: agreement time: not available for a stochastic system")
    if finer is None:
        finer = dataclasses.replace(system, solver_step=system.solver_step / 4, climate=system.known_climate())
    resampled = finer.shape != system.shape
    if finer.sample_interval != system.sample_interval or (resampled and finer not in system.refinements().values()):
        raise EmubenchError(f"{system.name}: agreement time: the finer solver needs the same shape and sample interval")
    log.info("measuring for how long a finer solution agrees")
    n_samples = math.ceil(horizon * system.time_unit / system.sample_interval)
    state = on_attractor(system, n_cases, max(1, system.spin_up_samples), seed)
    fine = simulate(finer, resample(state, finer.shape[-1]) if resampled else state, n_samples)
    fine = resample(fine, system.shape[-1]) if resampled else fine
    squared = ((simulate(system, state, n_samples) - fine) / system.std) ** 2
    e = torch.from_numpy(squared).flatten(2).mean(-1).sqrt()
    times = crossing(e, THRESHOLD) * system.sample_interval / system.time_unit
    return FirstPassage(times.clamp(max=horizon), float((e <= THRESHOLD).all(1).double().mean()))


CHAOTIC_GROWTH = 10.0
"""Logarithmic growth over one measurement that counts as exponential: an algebraic one, ln 2 per doubling, is less."""

SETTLED = 1024
"""Samples of a stretch from which on its growth says whether the longest one can suffice."""
AT_REST = 1e-9
"""Change within a sample interval, relative to the first states, of a state that has come to rest."""


def measure_climate(
    system: System,
    *,
    n_trajectories: int = 64,
    accuracy: float = 0.01,
    max_samples: int = 2**14,
    n_cases: int = 64,
    seed: int = 0,
) -> Climate:
    """Mean, std, time unit and agreement time of ``system`` at its parameters, for ``climate=`` (see :class:`Climate`).

    A deterministic system runs by its own solver for 256, 512, 1024 … samples, each stretch the spin-up of the next,
    until one has grown by e^10 and shows the leading exponent λ₁ to ``accuracy``. Statistics are those of that stretch,
    the time unit is 1/λ₁. No chaos within ``max_samples`` raises :class:`EmubenchError`.

    A stochastic system's starts of the first kind are stationary by contract: their moments are the climate, and the
    time unit is the sample interval. A ring has one value for all its sites.

    >>> import emubench.systems as systems
    >>> system = systems.get("kpz", nu=2.0)
    >>> climate = measure_climate(system)
    >>> abs(climate.std[0] / system.saturated_width_squared ** 0.5 - 1) < 0.02
    True
    """
    if not system.grid and len(system.shape) != 1:
        raise EmubenchError(f"{system.name}: a climate has one value per component, but the state is {system.shape}")
    if system.stochastic:
        rngs = [stream(seed, "climate", system.name, i) for i in range(4096)]
        moments = Moments(system.shape)
        moments.add(np.stack([system.draw(rng, system.starts[0]) for rng in rngs]))
        mean, std = moments.mean_and_std(system.grid)
        if not min(std) > 0:
            raise EmubenchError(f"{system.name}: nothing varies at the parameters {system.parameters()}")
        return Climate(mean, std, time_unit=system.sample_interval)
    exponent, moments = leading_exponent(
        system, n_trajectories=n_trajectories, accuracy=accuracy, max_samples=max_samples, seed=seed
    )
    climate = Climate(*moments.mean_and_std(system.grid), time_unit=1 / exponent.value)
    agreement = agreement_time(dataclasses.replace(system, climate=climate), n_cases=n_cases, seed=seed)
    return dataclasses.replace(climate, agreement_time=agreement.mean.value)


class Moments:
    """Running mean and variance of each component, over trajectories and samples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.n, self.mean, self.square = 0, np.zeros(shape), np.zeros(shape)

    def add(self, states: Float[np.ndarray, " B *S"]) -> None:
        """Merge a batch (Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
        n, mean = len(states), states.mean(0)
        shift = mean - self.mean
        self.square += n * states.var(0) + shift**2 * n * self.n / (n + self.n)
        self.n += n
        self.mean += shift * n / self.n

    def mean_and_std(self, grid: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """One value per component; on a ring one for all sites, the spread of their means included."""
        mean, variance = self.mean, self.square / self.n
        if grid:
            mean, variance = mean.mean()[None], (variance.mean() + mean.var())[None]
        return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # of a run on its way to a blow-up, which simulate names
def leading_exponent(
    system: System, *, n_trajectories: int = 64, accuracy: float = 0.01, max_samples: int = 2**14, seed: int = 0
) -> tuple[Estimate, Moments]:
    """λ₁, and the moments of the states, over the first stretch that is long enough: see :func:`measure_climate`.

    Twin trajectories at a distance of 10⁻⁷ are rescaled every sample: the system's own, fast solver suffices.
    Benettin, Galgani & Strelcyn 1976, doi:10.1103/PhysRevA.14.2338. States that come to rest are no chaos either.
    """
    need_deterministic(system)
    n, state = n_trajectories, on_attractor(system, n_trajectories, 1, seed)
    none = f"{system.name}: no chaos found at the parameters {system.parameters()}: "
    at_rest = AT_REST * np.sqrt((_norm(state) ** 2).mean())
    direction = torch.from_numpy(stream(seed, "twins", system.name).standard_normal(state.shape))
    offset = _rescaled(system.project(direction).numpy(), state)
    n_samples = 256
    while True:
        log.info("measuring climate and leading exponent over %d samples of at most %d", n_samples, max_samples)
        moments, stretching = Moments(system.shape), np.zeros(n)
        for _ in range(n_samples):
            before = _norm(offset)
            samples = simulate(system, np.concatenate([state, state + offset]), 1)[:, 0]
            if (_norm(samples[:n] - state) <= at_rest).all():
                raise EmubenchError(f"{none}every state decays to a constant")
            state, offset = samples[:n], samples[n:] - samples[:n]
            stretching += np.log(_norm(offset) / before)
            offset = _rescaled(offset, state)
            moments.add(state)
        rates = stretching / (n_samples * system.sample_interval)
        exponent = Estimate(float(rates.mean()), float(rates.std(ddof=1) / math.sqrt(n)))
        if stretching.mean() > CHAOTIC_GROWTH and exponent.error <= accuracy * exponent.value:
            return exponent, moments
        hopeless = stretching.mean() * max_samples / n_samples < CHAOTIC_GROWTH
        if n_samples >= max_samples or (n_samples >= SETTLED and hopeless):
            break
        n_samples *= 2
    raise EmubenchError(
        f"{none}the leading Lyapunov exponent is {exponent.value:.3g} ± {exponent.error:.2g} "
        f"over {n_samples * system.sample_interval:g} time units"
    )


def _norm(offset: Float[np.ndarray, " B *S"]) -> Float[np.ndarray, " B"]:
    return np.linalg.norm(offset.reshape(len(offset), -1), axis=1)


def _rescaled(offset: Float[np.ndarray, " B *S"], state: Float[np.ndarray, " B *S"]) -> Float[np.ndarray, " B *S"]:
    """Offsets in the direction of ``offset`` at the twins' distance, relative to the size of all states."""
    target = TWIN_RESOLUTION * np.sqrt((_norm(state) ** 2).mean())
    return offset * (target / _norm(offset)).reshape(-1, *[1] * (state.ndim - 1))
