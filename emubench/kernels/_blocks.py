"""Batches cut into blocks of trajectories that a kernel advances together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emubench.kernels._simd import LANES, aligned

Advance = Callable[[np.ndarray, np.ndarray, list[int]], None]
"""``(state, samples, trajectories)``: fill ``samples``, leave the last one in ``state``; both flat, lanes innermost."""

CHUNK = 2**17
"""Numbers that are buffered between transpositions: one megabyte."""


def rollout_blocks(state: np.ndarray, n_samples: int, advance: Advance, n_vectors: int = 1) -> np.ndarray:
    """Run ``advance`` over a batch ``"B *S"``, block by block and a few samples at a time; return ``"B T *S"``.

    A block is ``n_vectors`` vectors of trajectories; ``trajectories`` are its indices, and further lanes repeat the
    first one.
    """
    n_batch, shape = len(state), state.shape[1:]
    n_sites, width = int(np.prod(shape)), n_vectors * LANES
    states, samples = state.reshape(n_batch, n_sites), np.empty((n_batch, n_samples, n_sites))
    per_chunk = min(max(1, CHUNK // (n_sites * width)), max(n_samples, 1))
    current, buffer = aligned(n_sites * n_vectors), aligned(per_chunk * n_sites * n_vectors)
    for start in range(0, n_batch, width):
        trajectories = list(range(start, min(start + width, n_batch)))
        n = len(trajectories)
        lanes = current.reshape(n_sites, width)
        lanes[:, :n] = states[start : start + n].T
        lanes[:, n:] = lanes[:, :1]
        for t in range(0, n_samples, per_chunk):
            length = min(per_chunk, n_samples - t)
            filled = buffer[: length * n_sites * width]
            advance(current, filled, trajectories)
            done = filled.reshape(length, n_sites, width)[:, :, :n]
            samples[start : start + n, t : t + length] = done.transpose(2, 0, 1)
    return samples.reshape(n_batch, n_samples, *shape)
