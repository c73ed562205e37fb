"""Settings for all tests."""

from __future__ import annotations

import torch

torch.set_num_threads(1)  # the tensors here are small: more threads only wait for each other
