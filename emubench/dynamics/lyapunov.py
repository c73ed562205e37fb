"""Lyapunov exponents of systems and of emulators: perturbations carried along exactly, kept apart by QR.

A perturbation v of a state u of the map u → F(u) obeys v → DF(u) v, which forward differentiation of the step gives
to rounding. E of them, made orthonormal every Δ time units (the old ones are Q R), grow by the diagonal of R, and
λ_i = ⟨ln R_ii⟩ / Δ, per unit of time. Benettin, Galgani, Giorgilli & Strelcyn 1980, doi:10.1007/BF02128236; Shimada &
Nagashima 1979, doi:10.1143/PTP.61.1605. Replicas from independent draws run side by side and give standard errors.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap

from emubench.core.errors import EmubenchError, reason
from emubench.core.random import stream, torch_stream
from emubench.dynamics.simulate import simulate
from emubench.dynamics.spectrum import Spectrum
from emubench.dynamics.system import System

TWIN_RESOLUTION = 1e-7
"""Distance of twins relative to the state: far above rounding, far below where differences are no derivatives."""
AT_ONCE = 2**14
"""Numbers of all perturbations that are pushed together: a network's layers on them still fit into the cache."""
Progress = Callable[[int, int], None]
Map = Callable[[Tensor], Tensor]
"""States ``"R ..."`` of R independent replicas to the next ones."""


class Unresolved(EmubenchError):
    """Some of the perturbations asked for are lost in rounding: fewer may do."""


def lyapunov_spectrum(
    system: System,
    n_exponents: int | None = None,
    *,
    duration: float,
    n_replicas: int = 16,
    step: float | None = None,
    qr_interval: float | None = None,
    spin_up: float | None = None,
    settling: float | None = None,
    n_blocks: int = 8,
    seed: int = 0,
) -> Spectrum:
    """The ``n_exponents`` largest exponents (default: all) of a deterministic system, at any parameters.

    All times are in the units of the equation. ``duration`` is the time measured, of each of ``n_replicas``. Before it
    the states get ``spin_up`` by the fast solver and the perturbations ``settling``, both a quarter of ``duration`` if
    not given. ``step`` may be longer than the truth's; ``qr_interval`` is a sample interval if not given.

    Directions of nearly equal growth need a ``settling`` of several times the inverse of its difference. Perturbations
    stay in the subspace of ``system.project``: kuramoto_sivashinsky has N − 1 exponents, as the mean is conserved.

    A step costs 4 to 40 ms, up to 10⁵ replicas × exponents × sites, so let many replicas share it: lorenz63 to ± 0.0005
    took 220 s on a shared two-core machine (2048 × 100 time units, step 0.01). :func:`twin_spectrum` took 10 s. A step
    of 0.5 moves the fifth and sixth of kuramoto_sivashinsky by −0.002.

    >>> from emubench import systems
    >>> spectrum = lyapunov_spectrum(systems.get("lorenz63"), duration=1.0, n_replicas=4, step=0.01)
    >>> round(spectrum.sum.value, 2)     # the trace of the Jacobian, −41/3
    -13.67
    """
    need_deterministic(system)
    h = system.solver_step if step is None else step
    n_spin_up = math.ceil((duration / 4 if spin_up is None else spin_up) / system.sample_interval)
    state = on_attractor(system, n_replicas, max(1, n_spin_up), seed)
    solver = system.solver(h)
    return tangent_spectrum(
        lambda u: solver(u, None),
        torch.from_numpy(state),
        Schedule(h, qr_interval or system.sample_interval, duration, settling, n_blocks),
        n_exponents,
        system.name,
        n_dimensions=n_perturbations(system),
        project=system.project,
        seed=seed,
    )


