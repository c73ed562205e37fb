"""Stability: does a long run stay on the attractor? Climate distances per case over time, lost and dead cases.

Distances d between a case and the pooled truth, each averaged over cases, a lost case counting d₀ (that of a constant
at the mean), which also caps every case, so that failing is never cheaper:

- **w1**: 1-Wasserstein distance of one-point values, in σ: mean over components, or of all sites of a grid together;
- **spatial_spectrum** (grids): mean |Δ log power| over the spatial Fourier modes 1 … N/2 (shells of them in 2-D);
- **temporal_spectrum**: the same over frequencies, by Welch's estimator (:mod:`emubench.metrics._spectra`), the mean
  over a grid's sites, else per component; in both spectra powers under 10⁻⁶ of the truth's peak count as that;
- **patches**: sliced 1-Wasserstein distance of patches of 3 samples × 3 neighbouring sites (off grids: 3 samples of
  all components), whitened by the truth's covariance, in 32 fixed directions (Bonneel et al. 2015,
  doi:10.1007/s10851-014-0506-3). It sees what spectra can't: phases, skewness, the arrow of time.

W1 and patches are averaged over the images of the run under the system's symmetries, so that a mirrored run scores the
same. With d_f the 99 % quantile of d over independent truth samples of the same size, frozen in ``reference.json``
(of a task that is not in it measured from its truth: :func:`measured`),
s = clip(1 − ln(max(d, d_f)/d_f) / ln(d₀/d_f), 0, 1), and

    skill_stability = (1 − lost − dead) · min(s):  a climate is as good as its worst aspect.

*Lost*: not finite, or more than 10 σ from the mean anywhere. *Dead*: temporal variance over the last 20 Lyapunov times
(256 samples) under 10 % of the truth's. Range 0 … 1, higher is better. It can't see whether a run follows the truth.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.core.random import torch_stream
from emubench.data.tasks import SIZES, Task
from emubench.metrics import LOST, POSITIVE, SHARE, Pool, Row, Summary, Truth, deviation, end_variance
from emubench.metrics._features import CASE_FEATURES, in_order, one_point, patches, wasserstein
from emubench.metrics._spectra import spatial_power, spectrum_distance, temporal_power

split = "climate"
FOLDS, N_RESAMPLES = 4, 10_000
DEAD = 0.1
"""Share of the truth's variance in time under which a run is dead."""


def applies(task: Task) -> bool:
    """Every task."""
    return True


def aspects(task: Task) -> tuple[str, ...]:
    """Names of the distances that apply."""
    names = ("w1", "spatial_spectrum", "temporal_spectrum", "patches")
    return names if task.system.grid else (names[0], *names[2:])


def w1_distance(values: Float[Tensor, "B T *S"], truth: Truth) -> Float[Tensor, " B"]:
    """1-Wasserstein distance of each case's one-point values from the pooled truth's, in σ, mean over components."""
    assert truth.pool is not None
    grid = truth.task.system.grid
    std = truth.std.mean().reshape(1) if grid else truth.std
    ordered = (in_order(one_point(case[None], grid)) for case in values)
    return torch.stack([(wasserstein(o, truth.pool.sorted) / std).mean() for o in ordered])


def patch_distance(values: Float[Tensor, "B T *S"], truth: Truth) -> Float[Tensor, " B"]:
    """Sliced 1-Wasserstein distance of each case's patches from the pooled truth's, mean over directions."""
    assert truth.pool is not None
    pool, grid = truth.pool, truth.task.system.grid
    projected = (pool.projection @ patches(case[None], grid, CASE_FEATURES) for case in values)
    return torch.stack([wasserstein(in_order(p), pool.sorted_projections).mean() for p in projected])


def distances(values: Float[Tensor, "B T *S"], truth: Truth) -> Float[Tensor, "B A"]:
    """The distances of :func:`aspects` of sound cases."""
    assert truth.pool is not None
    pool, grid, run = truth.pool, truth.task.system.grid, deviation(values, truth.task)
    images = [run, *(deviation(image(values), truth.task) for image in pool.images[1:])]
    w1 = torch.stack([w1_distance(image, truth) for image in images]).mean(0)
    spatial = [spectrum_distance(spatial_power(run, grid), pool.spatial_power)] if grid else []
    temporal = spectrum_distance(temporal_power(run, grid), pool.temporal_power)
    patch = torch.stack([patch_distance(image, truth) for image in images]).mean(0)
    return torch.stack([w1, *spatial, temporal, patch], dim=1)


def anchors(truth: Truth, n_samples: int) -> Float[Tensor, " A"]:
    """The distances d₀ of a constant at the climatological mean."""
    return distances(truth.mean.expand(1, n_samples, *truth.task.shape).clone(), truth)[0]


