"""Batches cut into blocks of one vector's lanes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emubench.kernels._simd import LANES, aligned

Advance = Callable[[np.ndarray, np.ndarray, list[int]], None]
"""``(state, samples, trajectories)``: fill ``samples``, leave the last one in ``state``; both flat, lanes innermost."""

CHUNK = 2**18
"""Numbers that are buffered between transpositions: two megabytes."""


def rollout_blocks(state: np.ndarray, n_samples: int, advance: Advance) -> np.ndarray:
    """Run ``advance`` over a batch ``"B *S"``, block by block and a few samples at a time; return ``"B T *S"``.

    ``trajectories`` are the indices of a block's trajectories; further lanes repeat the first one.
    """
    n_batch, shape = len(state), state.shape[1:]
    n_sites = int(np.prod(shape))
    samples = np.empty((n_batch, n_samples, n_sites))
    per_chunk = max(1, CHUNK // (n_sites * LANES))
    current = aligned(n_sites)
    buffer = aligned(n_sites * min(per_chunk, max(n_samples, 1)))
    for start in range(0, n_batch, LANES):
        trajectories = list(range(start, min(start + LANES, n_batch)))
        n_lanes = len(trajectories)
        padded = trajectories + [start] * (LANES - n_lanes)
        current.reshape(n_sites, LANES)[:] = state.reshape(n_batch, n_sites)[padded].T
        for t in range(0, n_samples, per_chunk):
            n = min(per_chunk, n_samples - t)
            filled = buffer[: n * n_sites * LANES]
            advance(current, filled, trajectories)
            done = filled.reshape(n, n_sites, LANES)[:, :, :n_lanes]
            samples[start : start + n_lanes, t : t + n] = done.transpose(2, 0, 1)
    return samples.reshape(n_batch, n_samples, *shape)
