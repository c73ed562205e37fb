"""Systems as somebody might add them, each one file's content: what the package's own systems are not."""

NOISY_RING = '''
"""Lorenz-96 driven by white noise: scored in law, though nothing grows."""

from dataclasses import dataclass

from emubench.dynamics.schemes import rk4
from emubench.dynamics.system import Climate, Fact, System


@dataclass(frozen=True, kw_only=True)
class NoisyRing(System):
    """dx = (x_(i+1) - x_(i-2)) x_(i-1) - x_i + F, and noise of strength s."""

    n_sites: int = 12
    forcing: float = 8.0
    strength: float = 2.0
    sample_interval: float = 0.1
    solver_step: float = 0.01

    name = "noisy_ring"
    equation = "dx_i = ((x_(i+1) - x_(i-2)) x_(i-1) - x_i + F) dt + s dW_i"
    stochastic = True
    scored_in_law = True
    schemes = ("rk4",)
    reference_climate = Climate(mean=(2.414,), std=(3.706,), time_unit=0.1)

    @property
    def grid(self):
        return (self.n_sites,)

    @property
    def spin_up_samples(self):
        return 100

    def rhs(self, state):
        return (state.roll(-1, -1) - state.roll(2, -1)) * state.roll(1, -1) - state + self.forcing

    def step(self, step, scheme, dtype, device):
        drift = rk4(self.rhs, step)

        def advance(state, noise=None):
            if noise is None:
                raise ValueError("a stochastic step needs noise")
            return drift(state) + self.strength * step**0.5 * noise

        return advance

    def draw(self, rng, start):
        return 2.4 + 3.7 * rng.standard_normal(self.n_sites)

    def symmetries(self):
        return {"translation by 5 sites": lambda u: u.roll(5, -1)}

    @property
    def facts(self):
        balance = lambda s, u: (u**2).mean() / (s.forcing * u.mean() + s.strength**2 / 2)
        return (Fact("<x^2> / (F <x> + s^2 / 2)", 1.0, 0.02, "exact: energy balance", balance),)
'''

PLANE = '''
"""Lorenz-96 in two dimensions: a deterministic field on a periodic plane."""

from dataclasses import dataclass

from emubench.dynamics.schemes import EXPLICIT
from emubench.dynamics.system import Climate, Fact, System


@dataclass(frozen=True, kw_only=True)
class Plane(System):
    """Advection along x and along y, damping and forcing."""

    n_rows: int = 6
    n_columns: int = 8
    forcing: float = 8.0
    sample_interval: float = 0.05
    solver_step: float = 0.01

    name = "plane"
    equation = "u_ij' = (u_(i,j+1) - u_(i,j-2)) u_(i,j-1) + (u_(i+1,j) - u_(i-2,j)) u_(i-1,j) - u_ij + F"
    schemes = ("rk4", "heun")
    reference_climate = Climate(mean=(1.666,), std=(3.225,), time_unit=0.345, agreement_time=12.9)

    @property
    def grid(self):
        return (self.n_rows, self.n_columns)

    def rhs(self, state):
        along = [(state.roll(-1, d) - state.roll(2, d)) * state.roll(1, d) for d in (-1, -2)]
        return sum(along) - state + self.forcing

    def step(self, step, scheme, dtype, device):
        return EXPLICIT[scheme](self.rhs, step)

    def draw(self, rng, start):
        return 1.5 + 2.5 * rng.standard_normal(self.shape)

    def symmetries(self):
        return {"translation by 1 row and 3 columns": lambda u: u.roll((1, 3), (-2, -1))}

    @property
    def facts(self):
        balance = lambda s, u: (u**2).mean() / (s.forcing * u.mean())
        return (Fact("<u^2> / (F <u>)", 1.0, 0.01, "exact: energy balance", balance),)
'''