def lost_cases(forecast: Float[Tensor, "B T *S"], truth: Truth) -> Tensor:
    """Whether a case is ever non-finite or further than 10 σ from the mean."""
    return lost_samples(forecast, truth).any(1)


def lost_samples(forecast: Float[Tensor, "B T *S"], truth: Truth) -> Tensor:
    """Whether any component is non-finite or further than 10 σ from the mean; ``"B T"``."""
    off = (deviation(forecast, truth.task) - truth.mean).abs() / truth.std
    return ~(off <= LOST).flatten(2).all(2)


def skill(d: Tensor, d_floor: float, d_zero: float) -> Tensor:
    """The skill s = clip(1 − ln(max(d, d_f)/d_f)/ln(d₀/d_f), 0, 1)."""
    ratio = torch.log(d.clamp(min=d_floor) / d_floor) / math.log(d_zero / d_floor)
    return (1 - ratio).clamp(0, 1)


def scale(truth: Truth) -> tuple[dict[str, float], dict[str, float]] | None:
    """The frozen noise floors, of the task's size whatever its training split, and anchors, if there are any."""
    name = truth.task.size
    base = name if name in SIZES else name.rpartition("-")[0]
    noise_floors: Any = truth.reference.get("d_floor", {})
    found = noise_floors.get(name, noise_floors.get(base)), truth.reference.get("d_zero")
    names = aspects(truth.task)
    return found if all(values and set(names) <= values.keys() for values in found) else None  # type: ignore[return-value]


def measured(truth: Truth) -> dict[str, Any]:
    """Noise floors and anchors from the truth of a whole climate split, laid out as those that are frozen.

    Its stationary cases are parted into :data:`FOLDS`, and each is compared with the pool of the other folds. The floor
    is the 99 % quantile of the mean over as many cases, resampled. Empty where no constant is farther off than that.
    """
    values, task = truth.values[truth.start == 0], truth.task
    fold, found = torch.arange(len(values)) % FOLDS, []
    for k in fold.unique() if len(values) > 1 else ():
        others = Truth(task, values, truth.start, Pool(task, values[fold != k]))
        found.append(distances(values[fold == k].double(), others))
    if not found:
        return {}
    d, zeros = torch.cat(found), anchors(truth, values.shape[1])
    drawn = torch.randint(len(d), (N_RESAMPLES, len(d)), generator=torch_stream(0, "floor", len(d)))
    floors = torch.quantile(d.minimum(zeros)[drawn].mean(1), 0.99, dim=0)
    if not ((floors > 0) & (floors < zeros)).all():
        return {}
    named = [dict(zip(aspects(task), values.tolist(), strict=True)) for values in (floors, zeros)]
    return {"d_floor": {task.size: named[0]}, "d_zero": named[1]}


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Lost and dead indicators and distances per case; with frozen reference values also the skill."""
    assert truth.pool is not None
    run, task = forecast[0].double(), truth.task
    lost = lost_cases(run, truth)
    sound = torch.where(lost.reshape(-1, *[1] * (run.ndim - 1)), truth.mean, run)
    d, d_zero = distances(sound, truth), anchors(truth, run.shape[1])
    d = torch.where(lost[:, None], d_zero, torch.minimum(d, d_zero))
    dead = (end_variance(sound, task) < DEAD * truth.pool.end_variance) & ~lost
    # The pooled truth is stationary, so cases that start flat count for survival but not for the distances.
    counted = (truth.start == 0).double()[:, None]
    names, scales = aspects(task), scale(truth)

    def finish(mean: Tensor) -> Tensor:
        lost_share, dead_share = mean[..., 0], mean[..., 1]
        d_mean = mean[..., 3:] / mean[..., 2:3]
        out = [1 - lost_share, dead_share, *d_mean.unbind(-1)]
        if scales:
            noise_floors, zeros = scales
            s = [skill(d_mean[..., i], noise_floors[n], zeros[n]) for i, n in enumerate(names)]
            out += [(1 - lost_share - dead_share) * torch.stack(s).amin(0), *s]
        return torch.stack(out, dim=-1)

    rows = [Row(name, None, "1", way, SHARE, True) for name, way in (("surviving_fraction", 1), ("dead_fraction", -1))]
    rows += [Row(f"{n}_distance", None, "climatological std" if n == "w1" else "1", -1, POSITIVE) for n in names]
    if scales:
        rows += [Row(name, None, "1", 1, SHARE) for name in ("skill_stability", *(f"{n}_skill" for n in names))]
    columns = [lost.double()[:, None], dead.double()[:, None], counted, d * counted]
    return Summary(cases=torch.cat(columns, dim=1), rows=tuple(rows), finish=finish)
