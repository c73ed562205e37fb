"""One-point values and space-time patches of a run, and their 1-Wasserstein distances from the pooled truth's."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import stream
from emubench.data.tasks import Task

N_PROJECTIONS = 32
N_TIMES, N_SITES = 3, 3
"""Consecutive samples, and on grids neighbouring sites along each dimension, of a patch."""
CASE_FEATURES, POOL_FEATURES = 2**14, 2**17
"""Patches that are looked at, of a case and of the pool: on grids every site, but only every so many samples."""
DAMPING = 0.1
"""Combinations of a patch's values that vary less than this, in σ, are not blown up by whitening."""
Map = Callable[[Tensor], Tensor]


def one_point(values: Float[Tensor, "B T *S"], grid: tuple[int, ...]) -> Float[Tensor, "C n"]:
    """All values: per component, or of all sites of a grid together."""
    return values.reshape(1, -1) if grid else values.reshape(-1, values.shape[-1]).T


def patches(values: Float[Tensor, "B T *S"], grid: tuple[int, ...], n_patches: int) -> Float[Tensor, "F n"]:
    """Values at 3 consecutive samples and, on a grid, 3 neighbouring sites along each of its d dimensions.

    F is 3 · 3^d, off grids 3 per component. On a grid all sites count, so that a patch's law is the same for a
    translated field; about ``n_patches`` patches are taken, evenly in time.
    """
    n_times = values.shape[1] - N_TIMES + 1
    n_starts = len(values) * n_times * math.prod(grid)
    first = torch.arange(0, n_times, max(1, -(-n_starts // n_patches)), device=values.device)
    shifts, axes = itertools.product(range(N_SITES), repeat=len(grid)), tuple(range(-len(grid), 0))
    pieces = [
        values[:, first + t].roll([-x for x in shift], axes) if grid else values[:, first + t]
        for t, shift in itertools.product(range(N_TIMES), shifts)
    ]
    return torch.cat([one_point(piece, grid) for piece in pieces])


def in_order(values: Float[Tensor, "C n"]) -> Float[Tensor, "C n"]:
    """Each row sorted: on a CPU by numpy, which is ten times as fast as torch at it."""
    return torch.from_numpy(np.sort(values.numpy(), axis=1)) if values.device.type == "cpu" else values.sort(1).values


def directions(n_features: int) -> Float[Tensor, "P F"]:
    """Fixed unit vectors, evenly spread in law, drawn once and for all."""
    drawn = stream(0, "projections", n_features).standard_normal((N_PROJECTIONS, n_features))
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def whitening(features: Float[Tensor, "F n"], variance: float) -> Float[Tensor, "F F"]:
    """(C + (0.1 σ)²)^(−1/2) with the features' covariance C and σ² = ``variance``."""
    eye = torch.eye(len(features), device=features.device)
    values, vectors = torch.linalg.eigh(torch.cov(features) + DAMPING**2 * variance * eye)
    return (vectors * values.rsqrt()) @ vectors.T


def wasserstein(ordered: Float[Tensor, "C n"], pool: Float[Tensor, "C m"]) -> Float[Tensor, " C"]:
    """1-Wasserstein distance of each row from the pool's, both in order: mean |difference of quantiles|."""
    level = (torch.arange(ordered.shape[1], dtype=torch.float64, device=ordered.device) + 0.5) / ordered.shape[1]
    return (ordered - pool[:, (level * pool.shape[1]).long()]).abs().mean(1)


def scored_symmetries(task: Task) -> list[Map]:
    """The system's symmetries as maps of the scored components ``"... *S"``; those that need hidden ones left out."""
    full = task.system.shape
    kept = None if task.observation.components is None else list(task.observation.components)

    def restricted(symmetry: Map) -> Map:
        def apply(values: Tensor) -> Tensor:
            if kept is None:
                return symmetry(values)
            state = values.new_full((*values.shape[:-1], *full), float("nan"))
            state[..., kept] = values
            return symmetry(state)[..., kept]

        return apply

    probe = torch.ones(task.shape, dtype=torch.float64)
    return [m for m in map(restricted, task.system.symmetries().values()) if torch.isfinite(m(probe)).all()]
