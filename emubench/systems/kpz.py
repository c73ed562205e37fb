"""Kardar–Parisi–Zhang in one dimension: stochastic growth of a rough interface, with exactly known statistics."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.dynamics.schemes import euler, given, ornstein_uhlenbeck, rk4
from emubench.dynamics.system import Climate, Fact, Step, System

MAX_SLOPE = 50.0
"""A larger slope, in units of the stationary standard deviation or of 1 if that is less, is a numerical instability."""
WEDGE_SLOPE = 5.0
"""Slope of the narrow wedge, in units of the stationary standard deviation: steep beside the noise."""


@dataclass(frozen=True, kw_only=True)
class KPZ(System):
    """h_t = ν h_xx + (λ/2)(h_x)² + η with ⟨η(x,t) η(x′,t′)⟩ = 2D δ(x−x′) δ(t−t′), on a ring of N sites dx apart.

    Kardar, Parisi & Zhang 1986, doi:10.1103/PhysRevLett.56.889. Good values: ν = D = dx = 1, λ = 3.

    In space: the three-point Laplacian, and (h_x)² ≈ (a² + ab + b²)/3 with the one-sided slopes a, b (Lam & Shin 1998,
    doi:10.1103/PhysRevE.58.5592), which keeps the exact stationary measure: independent Gaussian slopes a of
    variance A = D/(ν dx). In time: Strang splitting of the linear stochastic part (exact, mode by mode) and of the
    nonlinear part (RK4). Both parts keep that measure, so the time step does not bias it.

    What tells this scheme from a plausible wrong one are amplitudes. Measured at N = 1024 and 10 ≤ t ≤ 200 over 2048
    runs (``tests/systems/test_kpz.py``): from flat the variance of h is 0.97 to 1.00 of that of Tracy & Widom's
    orthogonal law, skewness 0.29 to 0.32 (law: 0.293); from a narrow wedge 0.98 to 1.01 of the unitary one, skewness
    0.20 to 0.25 (law: 0.224). The benchmark's own ring, N = 256, is too small: the width is 17 % under that at t = 64.
    """

    nu: float = 1.0
    lam: float = 3.0
    noise: float = 1.0
    dx: float = 1.0
    n_sites: int = 256
    sample_interval: float = 1.0
    solver_step: float = 0.05

    name = "kpz"
    equation = "h_t = nu h_xx + (lambda/2) h_x^2 + eta, <eta eta> = 2 D delta delta"
    stochastic = True
    scored_in_law = True
    growing = True
    starts = ("stationary", "flat")
    schemes = ("strang", "euler_maruyama")
    letters = {"D": "noise", "lambda": "lam", "N": "n_sites"}
    positive = ("nu", "dx", "n_sites")
    reference_climate = Climate(mean=(0.0,), std=(float(np.sqrt((256**2 - 1) / (12 * 256))),), time_unit=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise < 0:
            raise EmubenchError(f"{self.name}: noise: {self.noise}, where 0 (none) or a number above 0 belongs")

    @property
    def grid(self) -> tuple[int, ...]:
        """(N,): the height of every site."""
        return (self.n_sites,)

    @property
    def slope_variance(self) -> float:
        """Stationary variance D/(ν dx) of the one-sided slope (h_{i+1} − h_i)/dx."""
        return self.noise / (self.nu * self.dx)

    @property
    def saturated_width_squared(self) -> float:
        """Stationary ⟨(h − h̄)²⟩ = (D/ν)(N² − 1) dx / (12 N)."""
        return self.noise / self.nu * (self.n_sites**2 - 1) * self.dx / (12 * self.n_sites)

    @property
    def stationary_velocity(self) -> float:
        """Stationary mean of dh/dt: (λ/2)(2/3) D/(ν dx), less the ring's constraint that slopes sum to zero."""
        square, product = 1 - 1 / self.n_sites, -1 / self.n_sites  # <a^2> and <ab>, in units of the slope variance
        return self.lam / 6 * (2 * square + product) * self.slope_variance

    @property
    def symbol(self) -> np.ndarray:
        """−ν (2 sin(πj/N)/dx)², the lattice Laplacian on the real Fourier modes j = 0 … N/2."""
        return -self.nu * (2 * np.sin(np.pi * np.arange(self.n_sites // 2 + 1) / self.n_sites) / self.dx) ** 2

    def growth(self, h: Tensor) -> Tensor:
        """The nonlinear tendency (λ/6)(a² + ab + b²), with a, b the slopes to either side; ``"... N"``."""
        right = (h.roll(-1, -1) - h) / self.dx
        left = right.roll(1, -1)
        return self.lam / 6 * (left**2 + left * right + right**2)

    def drift(self, h: Tensor) -> Tensor:
        """The whole deterministic tendency; ``"... N"``."""
        laplacian = (h.roll(-1, -1) - 2 * h + h.roll(1, -1)) / self.dx**2
        return self.nu * laplacian + self.growth(h)

    def step(self, step: float, scheme: str, dtype: torch.dtype, device: str | torch.device) -> Step:
        """``strang``: N(step/2) ∘ OU(step) ∘ N(step/2); ``euler_maruyama``: for comparison (biased, can blow up)."""
        intensity = 2 * self.noise / self.dx
        if scheme == "euler_maruyama":
            drift = euler(self.drift, step)
            return lambda h, xi=None: drift(h, None) + (intensity * step) ** 0.5 * given(xi)
        half = rk4(self.growth, step / 2)
        linear = ornstein_uhlenbeck(self.symbol, intensity, step, dtype, device)
        if self.lam == 0:
            return linear
        return lambda h, xi=None: half(linear(half(h, None), xi), None)

    def draw(self, rng: np.random.Generator, start: str) -> np.ndarray:
        """``stationary``: the exact stationary measure, a Brownian bridge of zero mean; ``flat``: h = 0.

        ``narrow_wedge`` (no trajectory of a data set starts there): h = −sgn(λ) s |x| with the tip at site N/2 and
        s = 5 standard deviations of the stationary slope. Its tip becomes a droplet, h ≈ v t − x²/(2λt) within
        |x| < |λ| s t, whose fluctuations are those of the largest eigenvalue of the Gaussian unitary ensemble.
        """
        if start == "flat":
            return np.zeros(self.n_sites)
        if start == "narrow_wedge":
            distance = np.abs(np.arange(self.n_sites) - self.n_sites // 2) * self.dx
            return -np.copysign(WEDGE_SLOPE, self.lam) * np.sqrt(self.slope_variance) * distance
        if start != "stationary":
            raise EmubenchError(f"kpz: unknown start {start!r}: known are {', '.join(self.starts)}, narrow_wedge")
        slopes = rng.standard_normal(self.n_sites)
        heights = np.cumsum(slopes - slopes.mean()) * np.sqrt(self.slope_variance) * self.dx
        return heights - heights.mean()

    def symmetries(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Translation, reflection x → −x, and a shift of all heights."""
        return {
            "translation by 7 sites": lambda h: h.roll(7, -1),
            "reflection": lambda h: h.flip(-1),
            "shift of height": lambda h: h + 5.0,
        }

    def fault(self, samples: np.ndarray) -> str | None:
        """A slope above 50 (the stationary ones are of order 1) aborts: the run is never redrawn."""
        steepest = MAX_SLOPE * max(1.0, np.sqrt(self.slope_variance))
        with np.errstate(invalid="ignore", over="ignore"):  # the slopes of a run that blew up
            slopes = np.diff(samples, axis=-1, append=samples[..., :1]) / self.dx
        if (np.abs(slopes) <= steepest).all():  # false for NaN
            return None
        return (
            f"a slope exceeds {steepest:g}: lambda {self.lam} is too large for dx {self.dx} and step {self.solver_step}"
        )

    def exact_ratios(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """The variance of the slopes."""
        slopes = np.diff(samples, axis=-1, append=samples[..., :1]) / self.dx
        return {"slope variance": (slopes**2).mean((1, 2)) / (self.slope_variance * (1 - 1 / self.n_sites))}

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Exact properties of the stationary measure, which the lattice shares."""
        exact = "exact: independent Gaussian slopes"
        return (
            Fact("slope variance / (D / (nu dx))", 1 - 1 / self.n_sites, 0.003, exact, _slope_variance),
            Fact("slope correlation of neighbours", -1 / (self.n_sites - 1), 0.0023, exact, _slope_correlation),
            Fact("slope excess kurtosis", 0.0, 0.006, exact, _slope_kurtosis),
            Fact("velocity", self.stationary_velocity, 0.0035, "exact: mean of (lambda/6)(a^2 + ab + b^2)", _velocity),
        )


def _slopes(system: KPZ, h: Tensor) -> Tensor:
    return (h.roll(-1, -1) - h) / system.dx


def _slope_variance(system: KPZ, h: Tensor) -> Tensor:
    return (_slopes(system, h) ** 2).mean() / system.slope_variance


def _slope_correlation(system: KPZ, h: Tensor) -> Tensor:
    slopes = _slopes(system, h)
    return (slopes * slopes.roll(1, -1)).mean() / (slopes**2).mean()


def _slope_kurtosis(system: KPZ, h: Tensor) -> Tensor:
    slopes = _slopes(system, h)
    return (slopes**4).mean() / (slopes**2).mean() ** 2 - 3


def _velocity(system: KPZ, h: Tensor) -> Tensor:
    height = h.mean(-1)
    return (height[:, -1] - height[:, 0]).mean() / ((h.shape[1] - 1) * system.sample_interval)
