"""What every training loop shares: gaps, logs, divergence. The loops themselves stay in the baselines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.errors import EmubenchError


class Log:
    """JSON lines of training figures, one object a line; ``progress(done, total)`` drives a bar."""

    def __init__(self, path: Path | None = None, progress: Callable[[int, int], None] | None = None) -> None:
        self._file = path.open("w", encoding="utf-8") if path else None
        self._progress, self._begun = progress, time.perf_counter()

    def __call__(self, step: int, total: int, **figures: float) -> None:
        """Record ``figures`` at optimiser step ``step`` of ``total``."""
        if self._file and figures:
            row = {"step": step, "seconds": round(time.perf_counter() - self._begun, 2), **figures}
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._progress:
            self._progress(step, total)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def last_observed(context: Float[Tensor, "B T *S"], fill: Tensor) -> Float[Tensor, " B *S"]:
    """The last value of every component that is not NaN; ``fill`` (``"*S"`` or ``" B *S"``) where there is none.

    >>> nan = float("nan")
    >>> last_observed(torch.tensor([[[1.0, nan], [nan, nan]]]), torch.tensor([7.0, 7.0])).tolist()
    [[1.0, 7.0]]
    """
    state = fill.expand_as(context[:, 0]).to(context.dtype).clone()
    for sample in context.unbind(1):
        state = torch.where(torch.isnan(sample), state, sample)
    return state


def ring_fill(context: Float[Tensor, "B T N"]) -> Float[Tensor, "B N"]:
    """Mean of what each case last shows, for every site: what to put where a growing height was never observed."""
    level = last_observed(context.nanmean(-1, keepdim=True), torch.zeros(1, dtype=context.dtype))
    return level.expand_as(context[:, -1])


def fill_gaps(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values with NaN set to zero, and the mask (1 = observed) of the same shape and dtype."""
    seen = ~torch.isnan(values)
    return torch.where(seen, values, 0.0), seen.to(values.dtype)


def masked_mse(prediction: Tensor, observation: Tensor) -> Tensor:
    """Mean squared difference over what is observed (NaN = not observed)."""
    values, seen = fill_gaps(observation)
    return ((prediction - values).square() * seen).sum() / seen.sum().clamp(min=1)


def check_loss(loss: Tensor, step: int, learning_rate: float) -> float:
    """The loss as a number; one that is not finite stops the run."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise EmubenchError(
            f"training diverged at step {step} (learning rate {learning_rate:.3g}): lower --set learning_rate"
        )
    return value


def cosine(optimizer: torch.optim.Optimizer, n_steps: int, rise: int = 100) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear rise over ``rise`` steps, then a half cosine down to zero at ``n_steps``."""

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def best_of(candidates: tuple[float, ...], loss: Callable[[float], float]) -> float:
    """The candidate of least ``loss`` (validation error); NaN counts as infinitely bad.

    >>> best_of((1.0, 2.0, 3.0), lambda c: (c - 2) ** 2)
    2.0
    """
    return min(candidates, key=lambda c: value if math.isfinite(value := loss(c)) else math.inf)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """A detached copy of the weights: the last good checkpoint."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}
