"""Solver settings, from the truth's own down to one cheap step per sample: what an emulator competes with."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emubench.core import registry
from emubench.dynamics import kernels, noise
from emubench.dynamics.simulate import simulate
from emubench.dynamics.system import System


class Solver(Protocol):
    """Solves a system on a state of its own, which may be coarser than the system's."""

    def solve(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        """States ``"B *s"`` to the next samples ``"B T *s"``."""
        ...

    def restrict(self, states: np.ndarray) -> np.ndarray:
        """The system's states ``"... *S"`` as the solver's ``"... *s"``."""
        ...

    def lift(self, states: np.ndarray) -> np.ndarray:
        """The solver's states ``"... *s"`` as the system's ``"... *S"``."""
        ...


@dataclass(frozen=True)
class TrueSolver:
    """The truth's own solver; a solution that can't be trusted raises."""

    system: System

    def solve(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        return simulate(self.system, states, n_samples, rngs or None)

    def restrict(self, states: np.ndarray) -> np.ndarray:
        return states

    def lift(self, states: np.ndarray) -> np.ndarray:
        return states


@dataclass(frozen=True)
class Setting:
    """Scheme, steps per sample interval, number of sites (0: the system's), precision and start of a solver.

    ``start`` is where the first state comes from: the last ``sample`` of the context as it is, the oracle's ``filter``
    with this solver as its model, or a ``small`` one with a quarter of its members.
    """

    scheme: str
    steps: int
    sites: int = 0
    dtype: str = "float64"
    start: str = "sample"

    @property
    def label(self) -> str:
        """For people.

        >>> Setting("rk4", 2, dtype="float32", start="small").label
        'rk4, 2 steps per sample, float32, small filter'
        """
        sites = f", {self.sites} sites" if self.sites else ""
        single = ", float32" if self.dtype == "float32" else ""
        start = {"sample": "", "filter": ", filter", "small": ", small filter"}[self.start]
        return f"{self.scheme}, {self.steps} step{'s' if self.steps > 1 else ''} per sample{sites}{single}{start}"


class SettingSolver:
    """A setting's solver: our kernel where there is one, else the reference integrators; samples are in its precision.

    On a GPU: one fused kernel for the Lorenz systems, else the reference integrators as a CUDA graph of a sample
    interval; states come from the host and samples go back to it. What blows up comes out as NaN or infinity: a
    setting that is too coarse is inaccurate, not an error.
    """

    def __init__(self, system: System, setting: Setting, device: torch.device = torch.device("cpu")) -> None:
        self.full, self.setting, self.device = system, setting, device
        changes = {"n_sites": setting.sites} if setting.sites else {}
        self.system = dataclasses.replace(system, solver_step=system.sample_interval / setting.steps, **changes)
        on_cpu = device.type == "cpu" and (setting.dtype == "float64" or not system.stochastic)
        self.fast = kernels.find(self.system) if on_cpu and setting.scheme in _schemes(self.system) else None
        if device.type == "cuda" and setting.scheme == "rk4" and _cuda().supports(self.system):
            self.fast = _cuda().rollout
        self.path = "torch" if self.fast is None else "kernel"

    def solve(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        """On as many threads as torch uses."""
        states = np.ascontiguousarray(states, dtype=self.setting.dtype)
        with np.errstate(all="ignore"):
            return self._by_torch(states, n_samples, rngs) if self.fast is None else self._fast(states, n_samples, rngs)

    def _fast(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        fast, n_threads = self.fast, torch.get_num_threads()
        assert fast is not None
        scheme = {} if self.setting.scheme == self.system.schemes[0] else {"scheme": self.setting.scheme}
        if self.device.type == "cuda":
            return fast(self.system, states, n_samples, rngs)
        if n_threads == 1:
            return fast(self.system, states, n_samples, rngs, **scheme)
        size = max(1, -(-len(states) // (n_threads * kernels.WHOLE_BLOCKS))) * kernels.WHOLE_BLOCKS
        parts = [slice(start, start + size) for start in range(0, len(states), size)]
        with ThreadPoolExecutor(n_threads) as pool:
            done = pool.map(lambda p: fast(self.system, states[p], n_samples, rngs[p], **scheme), parts)
            return np.concatenate(list(done))

    def _by_torch(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        dtype = getattr(torch, self.setting.dtype)
        step = self.system.solver(scheme=self.setting.scheme, dtype=dtype, device=self.device)
        current, samples = torch.from_numpy(states).to(self.device, dtype), []
        if not self.system.stochastic:

            def interval(state: torch.Tensor) -> torch.Tensor:
                for _ in range(self.setting.steps):
                    state = step(state, None)
                return state

            advance = replayed(interval, current)
            for _ in range(n_samples):
                current = advance(current).clone()
                samples.append(current)
            return torch.stack(samples, dim=1).cpu().numpy()
        for _ in range(n_samples):
            drawn = noise.normals(noise.seeds(rngs, self.setting.steps), int(np.prod(self.system.shape)))
            drawn = drawn.reshape(-1, self.setting.steps, *self.system.shape)
            for xi in torch.from_numpy(drawn).to(self.device, dtype).unbind(1):
                current = step(current, xi)
            samples.append(current)
        return torch.stack(samples, dim=1).cpu().numpy()

    def restrict(self, states: np.ndarray) -> np.ndarray:
        """The lower Fourier modes, where the setting has fewer sites."""
        return resample(states, self.setting.sites) if self.setting.sites else states

    def lift(self, states: np.ndarray) -> np.ndarray:
        """The trigonometric interpolant."""
        return resample(states, self.full.shape[0]) if self.setting.sites else states


def resample(states: np.ndarray, n: int) -> np.ndarray:
    """Periodic fields ``"... N"`` on ``n`` sites, by their Fourier modes below both grids' highest.

    >>> resample(1 + np.cos(2 * np.pi * np.arange(8) / 8), 4).round(12).tolist()
    [2.0, 1.0, 0.0, 1.0]
    """
    modes, old = np.fft.rfft(states), states.shape[-1]
    kept = np.zeros((*states.shape[:-1], n // 2 + 1), dtype=complex)
    m = (min(n, old) + 1) // 2
    kept[..., :m] = modes[..., :m]
    return np.fft.irfft(kept, n=n) * (n / old)


def _cuda() -> ModuleType:
    return importlib.import_module("emubench.dynamics.kernels._cuda")  # numba looks for a driver when it is imported


def _schemes(system: System) -> tuple[str, ...]:
    if system.name not in registry.names(kernels.__name__):
        return ()
    module = registry.load(kernels.__name__, system.name, "kernel")
    return getattr(module, "SCHEMES", system.schemes[:1])


WARM_UP = 3


def replayed(function: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """``function`` for states of the shape of ``example``: on a GPU as a CUDA graph, elsewhere as it is.

    The result lies in memory that the next call overwrites.
    """
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
        return result

    return replay
