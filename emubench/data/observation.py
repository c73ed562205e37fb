"""The observation operator: which components are seen, and how noisily. NaN means "not observed"."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.errors import EmubenchError
from emubench.dynamics.system import System


@dataclass(frozen=True)
class Observation:
    """``observe(state) = state[components] + noise · σ_clim · N(0, 1)`` on a random share of the ring's sites.

    ``components`` are the state's components that are ever observed (``None``: all); they are the scored ones.
    ``fraction`` of the sites of a ring are observed, drawn once per trajectory. ``noise`` is in units of the
    climatological standard deviation. One that observes nothing, or a noise outside 0 … 10, raises
    :class:`EmubenchError`.

    >>> import emubench
    >>> half = Observation(fraction=0.5, noise=0.1)
    >>> seen = half(emubench.systems.get("lorenz96"), np.zeros((8, 40)), np.random.default_rng(0))
    >>> seen.shape, int(np.isnan(seen[0]).sum())                   # (time, space); NaN = not observed
    ((8, 40), 20)
    """

    components: tuple[int, ...] | None = None
    fraction: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1 or self.components == ():
            raise EmubenchError(f"a mask that observes nothing: fraction {self.fraction}, components {self.components}")
        if not 0 <= self.noise <= 10:
            raise EmubenchError(f"noise must lie between 0 and 10 climatological standard deviations, not {self.noise}")

    def select(self, state: np.ndarray) -> np.ndarray:
        """The scored components of states ``"... *S"``."""
        return state if self.components is None else state[..., list(self.components)]

    def noise_std(self, system: System) -> np.ndarray:
        """Standard deviation of the observation noise, per scored component."""
        return self.noise * self.select(system.std)

    def along(self, system: System, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """The observer of one trajectory, to be called with one stretch of its truth ``"T *S"`` after another.

        First the mask is drawn, then the noise of all sites, observed or not: where it is cut makes no difference.
        """
        noise_std = self.noise_std(system)
        n_sites = noise_std.shape[-1]
        hidden = rng.permutation(n_sites)[max(1, round(self.fraction * n_sites)) :]

        def observe(truth: np.ndarray) -> np.ndarray:
            seen = self.select(truth)
            noisy = seen + noise_std * rng.standard_normal(seen.shape) if self.noise else seen.copy()
            noisy[..., hidden] = np.nan
            return noisy

        return observe

    def __call__(
        self, system: System, truth: Float[np.ndarray, " T *S"], rng: np.random.Generator
    ) -> Float[np.ndarray, " T *C"]:
        """Observe one whole trajectory."""
        return self.along(system, rng)(truth)


def observed_symmetry(
    symmetry: Callable[[Tensor], Tensor], observation: Observation, system: System
) -> Callable[[Tensor], Tensor]:
    """What a symmetry of the state does to its scored components; an error where these alone do not determine it."""
    components = observation.components
    if components is None:
        return symmetry

    def act(values: Tensor, fill: float = 0.0) -> Tensor:
        whole = values.new_full((*values.shape[: values.ndim - 1], *system.shape), fill)
        whole[..., list(components)] = values
        return symmetry(whole)[..., list(components)]

    probe = torch.arange(1.0, len(components) + 1)
    if not torch.equal(act(probe), act(probe, 7.0)):
        raise EmubenchError(f"not available: a symmetry of {system.name} mixes components that are never observed")
    return act
