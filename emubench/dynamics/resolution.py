"""Whether a discretisation solves its equation: beside finer ones, or against what is known exactly."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics import kernels
from emubench.dynamics.climates import agreement_time, leading_exponent
from emubench.dynamics.lyapunov import on_attractor
from emubench.dynamics.simulate import SimulationError, simulate
from emubench.dynamics.system import System

TOLERANCE = 0.03
"""What a mean (in σ) and a standard deviation may be off; four standard errors of sampling come on top."""
NEEDED, SHARE = 10.0, 0.5
"""Units of lead time for which solvers have to agree: so many, or this share of a shorter test horizon."""
N_TRAJECTORIES, N_SAMPLES, N_CASES = 64, 512, 16
FACTOR = 2.0
"""How much a climate that is given may differ from the one measured."""
NUMBERS = 2**22
"""Numbers of all trajectories that are held at a time."""
ROUNDS = 4
"""How often a discretisation is refined in search of one that would do."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resolution:
    """What is wrong with a discretisation, by the parameter at fault, and how long it agrees with finer ones."""

    faults: dict[str, str]
    agreements: dict[str, float]
    """Agreement time with each of :meth:`System.refinements`, in units of lead time; none of a stochastic system."""

    def wrong(self, needed: float) -> dict[str, str]:
        """The faults where an agreement of ``needed`` units of lead time is asked for."""
        short = {key: time for key, time in self.agreements.items() if not time >= needed}
        text = f"of {needed:g} Lyapunov times with a finer one"
        return {key: f"agrees for {time:.1f} {text}" for key, time in short.items()} | self.faults


def check_resolved(system: System, horizon: float) -> float | None:
    """Raise :class:`EmubenchError` where forecasts up to ``horizon`` can't be judged by this discretisation.

    ``horizon`` is in units of lead time. What is returned is the agreement time, ``None`` of a stochastic system.
    """
    needed = min(NEEDED, SHARE * horizon)
    if wrong := resolution(system).wrong(needed):
        texts = "; ".join(f"{key} {system.parameters()[key]:g}: {text}" for key, text in wrong.items())
        raise EmubenchError(f"{system.name}: not resolved: {texts}; {_remedy(system, needed, wrong)}")
    return min(resolution(system).agreements.values(), default=None)


@lru_cache(maxsize=64)
def check_climate(system: System) -> None:
    """Raise :class:`EmubenchError` where a deterministic system is not chaotic, or its climate not its own.

    What is given may be rounded, or measured elsewhere: it is refused from a factor of two on.
    """
    exponent, moments = leading_exponent(system, accuracy=0.05)
    mean, std = (np.array(m) for m in moments.mean_and_std(system.grid))
    given, where = system.known_climate(), f"{system.name}: climate: "
    if not 1 / FACTOR < given.time_unit * exponent.value < FACTOR:
        raise EmubenchError(f"{where}time_unit {given.time_unit:g}, where {1 / exponent.value:.3g} was measured")
    ratio = np.array(given.std) / std
    if not ((ratio > 1 / FACTOR) & (ratio < FACTOR)).all():
        raise EmubenchError(f"{where}std {list(given.std)}, where {std.round(3).tolist()} was measured")
    if not (np.abs(np.array(given.mean) - mean) < std).all():
        raise EmubenchError(f"{where}mean {list(given.mean)}, where {mean.round(3).tolist()} was measured")


@lru_cache(maxsize=64)
def resolution(system: System) -> Resolution:
    """Measure in seconds: statistics beside those of finer discretisations and for how long they agree.

    A stochastic system is judged by its :meth:`System.exact_ratios`, from stationary starts.
    """
    log.info("measuring whether %s is resolved", _settings(system, _finer(system)))
    if system.stochastic:
        found = {"solver_step": fault} if (fault := _inexact(system)) else {}
        return Resolution(found, {})
    own, faults, agreements = _moments(system), {}, {}
    for key, finer in system.refinements().items():
        log.info("comparing with %s %g", key, finer.parameters()[key])
        if fault := _differs(own, _moments(finer)):
            faults[key] = f"{fault} with {finer.parameters()[key]:g}"
        agreements[key] = agreement_time(system, finer, n_cases=N_CASES).mean.value
    return Resolution(faults, agreements)


