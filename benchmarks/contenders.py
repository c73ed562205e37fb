"""What a user would otherwise pick, each at its best: compiled, batched, double precision, compilation not counted.

Every function returns a callable without arguments that does all the work and waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rollout = Callable[[], np.ndarray]


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def _scan(step: Callable, state, n_steps: int) -> Callable:
    jax = _jax()
    many = jax.jit(lambda u: jax.lax.scan(lambda v, _: (step(v), None), u, None, length=n_steps)[0])
    return lambda: jax.block_until_ready(many(state))


def jax_lorenz63(state: np.ndarray, n_steps: int, h: float) -> Rollout:
    """RK4 on a tuple (x, y, z) of arrays, the fastest of the layouts tried ("3 B" and "B 3" arrays are slower)."""
    jax = _jax()

    def rhs(u):
        x, y, z = u
        return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8 / 3 * z

    def along(u, a, k):
        return tuple(v + a * w for v, w in zip(u, k, strict=True))

    def step(u):
        k1 = rhs(u)
        k2 = rhs(along(u, h / 2, k1))
        k3 = rhs(along(u, h / 2, k2))
        k4 = rhs(along(u, h, k3))
        return along(u, h / 6, [a + 2 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)])

    run = _scan(step, tuple(jax.numpy.asarray(v) for v in state.T), n_steps)
    return lambda: np.stack(run(), axis=-1)


def jax_lorenz96(state: np.ndarray, n_steps: int, h: float) -> Rollout:
    """RK4 on a "B N" array, the faster of the two layouts."""
    jnp = _jax().numpy

    def rhs(u):
        return (jnp.roll(u, -1, -1) - jnp.roll(u, 2, -1)) * jnp.roll(u, 1, -1) - u + 8.0

    def step(u):
        k1 = rhs(u)
        k2 = rhs(u + h / 2 * k1)
        k3 = rhs(u + h / 2 * k2)
        k4 = rhs(u + h * k3)
        return u + h / 6 * (k1 + 2 * (k2 + k3) + k4)

    run = _scan(step, jnp.asarray(state), n_steps)
    return lambda: np.asarray(run())


def exponax_kuramoto_sivashinsky(state: np.ndarray, n_steps: int, h: float, length: float) -> Rollout:
    """Exponax's own stepper at order 4 (ETDRK4, 2/3 dealiasing), vmapped over the batch."""
    jax = _jax()
    import exponax

    stepper = exponax.stepper.KuramotoSivashinskyConservative(1, length, state.shape[1], h, order=4)
    run = _scan(jax.vmap(stepper), jax.numpy.asarray(state[:, None]), n_steps)
    return lambda: np.asarray(run())[:, 0]


def pde_kpz(
    n_sites: int, n_steps: int, h: float, *, nu: float = 1.0, lam: float = 3.0, noise: float = 2.0, start=0.0
) -> Rollout:
    """py-pde's KPZInterfacePDE, explicit Euler–Maruyama, numba backend; one trajectory, as it has no batches.

    It takes the central difference for h_x, which is cheaper than the kernel's Lam–Shin gradient (and wrong at λ = 3).
    """
    import pde

    grid = pde.CartesianGrid([[0, n_sites]], n_sites, periodic=True)
    equation = pde.KPZInterfacePDE(nu=nu, lmbda=lam, noise=noise, bc="periodic")
    field = pde.ScalarField(grid, start)
    advance = pde.EulerSolver(equation, backend="numba").make_stepper(field, h)

    def run() -> np.ndarray:
        advance(field, 0.0, n_steps * h)
        return field.data

    return run


def dysts_lorenz63(state: np.ndarray, duration: float) -> Rollout:
    """Dysts' Lorenz, one trajectory after the other by SciPy's DOP853 (the fastest that it offers) at its tolerance."""
    import dysts.flows

    def run() -> np.ndarray:
        ends = []
        for start in state:
            model = dysts.flows.Lorenz()
            model.dt = duration
            ends.append(model.make_trajectory(2, init_cond=start, resample=False, method="DOP853")[-1])
        return np.stack(ends)

    return run
