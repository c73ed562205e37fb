"""Arrays as they are stored in the shared datasets."""

from __future__ import annotations

import h5py
import numpy as np


def read(path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[name][()]


def observed(data, name: str, array: str) -> np.ndarray:
    return read(data / "tiny" / f"{name}.h5", array)


def truth_of(data, system: str, split: str) -> np.ndarray:
    return read(data / "tiny" / f"{system}.truth.h5", f"{split}/truth")
