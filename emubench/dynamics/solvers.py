"""Solver settings, from the truth's own down to one cheap step per sample: what an emulator competes with."""

import dataclasses
import importlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.dynamics import kernels
from emubench.dynamics.simulate import integrated, reference_rollout, simulate
from emubench.dynamics.system import Step, System


class TrueSolver:
    """The truth's own solver; a solution that can't be trusted raises. A subclass may solve on a coarser state."""

    scheme: str | None = None
    coarse = False
    """Whether its states are not the system's."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._steps: dict[tuple[torch.dtype, torch.device], Step] = {}

    def step(self, like: Tensor) -> Step:
        """A solver step where ``like`` is and in its precision, made once: its coefficients come from the host."""
        key = like.dtype, like.device
        if key not in self._steps:
            self._steps[key] = self.system.solver(scheme=self.scheme, dtype=like.dtype, device=like.device)
        return self._steps[key]

    def solve(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        """States ``"B *s"`` to the next samples ``"B T *s"``."""
        return simulate(self.system, states, n_samples, rngs or None)

    def run(self, states: Tensor, n_samples: int, rngs: list[np.random.Generator]) -> Tensor:
        """The same for tensors: on a CPU as :meth:`solve`, elsewhere by the reference integrators, where states are."""
        if states.device.type == "cpu":
            return torch.from_numpy(self.solve(states.numpy(), n_samples, rngs))
        return integrated(self.system, states, n_samples, rngs, step=self.step(states))

    def restrict(self, states: np.ndarray) -> np.ndarray:
        """The system's states ``"... *S"`` as the solver's ``"... *s"``."""
        return states

    def lift(self, states: np.ndarray) -> np.ndarray:
        """The solver's states ``"... *s"`` as the system's ``"... *S"``."""
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
        """The setting in words.

        >>> Setting("rk4", 2, dtype="float32", start="small").label
        'rk4, 2 steps per sample, float32, small filter'
        """
        sites = f", {self.sites} sites" if self.sites else ""
        single = ", float32" if self.dtype == "float32" else ""
        start = {"sample": "", "filter": ", filter", "small": ", small filter"}[self.start]
        return f"{self.scheme}, {self.steps} step{'s' if self.steps > 1 else ''} per sample{sites}{single}{start}"


class SettingSolver(TrueSolver):
    """A setting's solver: our kernel where there is one, else the reference integrators; samples are in its precision.

    On a GPU: one fused kernel for the Lorenz systems, whose states and samples cross to the host, else the reference
    integrators as a CUDA graph of a sample interval; a filter's steps, a sample each, stay on it. What blows up comes
    out as NaN or infinity: a setting that is too coarse is inaccurate, not an error.
    """

    def __init__(self, system: System, setting: Setting, device: torch.device = torch.device("cpu")) -> None:
        self.full, self.setting, self.device = system, setting, device
        self.scheme, self.coarse = setting.scheme, setting.sites > 0
        changes = {"n_sites": setting.sites} if setting.sites else {}
        super().__init__(dataclasses.replace(system, solver_step=system.sample_interval / setting.steps, **changes))
        on_cpu = device.type == "cpu" and (setting.dtype == "float64" or not system.stochastic)
        self.fast = kernels.find(self.system, setting.scheme) if on_cpu else None
        if device.type == "cuda" and setting.scheme == "rk4":  # numba looks for a driver when this is imported
            fused = importlib.import_module("emubench.dynamics.kernels._cuda")
            self.fast = fused.rollout if fused.supports(self.system) else None
        self.path = "torch" if self.fast is None else "kernel"

    def solve(self, states: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        """On as many threads as torch uses."""
        states = np.ascontiguousarray(states, dtype=self.setting.dtype)
        with np.errstate(all="ignore"):
            if self.fast is not None:
                n_threads = torch.get_num_threads() if self.device.type == "cpu" else 1
                return kernels.rollout_parallel(self.system, states, n_samples, rngs, n_threads, self.fast)
            scheme, dtype = self.setting.scheme, getattr(torch, self.setting.dtype)
            return reference_rollout(self.system, states, n_samples, rngs, self.device, scheme, dtype, as_graph=True)

    def run(self, states: Tensor, n_samples: int, rngs: list[np.random.Generator]) -> Tensor:
        """Elsewhere than on a CPU a rollout is by the fused kernel, or a CUDA graph; a filter's step stays there."""
        if states.device.type == "cpu":
            return super().run(states, n_samples, rngs)
        if self.fast is not None and n_samples > 1:
            return torch.from_numpy(self.solve(states.cpu().numpy(), n_samples, rngs)).to(states.device)
        states = states.to(getattr(torch, self.setting.dtype))
        return integrated(self.system, states, n_samples, rngs, as_graph=n_samples > 1, step=self.step(states))

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
