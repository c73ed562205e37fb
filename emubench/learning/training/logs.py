"""What a training says of itself: JSON lines, and the same figures for TensorBoard if they are wanted."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.learning.training.checkpoint import Checkpoint, Checkpoints, State

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents.*"
"""Names of the files that TensorBoard reads."""


def summary_writer() -> "type[SummaryWriter]":
    """The class that writes event files; where the package ``tensorboard`` is missing :class:`EmubenchError` is raised.

    It is imported only when it is asked for: importing it takes seconds, and few want it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "tensorboard is not installed; install it with: pip install 'emubench[tensorboard]'"
        raise EmubenchError(message) from None
    return SummaryWriter


class Events:
    """TensorBoard's event files of one training in ``folder``, which hold nothing of an earlier attempt."""

    def __init__(self, folder: Path) -> None:
        writer = summary_writer()
        for left in folder.glob(EVENTS):  # TensorBoard reads all of them, and what was resumed would be there twice
            left.unlink()
        self._writer = writer(str(folder))

    def write(self, row: dict[str, float], stage: int, begun: float) -> None:
        """One point for each figure of a ``row`` of the log; ``begun`` is the time of day at its second 0.

        Every stage counts its steps anew, so it has curves of its own; before the first there is no prefix.
        """
        prefix = f"stage-{stage}/" if stage else ""
        for name, value in row.items():
            if name not in ("step", "seconds"):
                self._writer.add_scalar(prefix + name, value, int(row["step"]), begun + row["seconds"])
        self._writer.flush()  # rows are rare, and somebody may be looking

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Log:
    """JSON lines of training figures, one object a line; ``progress(done, total)`` drives a bar.

    JSON has no number that is not finite, so such a figure is ``null`` there. With ``checkpoints`` an interrupted
    training goes on from them, and so does its log. With ``tensorboard`` the folder of ``path`` gets event files too.
    """

    def __init__(
        self,
        path: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        checkpoints: Checkpoints | None = None,
        tensorboard: bool = False,
    ) -> None:
        self._events = Events(path.parent) if path and tensorboard else None
        self._file = path.open("w", encoding="utf-8") if path else None
        self._progress, self._begun, self._checkpoints = progress, time.perf_counter(), checkpoints
        self._rows: list[dict[str, float]] = []
        self._stage = 0

    @property
    def seconds(self) -> float:
        """Since the training began, interruptions left out."""
        return time.perf_counter() - self._begun

    def __call__(self, step: int, total: int, **figures: float) -> None:
        """Record ``figures`` at optimiser step ``step`` of ``total``."""
        if figures:
            self._write({"step": step, "seconds": round(self.seconds, 2), **figures})
        if self._progress:
            self._progress(step, total)

    def _write(self, row: dict[str, float]) -> None:
        self._rows.append(row)  # as it is: a checkpoint keeps what is not finite
        if self._file:
            finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
            self._file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._file.flush()
        if self._events:
            self._events.write(row, self._stage, time.time() - self.seconds)

    def stage(self) -> Checkpoint:
        """The checkpoint of the stage of training that begins now; one that keeps nothing if none are wanted."""
        self._rows, self._stage = [], self._stage + 1
        return Checkpoint() if self._checkpoints is None else self._checkpoints.stage()

    def keep(self, checkpoint: Checkpoint, tensors: dict[str, Tensor], **state: Any) -> None:
        """Save the state of a stage with what it has logged."""
        checkpoint.save(tensors, {**state, "seconds": self.seconds, "rows": self._rows})

    def resume(self, state: State) -> None:
        """Go on from ``state``: its rows are written again, its seconds count."""
        self._begun = time.perf_counter() - state.seconds
        for row in state.rows:
            self._write(row)

    def close(self) -> None:
        """Close the files."""
        if self._file:
            self._file.close()
        if self._events:
            self._events.close()
