"""Fast CPU paths, one file per system, equal to the reference integrators up to rounding.

``emubench/kernels/<system>.py`` defines ``rollout(system, state, n_samples, rngs) -> samples`` with the signature
and the draws of :func:`emubench.integrate.reference_rollout`, and ``supports(system) -> bool``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emubench import registry
from emubench.system import System

Rollout = Callable[[System, np.ndarray, int, list[np.random.Generator]], np.ndarray]


def find(system: System) -> Rollout | None:
    """The fast rollout of ``system``, or ``None`` if it has none (the reference solver then serves)."""
    if system.name not in registry.names(__name__):
        return None
    module = registry.load(__name__, system.name, "kernel")
    return module.rollout if module.supports(system) else None
