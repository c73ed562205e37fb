"""Batches cut into blocks of trajectories that a kernel advances together."""

from collections.abc import Callable

import numpy as np

from emubench.dynamics.kernels._simd import aligned, lanes

Advance = Callable[[np.ndarray, np.ndarray, range], None]
"""``(state, samples, trajectories)``: fill ``samples``, leave the last one in ``state``; both flat, lanes innermost."""

CHUNK = 2**17
"""Numbers that are buffered between transpositions: a megabyte of doubles."""


def precision(state: np.ndarray) -> np.dtype:
    """Precision in which a batch is advanced: that of float32 states, else double."""
    return state.dtype if state.dtype == np.float32 else np.dtype(np.float64)


def rollout_blocks(state: np.ndarray, n_samples: int, advance: Advance, n_vectors: int = 1) -> np.ndarray:
    """Run ``advance`` over a batch ``"B *S"``, block by block and a few samples at a time; return ``"B T *S"``.

    A block is ``n_vectors`` vectors of trajectories; ``trajectories`` are its indices, and further lanes repeat the
    first one. Many short blocks are transposed together. A float32 batch is advanced in single precision.
    """
    n_batch, shape, dtype = len(state), state.shape[1:], precision(state)
    n_sites, width = int(np.prod(shape)), n_vectors * lanes(dtype)
    states, samples = state.reshape(n_batch, n_sites), np.empty((n_batch, n_samples, n_sites), dtype)
    per_chunk = min(max(1, CHUNK // (n_sites * width)), max(n_samples, 1))
    per_group = max(1, min(CHUNK // (n_sites * width * per_chunk), -(-n_batch // width)))
    current = aligned(per_group * n_sites * n_vectors, dtype).reshape(per_group, n_sites * width)
    buffer = aligned(per_group * per_chunk * n_sites * n_vectors, dtype).reshape(per_group, per_chunk * n_sites * width)
    for start in range(0, n_batch, per_group * width):
        stop = min(start + per_group * width, n_batch)
        firsts = range(start, stop, width)
        members = np.arange(start, firsts[-1] + width)
        members = np.where(members < stop, members, firsts[-1])
        n = len(firsts)
        current[:n].reshape(n, n_sites, width)[:] = states[members].reshape(n, width, n_sites).transpose(0, 2, 1)
        for t in range(0, n_samples, per_chunk):
            length = min(per_chunk, n_samples - t)
            size = length * n_sites * width
            for row, filled, first in zip(current, buffer, firsts, strict=False):
                advance(row, filled[:size], range(first, min(first + width, stop)))
            done = buffer[:n, :size].reshape(n, length, n_sites, width).transpose(0, 3, 1, 2)
            samples[start:stop, t : t + length] = done.reshape(n * width, length, n_sites)[: stop - start]
    return samples.reshape(n_batch, n_samples, *shape)
