"""What a dynamical system is to emubench: equation, geometry, reference solver, climate and known facts."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError, unknown

Step = Callable[[Tensor, Tensor | None], Tensor]
"""One solver step: ``(state "B *S", standard normal noise "B *S" or None) -> state "B *S"``."""


@dataclass(frozen=True)
class Fact:
    """A figure that a right implementation reproduces.

    ``measure(system, samples)`` gets samples ``"B T *S"`` on the attractor and returns the figure; ``None`` means
    that :mod:`emubench.dynamics.climates` measures it. ``tolerance`` is absolute: about four standard errors of the
    figure on the 256 × 256 samples of :func:`emubench.testing.measure_facts`.
    """

    name: str
    value: float
    tolerance: float
    source: str
    measure: Callable[[Any, Tensor], Tensor] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Climate:
    """Long-time statistics, in physical units; one value per named component, or a single one on a grid.

    >>> import emubench
    >>> climate = emubench.systems.get("lorenz96").climate
    >>> print(f"mean {climate.mean[0]:.1f}, standard deviation {climate.std[0]:.1f}, unit {climate.time_unit:.2f}")
    mean 2.3, standard deviation 3.6, unit 0.59
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    time_unit: float
    """Time that counts as one unit of lead time: the Lyapunov time, or the sample interval where there is none."""
    agreement_time: float | None = None
    """How many time units the stored truth stays within 0.5 σ of a much finer solution; None: no such limit."""


