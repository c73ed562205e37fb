"""Segments of a neural ODE with the exact gradient of its Runge–Kutta steps, faster than autograd finds it.

Discretise, then optimise: the gradient is that of the scheme (not of the adjoint equation), as back-propagation through
the steps gives it. :mod:`emubench.learning.models._product_mlp` has the loops; here they become one operation of
autograd.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from emubench.dynamics.kernels._simd import SINGLES, aligned
from emubench.learning.models import _product_mlp as product_mlp
from emubench.learning.models.networks import ProductMlp

COLUMNS = 1024
"""States advanced together at most (on rings sites of states): more of them would leave the cache."""
Arrays = tuple[np.ndarray, ...]


def supports(network: object, example: Tensor) -> bool:
    """Whether :func:`segments` takes the network and states like ``example``."""
    plain = example.device.type == "cpu" and example.dtype == torch.float32
    return plain and isinstance(network, ProductMlp) and network.hidden.in_features % product_mlp.ROWS == 0


def _weights(network: ProductMlp) -> list[Tensor]:
    n = network
    return [
        n.gate.weight, n.gate.bias, n.value.weight, n.value.bias, n.hidden.weight, n.hidden.bias,
        n.out.weight, n.products.weight, n.linear.weight, n.out.bias,
    ]  # fmt: skip


def _merged(weights: tuple[Tensor, ...]) -> Arrays:
    """Four matrices: to the products' factors, from p to the hidden layer, from both and from the input to the rates.

    A bias is a last column, which a row of ones multiplies.
    """
    g, gb, v, vb, h, hb, o, p, d, ob = (w.detach().numpy() for w in weights)
    first = np.concatenate([np.column_stack([g, gb]), np.column_stack([v, vb])])
    return first, np.column_stack([h, hb]), np.concatenate([o, p], axis=1), np.column_stack([d, ob])


def _split(gradients: Arrays) -> list[Tensor]:
    """The gradients of :func:`_weights` from those of the matrices that :func:`_merged` made of them."""
    first, hidden, bias, last, direct = (torch.from_numpy(g) for g in gradients)
    w = len(hidden)
    (g, gb), (v, vb), (d, ob) = ((m[:, :-1], m[:, -1]) for m in (first[:w], first[w:], direct))
    return [g, gb, v, vb, hidden.sum(-1), bias, last[:, :w], last[:, w:], d, ob]


def _space(weights: Arrays, columns: int) -> tuple[Arrays, Arrays]:
    """Uninitialised arrays whose rows are vectors: to evaluate the field in, and what its adjoint needs besides."""
    w, n_in = len(weights[1]), weights[0].shape[1]
    rows = (n_in, 2 * w, w, w, 2 * w + 1), (2 * w, w, 2, n_in)
    work, more = (
        tuple(aligned(n * columns // SINGLES, np.float32).reshape(n, columns) for n in group) for group in rows
    )
    return work, more


@dataclass(frozen=True)
class Scheme:
    """Samples and the steps of each, on rings or off them; matrices of exponential steps."""

    counts: tuple[int, int]
    ring: bool
    exponential: np.ndarray | None


class _Block:
    """Some cases: their states as columns, those of all stages, and space to work in."""

    def __init__(self, state: Float[Tensor, "B D"], scheme: Scheme, weights: Arrays) -> None:
        (n_cases, n), ring, counts = state.shape, scheme.ring, scheme.counts
        multiple = product_mlp.COLUMNS // math.gcd(n, product_mlp.COLUMNS) if ring else product_mlp.COLUMNS
        self.n_cases, self.extra, self.counts, self.weights = n_cases, -n_cases % multiple, counts, weights
        self.exponential = scheme.exponential
        columns = torch.nn.functional.pad(state.T, (0, self.extra)).contiguous()
        self.shape, self.lanes = columns.shape, columns.shape[1] if ring else 0
        self.state = (columns.view(1, -1) if ring else columns).numpy()
        self.stages = np.empty((4 * counts[0] * counts[1], *self.state.shape), np.float32)

    def forward(self, work: Arrays) -> Float[Tensor, "B T D"]:
        """The samples."""
        samples = np.empty((self.counts[0], *self.state.shape), np.float32)
        given = self.state, self.lanes, self.counts, self.stages, samples, work
        if self.exponential is None:
            product_mlp.forward(self.weights, *given)
        else:
            product_mlp.forward_exponential(self.weights, self.exponential, *given)
        return torch.from_numpy(samples).view(-1, *self.shape).permute(2, 0, 1)[: self.n_cases]

    def backward(
        self, asked: Float[Tensor, "B T D"], gradients: Arrays, work: Arrays, space: Arrays
    ) -> Float[Tensor, "B D"]:
        """Add to the ``gradients`` of the weights; that of the start."""
        columns = torch.nn.functional.pad(asked.permute(1, 2, 0), (0, self.extra)).contiguous()
        wanted, start = columns.view(-1, *self.state.shape).numpy(), np.empty_like(self.state)
        given = wanted, self.lanes, self.counts, self.stages, gradients, start, work, space
        if self.exponential is None:
            product_mlp.backward(self.weights, *given)
        else:
            product_mlp.backward_exponential(self.weights, self.exponential, *given)
        return torch.from_numpy(start).view(self.shape)[:, : self.n_cases].T


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, scheme: Scheme, *weights: Tensor) -> Tensor:
        n = max(1, COLUMNS // state.shape[1]) if scheme.ring else COLUMNS
        arrays = _merged(weights)
        blocks = [_Block(part, scheme, arrays) for part in state.detach().split(n)]
        ctx.blocks, space = blocks, {n: _space(arrays, n) for n in {b.state.shape[1] for b in blocks}}
        return torch.cat([block.forward(space[block.state.shape[1]][0]) for block in blocks])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *asked: Tensor) -> tuple[Tensor | None, ...]:
        blocks = ctx.blocks
        first, hidden, last, direct = blocks[0].weights
        w = len(hidden)
        square, bias = np.zeros((w, w, SINGLES), np.float32), np.zeros(w, np.float32)
        gradients = np.zeros_like(first), square, bias, np.zeros_like(last), np.zeros_like(direct)
        parts = asked[0].split([block.n_cases for block in blocks])
        space = {n: _space(blocks[0].weights, n) for n in {b.state.shape[1] for b in blocks}}
        pairs = zip(blocks, parts, strict=True)
        starts = [block.backward(part, gradients, *space[block.state.shape[1]]) for block, part in pairs]
        return torch.cat(starts), None, *_split(gradients)


def segments(
    network: ProductMlp,
    state: Float[Tensor, "B D"],
    n_samples: int,
    n_steps: int,
    ring: bool,
    exponential: Float[Tensor, "6 D D"] | None = None,
) -> Float[Tensor, "B T D"]:
    """The next ``n_samples`` states by ``n_steps`` steps of Kutta's 3/8 rule each, on a CPU, by one thread, float32.

    On rings the network is the field of every site, in terms of the values around it. Time is counted in samples. With
    the matrices of :func:`circulants` the steps are exponential ones. For first derivatives.
    """
    matrices = None if exponential is None else np.ascontiguousarray(exponential.float().numpy())
    scheme = Scheme((n_samples, n_steps), ring, matrices)
    return _Segments.apply(state, scheme, *_weights(network))  # type: ignore[return-value]


def exponential_segments(
    network: ProductMlp,
    state: Float[Tensor, "B N"],
    n_samples: int,
    n_steps: int,
    symbols: Float[Tensor, "6 K"],
    n_sites: int,
) -> Float[Tensor, "B T N"]:
    """Integrate by exponential steps on ``n_sites`` equally spaced sites of a ring, which carry its first K modes."""
    n, n_modes, apart = state.shape[1], symbols.shape[1], state.shape[1] // n_sites
    sites = torch.fft.irfft(torch.fft.rfft(state)[:, :n_modes], n=n_sites) / apart
    samples = segments(network, sites, n_samples, n_steps, True, circulants(symbols, n_sites))
    return torch.fft.irfft(torch.fft.rfft(samples)[..., :n_modes], n=n) * apart


def circulants(symbols: Float[Tensor, "C K"], n_sites: int) -> Float[Tensor, "C N N"]:
    """The matrices that multiply the first K modes of a field on ``n_sites`` sites by real ``symbols``, others by 0."""
    modes = torch.fft.rfft(torch.eye(n_sites, dtype=torch.float64))[:, : symbols.shape[1]]
    return torch.fft.irfft(symbols.double()[:, None] * modes, n=n_sites)
