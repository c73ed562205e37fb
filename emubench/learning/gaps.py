"""Gaps in observations: filling them, and losses over what was seen."""

import torch
from jaxtyping import Float
from torch import Tensor


def last_observed(context: Float[Tensor, "B T *S"], fill: Tensor) -> Float[Tensor, " B *S"]:
    """The last value of every component that is not NaN; ``fill`` (``"*S"`` or ``" B *S"``) where there is none.

    >>> nan = float("nan")
    >>> last_observed(torch.tensor([[[1.0, nan], [nan, nan]]]), torch.tensor([7.0, 7.0])).tolist()
    [[1.0, 7.0]]
    """
    state = fill.expand_as(context[:, 0]).to(context.dtype).clone()
    for sample in context.unbind(1):
        state = torch.where(torch.isnan(sample), state, sample)
    return state


def fill_gaps(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values with NaN set to zero, and the mask (1 = observed) of the same shape and dtype."""
    seen = ~torch.isnan(values)
    return torch.where(seen, values, 0.0), seen.to(values.dtype)


def masked_mse(prediction: Tensor, observation: Tensor) -> Tensor:
    """Mean squared difference over what is observed (NaN = not observed)."""
    values, seen = fill_gaps(observation)
    return ((prediction - values).square() * seen).sum() / seen.sum().clamp(min=1)
