"""What the contracts look at: a few cases of a task, simulated when they are needed; and how a fault is raised."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import stream
from emubench.data.tasks import Task
from emubench.data.trajectories import simulate_block


def require(who: str, condition: object, message: str) -> None:
    """Raise AssertionError that names ``who`` unless the condition holds."""
    if not condition:  # not an assert statement: python -O would drop it
        raise AssertionError(f"{who}: {message}")


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the size of ``b``; infinite where either is not finite."""
    difference = float((a.double() - b.double()).abs().max() / (1 + b.double().abs().max()))
    return difference if np.isfinite(difference) else float("inf")


def trajectories(task: Task, n_samples: int, seed: int = 0) -> tuple[Float[Tensor, "16 T *S"], Tensor]:
    """Sixteen whole states along ``n_samples`` samples, and the kind of start of each.

    A case that starts flat has the blank past that it has in the split "test".
    """
    values = simulate_block(task.system, seed, "test", 0, n_samples)
    start = torch.arange(len(values)) % len(task.system.starts)
    return torch.from_numpy(values), start


def contexts(task: Task, seed: int = 0) -> Float[Tensor, "16 C *S"]:
    """Sixteen contexts as an emulator of ``task`` meets them: noisy, NaN where nothing was observed."""
    states = trajectories(task, task.context, seed)[0].numpy()
    rngs = (stream(seed, task.name, "check", i) for i in range(len(states)))
    seen = [task.observation(task.system, one, rng) for one, rng in zip(states, rngs, strict=True)]
    return torch.from_numpy(np.stack(seen))