@dataclass(frozen=True, kw_only=True)
class System(ABC):
    """An autonomous, possibly stochastic system on a state of shape ``*S``; parameters are the fields of a subclass.

    ``climate`` is known for the default parameters; with others it has to be given, because noise levels and
    scores are in its units: see :func:`emubench.measure_climate`. A parameter that makes no sense, and a
    ``solver_step`` that does not divide ``sample_interval``, raise :class:`EmubenchError`.

    >>> import emubench
    >>> system = emubench.systems.get("lorenz96", forcing=10.0)
    >>> system.shape, system.grid, system.sample_interval
    ((40,), (40,), 0.05)
    >>> step = system.solver()                              # one step of the reference solver, differentiable
    >>> tuple(step(torch.zeros(2, 40, dtype=torch.float64), None).shape)
    (2, 40)
    """

    name: ClassVar[str]
    equation: ClassVar[str]
    stochastic: ClassVar[bool] = False
    """Whether noise drives it: a step takes normals, and there are no Lyapunov exponents."""
    scored_in_law: ClassVar[bool] = False
    """Whether no forecast can follow one realisation, so that ensembles are scored."""
    growing: ClassVar[bool] = False
    """Whether its spatial mean grows: scores look at the deviation from it."""
    starts: ClassVar[tuple[str, ...]] = ("attractor",)
    """Kinds of initial states; trajectory i takes ``starts[i % len(starts)]``."""
    reference_climate: ClassVar[Climate]
    schemes: ClassVar[tuple[str, ...]]
    """Solver schemes, the reference one first."""
    letters: ClassVar[dict[str, str]] = {}
    """The equation's own letters for parameters with longer names."""
    positive: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that make no sense unless they are above 0; that all are finite goes without saying."""

    sample_interval: float
    solver_step: float
    climate: Climate | None = None

    def __post_init__(self) -> None:
        if self.climate is None and self.parameters() == self.default_parameters():
            object.__setattr__(self, "climate", self.reference_climate)
        for key, value in self.parameters().items():
            if not math.isfinite(value):
                raise EmubenchError(f"{self.name}: {key}: {value}, where a finite number belongs")
            if key in ("sample_interval", *self.positive) and not value > 0:
                raise EmubenchError(f"{self.name}: {key}: {value}, where a number above 0 belongs")
        steps = self.sample_interval / self.solver_step if self.solver_step > 0 else 0.0
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-9 * steps:
            raise EmubenchError(
                f"{self.name}: solver_step {self.solver_step} does not divide sample_interval {self.sample_interval}"
            )

    # --- what a subclass says ---------------------------------------------------------------------------------------

    @property
    def grid(self) -> tuple[int, ...]:
        """Sites along each dimension of a periodic grid on which all are alike; ``()`` where the state is no field."""
        return ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``*S`` of the state: that of the grid, or what a subclass says."""
        if not self.grid:
            raise NotImplementedError(f"{self.name}: define grid, or shape")
        return self.grid

    @abstractmethod
    def draw(self, rng: np.random.Generator, start: str) -> np.ndarray:
        """An initial state of O(σ), before spin-up."""

    @abstractmethod
    def step(self, step: float, scheme: str, dtype: torch.dtype, device: str | torch.device) -> Step:
        """The function that advances a batch of states by ``step`` time units with ``scheme``."""

    @property
    @abstractmethod
    def facts(self) -> tuple[Fact, ...]:
        """What is known of the system at its default parameters."""

    def symmetries(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Maps of the state ``"... *S"`` that commute with the flow (for a stochastic system: in law)."""
        return {}

    def project(self, perturbations: Tensor) -> Tensor:
        """Orthogonal projection of ``"... *S"`` on the perturbations that a solution can have: by default, of any kind.

        A system that conserves a quantity leaves those out that change it.
        """
        return perturbations

    def fault(self, samples: np.ndarray) -> str | None:
        """The likely cause if a simulated ``"B T *S"`` block is not to be trusted, else ``None``."""
        if np.isfinite(samples).all():
            return None
        return f"the solution blew up: solver_step {self.solver_step} is too long for these parameters"

    def refinements(self) -> dict[str, "System"]:
        """Finer discretisations of a deterministic equation, by the parameter that is refined: half the solver step.

        Where the sites discretise a field, a subclass adds twice as many: states are then resampled by Fourier modes.
        """
        return {} if self.stochastic else {"solver_step": dataclasses.replace(self, solver_step=self.solver_step / 2)}

    def exact_ratios(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics of each stationary trajectory ``"B T *S"`` over what they are exactly, by name, shape ``B``."""
        return {}

    # --- what follows from it ---------------------------------------------------------------------------------------

    @property
    def steps_per_sample(self) -> int:
        """Solver steps in one sample interval."""
        return round(self.sample_interval / self.solver_step)

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """Names of the state's axes in files: of a field in several dimensions z, y, x, the last one x."""
        if len(self.grid) > 1:
            return ("z", "y", "x")[-len(self.grid) :]
        return ("site",) if self.grid else ("component",)

    def solver(
        self,
        step: float | None = None,
        scheme: str | None = None,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> Step:
        """One step of a solver: by default the reference one, as used for the truth."""
        scheme = scheme or self.schemes[0]
        if scheme not in self.schemes:
            raise unknown(f"scheme of {self.name}", scheme, self.schemes)
        return self.step(self.solver_step if step is None else step, scheme, dtype, device)

    def known_climate(self) -> Climate:
        """``climate``, or an error where it is not known."""
        if self.climate is None:
            raise EmubenchError(
                f"{self.name}: no climate is stored for the parameters {self.parameters()}; "
                "measure it with emubench.measure_climate and pass it as climate="
            )
        return self.climate

    @property
    def mean(self) -> np.ndarray:
        """Climatological mean, shape ``*S``."""
        return np.broadcast_to(np.array(self.known_climate().mean), self.shape).copy()

    @property
    def std(self) -> np.ndarray:
        """Climatological standard deviation σ, shape ``*S``."""
        return np.broadcast_to(np.array(self.known_climate().std), self.shape).copy()

    @property
    def time_unit(self) -> float:
        """Length of the unit of lead time, in time units of the equation."""
        return self.known_climate().time_unit

    @property
    def lead_time_unit(self) -> str:
        """Name of the unit of lead time."""
        return "sample interval" if self.stochastic else "Lyapunov time"

    @property
    def spin_up_samples(self) -> int:
        """Samples dropped after :meth:`draw`: at most ten Lyapunov times, so that a rebuild elsewhere still agrees.

        None of a stochastic system, whose draws are taken to be stationary; one that has to settle says how long.
        """
        return 0 if self.stochastic else int(10 * self.time_unit / self.sample_interval)

    def parameters(self) -> dict[str, float]:
        """Every field but the climate, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "climate"}

    @classmethod
    def default_parameters(cls) -> dict[str, float]:
        """The benchmark's parameters."""
        return {f.name: f.default for f in dataclasses.fields(cls) if f.name != "climate"}  # type: ignore[misc]
