"""How small differences grow in an emulator: Lyapunov exponents, twin forecasts, gains over one sample.

The gain is the largest singular value of the σ-scaled Jacobian of a one-sample map. With u = mean + σ w and the map
u → F(u), G(w) = (F(mean + σ w) − mean)/σ has the Jacobian S⁻¹ DF S, S = diag(σ). Its largest singular value s(u) is the
most that a small difference, in units of σ, can grow over one sample. The maximum of s over states is a *lower* bound
of the Lipschitz constant of G on any convex set that holds them. An upper bound for a network (a product of the norms
of its layers, say) would be far from it.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.random import torch_stream
from emubench.dynamics import lyapunov
from emubench.dynamics.first_passage import FirstPassage, level_crossing
from emubench.dynamics.lyapunov import Map, Progress
from emubench.dynamics.spectrum import Spectrum
from emubench.dynamics.system import System
from emubench.emulator import Emulator, Stepper, checked_forecast, same_values

AT_ONCE = 2**16
"""Numbers of a batch of Jacobians that are held at a time."""
WHAT = "its one-sample Jacobian is"
Push = Callable[[Tensor, Tensor], Tensor]
"""Takes states ``"R *S"`` and perturbations ``"E R *S"`` to the perturbations one sample later."""


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
    schedule = lyapunov.Schedule(sample_interval, sample_interval, duration, settling, n_blocks)
    asked = (n_exponents, type(emulator).__name__)
    return lyapunov.tangent_spectrum(step, state, schedule, *asked, project=project, seed=seed, progress=progress)


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


def physical_map(emulator: Any, context: Float[Tensor, "B C *S"], system: System, seed: int = 0) -> Map:
    """The one-sample map u → F(u) of system states ``"R *S"`` that a deterministic Stepper's step amounts to.

    The emulator's own state may be scaled or permuted: ``read`` must be an invertible affine map of it. What has no
    state, draws random numbers, or remembers more than the system's present state, has no such map: the error says so.
    """
    name, shape = type(emulator).__name__, system.shape
    state, step = autonomous(emulator, context, WHAT, seed)
    n, own = math.prod(shape), state[0].numel()
    if own != n or tuple(context.shape[2:]) != shape:
        raise EmubenchError(f"{name}: {WHAT} not available: its state has {own} numbers, the system's {n}")

    def read(states: Tensor) -> Tensor:
        return emulator.read(states.reshape(1, -1, *state.shape[1:]))[0].flatten(1).double()

    with torch.no_grad():
        (origin,), seen = read(torch.zeros_like(state[:1])), read(state)
        matrix = read(torch.eye(n, dtype=state.dtype)) - origin
        affine = torch.allclose(origin + state.flatten(1).double() @ matrix, seen, rtol=1e-3, atol=1e-3)
        if not affine or float(torch.linalg.cond(matrix)) > 1e6:
            raise EmubenchError(f"{name}: {WHAT} not available: its state is not the system's up to an affine map")
        inverse = torch.linalg.inv(matrix)

    def advance(u: Tensor) -> Tensor:
        own_state = ((u.flatten(1) - origin) @ inverse).to(state.dtype).reshape(-1, *state.shape[1:])
        following = step(own_state).flatten(1).double()
        return (origin + following @ matrix).reshape(u.shape)

    return advance


def largest_gains(
    push: Push, states: Float[Tensor, " R *S"], std: Float[Tensor, " *S"], progress: Progress | None = None
) -> Float[Tensor, " R"]:
    """The gain of every state, from whole Jacobians: N perturbations of a state cost about as much as N steps.

    A Jacobian that is not finite has the gain infinity.
    """
    n = states[0].numel()
    basis = torch.diag(std.flatten().double()).reshape(n, 1, *std.shape)
    gains = []
    for chunk in states.split(max(1, AT_ONCE // n**2)):
        pushed = push(chunk, basis.expand(n, *chunk.shape)) / std
        jacobians = pushed.flatten(2).permute(1, 2, 0)
        finite = jacobians.isfinite().all((1, 2))
        values = torch.linalg.svdvals(torch.where(finite[:, None, None], jacobians, 0.0))[:, 0]
        gains.append(torch.where(finite, values, torch.inf))
        if progress is not None:
            progress(sum(map(len, gains)), len(states))
    return torch.cat(gains)


@torch.no_grad()
def map_gains(
    advance: Map, states: Float[Tensor, " R *S"], std: Float[Tensor, " *S"], name: str, progress: Progress | None = None
) -> Float[Tensor, " R"]:
    """:func:`largest_gains` of a differentiable map."""
    return largest_gains(
        lambda u, tangents: lyapunov.push_forward(advance, u, tangents, name, WHAT)[1], states, std, progress
    )


def outside(states: Float[Tensor, " R *S"], system: System, distance: float = 2.0) -> Float[Tensor, " R *S"]:
    """The states moved straight away from the mean by ``distance`` σ, in the norm √(mean over components of (·/σ)²).

    So a field keeps its shape, but is of an amplitude that no data show.
    """
    mean, std = torch.from_numpy(system.mean), torch.from_numpy(system.std)
    w = (states - mean) / std
    radius = w.flatten(1).square().mean(1).sqrt().clamp(min=1e-12).reshape(-1, *[1] * (w.ndim - 1))
    return mean + std * w * (1 + distance / radius)


@lru_cache(maxsize=8)
def sample_states(system: System, n: int, seed: int) -> Float[Tensor, " R *S"]:
    """``n`` independent states on the attractor, three spin-ups after their draws."""
    return torch.from_numpy(lyapunov.on_attractor(system, n, max(1, 3 * system.spin_up_samples), seed))


@lru_cache(maxsize=8)
def system_gains(system: System, n: int, seed: int, distance: float) -> Float[Tensor, " R"]:
    """:func:`largest_gains` of the true flow at :func:`sample_states` (``distance`` = 0) or ``outside`` them."""
    states, std = sample_states(system, n, seed), torch.from_numpy(system.std)

    def push(state: Tensor, perturbations: Tensor) -> Tensor:
        """Twins start a fixed small distance apart, so perturbations are made unit vectors first."""
        size = perturbations.flatten(2).norm(dim=2).reshape(*perturbations.shape[:2], *[1] * (state.ndim - 1))
        return lyapunov.push_by_twins(system, state, perturbations / size)[1] * size

    return largest_gains(push, outside(states, system, distance) if distance else states, std)
