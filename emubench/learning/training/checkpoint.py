"""Where an interrupted training goes on: one safetensors file for each of its stages, whole or not there at all.

A stage is the work of one optimiser. Its file holds weights, the optimiser's memory and the states of the generators as
tensors, and what is no tensor as JSON in the file's metadata: nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.files import schema, store

STATE, DIGEST = "state", "sha256"
"""The keys of the metadata; a checkpoint that is older than the hash has none."""
MAX_BYTES = 2**31


class State(schema.Model):
    """How far a stage has come: its step, the loss there, the best validation so far, and what it has logged."""

    key: Annotated[str, Field(max_length=200)]
    step: Annotated[int, Field(ge=0)]
    loss: float
    best_loss: float
    numbers: dict[Annotated[str, Field(max_length=40)], int | float] = {}
    """What of the optimiser's memory is no tensor."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Since the training began, interruptions left out."""
    rows: Annotated[list[dict[str, int | float]], Field(max_length=10**6)] = []


class Checkpoint:
    """The file of one stage; without a ``path`` nothing is kept."""

    def __init__(self, path: Path | None = None, key: str = "", previous: "Checkpoint | None" = None) -> None:
        self.path, self.key, self.previous = path, key, previous
        self.kept: int | None = None
        """The step whose state is in the file."""
        self._tensors: dict[str, Tensor] = {}

    def last_good(self) -> str:
        """Which state is kept, of this stage or else of the one before it; empty if none is."""
        if self.kept is not None:
            return f"step {self.kept} is kept in {self.path}"
        return self.previous.last_good() if self.previous is not None else ""

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the file, unless a value is not finite: what is kept is the last good state."""
        if self.path is None:
            return
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
            return
        text = json.dumps(State(key=self.key, **state).model_dump())
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            with store.atomic(self.path) as temporary:
                save_file(tensors, temporary, {STATE: text, DIGEST: _hash(text, tensors)})
        except FileNotFoundError:  # another process has finished this training and removed the folder
            return
        self.kept = state["step"]

    def load(self) -> State | None:
        """What is in the file, if there is one; its tensors are then to be had from :meth:`take`.

        Raises :class:`EmubenchError` if it is not whole, or belongs to other data.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise EmubenchError(f"{self.path}: larger than {MAX_BYTES} bytes; remove it to train anew")
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                # cloned, for sums over tensors that lie elsewhere in memory are rounded otherwise
                self._tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            text = metadata.pop(STATE, "null")
            if metadata and metadata != {DIGEST: _hash(text, self._tensors)}:
                raise ValueError("it has not the hash that it says: it was damaged or edited")
            content = json.loads(text)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise EmubenchError(f"{self.path}: not a whole checkpoint ({error}); remove it to train anew") from None
        state: State = schema.parse(State, content, self.path)
        if state.key != self.key:
            raise EmubenchError(f"{self.path}: a checkpoint of other data or settings; remove it to train anew")
        self.kept = state.step
        return state

    def take(self, prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors called ``prefix.name`` for the names of ``like``; another set, shape or dtype is refused."""
        found = self.group(prefix)
        for name in sorted(found.keys() | like.keys()):
            if name not in found or name not in like:
                fault = "missing" if name in like else "not of this architecture"
                raise EmubenchError(f"{self.path}: tensor {prefix}.{name} is {fault}; remove the file to train anew")
            if (found[name].shape, found[name].dtype) != (like[name].shape, like[name].dtype):
                have, want = (f"{t.dtype} {tuple(t.shape)}" for t in (found[name], like[name]))
                raise EmubenchError(f"{self.path}: tensor {prefix}.{name}: {have} where {want} belongs")
        return found

    def group(self, prefix: str) -> dict[str, Tensor]:
        """All tensors called ``prefix.…``, without the prefix."""
        start = prefix + "."
        return {name.removeprefix(start): t for name, t in self._tensors.items() if name.startswith(start)}


def _hash(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a checkpoint holds."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one training in a folder, by the order in which its stages begin.

    ``key`` says what the training depends on besides its code: states of another key are refused.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key
        self._stages: list[Checkpoint] = []

    def stage(self) -> Checkpoint:
        """The file of the stage that begins now."""
        path, previous = self.folder / f"stage-{len(self._stages) + 1}.safetensors", self._stages[-1:]
        self._stages.append(Checkpoint(path, self._key, *previous))
        return self._stages[-1]


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` as ``prefix.name``, of which :meth:`Checkpoint.take` gives them back."""
    return {f"{prefix}.{name}": t for name, t in tensors.items()}


def adam_memory(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The memory of Adam: its steps and moments for every parameter that has got a gradient."""
    parameters = optimizer.param_groups[0]["params"]
    return {k: t for i, p in enumerate(parameters) for k, t in named(f"{prefix}.{i}", optimizer.state[p]).items()}


def recall_adam(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, prefix: str) -> None:
    """Set the memory of Adam back to what the checkpoint holds; empty parameters have none."""
    number = torch.zeros(())
    for i, p in enumerate(optimizer.param_groups[0]["params"]):
        if p.numel():
            like = {"step": number, "exp_avg": p, "exp_avg_sq": p}
            memory = checkpoint.take(f"{prefix}.{i}", like)  # Adam's count of steps stays on the host
            optimizer.state[p] = {k: t if k == "step" else t.to(p.device) for k, t in memory.items()}