def _remedy(system: System, needed: float, wrong: dict[str, str]) -> str:
    """The first finer discretisation that would do, looked for as long as there is a fast kernel."""
    for _ in range(ROUNDS):
        changed = {key: finer.parameters()[key] for key, finer in _finer(system).items() if key in wrong}
        system = dataclasses.replace(system, **changed)
        if kernels.find(system) is None:
            break
        with contextlib.suppress(SimulationError):  # perhaps a finer one does not blow up
            if not (wrong := resolution(system).wrong(needed)):
                break
    values = _settings(system, _finer(system))
    return f"try {values} or finer" if wrong else f"{values} would do"


def _settings(system: System, keys: Iterable[str]) -> str:
    return " and ".join(f"{key} {system.parameters()[key]:g}" for key in keys)


def _finer(system: System) -> dict[str, System]:
    return system.refinements() or {"solver_step": dataclasses.replace(system, solver_step=system.solver_step / 2)}


def _stretches(
    system: System, state: np.ndarray, rngs: list[np.random.Generator] | None = None
) -> Iterator[Float[np.ndarray, "B t *S"]]:
    left, at_once = N_SAMPLES, max(1, NUMBERS // state.size)
    while left > 0:
        samples = simulate(system, state, min(left, at_once), rngs)
        yield samples
        state, left = samples[:, -1].copy(), left - samples.shape[1]


def _moments(system: System) -> Float[np.ndarray, "2 B C"]:
    """Mean and mean square of every trajectory's components, a ring's pooled, in units of the climate."""
    state = on_attractor(system, N_TRAJECTORIES, max(1, system.spin_up_samples), 0)
    total, n = np.zeros((2, len(state), 1 if system.grid else state[0].size)), 0
    for samples in _stretches(system, state):
        u = ((samples - system.mean) / system.std).reshape(len(state), samples.shape[1], -1)
        pooled = [(u**p).sum(1) for p in (1, 2)]
        total += np.stack([p.mean(1, keepdims=True) if system.grid else p for p in pooled])
        n += samples.shape[1]
    return total / n


def _differs(own: Float[np.ndarray, "2 B C"], finer: Float[np.ndarray, "2 B C"]) -> str | None:
    """How the statistics of one discretisation differ from another's by more than sampling explains."""
    errors = [np.sqrt(m.var(1, ddof=1) / m.shape[1]) for m in (own, finer)]
    (mean, square), (right, right_square) = own.mean(1), finer.mean(1)
    slack = 4 * np.hypot(*errors)
    std, right_std = np.sqrt(square - mean**2), np.sqrt(right_square - right**2)
    if not (np.abs(std / right_std - 1) <= TOLERANCE + slack[1] / 2 / right_std**2).all():  # NaN is a fault as well
        worst = np.abs(std / right_std - 1).argmax()
        return f"the standard deviation is {std[worst] / right_std[worst]:.3g} times that"
    if not (np.abs(mean - right) <= (TOLERANCE + slack[0]) * right_std).all():
        return f"the mean is {np.abs((mean - right) / right_std).max():.2g} standard deviations from that"
    return None


def _inexact(system: System) -> str | None:
    """How statistics that are known exactly come out wrong."""
    rngs = [stream(0, "resolution", system.name, i) for i in range(N_CASES)]
    state = np.stack([system.draw(rng, system.starts[0]) for rng in rngs])
    if not state.std() > 0:
        return "nothing varies"
    last = list(_stretches(system, state, rngs))[-1]
    for name, ratios in system.exact_ratios(last).items():
        error = 4 * ratios.std(ddof=1) / math.sqrt(len(ratios))
        if not abs(ratios.mean() - 1) <= TOLERANCE + error:
            return f"the {name} is {ratios.mean():.3g} of the exact one"
    return None
