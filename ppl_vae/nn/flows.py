"""Normalizing flows for guides: layers that bend a draw, with the density of what comes out.

    u_0 ~ Normal(0, I)                          u_k: (..., latents)
    u_k = layer_k(u_(k-1); h)                   h: (..., context), what an encoder says of the row
    log q(u_K) = log q(u_0) - sum over k of log |det(du_k / du_(k-1))|

    planar            u -> u + a tanh(w.u + b)  a, w: (latents,); b: (1,); all are linear in h
    autoregressive    u_i -> m_i + exp(s_i) u_i    m_i, s_i = network(u_1 ... u_(i-1), h), |s_i| < 2
    spline            u_i -> m_i + exp(s_i) g_i(u_i)    knots of the spline g_i as m_i and s_i

A new layer is near the identity, so that a flow begins near a normal.

Draws are cheap and so is the density of a draw: a layer remembers its last input, output and
log-determinant, as torch's transforms can. A copy of the draw is not remembered; its density is
then found by the inverse of each layer. The inverse is exact, but costs more: ``latents`` passes of
an autoregressive layer, and bisection of a function of one number in a planar one. Gradients flow
through it as well, as ``RowELBO(sticking_the_landing=True)`` needs.

Sources: Rezende & Mohamed (2015), section 4.1 and appendix A.1, arXiv:1505.05770 (planar); Kingma
et al. (2016), section 3, arXiv:1606.04934 (inverse autoregressive); Germain et al. (2015), section
3, arXiv:1502.03509 (masks); Durkan et al. (2019), section 3, arXiv:1906.04032 (spline).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn.functional import linear, softplus

from ppl_vae.arguments import shown
from ppl_vae.nn.checked import check_sizes
from ppl_vae.nn.coupling import bounded
from ppl_vae.nn.splines import spline

STEEPEST = 0.99  # w.a is above -STEEPEST: a planar layer narrows at most a hundredfold
UNBENT = math.log(math.expm1(STEEPEST))  # softplus of it is STEEPEST
PIECES, BOX = 8, 5.0  # of a spline, whose input has a standard deviation near 1


class _Layer(Transform):
    """An invertible map of vectors that remembers its last input, output and log-determinant."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=1)
        self._log_det: Any = None

    def bend(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output, (..., latents), and its log-determinant, (...)."""
        raise NotImplementedError

    def unbend(self, y: Tensor) -> Tensor:
        """Return the input, (..., latents), that gives an output."""
        raise NotImplementedError

    def _call(self, x: Tensor) -> Tensor:
        y, self._log_det = self.bend(x)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        u = self.unbend(y)
        _, self._log_det = self.bend(u)
        return u

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Any:
        """Return log |det(dy / dx)|, (...): the one that is remembered with x, else computed."""
        self(x)  # nothing to do where x is the last input
        return self._log_det


class Planar(_Layer):
    """The layer u -> u + a tanh(w.u + b): it pushes draws along a, on both sides of a plane.

    The layer is invertible where w.a > -1. So a is moved along w until w.a is a softplus function,
    above -0.99, of what it was; an a of 0 stays 0.

    Args:
        a: Direction of the push, (..., latents), any numbers.
        w: Normal vector of the plane, (..., latents), any numbers.
        b: Offset of the plane, (..., 1).

    Example:
        >>> layer = Planar(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(1))
        >>> round(layer(torch.tensor([0.0, 100.0]))[0].item(), 2)
        1.0
    """

    def __init__(self, a: Tensor, w: Tensor, b: Tensor) -> None:
        super().__init__()
        free = (w * a).sum(-1, keepdim=True)
        self.slope = softplus(free + UNBENT) - STEEPEST  # (..., 1), w.a of the moved a
        square = (w * w).sum(-1, keepdim=True).clamp(min=1e-30)
        self.a, self.w, self.b = a + (self.slope - free) * w / square, w, b

    def bend(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output, (..., latents), and its log-determinant, (...)."""
        push = ((self.w * u).sum(-1, keepdim=True) + self.b).tanh()
        return u + self.a * push, torch.log1p((1 - push * push) * self.slope).squeeze(-1)

    def unbend(self, y: Tensor) -> Tensor:
        """Return the input, (..., latents), that gives an output.

        The number c = w.u solves c + w.a tanh(c + b) = w.y, whose left side rises with c and is
        within |w.a| of c. Bisection finds c; a last step of Newton's method makes c exact and
        gives it the derivatives of a root.
        """
        target = (self.w * y).sum(-1, keepdim=True)
        with torch.no_grad():
            low, high = target - self.slope.abs(), target + self.slope.abs()
            for _ in range(50):
                c = (low + high) / 2
                above = c + self.slope * (c + self.b).tanh() > target
                low, high = torch.where(above, low, c), torch.where(above, c, high)
            c = (low + high) / 2
        push = (c + self.b).tanh()
        rise = 1 + self.slope * (1 - push * push)
        c = c - (c + self.slope * push - target) / rise.detach()
        return y - self.a * (c + self.b).tanh()


class Autoregressive(_Layer):
    """A layer that maps each latent by a curve of its own, given those before it and the context.

    Args:
        network: From latents, (..., latents), to the numbers of each latent's curve, (..., latents,
            numbers), which depend on the latents before it alone.
        curve: ``curve(u, numbers, inverse=False)``, one latent by one: values of a rising curve and
            the logarithms of its slopes, (..., latents) each; with ``inverse=True``, what the
            values come from.
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], curve: Callable[..., tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__()
        self.network, self.curve = network, curve

    def bend(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output, (..., latents), and its log-determinant, (...)."""
        y, log_slopes = self.curve(u, self.network(u))
        return y, log_slopes.sum(-1)

    def unbend(self, y: Tensor) -> Tensor:
        """Return the input, (..., latents), that gives an output: a pass for every latent."""
        u = torch.zeros_like(y)
        for _ in range(y.shape[-1]):
            u, _ = self.curve(y, self.network(u), inverse=True)
        return u


def affine(u: Tensor, numbers: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Return m + exp(s) u and s, (...) each, or (u - m) exp(-s) and s; numbers: (..., 2)."""
    shift, log_scale = numbers.unbind(-1)
    log_scale = bounded(log_scale, 2.0)
    value = (u - shift) * (-log_scale).exp() if inverse else shift + log_scale.exp() * u
    return value, log_scale


def affine_spline(u: Tensor, numbers: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Return what ``affine`` makes of a spline's values; numbers: (..., 3 pieces + 1).

    The spline alone is the identity outside its box, and moves no draw out of it.
    """
    of_spline, of_affine = numbers[..., :-2], numbers[..., -2:]
    if inverse:
        u, log_scale = affine(u, of_affine, inverse=True)
        value, log_slope = spline(u, of_spline, bound=BOX, inverse=True)
    else:
        u, log_slope = spline(u, of_spline, bound=BOX)
        value, log_scale = affine(u, of_affine)
    return value, log_slope + log_scale


class MaskedNetwork(nn.Module):
    """A perceptron with one hidden layer, whose outputs for a latent read the latents before it.

    Each hidden unit has a place among the latents, and reads those before its place; the outputs
    for a latent read the units up to its place. All units read the context. Pyro's network of this
    kind refuses fewer units than latents, warns of a single latent, and reads the context anew for
    each particle.

    Args:
        latents: Number of latents.
        outputs: Numbers that come out for each latent.
        context: Size of the context.
        hidden: Number of hidden units.
        backwards: Whether the last latent comes first.

    Example:
        >>> network = MaskedNetwork(latents=3, outputs=2, context=8)
        >>> network(torch.zeros(5, 100, 3), torch.zeros(100, 8)).shape  # 5 particles
        torch.Size([5, 100, 3, 2])
    """

    reads: Tensor
    read: Tensor

    def __init__(
        self, latents: int, outputs: int, context: int, hidden: int = 64, backwards: bool = False
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, outputs=outputs, context=context, hidden=(hidden,))
        self.latents, self.outputs = latents, outputs
        places = torch.arange(latents).flip(0) if backwards else torch.arange(latents)
        units = torch.arange(hidden) * latents // hidden  # places of the hidden units
        self.register_buffer("reads", units[:, None] > places)  # (hidden, latents)
        read = places[:, None] >= units  # (latents, hidden)
        self.register_buffer("read", read.repeat_interleave(outputs, 0))
        self.first = nn.Linear(latents, hidden, bias=False)
        self.context = nn.Linear(context, hidden)
        self.last = nn.Linear(hidden, latents * outputs)
        for parameter in self.last.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)  # a layer begins near the identity

    def forward(self, u: Tensor, context: Tensor) -> Tensor:
        """Return (..., latents, outputs) for latents (..., latents) and context (..., context)."""
        units = (linear(u, self.first.weight * self.reads) + self.context(context)).tanh()
        numbers: Tensor = linear(units, self.last.weight * self.read, self.last.bias)
        numbers = numbers / len(self.reads) ** 0.5  # so that an update of Adam's moves them little
        by_latent: Tensor = numbers.unflatten(-1, (self.latents, self.outputs))
        return by_latent


class PlanarFlow(nn.Module):
    """Planar layers whose parameters are linear in the context.

    Args:
        latents: Number of latents.
        context: Size of the context.
        layers: Number of layers.

    Example:
        >>> [first, second] = PlanarFlow(latents=3, context=8, layers=2)(torch.zeros(5, 8))
        >>> second(first(torch.randn(100, 5, 3))).shape
        torch.Size([100, 5, 3])
    """

    def __init__(self, latents: int, context: int, layers: int) -> None:
        super().__init__()
        check_sizes(latents=latents, context=context, layers=layers)
        self.latents, self.layers, self.sizes = latents, layers, (latents, latents, 1)
        self.numbers = nn.Linear(context, layers * sum(self.sizes))
        nn.init.uniform_(self.numbers.weight, -0.01, 0.01)
        with torch.no_grad():
            a, w, b = self.numbers.bias.unflatten(-1, (layers, -1)).split(self.sizes, -1)
            a.uniform_(-0.01, 0.01)  # a layer begins near the identity
            w.normal_(std=latents**-0.5)
            b.normal_()

    def forward(self, context: Tensor) -> list[Transform]:
        """Return new layers for a context, (..., context)."""
        numbers = self.numbers(context).unflatten(-1, (self.layers, -1)).unbind(-2)
        return [Planar(*layer.split(self.sizes, -1)) for layer in numbers]


class AutoregressiveFlow(nn.Module):
    """Inverse autoregressive layers; every second one reads the latents from the last to the first.

    Args:
        latents: Number of latents.
        context: Size of the context.
        layers: Number of layers.
        hidden: Number of hidden units of each layer's network.

    Example:
        >>> layers = AutoregressiveFlow(latents=3, context=8, layers=2)(torch.zeros(5, 8))
        >>> len(layers)
        2
    """

    outputs = 2
    curve = staticmethod(affine)

    def __init__(self, latents: int, context: int, layers: int, hidden: int = 64) -> None:
        super().__init__()
        check_sizes(latents=latents, context=context, layers=layers, hidden=(hidden,))
        self.latents = latents
        self.networks = nn.ModuleList(
            MaskedNetwork(latents, self.outputs, context, hidden, backwards=bool(k % 2))
            for k in range(layers)
        )

    def forward(self, context: Tensor) -> list[Transform]:
        """Return new layers for a context, (..., context)."""
        return [Autoregressive(partial(n, context=context), self.curve) for n in self.networks]


class SplineFlow(AutoregressiveFlow):
    """Autoregressive layers of splines, shifted and scaled; arguments as of ``AutoregressiveFlow``.

    Example:
        >>> len(SplineFlow(latents=3, context=8, layers=2)(torch.zeros(5, 8)))
        2
    """

    outputs = 3 * PIECES + 1
    curve = staticmethod(affine_spline)


FLOWS: dict[str, type[nn.Module]] = {
    "planar": PlanarFlow, "autoregressive": AutoregressiveFlow, "spline": SplineFlow,
}  # fmt: skip


def make_flow(flow: str, latents: int, context: int, layers: int, hidden: int = 64) -> nn.Module:
    """Return a network that gives a row layers of a flow: (..., context) -> list of transforms.

    Args:
        flow: Kind of the layers: "planar", "autoregressive" or "spline".
        latents: Number of latents.
        context: Size of the context.
        layers: Number of layers.
        hidden: Number of hidden units of each layer's network; planar layers have none.

    Raises:
        ValueError: If there is no such kind, or a size is not at least 1.

    Example:
        >>> type(make_flow("spline", latents=3, context=8, layers=2)).__name__
        'SplineFlow'
    """
    if flow not in FLOWS:
        raise ValueError(f"flow: expected one of {', '.join(FLOWS)}, got {shown(flow)}")
    if flow == "planar":
        return PlanarFlow(latents, context, layers)
    return FLOWS[flow](latents, context, layers, hidden)
