"""The truth, trajectory by trajectory: blocks of 16 lanes, simulated a stretch of time after another."""

from collections.abc import Iterator

import numpy as np

from emubench.core.random import stream
from emubench.dynamics.simulate import SimulationError, simulate
from emubench.dynamics.system import System

LANES = 16
"""Trajectories that are simulated together, always: a block that needs fewer is padded, so that bytes stay the same."""
STRETCH = 2**18
"""Numbers of one trajectory that are held at a time: 32 MiB per block."""
FLAT_BLANK = 56
"""Unobserved samples at the start of a flat case's context: h = 0 falls on sample 56 of 64."""


def starts_of(system: System, rows: range) -> list[str]:
    """The kind of start of each trajectory."""
    return [system.starts[i % len(system.starts)] for i in rows]


def blank_samples(system: System, split: str, rows: range) -> list[int]:
    """How many NaN samples come before each trajectory: a flat interface has no past."""
    is_case = split in ("test", "climate")
    return [FLAT_BLANK if is_case and start == "flat" else 0 for start in starts_of(system, rows)]


def stretches(
    system: System, seed: int, split: str, block: int, length: int, n_blocks: int = 1, device: str = "cpu"
) -> Iterator[np.ndarray]:
    """Trajectories from ``16 block`` on, 16 per block, from sample 0 on, ``"16n t *S"`` at a time, ``length`` in all.

    Number i depends on (seed, system, split, i) alone. On another ``device`` the reference integrators do the work,
    from the same draws: see :func:`emubench.dynamics.simulate.simulate`.
    """
    rows = range(LANES * block, LANES * (block + n_blocks))
    rngs = [stream(seed, system.name, split, i) for i in rows]
    state = np.stack([system.draw(rng, start) for rng, start in zip(rngs, starts_of(system, rows), strict=True)])
    at_once, begun, elapsed = min(max(64, STRETCH // state[0].size // n_blocks), 2**13), 0, 0
    try:
        if system.spin_up_samples:
            state = simulate(system, state, system.spin_up_samples, rngs, device=device)[:, -1]
            elapsed = system.spin_up_samples
        while begun < length:
            n = min(at_once, length - begun)
            following = simulate(system, state, n if begun else n - 1, rngs, device=device)
            samples = following if begun else np.concatenate([state[:, None], following], axis=1)
            elapsed += following.shape[1]
            begun += n
            state = samples[:, -1].copy()
            yield samples
    except SimulationError as e:  # named as a user counts: within the split, and from the draw on
        time = elapsed * system.sample_interval + e.time
        raise SimulationError(e.system, LANES * block + e.trajectory, time, e.cause, split) from None


def simulate_block(system: System, seed: int, split: str, block: int, length: int) -> np.ndarray:
    """The whole of :func:`stretches`, as stored: ``"16 T *S"``, flat cases with their blank past."""
    samples = np.concatenate(list(stretches(system, seed, split, block, length)), axis=1)
    for i, blank in enumerate(blank_samples(system, split, range(LANES * block, LANES * (block + 1)))):
        if blank:
            samples[i, blank:] = samples[i, : length - blank].copy()
            samples[i, :blank] = np.nan
    return samples
