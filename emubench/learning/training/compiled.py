"""Training steps under ``torch.compile``: what each of them repeats is fused, while the loop stays as it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from emubench.core.errors import EmubenchError


def repeated(emulator: Any, who: str) -> str:
    """The method that a training step of ``emulator`` repeats, as it says itself (``repeated``).

    Raises :class:`EmubenchError` where it has none: nothing of its training could be compiled.
    """
    if name := getattr(emulator, "repeated", ""):
        return name
    raise EmubenchError(f"--compile: a training of {who} repeats no step that could be compiled here; leave it off")


@contextmanager
def compiled(emulator: Any, who: str) -> Iterator[None]:
    """While it lasts, what a training step repeats is compiled; looks at validation data and forecasts are as ever.

    Rounding differs from that of an eager training. Raises :class:`EmubenchError` where the compiler fails.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    name, lasts = repeated(emulator, who), True
    plain: Callable[..., Any] = getattr(emulator, name)
    fast = torch.compile(plain, dynamic=False)

    def run(*arguments: Any) -> Any:
        return (fast if lasts and torch.is_grad_enabled() else plain)(*arguments)

    setattr(emulator, name, run)
    try:
        yield
    except TorchDynamoException as error:
        raise EmubenchError(f"--compile: {str(error).splitlines()[0]}") from error
    finally:
        lasts = False
        delattr(emulator, name)
