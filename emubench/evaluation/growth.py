"""How small differences grow in an emulator: Lyapunov exponents of its one-sample map, and twin forecasts."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.dynamics.first_passage import FirstPassage, level_crossing
from emubench.dynamics.lyapunov import Map, Progress, Schedule, tangent_spectrum
from emubench.dynamics.spectrum import Spectrum
from emubench.emulator import Emulator, Stepper, checked_forecast, same_values


def emulator_spectrum(
    emulator: Any,
    context: Float[Tensor, "B C *S"],
    sample_interval: float,
    n_exponents: int | None = None,
    *,
    duration: float,
    settling: float | None = None,
    project: Map | None = None,
    n_blocks: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """The largest exponents of a deterministic :class:`~emubench.emulator.Stepper`, as a map of its own state.

    Each case of ``context`` is a replica. Its run gets ``settling`` (a quarter of ``duration`` if not given) to reach
    the emulator's attractor, perturbations included. A state that remembers more than the present has exponents for
    its memory too. ``project`` restricts perturbations ``"R ..."`` (R = cases, the state without its member axis):
    give ``system.project`` to compare with a system that conserves something, if the emulator does so as well.

    What has no state, draws random numbers or can't be differentiated has no exponents here: the error says so.
    """
    state, step = autonomous(emulator, context, "Lyapunov exponents are", seed)
    schedule = Schedule.of(sample_interval, sample_interval, duration, settling, n_blocks)
    name = type(emulator).__name__
    return tangent_spectrum(step, state, schedule, n_exponents, name, project=project, seed=seed, progress=progress)


def autonomous(
    emulator: Any, context: Float[Tensor, "B C *S"], what: str, seed: int = 0
) -> tuple[Float[Tensor, "R ..."], Map]:
    """State after ``context`` and one-sample map of a deterministic Stepper, both without the member axis.

    Of what has no state, draws random numbers or can't be differentiated, ``what`` (such as ``"exponents are"``) is not
    available: the error says so.
    """
    reason = f"{type(emulator).__name__}: {what} not available"
    if not isinstance(emulator, Stepper):
        raise EmubenchError(f"{reason}: it is no Stepper (start, step, read)")
    with torch.no_grad():
        state = emulator.start(context.clone(), 1, torch_stream(seed))
        once, again = (emulator.step(state.clone(), torch_stream(seed, i)) for i in range(2))
    if state.shape[0] != 1 or not same_values(once, again):
        raise EmubenchError(f"{reason}: it is stochastic")
    if not state.is_floating_point():
        raise EmubenchError(f"{reason}: its state is of {state.dtype}")
    return state[0], lambda u: emulator.step(u[None], torch_stream(seed))[0]


def twin_growth(
    emulator: Emulator,
    context: Float[Tensor, "B C *S"],
    std: Float[Tensor, " *S"],
    n_steps: int,
    *,
    perturbation: float = 1e-3,
    lower: float = 0.01,
    upper: float = 0.1,
    seed: int = 0,
) -> FirstPassage:
    """Time, in samples, that twin forecasts take to separate from ``lower`` to ``upper`` (in σ): finite-size growth.

    Twin contexts differ by ``perturbation`` σ times one normal vector, the same at all their samples. With the
    separation e(t) = √(mean over components of (difference/σ)²), its logarithm interpolated between samples, the time
    is that from the first crossing of ``lower`` to that of ``upper``. ln(upper/lower) over the mean is the finite-size
    Lyapunov exponent of Aurell et al. 1997, doi:10.1088/0305-4470/30/1/003; λ₁ times the mean should be about
    ln(upper/lower) while the difference is small. A forecast that is lost is a crossing of both.
    """
    if not 0 < perturbation < lower < upper:
        order = f"0 < {perturbation} < {lower} < {upper}"
        raise EmubenchError(f"growth between twins: {order} must hold (perturbation, lower, upper)")
    noise = torch.randn(len(context), 1, *context.shape[2:], generator=torch_stream(seed), dtype=context.dtype)
    scale = std.to(context.dtype)

    def run(given: Tensor, draw: int) -> Tensor:
        forecast = checked_forecast(emulator, given, n_steps, 1, torch_stream(seed, "twins", draw))
        return forecast[0].double() / std

    first, again = run(context, 0), run(context, 1)
    if not same_values(first, again):
        raise EmubenchError(f"{type(emulator).__name__}: growth between twins: not available, as it is stochastic")
    difference = run(context + perturbation * scale * noise, 0) - first
    e = difference.flatten(2).square().mean(-1).sqrt()
    e = torch.where(e.isnan(), torch.inf, e).clamp(min=1e-300)
    start = perturbation * noise.double().flatten(1).square().mean(-1, keepdim=True).sqrt()
    log = (e / start).log()
    passed = [level_crossing(log, (level / start[:, 0]).log()) for level in (lower, upper)]
    never = (e <= upper).all(1)
    return FirstPassage(torch.where(never, float(n_steps), passed[1] - passed[0]), float(never.double().mean()))
