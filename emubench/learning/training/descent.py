"""What every training loop shares: descents, their best weights, divergence. Loops themselves stay in baselines."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.core.hardware import sent
from emubench.learning.training.checkpoint import Checkpoint, adam_memory, named, recall_adam
from emubench.learning.training.logs import Log


def check_loss(loss: Tensor, step: int, learning_rate: float | None, checkpoint: Checkpoint | None = None) -> float:
    """The loss as a number; one that is not finite stops the run, and the last good ``checkpoint`` is named.

    Without a ``learning_rate`` it is L-BFGS that diverged.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        kept = checkpoint.last_good() if checkpoint else ""
        where, advice = f"iteration {step} of L-BFGS", "--set polish=0 leaves it out"
        if learning_rate is not None:
            where, advice = f"step {step} (learning rate {learning_rate:.3g})", "lower --set learning_rate"
        last = kept or "nothing is kept before the first look at the validation data"
        raise EmubenchError(f"training diverged at {where}: {advice} ({last})")
    return value


def drawn(pool: Float[Tensor, "W L *S"], size: int, generator: torch.Generator) -> Float[Tensor, "B L *S"]:
    """``size`` windows of the pool, with replacement: the host draws, so that a seed gives the same on any device."""
    return pool[sent(torch.randint(len(pool), (size,), generator=generator), pool.device)]


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


class Best:
    """The state of a module that had the least error; at first the one that it has, with the error infinite.

    >>> layer = nn.Linear(1, 1)
    >>> best = Best(layer)
    >>> for value, error in ((1.0, 3.0), (2.0, 0.5), (3.0, float("nan"))):
    ...     _ = nn.init.constant_(layer.bias, value)
    ...     best.keep(error)
    >>> best.restore()
    >>> layer.bias.item(), best.error
    (2.0, 0.5)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.state, self.error = module, copy_state(module), math.inf

    def keep(self, error: float) -> None:
        """Keep the present state if its ``error`` is less than that of the best; NaN never is."""
        if error < self.error:
            self.state, self.error = copy_state(self.module), error

    def restore(self) -> None:
        """Give the module its best state."""
        self.module.load_state_dict(self.state)


class Rival(Protocol):
    """What a loop trains beside its module, such as an adversary: it keeps and recalls its own state."""

    def memory(self) -> dict[str, Tensor]:
        """The weights of the rival and its optimiser's memory."""
        ...

    def recall(self, checkpoint: Checkpoint) -> None:
        """Set them back to what the checkpoint holds."""


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

    Given the ``generator`` that the loop draws from, an interrupted descent goes on from its last look, to the same
    weights to the last bit, if the loop has no other memory than that of its ``rival``.
    """

    def __init__(
        self,
        module: nn.Module,
        budget: Budget,
        log: Log,
        validation: Callable[[], Tensor],
        generator: torch.Generator | None = None,
        rival: Rival | None = None,
    ) -> None:
        self.module, self.budget, self.log, self.validation, self.rival = module, budget, log, validation, rival
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=budget.learning_rate)
        self.schedule = cosine(self.optimizer, budget.steps)
        self.averages = [p.detach().clone() for p in self.parameters]
        self.best, self.step, self.loss = Best(module), 0, math.nan
        self._unchecked: list[tuple[Tensor, int, float]] = []
        self.generator, self.checkpoint = generator, log.stage()

    def __iter__(self) -> Iterator[int]:
        every = max(1, self.budget.steps // self.budget.checks)
        self._resume()
        for step in range(self.step + 1, self.budget.steps + 1):
            self.step = step
            yield step
            due = step % every == 0 or step == self.budget.steps
            self._check_losses(due)
            if due and math.isfinite(self._check()):
                self._keep()
        if not math.isfinite(self.best.error):
            raise EmubenchError("training: no look at the validation data was finite: lower --set learning_rate")
        self.best.restore()

    def __call__(self, loss: Tensor) -> None:
        """One optimiser step down ``loss``."""
        self._unchecked.append((loss.detach(), self.step, self.optimizer.param_groups[0]["lr"]))
        self._check_losses(loss.device.type == "cpu")
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.budget.clip)
        self.optimizer.step()
        self.schedule.step()
        decay = min(self.budget.average, (1 + self.step) / (10 + self.step))
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    def _check_losses(self, now: bool) -> None:
        """Stop at the first loss that was not finite; not on a CPU they are looked at together, for it takes a wait."""
        if now and self._unchecked:
            values = torch.stack([loss for loss, _, _ in self._unchecked]).cpu()
            for value, (_, step, rate) in zip(values, self._unchecked, strict=True):
                self.loss = check_loss(value, step, rate, self.checkpoint)
            self._unchecked = []

    @torch.no_grad()
    def _check(self) -> float:
        """Look at the validation data with the averaged weights; keep them if they are the best so far."""
        current = [p.detach().clone() for p in self.parameters]
        self._set(self.averages)
        self.module.eval()
        value = float(self.validation())
        self.best.keep(value)
        self._set(current)
        self.module.train()
        self.log(self.step, self.budget.steps, loss=self.loss, validation=value)
        return value

    def _set(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def _keep(self) -> None:
        if self.generator is None:
            return
        tensors = named("model", self.module.state_dict()) | named("best", self.best.state)
        tensors |= {"random.own": self.generator.get_state(), "random.shared": torch.get_rng_state()}
        tensors |= named("average", {str(i): average for i, average in enumerate(self.averages)})
        tensors |= adam_memory(self.optimizer, "adam") | (self.rival.memory() if self.rival else {})
        state = {"step": self.step, "loss": self.loss, "best_loss": self.best.error}
        self.log.keep(self.checkpoint, tensors, **state)

    def _resume(self) -> None:
        state = self.checkpoint.load() if self.generator is not None else None
        if state is None or self.generator is None:
            return
        take, own = self.checkpoint.take, self.module.state_dict()
        self.module.load_state_dict(take("model", own))
        self.best.state, self.best.error = take("best", own), state.best_loss
        self.step, self.loss = state.step, state.loss
        averages = take("average", {str(i): p for i, p in enumerate(self.parameters)})
        self.averages = [averages[str(i)].to(p.device) for i, p in enumerate(self.parameters)]
        recall_adam(self.optimizer, self.checkpoint, "adam")
        if self.rival:
            self.rival.recall(self.checkpoint)
        self.schedule.last_epoch = self.step
        self.optimizer.param_groups[0]["lr"] = self.budget.learning_rate * self.schedule.lr_lambdas[0](self.step)
        states = take("random", {"own": self.generator.get_state(), "shared": torch.get_rng_state()})
        self.generator.set_state(states["own"])
        torch.set_rng_state(states["shared"])
        self.log.resume(state)
