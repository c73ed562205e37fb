"""The contract of a system: declarations, draws, solver steps, symmetries, simulations, and facts that are measured."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.random import stream
from emubench.dynamics import kernels
from emubench.dynamics.simulate import simulate
from emubench.dynamics.system import Step, System
from emubench.testing.examples import distance, require

Must = Callable[[object, str], None]
"""Raises AssertionError with a message unless what it is given is true."""
STOCHASTIC_SETTLING = 32
"""Samples that a stochastic system, started from an exact draw, gets to forget it: else no wrong term would show."""


class Measurement(NamedTuple):
    """A fact's known value beside the measured one."""

    value: float
    measured: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the measured value is within the tolerance (NaN is not)."""
        return abs(self.measured - self.value) <= self.tolerance


def measure_facts(
    system: System, n_trajectories: int = 256, n_samples: int = 256, seed: int = 0, *, reference: bool = False
) -> dict[str, Measurement]:
    """Measure every fact that has a ``measure`` on freshly simulated samples; ``reference`` forbids the fast kernel.

    The tolerances of the systems' facts are about four standard errors at the default size of 256 × 256 samples.
    Three spin-ups are dropped, not one: after ten Lyapunov times 1 % of the Lorenz-63 starts still spiral out of the
    neighbourhood of a fixed point, which raises ⟨z⟩ by one such standard error.
    """
    settling = STOCHASTIC_SETTLING if system.stochastic else 3 * system.spin_up_samples
    state, rngs = _draws(system, n_trajectories, seed)
    samples = simulate(system, state, settling + n_samples, rngs, reference=reference)[:, settling:]
    tensor = torch.from_numpy(np.ascontiguousarray(samples))
    return {
        fact.name: Measurement(fact.value, float(fact.measure(system, tensor)), fact.tolerance)
        for fact in system.facts
        if fact.measure is not None
    }


def check_system(system: System, *, n_trajectories: int = 256, n_samples: int = 256, seed: int = 0) -> None:
    """The contract of a :class:`~emubench.dynamics.system.System`: raise AssertionError where ``system`` breaks it.

    Its declarations, draws, solver steps, symmetries and simulations are checked, and its facts are measured on
    ``n_trajectories`` × ``n_samples`` samples. The facts' tolerances hold from the default size on.
    """
    must = partial(require, system.name)
    _check_declarations(must, system)
    _check_draws(must, system, seed)
    state, rngs = _draws(system, 4, seed)
    state = torch.from_numpy(simulate(system, state, max(1, system.spin_up_samples), rngs)[:, -1].copy())
    drawn = np.stack([rng.standard_normal(system.shape) for rng in rngs])
    noise = torch.from_numpy(drawn) if system.stochastic else None
    for scheme in system.schemes:
        _check_step(must, system, scheme, state, noise)
        _check_derivative(must, system, scheme, state, noise)
    _check_schemes_agree(must, system, state, noise)
    _check_symmetries(must, system, state, noise)
    _check_simulation(must, system, state.numpy(), seed)
    for name, fact in measure_facts(system, n_trajectories, n_samples, seed).items():
        message = f"measured {fact.measured:.6g}, known {fact.value:.6g} ± {fact.tolerance:.2g}"
        must(fact.holds, f"fact {name!r}: {message}")


def _draws(system: System, n: int, seed: int) -> tuple[np.ndarray, list[np.random.Generator]]:
    """Initial states of the first kind and the streams that go on from them."""
    rngs = [stream(seed, "check_system", system.name, i) for i in range(n)]
    return np.stack([system.draw(rng, system.starts[0]) for rng in rngs]), rngs


def _raised(kind: type[Exception], call: Callable[..., object], *arguments: Any, **options: Any) -> Exception | None:
    """The exception of this kind that the call raises, if it does."""
    try:
        call(*arguments, **options)
    except kind as error:
        return error
    return None


def _check_declarations(must: Must, system: System) -> None:
    names = [fact.name for fact in system.facts]
    must(len(set(names)) == len(names), f"two facts have the same name: {names}")
    must(any(fact.measure for fact in system.facts), "no fact can be measured, so nothing would tell a wrong term")
    for fact in system.facts:
        sound = np.isfinite(fact.value) and 0 < fact.tolerance < np.inf and fact.source
        must(sound, f"fact {fact.name!r} needs a finite value, a positive tolerance and a source")
    must(np.isfinite(system.mean).all(), f"climatological mean {system.mean} is not finite")
    must((system.std > 0).all(), f"climatological standard deviation {system.std} is not positive")
    must(system.mean.shape == system.shape, f"mean has shape {system.mean.shape}, the state {system.shape}")
    must(system.time_unit > 0, f"time unit {system.time_unit} is not positive")
    must(len(system.shape) == len(system.dimension_names), f"shape {system.shape}: one name per axis")
    refused = _raised(EmubenchError, system.solver, scheme="no such scheme")
    must(refused, "solver() takes a scheme that it does not list")


def _check_draws(must: Must, system: System, seed: int) -> None:
    for start in system.starts:
        first, again = (system.draw(stream(seed, "draw"), start) for _ in range(2))
        must(first.shape == system.shape, f"draw {start!r} has shape {first.shape}, not {system.shape}")
        must(first.dtype == np.float64, f"draw {start!r} has dtype {first.dtype}, not float64")
        must(np.isfinite(first).all(), f"draw {start!r} is not finite")
        must((first == again).all(), f"draw {start!r} differs between equal streams")
    start = system.starts[0]
    first, other = (system.draw(stream(number, "draw"), start) for number in (seed, seed + 1))
    must((first != other).any(), f"draw {start!r} is the same for different streams")


def _check_step(must: Must, system: System, scheme: str, state: Tensor, noise: Tensor | None) -> None:
    """Shape, dtype, purity and independence of the members of a batch."""
    step, before = system.solver(scheme=scheme), state.clone()
    after = step(state, noise)
    what = f"a {scheme} step"
    must(after.shape == state.shape, f"{what} turns shape {tuple(state.shape)} into {tuple(after.shape)}")
    must(after.dtype == torch.float64, f"{what} turns float64 into {after.dtype}")
    must(after.isfinite().all(), f"{what} from the attractor is not finite")
    must((state == before).all(), f"{what} changes its argument")
    must((step(state, noise) == after).all(), f"{what} differs when repeated")
    alone = torch.cat([step(state[i : i + 1], None if noise is None else noise[i : i + 1]) for i in range(len(state))])
    must(distance(alone, after) < 1e-13, f"{what} of a state depends on the others of its batch")
    single = system.solver(scheme=scheme, dtype=torch.float32)(state.float(), None if noise is None else noise.float())
    must(single.dtype == torch.float32, f"{what} turns float32 into {single.dtype}")
    must(distance(single, after) < 1e-5, f"{what} in float32 is off by {distance(single, after):.1e}")
    if noise is not None:
        must(_raised(ValueError, step, state, None), f"{what} of a stochastic system works without noise")


def _check_derivative(must: Must, system: System, scheme: str, state: Tensor, noise: Tensor | None) -> None:
    """Back-propagation through a step against a central difference, in a random direction."""
    step = system.solver(scheme=scheme)
    rng = stream(0, "derivative", system.name)
    direction, weight = (torch.from_numpy(rng.standard_normal(state.shape)) for _ in range(2))
    leaf = state.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weight * step(leaf, noise)).sum(), leaf)
    eps = 1e-5
    difference = (step(state + eps * direction, noise) - step(state - eps * direction, noise)) / (2 * eps)
    by_hand, by_torch = (weight * difference).sum(), (gradient * direction).sum()
    must(distance(by_torch, by_hand) < 1e-6, f"the derivative of a {scheme} step is wrong")


def _check_schemes_agree(must: Must, system: System, state: Tensor, noise: Tensor | None) -> None:
    """Over a short step all schemes make the same change: they solve one equation."""
    h = system.solver_step / 64
    still = None if noise is None else torch.zeros_like(noise)
    changes = {name: system.solver(h, name)(state, still) - state for name in system.schemes}
    first = changes[system.schemes[0]]
    for name, change in changes.items():
        off = float((change - first).abs().max() / first.abs().max())
        must(off < 0.1, f"over a short step scheme {name} is {off:.0%} off {system.schemes[0]}")


def _check_symmetries(must: Must, system: System, state: Tensor, noise: Tensor | None) -> None:
    """Every symmetry commutes with eight reference steps, up to rounding; noise is transformed along."""
    step: Step = system.solver()
    for name, symmetry in system.symmetries().items():
        # noise adds to the state, so an affine symmetry acts on it by its linear part
        image = None if noise is None else symmetry(noise) - symmetry(torch.zeros_like(noise))
        first, second = symmetry(state), state
        for _ in range(8):
            first, second = step(first, image), step(second, noise)
        off = distance(first, symmetry(second))
        must(off < 1e-12, f"symmetry {name!r} does not commute with the step: off by {off:.1e}")


def _check_simulation(must: Must, system: System, state: np.ndarray, seed: int) -> None:
    """Samples depend on their own trajectory alone, can be continued, and are the same for kernel and reference."""

    def streams() -> list[np.random.Generator]:
        return [stream(seed, "simulation", i) for i in range(len(state))]

    def compare(a: np.ndarray, b: np.ndarray, message: str) -> None:
        off = distance(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()))
        must(off < 1e-9, f"{message}: off by {off:.1e}")

    samples = simulate(system, state, 4, streams())
    must(samples.shape == (len(state), 4, *system.shape), f"simulate() gives shape {samples.shape}")
    must(samples.dtype == np.float64, f"simulate() gives {samples.dtype}, not float64")
    compare(simulate(system, state, 4, streams()), samples, "equal streams give different samples")
    compare(simulate(system, state[2:3], 4, streams()[2:3]), samples[2:3], "a trajectory depends on the others")
    rngs = streams()
    half = simulate(system, state, 2, rngs)
    compare(simulate(system, half[:, -1], 2, rngs), samples[:, 2:], "two samples and two more are not four")
    if kernels.find(system) is not None:
        compare(samples, simulate(system, state, 4, streams(), reference=True), "the kernel differs from the reference")
    lost = state.copy()
    lost[1] = np.nan
    error = _raised(EmubenchError, simulate, system, lost, 2, streams())
    must(error, "simulate() returns a solution that is not finite")
    must("trajectory 1" in str(error), f"the error for a lost trajectory 1 does not name it: {error}")
