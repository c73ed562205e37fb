"""parroting: what followed the most similar motif of the context itself, copied over and over.

v(t + τ) = v(s + τ), with s < t the time before which the context was most like its last samples, in the mean square
over what is observed, each component in its own σ. Where the context ends the copy begins anew (Zhang & Gilpin 2025,
arXiv:2505.11349, who find that large models for time series do little else). On rings gaps are filled linearly. kpz:
each member copies another motif, drawn by one over its distance, as growth from the last sample; rounds rise on.

Knowledge: none. Nothing is trained, and no training data are seen.

Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle): kpz -14.68 -12.02 -5.06 -2.95;
kuramoto_sivashinsky -0.01 -0.04 -0.04 -0.04; lorenz63 0.02 0.13 0.12 0.14; lorenz96 -0.02 -0.07 -0.01 -0.01; no
training. Intervals: ``baselines/expected.toml``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.hardware import sent
from emubench.data.dataset import Observations
from emubench.data.tasks import Task
from emubench.learning.rings import interpolate_ring, on_ring
from emubench.learning.training.descent import Log
from emubench.learning.training.settings import check_positive

knowledge = "none"


@dataclass(frozen=True)
class Config:
    """``motif``: samples that are compared, and the least that are copied before the copy begins anew."""

    motif: int = 8

    def __post_init__(self) -> None:
        check_positive(self, "motif")


def default_config(task: Task) -> Config:
    """Of an interface little may have been seen: it may have been flat a few samples ago."""
    return Config(motif=2) if task.system.growing else Config()


class Parroting(nn.Module):
    """The context is all that it knows."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.ring, self.growing, self.in_law = on_ring(task), task.system.growing, task.system.scored_in_law
        self.motif = config.motif

    def motifs(self, context: Float[Tensor, "B C N"], fields: Float[Tensor, "B C N"]) -> tuple[Tensor, int]:
        """Mean square differences ``"B L"`` of all motifs from the context's end, and where the first of them ends.

        Infinite of one with a sample of which nothing was observed.
        """
        length = fields.shape[1]
        motif = max(1, min(self.motif, (length - 1) // 2))
        levels = fields.mean(-1, keepdim=True) if self.growing else torch.zeros_like(fields[..., :1])
        scaled = fields - levels
        if not self.ring:
            scaled = scaled / scaled.std(1, keepdim=True).clamp(min=1e-12)
        windows = scaled.unfold(1, motif, 1).mT  # B L W N
        blank = torch.isnan(context).all(-1).unfold(1, motif, 1).any(-1)
        apart = (windows - windows[:, -1:]).square().mean((2, 3)).masked_fill(blank, torch.inf)
        return apart[:, : length - 2 * motif + 1], motif - 1

    def forecast(self, context: Tensor, n_steps: int, n_members: int, generator: torch.Generator) -> Tensor:
        """One member where deterministic, else each of another motif, drawn by one over the distance."""
        fields = filled(context, self.ring)
        apart, first = self.motifs(context, fields)
        best = apart.argmin(1)[None] + first
        if self.in_law:  # the largest of log w + Gumbel noise are draws by w without replacement
            noise = -torch.empty(apart.shape, dtype=apart.dtype).exponential_(generator=generator).log()
            order = (sent(noise, apart.device) - apart.clamp(min=1e-12).log()).argsort(1, descending=True)
            best = order[:, torch.arange(n_members, device=apart.device) % order.shape[1]].T + first
        best = best[..., None]  # M B 1
        ahead = torch.arange(n_steps, device=context.device)
        to_end = fields.shape[1] - 1 - best
        place = best + 1 + ahead % to_end
        rows = torch.arange(len(fields), device=context.device)[:, None]
        copied = fields[rows, place]
        if not self.growing:
            return copied
        now, begun = fields[:, -1:], fields[rows, best]
        rounds = (ahead // to_end)[..., None]
        return now + (copied - begun) + rounds * (now - begun).mean(-1, keepdim=True)


def filled(context: Float[Tensor, "B C N"], ring: bool) -> Float[Tensor, "B C N"]:
    """The context without gaps: on rings linearly between neighbours, else by what was seen of a component, or zero.

    >>> nan = float("nan")
    >>> filled(torch.tensor([[[1.0, nan, 3.0, nan]]]), ring=True).tolist()
    [[[1.0, 2.0, 3.0, 2.0]]]
    """
    if ring:
        level = context.nanmean(-1, keepdim=True)
        return interpolate_ring(context - level) + torch.nan_to_num(level)
    return torch.where(torch.isnan(context), torch.nan_to_num(context.nanmean(1, keepdim=True)), context)


def build(task: Task, config: Config) -> Parroting:
    """The emulator, which needs no training."""
    return Parroting(task, config)


def train(emulator: Parroting, data: Observations, config: Config, seed: int, log: Log) -> None:
    """Nothing is learned."""
