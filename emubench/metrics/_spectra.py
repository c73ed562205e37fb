"""Power spectra in space and time, per case, and the distance between two."""

import torch
from jaxtyping import Float
from torch import Tensor

CAP = 1e-6
"""Power below this share of the truth's peak is as good as none."""
SEGMENT = 256
"""Samples of a segment of :func:`temporal_power`, in runs of four segments and more."""


def spatial_power(values: Float[Tensor, "B T *S"], grid: tuple[int, ...]) -> Float[Tensor, "B K"]:
    """Power over time of the spatial Fourier modes 1 … N/2 of a grid, per case.

    In several dimensions it is the mean over each shell m − ½ ≤ ‖k‖ < m + ½ of modes, m = 1 … half the fewest sites.
    """
    if len(grid) == 1:
        return torch.stack([(torch.fft.rfft(case).abs() ** 2).mean(0)[1:] for case in values])
    axes = tuple(range(-len(grid), 0))
    modes = torch.meshgrid(*(torch.fft.fftfreq(n, device=values.device) * n for n in grid), indexing="ij")
    shell = torch.stack(modes).square().sum(0).sqrt().round().long().flatten()
    n = min(grid) // 2
    counts = torch.bincount(shell, minlength=n + 1)[1 : n + 1]
    power = torch.stack([(torch.fft.fftn(case, dim=axes).abs() ** 2).mean(0).flatten() for case in values])
    sums = power.new_zeros(len(power), int(shell.max()) + 1).index_add_(1, shell, power)
    return sums[:, 1 : n + 1] / counts


def segment_length(n_samples: int) -> int:
    """The largest power of two that is at most a quarter of the run and at most SEGMENT (8 at least).

    >>> segment_length(4416), segment_length(592), segment_length(10)
    (256, 128, 8)
    """
    return max(8, min(SEGMENT, 1 << max(0, (n_samples // 4).bit_length() - 1)))


def temporal_power(values: Float[Tensor, "B T *S"], grid: tuple[int, ...]) -> Float[Tensor, "B K C"]:
    """Power in time at the frequencies 1/L … 1/2 per sample, per case: mean over a grid's sites, else per component.

    Welch's estimator: each site's time mean is removed, segments of L samples (:func:`segment_length`) overlap by half
    and get a Hann window, and their squared Fourier amplitudes are averaged. Welch 1967, doi:10.1109/TAU.1967.1161901.
    """
    length = segment_length(values.shape[1])
    window = torch.hann_window(length, dtype=values.dtype, device=values.device)
    cases = []
    for case in values:
        fluctuation = (case - case.mean(0)).reshape(len(case), -1)
        segments = fluctuation.unfold(0, length, length // 2) * window
        power = (torch.fft.rfft(segments).abs() ** 2).mean(0)[:, 1:].T
        cases.append(power.mean(1, keepdim=True) if grid else power)
    return torch.stack(cases)


def spectrum_distance(power: Float[Tensor, " B *K"], truth_power: Float[Tensor, " *K"]) -> Float[Tensor, " B"]:
    """Mean over modes of |log power − log truth's|, both capped from below at 10⁻⁶ of the truth's peak.

    The peak is that of each component: of the first axis of ``truth_power``.
    """
    least = CAP * truth_power.amax(0)
    return (power.maximum(least).log() - truth_power.maximum(least).log()).abs().flatten(1).mean(-1)
