"""Networks shared by the baselines: a gated perceptron, and the same applied around every site of a ring."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emubench.core.errors import EmubenchError
from emubench.learning.models.operators import WIDTHS, Weights, by_kernel, ring_rates
from emubench.learning.rings import interpolate_ring, neighbourhoods


class GatedMlp(nn.Module):
    """``W₃ silu(W₂ (silu(W₁ x) ⊙ V₁ x))``: the gate lets products of inputs through, after Shazeer 2020,
    arXiv:2002.05202.

    The last layer starts at zero, so that a residual block built on it starts as the identity.
    """

    def __init__(self, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(n_in, width), nn.Linear(n_in, width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, n_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """Apply to the last axis."""
        gated = nn.functional.silu(self.gate(x)) * self.value(x)
        return self.out(nn.functional.silu(self.hidden(gated)))

    def weights(self) -> Weights:
        """All, as :func:`~emubench.learning.models.operators.ring_rates` takes them."""
        return _weights(self)


class ProductMlp(nn.Module):
    """``W₃ silu(W₂ p) + W₄ p + W₅ x`` of the products ``p = W₁x ⊙ V₁x``: what is quadratic needs no hidden layer.

    At first it is zero.
    """

    def __init__(self, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(n_in, width), nn.Linear(n_in, width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, n_out)
        self.products, self.linear = nn.Linear(width, n_out, bias=False), nn.Linear(n_in, n_out, bias=False)
        for last in (self.out.weight, self.out.bias, self.products.weight, self.linear.weight):
            nn.init.zeros_(last)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """Apply to the last axis."""
        products = self.gate(x) * self.value(x)
        return self.out(nn.functional.silu(self.hidden(products))) + self.products(products) + self.linear(x)

    def weights(self) -> Weights:
        """All, as :func:`~emubench.learning.models.operators.ring_rates` takes them."""
        return _weights(self)


def _weights(network: nn.Module) -> Weights:
    """All of the layers in their order; as attributes they would take as long to look up as a ring takes."""
    layers = [layer._parameters for layer in network._modules.values() if layer is not None]
    whole = [layer[name] for layer in layers[:4] for name in ("weight", "bias")]
    return Weights(*whole, *[layer["weight"] for layer in layers[4:]])  # type: ignore[arg-type]


class RingField(nn.Module):
    """A local, translation-equivariant field on a ring of any length: one network for every neighbourhood.

    ``kind`` makes it, a gated perceptron by default, given the numbers of inputs and outputs and the width.
    """

    def __init__(self, radius: int, width: int, kind: Callable[[int, int, int], nn.Module] = GatedMlp) -> None:
        super().__init__()
        self.radius, self.width = radius, width
        self.network = kind(2 * radius + 1, 1, width)

    def forward(self, u: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Tendency at every site; of forecasts on a CPU by one operator."""
        network = self.network
        known = isinstance(network, GatedMlp | ProductMlp | QuadraticMlp)
        if known and self.width % WIDTHS == 0 and by_kernel(u, torch.float32):
            return ring_rates(u, network.weights())
        return network(neighbourhoods(u, self.radius))[..., 0]


class GrowthField(nn.Module):
    """A field of a growing height: it sees only differences to the site, so a shift of all heights changes nothing.

    A linear term (at first a diffusion) plus a gated perceptron whose inputs saturate at ``limit``, the largest
    differences of the training data: outside these the linear term rules, which keeps rare steep slopes from growing.
    """

    limit: Tensor

    def __init__(self, radius: int, width: int) -> None:
        super().__init__()
        if radius < 1:
            raise EmubenchError(f"radius: {radius} where at least 1 belongs: a growing height is seen by its slopes")
        self.radius = radius
        self.network: nn.Module = GatedMlp(2 * radius + 1, 1, width)
        self.linear = nn.Linear(2 * radius + 1, 1, bias=False)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[0, [radius - 1, radius + 1]] = 0.25
        self.register_buffer("limit", torch.ones(2 * radius + 1))

    @torch.no_grad()
    def set_limit(self, fields: Float[Tensor, "... N"], n_std: float = 4.0) -> None:
        """Saturate at ``n_std`` standard deviations of the observed differences (NaN = not observed)."""
        local = neighbourhoods(fields, self.radius) - fields[..., None]
        self.limit.copy_(n_std * local.flatten(0, -2).square().nanmean(0).sqrt().clamp(min=1e-3))

    def forward(self, u: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Tendency at every site."""
        local = neighbourhoods(u, self.radius) - u[..., None]
        bounded = self.limit * torch.tanh(local / self.limit)
        return (self.linear(local) + self.network(bounded))[..., 0]


class WindowEncoder(nn.Module):
    """The state at the end of a window of noisy, gappy samples: the last sample with gaps filled, plus a correction.

    On rings the correction at a site is a gated perceptron of the filled values and masks around it; off rings of the
    whole window. ``n_latent`` further components, never observed, start from the correction alone (off rings).
    """

    def __init__(
        self, length: int, n_components: int, width: int, ring: bool, radius: int, growing: bool, n_latent: int
    ) -> None:
        super().__init__()
        self.ring, self.radius, self.growing, self.n_latent = ring, radius, growing, n_latent
        n_in = 2 * length * (2 * radius + 1 if ring else n_components)
        self.network = GatedMlp(n_in, 1 if ring else n_components + n_latent, width)

    def forward(self, window: Float[Tensor, "B L S"]) -> Float[Tensor, "B D"]:
        """Estimate the state at the window's last sample (NaN = not observed)."""
        seen = (~torch.isnan(window)).to(window.dtype)
        if not self.ring:
            filled = torch.nan_to_num(window)
            correction = self.network(torch.cat([filled, seen], dim=1).flatten(1))
            return nn.functional.pad(filled[:, -1], (0, self.n_latent)) + correction
        filled = interpolate_ring(window)
        last = filled[:, -1]
        local = neighbourhoods(filled, self.radius).movedim(1, 2).flatten(2)
        if self.growing:
            local = local - last[..., None]
        mask = neighbourhoods(seen, self.radius).movedim(1, 2).flatten(2)
        return last + self.network(torch.cat([local, mask], dim=-1))[..., 0]


class QuadraticMlp(nn.Module):
    """All monomials of the inputs up to degree 2, linearly combined by ``weight``, and a gated perceptron beside them.

    Both start at zero; ``weight`` may be fitted in closed form.
    """

    pairs: Tensor

    def __init__(self, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(n_in, n_in), persistent=False)
        self.weight = nn.Parameter(torch.zeros(1 + n_in + self.pairs.shape[1], n_out))
        self.network = GatedMlp(n_in, n_out, width)

    def monomials(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... F"]:
        """1, xᵢ, xᵢ xⱼ."""
        return torch.cat([torch.ones_like(x[..., :1]), x, x[..., self.pairs[0]] * x[..., self.pairs[1]]], dim=-1)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """Apply to the last axis; as a quadratic form, without making the monomials."""
        n, (constant, linear, pairs) = x.shape[-1], self.weight.split([1, x.shape[-1], self.pairs.shape[1]])
        form = x.new_zeros(n, n, self.weight.shape[1]).index_put((self.pairs[0], self.pairs[1]), pairs).movedim(-1, 1)
        quadratic = ((x @ form.reshape(n, -1)).unflatten(-1, form.shape[1:]) * x[..., None, :]).sum(-1)
        return constant[0] + x @ linear + quadratic + self.network(x)

    def weights(self) -> Weights:
        """All, as :func:`~emubench.learning.models.operators.ring_rates` takes them."""
        return self.network.weights()._replace(quadratic=self.weight)
