"""What every training loop shares: gaps, logs, divergence. The loops themselves stay in the baselines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

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


class Budget(Protocol):
    """What :class:`Descent` reads of a configuration."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def average(self) -> float: ...
    @property
    def checks(self) -> int: ...


class Descent:
    """Adam down a half cosine with clipped gradients and averaged weights; the best of them by ``validation`` stay.

    ``for step in descent: descent(loss)`` takes ``budget.steps`` optimiser steps; a loop that ends loads the weights of
    the best of ``budget.checks`` looks at ``validation()``. With ``budget.average`` these are exponential averages,
    whose decay rises from 0.1 with (1 + step)/(10 + step), so that the first weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, budget: Budget, log: Log, validation: Callable[[], Tensor]) -> None:
        self.module, self.budget, self.log, self.validation = module, budget, log, validation
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=budget.learning_rate)
        self.schedule = cosine(self.optimizer, budget.steps)
        self.averages = [p.detach().clone() for p in self.parameters]
        self.best, self.best_loss, self.step, self.loss = copy_state(module), math.inf, 0, math.nan

    def __iter__(self) -> Iterator[int]:
        every = max(1, self.budget.steps // self.budget.checks)
        for step in range(1, self.budget.steps + 1):
            self.step = step
            yield step
            if step % every == 0 or step == self.budget.steps:
                self._check()
        self.module.load_state_dict(self.best)

    def __call__(self, loss: Tensor) -> None:
        """One optimiser step down ``loss``."""
        self.loss = check_loss(loss, self.step, self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.budget.clip)
        self.optimizer.step()
        self.schedule.step()
        decay = min(self.budget.average, (1 + self.step) / (10 + self.step))
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def _check(self) -> None:
        """Look at the validation data with the averaged weights; keep them if they are the best so far."""
        current = [p.detach().clone() for p in self.parameters]
        self._set(self.averages)
        self.module.eval()
        value = float(self.validation())
        if value < self.best_loss:
            self.best, self.best_loss = copy_state(self.module), value
        self._set(current)
        self.module.train()
        self.log(self.step, self.budget.steps, loss=self.loss, validation=value)

    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def polish(
    module: nn.Module, loss: Callable[[], Tensor], validation: Callable[[], Tensor], iterations: int, log: Log
) -> None:
    """Finish by ``iterations`` of L-BFGS (Liu & Nocedal 1989, doi:10.1007/BF01589116); the best weights stay.

    For a ``loss`` that is the same function at every call, of data without noise: where stochastic steps of Adam stall
    for want of curvature, it goes on. Looks at ``validation()`` every 50 iterations.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    scale = 1 / max(float(loss().detach()), 1e-30)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=50, history_size=50, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = scale * loss()
        value.backward()
        return value

    def look() -> float:
        module.eval()
        with torch.no_grad():
            value = float(validation())
        module.train()
        return value

    best, best_loss = copy_state(module), look()
    for done in range(50, iterations + 1, 50):
        value = check_loss(torch.as_tensor(optimizer.step(closure)), done, 1.0) / scale
        if (checked := look()) < best_loss:
            best, best_loss = copy_state(module), checked
        log(done, iterations, loss=value, validation=checked)
    module.load_state_dict(best)
