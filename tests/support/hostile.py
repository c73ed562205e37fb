"""What must never be opened."""

from __future__ import annotations


class Explosive:
    """What a pickle can do: here, make a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))
