"""Ways of running one emulator: as it is, compiled, in lower precision. Each is declared, and scored anew."""

import functools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emubench.core.errors import EmubenchError, unknown
from emubench.core.hardware import synchronise
from emubench.emulator import Stepper

PRECISIONS = ("full", "bfloat16", "tf32")
WARM_UP_BATCHES = (1, 16)
NONE_FOUND = "--compile: no C++ compiler found (c++, g++ or clang++; or name it in CXX)"
NO_COMPILER = f"{NONE_FOUND}: these are the eager figures"


@dataclass(frozen=True)
class Mode:
    """``compile`` fuses the emulator's steps (on a GPU into CUDA graphs); ``precision`` is that of its products.

    >>> Mode(compile=True, precision="bfloat16").name
    'compiled-bfloat16'
    """

    compile: bool = False
    precision: str = "full"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("--precision", self.precision, PRECISIONS)

    @property
    def name(self) -> str:
        """What it is called in ``timing.json``; the plain mode, which is ranked, is ``eager``."""
        kind = "compiled" if self.compile else "eager"
        return kind if self.precision == "full" else f"{kind}-{self.precision}"


def compiler() -> str | None:
    """The C++ compiler that torch would call on this machine."""
    candidates = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def compile_options(device: torch.device) -> dict[str, Any]:
    """Options of ``torch.compile``: one graph per shape, which a GPU replays as a CUDA graph."""
    return {"dynamic": False, "mode": "reduce-overhead" if device.type == "cuda" else "default"}


def apply(emulator: nn.Module, mode: Mode, device: torch.device) -> None:
    """Change ``emulator`` in place so that it runs in ``mode``.

    Compiled is ``advance``, the sample interval of learned flows, or else a Stepper's ``step``: what a rollout repeats.
    Raises :class:`EmubenchError` where the emulator is no Stepper, and for TF32 without a GPU.
    """
    if mode.precision == "tf32":
        if device.type != "cuda":
            raise EmubenchError("--precision tf32: a GPU's number format; on a CPU there is bfloat16")
        torch.backends.cuda.matmul.allow_tf32 = True
    if mode.precision == "bfloat16":
        for name in ("start", "step", "forecast"):
            if hasattr(emulator, name):
                setattr(emulator, name, _autocast(getattr(emulator, name), device.type))
    if mode.compile:
        if not isinstance(emulator, Stepper):
            raise EmubenchError("--compile: this emulator is no Stepper: it has no step that could be compiled")
        name = "advance" if hasattr(emulator, "advance") else "step"
        setattr(emulator, name, torch.compile(getattr(emulator, name), **compile_options(device)))


def _autocast(function: Callable[..., Tensor], kind: str) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def run(*arguments: Any) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            return function(*arguments)

    return run


def compile_seconds(forecast: Callable[[int], Tensor], device: torch.device) -> float:
    """Seconds that the first forecasts of each shape take beyond the second ones; ``forecast(batch)`` makes one.

    Raises :class:`EmubenchError` where the compiler fails.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    spent = 0.0
    for batch in WARM_UP_BATCHES:
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            try:
                forecast(batch)
            except TorchDynamoException as error:
                raise EmubenchError(f"--compile: {str(error).splitlines()[0]}") from error
            synchronise(device)
            seconds.append(time.perf_counter() - begun)
        spent += max(seconds[0] - seconds[1], 0.0)
    return spent