def twin_spectrum(
    system: System,
    state: Float[Tensor, " R *S"],
    n_exponents: int | None = None,
    *,
    duration: float,
    settling: float | None = None,
    n_blocks: int = 8,
    seed: int = 0,
) -> Spectrum:
    """What :func:`lyapunov_spectrum` finds, from ``state`` on, by :func:`push_by_twins` and the truth's own step.

    It takes a tenth of the time of exact differentiation and resolves exponents down to about λ₁ − 14/sample interval.
    """
    need_deterministic(system)
    return _spectrum(
        lambda u, tangents: push_by_twins(system, u, tangents),
        state.double(),
        Schedule(system.sample_interval, system.sample_interval, duration, settling, n_blocks),
        n_exponents,
        system.name,
        n_dimensions=n_perturbations(system),
        project=system.project,
        resolution=TWIN_RESOLUTION,
        seed=seed,
    )


def need_deterministic(system: System) -> None:
    """Raise :class:`EmubenchError` for a system that noise drives."""
    if system.stochastic:
        raise EmubenchError(f"{system.name}: Lyapunov exponents are not available for a stochastic system")


def push_by_twins(
    system: System, state: Float[Tensor, " R *S"], tangents: Float[Tensor, " E R *S"]
) -> tuple[Float[Tensor, " R *S"], Float[Tensor, " E R *S"]]:
    """The states one sample interval later and DF v of every unit tangent v, by the fast solver.

    DF v is the difference of two trajectories that start ε v apart, ε = 10⁻⁷ of the states' size, divided by ε: right
    to about 10⁻⁷ of the largest one. Benettin, Galgani & Strelcyn 1976, doi:10.1103/PhysRevA.14.2338.
    """
    epsilon = TWIN_RESOLUTION * float(state.flatten(1).square().sum(1).mean().sqrt())
    starts = torch.cat([state[None], state + epsilon * tangents])
    ends = simulate(system, starts.flatten(0, 1).numpy(), 1)[:, 0]
    following = torch.from_numpy(ends.copy()).reshape(starts.shape)
    return following[0], (following[1:] - following[0]) / epsilon


def n_perturbations(system: System) -> int:
    """Dimension of the space of perturbations that a solution can have: the rank of ``system.project``."""
    eye = torch.eye(math.prod(system.shape), dtype=torch.float64)
    return round(float(system.project(eye.reshape(-1, *system.shape)).reshape(eye.shape).trace()))


def on_attractor(system: System, n: int, n_samples: int, seed: int) -> Float[np.ndarray, " B *S"]:
    """``n`` independent states, ``n_samples`` sample intervals after their draws."""
    rngs = [stream(seed, "diagnostics", system.name, i) for i in range(n)]
    state = np.stack([system.draw(rng, system.starts[0]) for rng in rngs])
    return simulate(system, state, n_samples, rngs)[:, -1].copy()


class Schedule:
    """When a run is made orthogonal, and from when on it is measured: times as whole numbers of steps and of blocks.

    ``n_settling`` QRs, each after ``steps`` steps, come before ``n_blocks`` blocks of ``n_per_block`` QRs.
    """

    def __init__(self, step: float, qr_interval: float, duration: float, settling: float | None, n_blocks: int) -> None:
        self.steps, self.n_blocks = max(1, round(qr_interval / step)), n_blocks
        self.interval = self.steps * step
        settling = duration / 4 if settling is None else settling
        self.n_settling = math.ceil(settling / self.interval - 1e-9)
        self.n_per_block = max(1, math.ceil(duration / self.interval / n_blocks - 1e-9))


