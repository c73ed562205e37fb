"""Settings for all tests."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors here are small: more threads only wait for each other

settings.register_profile("emubench", deadline=None, derandomize=True)  # a test passes on every run or on none
settings.load_profile("emubench")
