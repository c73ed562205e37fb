"""Many stationary cases of a growing interface, for its width and its slopes, whose law is exact.

64 climate cases, half of them flat, know the saturated width to 5 %; 512 stationary ones at four leads to 1.4 %. Their
contexts are made when they are needed and stored nowhere: case i depends on (seed, task, i) alone, where the seed is
what the dataset's header shows (of a sealed season the commitment, for there is no answer to hide). The true state at
the leads scored is an independent draw from the exact stationary measure.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import stream
from emubench.data.tasks import WIDTH_LEADS, Task
from emubench.dynamics.simulate import simulate

SPLIT, START = "widths", "stationary"


def contexts(task: Task, seed: str) -> Float[Tensor, "B T *S"]:
    """Observed contexts of stationary trajectories; ``seed`` is that of the task's dataset, as its header shows it."""
    system, rows = task.system, range(task.cases(SPLIT))
    rngs = [stream(0, SPLIT, seed, system.name, i) for i in rows]
    first = np.stack([system.draw(rng, START) for rng in rngs])
    states = np.concatenate([first[:, None], simulate(system, first, task.context - 1, rngs)], axis=1)
    observed = [task.observation(system, states[i], stream(0, SPLIT, seed, task.name, i)) for i in rows]
    return torch.from_numpy(np.stack(observed))


def truth(task: Task, seed: str) -> Float[Tensor, "B T *S"]:
    """Scored components of independent draws from the stationary measure, at the leads asked for."""
    rngs = [stream(0, f"{SPLIT} truth", seed, task.system.name, i) for i in range(task.cases(SPLIT))]
    states = np.stack([np.stack([task.system.draw(rng, START) for _ in WIDTH_LEADS]) for rng in rngs])
    return torch.from_numpy(np.ascontiguousarray(task.observation.select(states)))
