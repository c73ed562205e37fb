"""Random streams: every draw of a dataset depends on a seed and on labels, on nothing else."""

import hashlib
from typing import Any

import numpy as np
import torch


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


def torch_stream(seed: int, *labels: str | int, device: str = "cpu") -> torch.Generator:
    """A generator of torch that depends on ``seed`` and ``labels`` alone; draws need not be equal across devices."""
    return torch.Generator(device=device).manual_seed(_entropy(seed, labels) % 2**63)
