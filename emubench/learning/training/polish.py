"""Finishing a fit by L-BFGS, where stochastic steps stall for want of curvature."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from emubench.learning.training.checkpoint import Checkpoint, named
from emubench.learning.training.descent import Best, check_loss
from emubench.learning.training.logs import Log

WALL = 1e10
"""What a loss that is not finite counts as in a line search, relative to the first loss: it turns back."""
BLOCK = 50
"""Iterations of :class:`Polish` between two looks at the validation data."""


class Polish:
    """L-BFGS (Liu & Nocedal 1989, doi:10.1007/BF01589116) on a ``loss`` that is the same function at every call.

    For data without noise: where stochastic steps of Adam stall for want of curvature, it goes on.
    """

    def __init__(self, module: nn.Module, loss: Callable[[], Tensor], checkpoint: Checkpoint) -> None:
        self.module, self.loss, self.checkpoint = module, loss, checkpoint
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.scale = 1 / max(float(loss().detach()), 1e-30)
        self.begun, self.done = False, 0
        no_end = {"tolerance_grad": 0, "tolerance_change": 0}
        self.optimizer = torch.optim.LBFGS(
            self.parameters, max_iter=BLOCK, history_size=50, line_search_fn="strong_wolfe", **no_end
        )

    def block(self, done: int) -> float:
        """``BLOCK`` iterations; the loss before them."""
        self.begun, self.done = False, done
        return check_loss(torch.as_tensor(self.optimizer.step(self._closure)), done, None, self.checkpoint) / self.scale

    def _closure(self) -> Tensor:
        """Loss and gradient; where a line search has gone so far that they are not finite it meets a wall."""
        self.optimizer.zero_grad()
        value = self.scale * self.loss()
        if not self.begun:
            check_loss(value, self.done, None, self.checkpoint)
            self.begun = True
        value.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if all(bool(torch.isfinite(v).all()) for v in (value, *gradients)):
            return value
        for gradient in gradients:
            gradient.zero_()
        return torch.full_like(value, WALL)

    def memory(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Weights and the optimiser's memory: tensors, lists of tensors as their items, and numbers."""
        tensors, numbers = named("model", self.module.state_dict()), {"scale": self.scale}
        for name, value in self.optimizer.state[self.parameters[0]].items():
            if isinstance(value, Tensor):
                tensors[f"lbfgs.{name}"] = value
            elif isinstance(value, int | float):
                numbers[name] = value
            elif name != "al":  # which is scratch
                tensors |= {f"lbfgs.{name}.{i}": item for i, item in enumerate(value)}
        return tensors, numbers

    def remember(self, numbers: dict[str, float]) -> None:
        """Set weights and memory back to what the checkpoint holds."""
        self.module.load_state_dict(self.checkpoint.take("model", self.module.state_dict()))
        memory: dict[str, Any] = {}
        for name, value in self.checkpoint.group("lbfgs").items():
            value = value.to(self.parameters[0].device)
            label, _, index = name.partition(".")
            if index:
                memory.setdefault(label, {})[int(index)] = value
            else:
                memory[label] = value
        lists = {k: [v[i] for i in range(len(v))] for k, v in memory.items() if isinstance(v, dict)}
        self.scale = numbers["scale"]
        self.optimizer.state[self.parameters[0]] = {**numbers, **memory, **lists}


def polish(
    module: nn.Module, loss: Callable[[], Tensor], validation: Callable[[], Tensor], iterations: int, log: Log
) -> None:
    """Finish by ``iterations`` of :class:`Polish`, a multiple of ``BLOCK``; the best weights by ``validation`` stay."""

    def look() -> float:
        module.eval()
        with torch.no_grad():
            value = float(validation())
        module.train()
        return value

    checkpoint = log.stage()
    work = Polish(module, loss, checkpoint)
    best, begun = Best(module), 0
    best.keep(look())
    if (state := checkpoint.load()) is not None:
        best.state, best.error, begun = checkpoint.take("best", best.state), state.best_loss, state.step
        work.remember(state.numbers)
        log.resume(state)
    for done in range(begun + BLOCK, iterations + 1, BLOCK):
        value = work.block(done)
        best.keep(checked := look())
        log(done, iterations, loss=value, validation=checked)
        tensors, numbers = work.memory()
        tensors |= named("best", best.state)
        log.keep(checkpoint, tensors, step=done, loss=value, best_loss=best.error, numbers=numbers)
    best.restore()
