"""Whether what was trained forecasts at all: a few free forecasts from validation contexts, judged without a truth."""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import torch_stream
from emubench.data.dataset import Observations, windows
from emubench.data.tasks import steps_of
from emubench.emulator import Copies, Emulator, checked_ensemble
from emubench.metrics import LOST
from emubench.metrics.stability import DEAD

N_CASES = 8
UNITS, SAMPLES = 5.0, 64
"""Length of the forecasts, in units of lead time, and in samples where these are the unit."""


@torch.no_grad()
def fault(emulator: Emulator, data: Observations) -> str:
    """How free forecasts run away or stand still, in one line; empty if they do neither.

    One has run away where it is not finite, or farther than 10 σ from the mean. One stands still whose variance over
    its later half is under a tenth of the data's over as many samples; that is said if most of them do. The emulator
    stays as it is, and so do all random numbers.
    """
    task, length = data.task, data.validation.shape[1]
    n_steps = min(task.test_steps, SAMPLES if task.system.stochastic else steps_of(task.system, UNITS))
    contexts = windows(data.validation, min(task.context, length), stride=max(1, length // N_CASES))
    contexts = contexts[:: max(1, len(contexts) // N_CASES)][:N_CASES]
    with torch.random.fork_rng(devices=[]):
        generator = torch_stream(0, "soundness", task.name)
        run = checked_ensemble(Copies(emulator), contexts, n_steps, 1, generator)[0]
    anomalies, n, unit = _anomalies(run, data), len(contexts), task.system.lead_time_unit
    off = ~(anomalies.abs() <= LOST).flatten(2).all(2)
    if lost := int(off.any(1).sum()):
        first = (1 + int(off.any(0).nonzero()[0])) * task.lead_time_step
        return f"{lost} of {n} free forecasts ran away beyond {LOST:g} σ, the first after {first:.2g} {unit}s"
    later = min(n_steps, length) // 2
    noise = float((data.noise_std / data.std).square().mean())
    known = float(_variance(_anomalies(windows(data.validation, later, stride=later), data)).nanmean()) - noise
    still = int((_variance(anomalies[:, -later:]) < DEAD * known).sum())
    if 2 * still > n:
        whole = f"{n_steps * task.lead_time_step:.2g} {unit}s"
        return f"{still} of {n} free forecasts stood still in the later half of {whole}"
    return ""


def _anomalies(values: Float[Tensor, "B T *S"], data: Observations) -> Float[Tensor, "B T *S"]:
    """Deviations in σ from the mean, of what grows from its mean over all sites."""
    if data.task.system.growing:
        return (values - values.nanmean(data.task.site_axes, keepdim=True)) / data.std
    return (values - data.mean) / data.std


def _variance(anomalies: Float[Tensor, "B T *S"]) -> Float[Tensor, " B"]:
    """Variance in time, averaged over the components that are seen."""
    return (anomalies.square().nanmean(1) - anomalies.nanmean(1).square()).flatten(1).nanmean(1)
