"""Systems with one deliberately wrong term: their facts have to fail.

No kernel, which would be right, serves a subclass.
"""

from __future__ import annotations

from emubench.systems.kpz import KPZ
from emubench.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from emubench.systems.lorenz63 import Lorenz63
from emubench.systems.lorenz96 import Lorenz96


class DampedLorenz63(Lorenz63):
    """β z is 5 % too strong, in the tendency only."""

    name = "lorenz63_damped"

    def rhs(self, state):
        return super().rhs(state) - 0.05 * self.beta * state * state.new_tensor([0.0, 0.0, 1.0])


class RelaxedLorenz63(Lorenz63):
    """y is damped 5 % too strongly."""

    name = "lorenz63_relaxed"

    def rhs(self, state):
        return super().rhs(state) - 0.05 * state * state.new_tensor([0.0, 1.0, 0.0])


class CoupledLorenz63(Lorenz63):
    """σ is 5 % too large, in the tendency only."""

    name = "lorenz63_coupled"

    def rhs(self, state):
        return super().rhs(state) * state.new_tensor([1.05, 1.0, 1.0])


class DampedLorenz96(Lorenz96):
    """The damping is 5 % too strong."""

    name = "lorenz96_damped"

    def rhs(self, state):
        return super().rhs(state) - 0.05 * state


class FastLorenz96(Lorenz96):
    """The advection is 5 % too strong, which keeps the energy balance."""

    name = "lorenz96_fast"

    def rhs(self, state):
        damped = self.forcing - state
        return 1.05 * (super().rhs(state) - damped) + damped


class ViscousKS(KuramotoSivashinsky):
    """The fourth derivative is 10 % too strong."""

    name = "kuramoto_sivashinsky_viscous"

    @property
    def symbol(self):
        return self.wavenumbers**2 - 1.1 * self.wavenumbers**4


class FastKS(KuramotoSivashinsky):
    """The advection is 5 % too strong."""

    name = "kuramoto_sivashinsky_fast"

    def nonlinear(self, dtype, device):
        right = super().nonlinear(dtype, device)
        return lambda v: 1.05 * right(v)


class CentralKPZ(KPZ):
    """(h_x)² by central differences: neither the slope variance nor an exponent shows it."""

    name = "kpz_central"

    def growth(self, h):
        return self.lam / 2 * ((h.roll(-1, -1) - h.roll(1, -1)) / (2 * self.dx)) ** 2


class NoisyKPZ(KPZ):
    """The noise is 5 % too intense, in the step only."""

    name = "kpz_noisy"

    def step(self, step, scheme, dtype, device):
        return KPZ(lam=self.lam, noise=1.05 * self.noise).step(step, scheme, dtype, device)


class ViscousKPZ(KPZ):
    """The surface tension is 5 % too strong, in the step only."""

    name = "kpz_viscous"

    @property
    def symbol(self):
        return 1.05 * super().symbol
