"""Reference integrators in torch: any device, any dtype, batched, differentiable. Read these to know what is solved."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.dynamics import noise
from emubench.dynamics.system import Step, System

WARM_UP = 3
"""Calls before a CUDA graph is captured."""


class SimulationError(EmubenchError):
    """A solution that can't be trusted: of which trajectory, from what time on, and why."""

    def __init__(self, system: str, trajectory: int, time: float, cause: str, split: str = "") -> None:
        super().__init__(system, trajectory, time, cause, split)  # all of it, so that it comes home from a worker
        self.system, self.trajectory, self.time, self.cause, self.split = system, trajectory, time, cause, split

    def __str__(self) -> str:
        """The one line."""
        trajectory = f"{self.split} trajectory" if self.split else "trajectory"
        return f"{self.system}: {trajectory} {self.trajectory} at time {self.time:g}: {self.cause}"


def rollout(
    step: Step,
    state: Float[Tensor, " B *S"],
    n_samples: int,
    steps_per_sample: int = 1,
    noise: Callable[[], Tensor] | None = None,
) -> Float[Tensor, "B T *S"]:
    """The ``n_samples`` states that follow ``state``, one every ``steps_per_sample`` steps."""
    samples = []
    for _ in range(n_samples):
        for _ in range(steps_per_sample):
            state = step(state, noise() if noise is not None else None)
        samples.append(state)
    return torch.stack(samples, dim=1)


def reference_rollout(
    system: System,
    state: np.ndarray,
    n_samples: int,
    rngs: list[np.random.Generator],
    device: str | torch.device = "cpu",
    scheme: str | None = None,
    dtype: torch.dtype = torch.float64,
    as_graph: bool = False,
) -> np.ndarray:
    """:func:`integrated` on ``device``, from arrays to arrays."""
    begun = torch.as_tensor(state, dtype=dtype, device=device)
    return integrated(system, begun, n_samples, rngs, scheme, as_graph).cpu().numpy()


def integrated(
    system: System,
    state: Float[Tensor, " B *S"],
    n_samples: int,
    rngs: list[np.random.Generator],
    scheme: str | None = None,
    as_graph: bool = False,
    step: Step | None = None,
) -> Float[Tensor, "B T *S"]:
    """The truth by the reference solver, or a ``step`` of it made before, where the states are and in their precision.

    Trajectory b takes its noise from ``rngs[b]`` alone, by way of :mod:`emubench.dynamics.noise`. With ``as_graph`` a
    deterministic system's sample interval is :func:`replayed` on a GPU.
    """
    step, k = step or system.solver(scheme=scheme, dtype=state.dtype, device=state.device), system.steps_per_sample

    def noises() -> Iterator[Tensor]:
        for _ in range(n_samples):
            drawn = noise.normals(noise.seeds(rngs, k), math.prod(system.shape)).reshape(-1, k, *system.shape)
            yield from sent(torch.from_numpy(drawn).to(state.dtype), state.device).unbind(1)

    if system.stochastic:
        return rollout(step, state, n_samples, k, partial(next, noises()))
    if as_graph:
        interval = replayed(lambda u: rollout(step, u, 1, k)[:, 0], state)
        return rollout(lambda u, _: interval(u), state, n_samples)
    return rollout(step, state, n_samples, k)


def replayed(function: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """``function`` for states of the shape of ``example``: on a GPU as a CUDA graph, elsewhere as it is."""
    if example.device.type != "cuda":
        return function
    given, stream = example.clone(), torch.cuda.Stream(example.device)
    stream.wait_stream(torch.cuda.current_stream(example.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function(given)
    torch.cuda.current_stream(example.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(given)

    def replay(state: Tensor) -> Tensor:
        given.copy_(state)
        graph.replay()
        return result.clone()

    return replay


def simulate(
    system: System,
    state: Float[np.ndarray, " B *S"],
    n_samples: int,
    rngs: list[np.random.Generator] | None = None,
    *,
    reference: bool = False,
    device: str = "cpu",
) -> Float[np.ndarray, "B T *S"]:
    """The ``n_samples`` samples that follow ``state``, checked: by the fast kernel where there is one.

    ``state`` has the shape ``(trajectory, *space)``, the samples have ``(trajectory, time, *space)``, of float64 in
    physical units, a sample interval apart. A stochastic system takes the noise of trajectory b from ``rngs[b]``.

    Kernels are for "cpu". On any other torch ``device`` ("cuda", and for tests "cpu:0") the reference integrators do
    it, from the same draws and the same noise, equal up to rounding: for batches of thousands of trajectories.

    Raises :class:`SimulationError` with trajectory, time and likely cause where the solution can't be trusted.

    >>> import emubench
    >>> system = emubench.systems.get("lorenz96")
    >>> start = system.draw(np.random.default_rng(0), "attractor")
    >>> emubench.simulate(system, start[None], 100).shape
    (1, 100, 40)
    """
    from emubench.dynamics import kernels  # a fast path imports numba, which not every caller needs

    if system.stochastic and (rngs is None or len(rngs) != len(state)):
        raise ValueError("a stochastic system needs one generator per trajectory")
    fast = kernels.find(system) if device == "cpu" and not reference else None
    begun = np.ascontiguousarray(state, dtype=np.float64)
    if fast:
        samples = fast(system, begun, n_samples, rngs or [])
    else:
        samples = reference_rollout(system, begun, n_samples, rngs or [], device)
    if cause := system.fault(samples):
        first = next(b for b in range(len(samples)) if system.fault(samples[b : b + 1]))
        n = next(n for n in range(1, n_samples + 1) if system.fault(samples[first : first + 1, :n]))
        raise SimulationError(system.name, first, n * system.sample_interval, cause)
    return samples
