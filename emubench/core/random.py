"""Random streams: every draw of a dataset depends on a seed and on labels, on nothing else."""

import hashlib
from typing import Any

import numpy as np
import torch

from emubench.core.errors import EmubenchError


class SealedSeed(int):
    """A seed made of a secret: its draws depend on the secret, and all that it shows is the secret's SHA-256.

    It stands where a seed stands, so that files carry the commitment; it can't be pickled, so it stays in its process.
    """

    _key: str
    _commitment: str

    def __new__(cls, secret: bytes) -> "SealedSeed":
        seed = super().__new__(cls, -1)
        seed._key = hashlib.sha256(b"emubench sealed seed\0" + secret).hexdigest()
        seed._commitment = hashlib.sha256(secret).hexdigest()
        return seed

    def __str__(self) -> str:
        return f"sealed:{self._commitment}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealedSeed) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._commitment)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a sealed seed stays in its process: generate with one worker")


MAX_SEED = 2**63 - 1
"""The largest seed that torch, and every file that is written of it, takes."""


def check_seed(seed: int) -> int:
    """``seed`` itself, or :class:`EmubenchError` where it is not in 0 … MAX_SEED; a sealed one passes."""
    if isinstance(seed, SealedSeed) or 0 <= seed <= MAX_SEED:
        return seed
    raise EmubenchError(f"seed: {seed if abs(seed) < 10**30 else 'a longer number'}, where 0 to {MAX_SEED} belong")


def _entropy(seed: int, labels: tuple[str | int, ...]) -> int:
    first = seed._key if isinstance(seed, SealedSeed) else str(seed)
    text = "/".join([first, *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """A generator that depends on ``seed`` and ``labels`` alone, such as ``stream(0, "kpz", "test", 17)``.

    >>> bool(stream(0, "kpz", "test", 1).normal() == stream(0, "kpz", "test", 1).normal())
    True
    """
    return np.random.Generator(np.random.PCG64(_entropy(seed, labels)))


def torch_stream(seed: int, *labels: str | int) -> torch.Generator:
    """A generator of torch that depends on ``seed`` and ``labels`` alone.

    It is one of the host, whatever device the draws are for: these are made there and moved, so that they are equal.
    """
    return torch.Generator().manual_seed(_entropy(seed, labels) % 2**63)
