"""Kuramoto–Sivashinsky: a fourth-order partial differential equation, spatio-temporal chaos on a periodic interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.dynamics.schemes import etd1, etdrk4
from emubench.dynamics.system import Climate, Fact, Step, System

OWN = "emubench, float64 simulation"
LAMINAR_WINDOW = 100.0
LAMINAR_FLUCTUATION = 1e-3
"""Relative fluctuation of the energy over LAMINAR_WINDOW time units that counts as steady (L = 22: at least 0.1)."""


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky(System):
    """u_t = −u u_x − u_xx − u_xxxx on a periodic interval of length L, zero mean, N equispaced points.

    Pseudo-spectral in space (products dealiased by the 2/3 rule), exponential time differencing in time.
    Kuramoto & Tsuzuki 1976, doi:10.1143/PTP.55.356; Sivashinsky 1977, doi:10.1016/0094-5765(77)90096-0. Good
    values: L = 22, N = 64. L = 64 is to be avoided: its eight-cell steady state is linearly stable. N ≥ L keeps the
    modes up to k = 2, which damp, and a standard deviation that is right to 1 %; with N = 0.87 L it is 5 % too large,
    with 0.72 L 1.7 times, and with half as many sites solutions blow up (measured at L = 60, 100 and 200).

    >>> s = KuramotoSivashinsky()
    >>> u = torch.sin(2 * torch.pi * torch.arange(64, dtype=torch.float64) / 64)[None]
    >>> bool(s.rhs(u).sum().abs() < 1e-12)     # the mean is conserved
    True
    """

    length: float = 22.0
    n_sites: int = 64
    sample_interval: float = 1.0
    solver_step: float = 0.03125

    name = "kuramoto_sivashinsky"
    equation = "u_t = -u u_x - u_xx - u_xxxx, periodic, zero mean"
    schemes = ("etdrk4", "etd1")
    letters = {"L": "length", "N": "n_sites"}
    positive = ("length", "n_sites")
    reference_climate = Climate(mean=(0.0,), std=(1.186,), time_unit=20.7, agreement_time=14.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 3 * self.n_unstable >= self.n_sites:
            raise EmubenchError(
                f"{self.name}: {self.n_sites} sites do not resolve length {self.length:g}: "
                f"its unstable modes need n_sites of at least {3 * self.n_unstable + 1}"
            )

    @property
    def n_unstable(self) -> int:
        """How many Fourier modes grow: those with 0 < k ≤ 1, and one at least, for something to start from."""
        return max(1, int(self.length / (2 * np.pi)))

    @property
    def enough(self) -> int:
        """Sites that keep all modes up to k = 2, of which the later ones damp what the first ones feed."""
        return math.ceil(3 * self.length / np.pi)

    @property
    def grid(self) -> tuple[int, ...]:
        """(N,): u at x_j = j L / N."""
        return (self.n_sites,)

    @property
    def wavenumbers(self) -> np.ndarray:
        """Wavenumbers 2πj/L of the real Fourier modes j = 0 … N/2."""
        return 2 * np.pi / self.length * np.arange(self.n_sites // 2 + 1)

    @property
    def symbol(self) -> np.ndarray:
        """Linear growth rate k² − k⁴ of each Fourier mode."""
        return self.wavenumbers**2 - self.wavenumbers**4

    def nonlinear(self, dtype: torch.dtype, device: str | torch.device) -> Callable[[Tensor], Tensor]:
        """−(u²)_x/2 on Fourier coefficients ``"... N/2+1"``; its modes from N/3 on are cut.

        The product of states without those modes is thus not aliased, and a state keeps none: the linear part damps
        what it started with (by e^−47 in a reference step at L = 22).
        """
        kept = np.arange(self.n_sites // 2 + 1) < self.n_sites / 3
        factor = -0.5j * torch.as_tensor(self.wavenumbers * kept, dtype=dtype, device=device)

        def apply(v: Tensor) -> Tensor:
            return factor * torch.fft.rfft(torch.fft.irfft(v, n=self.n_sites) ** 2)

        return apply

    def rhs(self, state: Tensor) -> Tensor:
        """Tendency of states ``"... N"`` (stiff: meant for checks, not for explicit steps)."""
        v = torch.fft.rfft(state)
        symbol = torch.as_tensor(self.symbol, dtype=state.dtype, device=state.device)
        tendency = symbol * v + self.nonlinear(state.dtype, state.device)(v)
        return torch.fft.irfft(tendency, n=self.n_sites)

    def step(self, step: float, scheme: str, dtype: torch.dtype, device: str | torch.device) -> Step:
        """An exponential step; the mean is set to zero, which the equation conserves."""
        make = {"etdrk4": etdrk4, "etd1": etd1}[scheme]
        inner = make(self.symbol, self.nonlinear(dtype, device), step, dtype, device)

        def advance(u: Tensor, _: Tensor | None = None) -> Tensor:
            v = torch.fft.rfft(u)
            v[..., 0] = 0
            return torch.fft.irfft(inner(v, None), n=self.n_sites)

        return advance

    def draw(self, rng: np.random.Generator, start: str) -> np.ndarray:
        """A Gaussian field in the modes with k ≤ 1, two at least, of standard deviation σ.

        One mode alone is odd about a node, and stays so for ever.
        """
        n_modes = max(2, self.n_unstable)
        hat = np.zeros(self.n_sites // 2 + 1, dtype=complex)
        hat[1 : n_modes + 1] = rng.standard_normal(n_modes) + 1j * rng.standard_normal(n_modes)
        sigma = self.reference_climate.std[0]
        return np.fft.irfft(hat, n=self.n_sites) * self.n_sites / 2 * sigma / np.sqrt(n_modes)

    def symmetries(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Translation, and reflection u(x) → −u(−x)."""
        return {"translation by 7 sites": lambda u: u.roll(7, -1), "reflection": lambda u: -u.flip(-1).roll(1, -1)}

    def refinements(self) -> dict[str, System]:
        """Half the solver step; twice the sites."""
        return super().refinements() | {"n_sites": replace(self, n_sites=2 * self.n_sites)}

    def project(self, perturbations: Tensor) -> Tensor:
        """Perturbations of zero mean."""
        return perturbations - perturbations.mean(-1, keepdim=True)

    def fault(self, samples: np.ndarray) -> str | None:
        """The cause of a blow-up, or laminarisation: a solution that fell onto a steady or travelling wave."""
        if cause := super().fault(samples):
            few = f"{self.n_sites} sites are too few for length {self.length:g}: take {self.enough}"
            return f"the solution blew up: {few}" if self.n_sites < self.enough else cause
        window = max(16, round(LAMINAR_WINDOW / self.sample_interval))
        if samples.shape[1] < window:
            return None
        energy = samples[:, -window:].var(axis=-1)
        if (energy.std(axis=1) > LAMINAR_FLUCTUATION * energy.mean(axis=1)).all():
            return None
        return f"laminar: the energy was steady for {LAMINAR_WINDOW:g} time units, so L {self.length:g} is not chaotic"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Energy balance (exact), one-point statistics, exponents in the zero-mean subspace at L = 22.

        The standard deviation is that of 3 × 256 trajectories of 2000 samples; its standard error is 0.0003. Exponents
        are those of :func:`emubench.dynamics.lyapunov.twin_spectrum` over 128 × 5000 time units after 1000, with the
        solver's own step; their standard errors are 0.0002 to 0.0004. Cvitanović et al. give 0.048, 0, 0, −0.003,
        −0.189, −0.256, −0.290, −0.310 and −1.963. The second and third vanish: shifts in time and in space.
        """
        first = (0.0482, 0.0, 0.0, -0.0039, -0.1884, -0.2563, -0.2906, -0.3106, -1.9629)
        source = OWN + "; Cvitanovic et al. 2010, doi:10.1137/070705623, agrees"
        return (
            Fact("<u_x^2> / <u_xx^2>", 1.0, 0.0004, "exact: energy balance", _balance),
            Fact("<u>", 0.0, 1e-12, "exact: the mean is conserved", lambda s, u: u.mean(-1).abs().max()),
            Fact("std", 1.186, 0.006, OWN, lambda s, u: u.std()),
            *(Fact(f"lyapunov exponent {i}", v, 0.002, source) for i, v in enumerate(first, 1)),
            Fact("kaplan-yorke dimension", 4.24, 0.03, OWN),
            Fact("agreement time", 14.0, 1.4, OWN + ", mean of 64 cases against a step of a tenth or a quarter"),
        )


def _balance(system: KuramotoSivashinsky, u: Tensor) -> Tensor:
    k = torch.as_tensor(system.wavenumbers, dtype=u.dtype)
    power = (torch.fft.rfft(u).abs() ** 2).reshape(-1, len(k)).mean(0)
    return (k**2 * power).sum() / (k**4 * power).sum()
