"""Stability: does a long run stay on the attractor? Climate distances per case over time, lost and dead cases.

Distances d between a case and the pooled truth, each averaged over cases, a lost case counting d₀ (that of a constant
at the mean), which also caps every case, so that failing is never cheaper: **W1/σ** of one-point values; **spatial
spectrum** (rings): mean |Δ log power| over modes, both capped from below at 10⁻⁶ of the truth's peak. With d_f the 99 %
quantile of d over independent truth samples of the same size, s = clip(1 − ln(max(d, d_f)/d_f) / ln(d₀/d_f), 0, 1), and

    skill_stability = (1 − lost − dead) · min(s):  a climate is as good as its worst aspect.

*Lost*: not finite, or more than 10 σ from the mean anywhere. *Dead*: temporal variance over the last 20 Lyapunov times
(256 samples) under 10 % of the truth's. Range 0 … 1, higher is better. It can't see an order in time.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import LOST, Row, Summary, Truth, deviation, end_variance, spatial_power
from emubench.task import Task

split = "climate"
CAP = 1e-6


def applies(task: Task) -> bool:
    """Every task."""
    return True


def aspects(task: Task) -> tuple[str, ...]:
    """Names of the distances that apply."""
    return ("w1", "spatial_spectrum") if task.system.ring else ("w1",)


def w1_distance(values: Float[Tensor, "B T *S"], truth: Truth) -> Float[Tensor, " B"]:
    """1-Wasserstein distance of each case's one-point values from the pooled truth's, in σ, mean over components."""
    assert truth.pool is not None
    pool = truth.pool.sorted
    std = truth.std.mean().reshape(1) if truth.task.system.ring else truth.std
    distances = []
    for case in values:
        columns = case.reshape(1, -1) if truth.task.system.ring else case.reshape(-1, case.shape[-1]).T
        ordered = columns.double().sort(dim=1).values
        level = (torch.arange(ordered.shape[1], dtype=torch.float64) + 0.5) / ordered.shape[1]
        matching = pool[:, (level * pool.shape[1]).long()]
        distances.append(((ordered - matching).abs().mean(1) / std).mean())
    return torch.stack(distances)


def spectrum_distance(power: Float[Tensor, "B K"], truth_power: Float[Tensor, " K"]) -> Float[Tensor, " B"]:
    """Mean over modes of |log power − log truth's|, both capped from below at 10⁻⁶ of the truth's peak."""
    floor = CAP * truth_power.max()
    return (power.clamp(min=floor).log() - truth_power.clamp(min=floor).log()).abs().mean(-1)


def distances(values: Float[Tensor, "B T *S"], truth: Truth) -> Float[Tensor, "B A"]:
    """The distances of :func:`aspects` of sound cases, ``values`` being deviations."""
    assert truth.pool is not None
    columns = [w1_distance(values, truth)]
    if truth.task.system.ring:
        columns.append(spectrum_distance(spatial_power(values.double()), truth.pool.spatial_power))
    return torch.stack(columns, dim=1)


def lost_cases(forecast: Float[Tensor, "B T *S"], truth: Truth) -> Tensor:
    """Whether a case is ever non-finite or further than 10 σ from the mean."""
    off = (deviation(forecast, truth.task) - truth.mean).abs() / truth.std
    return ~(off <= LOST).flatten(1).all(1)


def skill(d: Tensor, d_floor: float, d_zero: float) -> Tensor:
    """s = clip(1 − ln(max(d, d_f)/d_f)/ln(d₀/d_f), 0, 1)."""
    ratio = torch.log(d.clamp(min=d_floor) / d_floor) / math.log(d_zero / d_floor)
    return (1 - ratio).clamp(0, 1)


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """Lost and dead indicators and distances per case; with frozen reference values also the skill."""
    assert truth.pool is not None
    run, task = forecast[0].double(), truth.task
    lost = lost_cases(run, truth)
    sound = deviation(torch.where(lost.reshape(-1, *[1] * (run.ndim - 1)), truth.mean, run), task)
    d = distances(sound, truth)
    constant = truth.mean.expand(1, run.shape[1], *run.shape[2:]).clone()
    d_zero = distances(deviation(constant, task), truth)[0]
    d = torch.where(lost[:, None], d_zero, torch.minimum(d, d_zero))
    dead = (end_variance(sound, task) < 0.1 * truth.pool.end_variance) & ~lost
    # The pooled truth is stationary, so cases that start flat count for survival but not for the distances.
    counted = (truth.start == 0).double()[:, None]
    names = aspects(task)
    floors = truth.reference.get("d_floor", {}).get(task.size)
    anchors = truth.reference.get("d_zero")

    def finish(mean: Tensor) -> Tensor:
        lost_share, dead_share = mean[..., 0], mean[..., 1]
        d_mean = mean[..., 3:] / mean[..., 2:3]
        out = [1 - lost_share, dead_share, *d_mean.unbind(-1)]
        if floors and anchors:
            s = [skill(d_mean[..., i], floors[n], anchors[n]) for i, n in enumerate(names)]
            out += [(1 - lost_share - dead_share) * torch.stack(s).amin(0), *s]
        return torch.stack(out, dim=-1)

    rows = [Row("surviving_fraction", None, "1"), Row("dead_fraction", None, "1")]
    rows += [Row(f"{n}_distance", None, "climatological std" if n == "w1" else "1") for n in names]
    if floors and anchors:
        rows += [Row("skill_stability", None, "1"), *(Row(f"{n}_skill", None, "1") for n in names)]
    columns = [lost.double()[:, None], dead.double()[:, None], counted, d * counted]
    return Summary(cases=torch.cat(columns, dim=1), rows=tuple(rows), finish=finish)
