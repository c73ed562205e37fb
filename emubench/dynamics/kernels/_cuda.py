"""The Lorenz systems by RK4 on a CUDA GPU, a whole rollout in one kernel: states stay in registers or shared memory.

Tested in numba's simulator of CUDA; what they reach on a GPU was not measured yet. Lorenz-63 has one thread per
trajectory, Lorenz-96 one per site and ``ROWS`` trajectories per block. Precision is that of the states.
"""

import functools
from collections.abc import Callable
from typing import Any

import numba
import numba.cuda
import numpy as np

from emubench.dynamics.system import System

cuda: Any = numba.cuda
"""Untyped: inside kernels its names mean other things than numba's own annotations say."""
SITES, ROWS, THREADS = 128, 4, 128


def supports(system: System) -> bool:
    """The Lorenz systems as they are in ``emubench.systems``, on at most ``SITES`` sites."""
    if type(system).__module__ != f"emubench.systems.{system.name}":
        return False
    return system.name == "lorenz63" or (system.name == "lorenz96" and 4 <= system.shape[0] <= SITES)


def rollout(system: System, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """The reference rollout up to rounding, in the precision of ``state``, float64 or float32."""
    p, n_steps, dtype = system.parameters(), system.steps_per_sample, state.dtype.type
    n_batch = len(state)
    begun = cuda.to_device(np.ascontiguousarray(state))
    samples = cuda.device_array((n_batch, n_samples, *state.shape[1:]), dtype=state.dtype)
    kernel, h = _kernel(system.name, state.dtype.name), dtype(p["solver_step"])
    if system.name == "lorenz63":
        constants = [dtype(p[name]) for name in ("sigma", "rho", "beta")]
        kernel[-(-n_batch // THREADS), THREADS](begun, samples, n_steps, h, *constants)
    else:
        blocks = (-(-n_batch // ROWS), (state.shape[1], ROWS))
        kernel[blocks](begun, samples, n_steps, h, dtype(p["forcing"]))
    return samples.copy_to_host()


@functools.cache
def _kernel(name: str, dtype: str) -> Any:
    """The kernel of a system in a precision, to which its constants are rounded."""
    constants = [np.dtype(dtype).type(v) for v in (0.5, 1 / 3, 2.0)]
    return _lorenz63(*constants) if name == "lorenz63" else _lorenz96(getattr(numba, dtype), *constants)


def _lorenz63(half: Any, third: Any, two: Any) -> Callable[..., None]:
    @cuda.jit(device=True)
    def stage(x, y, z, u, v, w, h, sigma, rho, beta):
        return x + h * sigma * (v - u), y + h * (u * (rho - w) - v), z + h * (u * v - beta * w)

    @cuda.jit
    def run(state, samples, n_steps, h, sigma, rho, beta):
        b = cuda.grid(1)
        if b < state.shape[0]:
            x, y, z = state[b, 0], state[b, 1], state[b, 2]
            for t in range(samples.shape[1]):
                for _ in range(n_steps):
                    px, py, pz = stage(x, y, z, x, y, z, half * h, sigma, rho, beta)
                    qx, qy, qz = stage(x, y, z, px, py, pz, half * h, sigma, rho, beta)
                    rx, ry, rz = stage(x, y, z, qx, qy, qz, h, sigma, rho, beta)
                    mx, my, mz = px + two * qx + rx - x, py + two * qy + ry - y, pz + two * qz + rz - z
                    sixth = half * third * h
                    x, y, z = stage(third * mx, third * my, third * mz, rx, ry, rz, sixth, sigma, rho, beta)
                samples[b, t, 0] = x
                samples[b, t, 1] = y
                samples[b, t, 2] = z

    return run


def _lorenz96(real: Any, half: Any, third: Any, two: Any) -> Callable[..., None]:
    @cuda.jit
    def run(state, samples, n_steps, h, forcing):
        u = cuda.shared.array((ROWS, SITES), real)
        i, row, n = cuda.threadIdx.x, cuda.threadIdx.y, state.shape[1]
        b = cuda.blockIdx.x * ROWS + row
        inside = b < state.shape[0]  # all threads of a block meet at every barrier
        ahead, behind, behind2 = (i + 1) % n, (i + n - 1) % n, (i + n - 2) % n
        here = state[b, i] if inside else forcing
        for t in range(samples.shape[1]):
            for _ in range(n_steps):
                start, mean, point = here, -here, here
                for k in range(4):
                    u[row, i] = point
                    cuda.syncthreads()
                    slope = (u[row, ahead] - u[row, behind2]) * u[row, behind] - point + forcing
                    cuda.syncthreads()
                    if k < 3:
                        point = start + (h if k == 2 else half * h) * slope
                        mean = mean + (two * point if k == 1 else point)
                    else:
                        here = third * mean + half * third * h * slope
            if inside:
                samples[b, t, i] = here

    return run
