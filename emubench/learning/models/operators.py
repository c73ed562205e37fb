"""Operators of torch by kernels of our own, for forecasts on a CPU: faster than what torch has for it.

:mod:`emubench.learning.models._ring_kernel` and :mod:`emubench.learning.models._tanh_kernel` have the loops. They know
no gradient: training goes through torch's own operators.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.flop_counter import register_flop_formula

from emubench.learning.models import _ring_kernel, _tanh_kernel

_library = torch.library.Library("emubench", "DEF")
_library.define("ring_rates(Tensor u, Tensor?[] weights) -> Tensor")
_library.define("tanh_(Tensor(a!) x) -> ()")


_kernels = True
"""Whether kernels may be used at all."""


def by_kernel(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether a kernel may do what torch's operators do with ``values``: of ``dtype`` on a CPU, without gradients."""
    if not _kernels or torch.is_grad_enabled() or values.device.type != "cpu" or values.dtype != dtype:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    # forward derivatives and torch.func.vmap go through torch's own operators, too
    return torch.compiler.is_compiling() or not is_functorch_wrapped_tensor(values)


@contextlib.contextmanager
def torch_alone() -> Iterator[None]:
    """Within it no kernel is used: what is computed is what another device computes, up to the order of its sums.

    >>> with torch_alone(), torch.no_grad():
    ...     by_kernel(torch.zeros(1), torch.float32)
    False
    """
    global _kernels
    before, _kernels = _kernels, False
    try:
        yield
    finally:
        _kernels = before


class Weights(NamedTuple):
    """Those of the rate W₃ silu(W₂ p + b) + c + W₄ p + W₅ x + a quadratic polynomial of x, the values around a site.

    p are the products (G x + g) ⊙ (V x + v); the first factor goes through silu where there is no W₄.
    """

    gate: Tensor
    gate_bias: Tensor
    value: Tensor
    value_bias: Tensor
    hidden: Tensor
    hidden_bias: Tensor
    last: Tensor
    last_bias: Tensor
    products: Tensor | None = None
    linear: Tensor | None = None
    quadratic: Tensor | None = None
    """Coefficients of 1, the xᵢ and the xᵢ xⱼ, i ≤ j."""


WIDTHS = _ring_kernel.ROWS
"""Widths that :func:`ring_rates` takes are multiples of it."""


def ring_rates(u: Float[Tensor, "... N"], weights: Weights) -> Float[Tensor, "... N"]:
    """The rates at all sites of rings; float32."""
    return cast(Tensor, torch.ops.emubench.ring_rates(u, weights))


@torch.library.impl(_library, "ring_rates", "CPU")
def _ring_rates(u: Tensor, weights: list[Tensor | None]) -> Tensor:
    rings = u.reshape(-1, u.shape[-1]).contiguous()
    out = torch.empty_like(rings)
    kept = [w if w is None or (w.dtype == u.dtype and w.is_contiguous()) else w.to(u).contiguous() for w in weights]
    addresses = np.array([0 if w is None else w.data_ptr() for w in kept])
    _ring_kernel.rates(addresses, *cast(Tensor, kept[0]).shape, rings.numpy(), out.numpy())
    return out.view(u.shape)


@torch.library.register_fake("emubench::ring_rates", lib=_library)
def _shape_of_rates(u: Tensor, weights: list[Tensor | None]) -> Tensor:
    return u.new_empty(u.shape)


@register_flop_formula(torch.ops.emubench.ring_rates)
def _products(u: Sequence[int], weights: list[Sequence[int] | None], *_: Any, **__: Any) -> int:
    """Two operations per weight and site; biases take the place of the first additions."""
    return 2 * torch.Size(u).numel() * sum(torch.Size(w).numel() for w in weights if w and len(w) == 2)


def tanh_(x: Tensor) -> Tensor:
    """:func:`torch.tanh` in place, to some units in the last place; float64, contiguous."""
    if not by_kernel(x, torch.float64):
        return x.tanh_()
    torch.ops.emubench.tanh_(x)
    return x


@torch.library.impl(_library, "tanh_", "CPU")
def _tanh(x: Tensor) -> None:
    _tanh_kernel.tanh(x.view(-1).numpy())


@torch.library.register_fake("emubench::tanh_", lib=_library)
def _nothing(x: Tensor) -> None:
    pass


@register_flop_formula(torch.ops.emubench.tanh_)
def _one_each(x: Sequence[int], *_: Any, **__: Any) -> int:
    return torch.Size(x).numel()