def tangent_spectrum(
    step: Map,
    state: Float[Tensor, "R ..."],
    schedule: Schedule,
    n_exponents: int | None = None,
    name: str = "map",
    **options: Any,
) -> Spectrum:
    """The exponents of the differentiable map ``step`` along the orbits of ``state``.

    ``options`` may be ``n_dimensions``, of the space of perturbations that ``project`` projects on, ``seed`` and
    ``progress``.
    """

    def advance(u: Tensor) -> Tensor:
        for _ in range(schedule.steps):
            u = step(u)
        return u

    def push(u: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        return push_forward(advance, u, tangents, name)

    return _spectrum(push, state, schedule, n_exponents, name, **options)


@torch.no_grad()
def _spectrum(
    push: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    state: Float[Tensor, "R ..."],
    schedule: Schedule,
    n_exponents: int | None,
    name: str,
    *,
    n_dimensions: int | None = None,
    project: Map | None = None,
    resolution: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """``push`` advances states, and perturbations of them ``"E R ..."``, over the schedule's interval.

    ``resolution`` is its relative error; that of rounding if not given.
    """
    resolution = resolution or torch.finfo(state.dtype).eps
    n_dimensions = n_dimensions or state[0].numel()
    n_exponents = n_exponents or n_dimensions
    if not 0 < n_exponents <= n_dimensions:
        raise EmubenchError(f"{name}: {n_exponents} exponents asked for, where there are {n_dimensions}")
    normal = torch.randn(n_exponents, *state.shape, generator=torch_stream(seed, "tangents"), dtype=torch.float64)
    tangents, _ = _orthonormal(normal.to(state.dtype), project)
    blocks, total = [], torch.zeros(len(state), n_exponents, dtype=torch.float64)
    n_measured = schedule.n_blocks * schedule.n_per_block
    for i in range(-schedule.n_settling, n_measured):
        state, tangents = push(state, tangents)
        tangents, diagonal = _orthonormal(tangents, project)
        _check(state, diagonal, name, schedule, i, resolution)
        if i >= 0:
            total = total + diagonal.log()
            if (i + 1) % schedule.n_per_block == 0:
                blocks.append(total / (schedule.n_per_block * schedule.interval))
                total = torch.zeros_like(total)
        if progress is not None:
            progress(i + 1 + schedule.n_settling, n_measured + schedule.n_settling)
    rates = torch.stack(blocks, dim=1)
    order = rates.mean((0, 1)).argsort(descending=True)
    return Spectrum(rates[..., order], n_dimensions)


def push_forward(
    advance: Map,
    state: Float[Tensor, "R ..."],
    tangents: Float[Tensor, "E R ..."],
    name: str,
    what: str = "Lyapunov exponents are",
) -> tuple[Tensor, Tensor]:
    """``F(u)`` and ``DF(u) v`` for every tangent: one evaluation of the map, and linear ones for the tangents."""
    pushed = vmap(lambda v: jvp(advance, (state,), (v,)), out_dims=(None, 0))  # type: ignore[arg-type]
    try:
        parts: list[Any] = [pushed(part) for part in tangents.split(max(1, AT_ONCE // state.numel()))]
        return parts[0][0], torch.cat([part[1] for part in parts])
    except (RuntimeError, NotImplementedError, TypeError) as error:
        advance(state)  # what is wrong with the map itself surfaces as it is
        cause = f"its step can't be differentiated forward ({reason(error)})"
        raise EmubenchError(f"{name}: {what} not available: {cause}") from error


def _orthonormal(tangents: Float[Tensor, "E R ..."], project: Map | None) -> tuple[Tensor, Float[Tensor, "R E"]]:
    """Project, then QR of each replica in float64: the orthonormal tangents, and |diagonal| of R."""
    if project is not None:
        tangents = torch.stack([project(v) for v in tangents])
    columns = tangents.flatten(2).permute(1, 2, 0).double()
    q, r = torch.linalg.qr(columns)
    kept = q.permute(2, 0, 1).reshape(tangents.shape).to(tangents.dtype)
    return kept.contiguous(), r.diagonal(dim1=-2, dim2=-1).abs()


def _check(state: Tensor, diagonal: Tensor, name: str, schedule: Schedule, i: int, resolution: float) -> None:
    """A run that blew up, and perturbations whose difference is lost in rounding, give no exponents."""
    if not state.isfinite().all():
        replica = int((~state.flatten(1).isfinite().all(1)).to(torch.int8).argmax())
        time = (i + 1 + schedule.n_settling) * schedule.interval
        raise EmubenchError(f"{name}: replica {replica} is not finite at time {time:g}: it has no attractor here")
    if not (diagonal > 10 * resolution * diagonal[:, :1]).all():
        raise Unresolved(
            f"{name}: perturbations vanish or turn parallel within {schedule.interval:g} time units: take a shorter "
            f"qr_interval or fewer than {diagonal.shape[1]} exponents (or the step hides its derivative)"
        )
