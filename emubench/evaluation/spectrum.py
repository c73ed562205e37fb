"""The Lyapunov spectrum of an emulator, seen as a map from one sample to the next."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.dynamics.lyapunov import Map, Progress, Schedule, tangent_spectrum
from emubench.dynamics.spectrum import Spectrum
from emubench.emulator import Stepper


def emulator_spectrum(
    emulator: Any,
    context: Float[Tensor, "B C *S"],
    sample_interval: float,
    n_exponents: int | None = None,
    *,
    duration: float,
    settling: float | None = None,
    qr_interval: float | None = None,
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
    name = type(emulator).__name__
    state, step = autonomous(emulator, context, "Lyapunov exponents are", seed)
    return tangent_spectrum(
        step,
        state,
        Schedule.of(sample_interval, qr_interval or sample_interval, duration, settling, n_blocks),
        n_exponents,
        name,
        project=project,
        seed=seed,
        progress=progress,
    )


def autonomous(
    emulator: Any, context: Float[Tensor, "B C *S"], what: str, seed: int = 0
) -> tuple[Float[Tensor, "R ..."], Map]:
    """State after ``context`` and one-sample map of a deterministic Stepper, both without the member axis.

    ``what`` is not available (such as ``"exponents are"``) of what has no state, draws random numbers or has a state
    that can't be differentiated: the error says so.
    """
    reason = f"{type(emulator).__name__}: {what} not available"
    if not isinstance(emulator, Stepper):
        raise EmubenchError(f"{reason}: it is no Stepper (start, step, read)")
    with torch.no_grad():
        state = emulator.start(context.clone(), 1, torch_stream(seed))
        once, again = (emulator.step(state.clone(), torch_stream(seed, i)) for i in range(2))
    if state.shape[0] != 1 or not torch.allclose(once, again, rtol=0, atol=0, equal_nan=True):
        raise EmubenchError(f"{reason}: it is stochastic")
    if not state.is_floating_point():
        raise EmubenchError(f"{reason}: its state is of {state.dtype}")
    return state[0], lambda u: emulator.step(u[None], torch_stream(seed))[0]
