"""What ``mnist.py`` fits: each published protocol as networks, optimizer, schedule and figures.

Sources: as in ``mnist.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppl_vae.guides.flow import FlowGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.flow_prior import FlowPriorModel
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.models.mixture_prior import MixturePriorModel
from ppl_vae.models.vampprior import VampPriorModel
from ppl_vae.nn import MLP, ConvDecoder, ConvEncoder

PIXELS = 784
IMAGE = (1, 28, 28)


class Gated(nn.Sequential):
    """A perceptron whose hidden layers are h = (V x + c) sigmoid(W x + b), the last one linear.

    Source: Dauphin et al. (2017), section 2, arXiv:1612.08083.
    """

    def __init__(self, inputs: int, outputs: int, hidden: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((inputs, *hidden)):
            layers += [nn.Linear(width_in, 2 * width_out), nn.GLU(-1)]
        super().__init__(*layers, nn.Linear((inputs, *hidden)[-1], outputs))


@dataclass(frozen=True)
class Protocol:
    """What is fitted, how, and what was published.

    Attributes:
        hidden: Widths of the encoder's layers; the decoder has them in reverse. Of a convolutional
            one its channels.
        latents: Width of the code.
        activation: Between layers; ``None`` for gated layers.
        optimizer: Of a list of parameters and a number of rows.
        xavier: Whether weights begin as Burda et al.'s; else as torch's.
        rate: Factor of the learning rate in an epoch, from 0, of so many.
        warm_up: Share of the epochs over which the KL weight rises from 0 to 1.
        batch_size: Rows of a step.
        epochs: Passes over the data.
        samples: Draws a row for the log-likelihood.
        make: Model and guide of the protocol's networks.
        particles: Of the importance-weighted bound; ``None`` is the ELBO.
        dynamic: Whether images are binarized anew every epoch.
        components: Components of the prior, or pseudo-inputs.
        patience: Epochs without a better validation ELBO before the fit ends.
        shape: Shape of a row.
        published: ``{quantity: nats a row}``.
    """

    hidden: tuple[int, ...]
    latents: int
    activation: Callable[[], nn.Module] | None
    optimizer: Callable[[list[Tensor], int], torch.optim.Optimizer]
    rate: Callable[[int, int], float]
    batch_size: int
    epochs: int
    samples: int
    make: Callable[[Protocol], tuple[Any, Any]]
    particles: int | None = None
    dynamic: bool = False
    warm_up: float = 0.0
    xavier: bool = False
    components: int = 500
    patience: int | None = None
    shape: tuple[int, ...] = (PIXELS,)
    published: dict[str, float] = field(default_factory=dict)

    def pair(self, seed: int) -> tuple[Any, Any]:
        """A fresh model and guide."""
        torch.manual_seed(seed)
        model, guide = self.make(self)
        for layer in [*model.modules(), *guide.modules()]:
            if self.xavier and isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return model, guide

    def network(self, inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Module:
        """A perceptron with the protocol's activation."""
        if self.activation is None:
            return Gated(inputs, outputs, hidden)
        return MLP(inputs, outputs, hidden, self.activation)

    def decoder(self) -> nn.Module:
        """From codes to logits."""
        return self.network(self.latents, PIXELS, self.hidden[::-1])

    def guide(self) -> NormalGuide:
        """The encoder's normal guide."""
        encoder = self.network(PIXELS, 2 * self.latents, self.hidden)
        return NormalGuide(PIXELS, self.latents, encoder)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Sets the learning rate of an epoch."""
        factor = lambda epoch: self.rate(epoch, self.epochs)  # noqa: E731
        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def standard(p: Protocol) -> tuple[Any, Any]:
    """A standard normal prior."""
    decoder = p.decoder()
    return BernoulliModel(PIXELS, p.latents, decoder), p.guide()


def mixture(p: Protocol) -> tuple[Any, Any]:
    """A mixture of normals as prior."""
    return MixturePriorModel(PIXELS, p.latents, p.components, p.decoder()), p.guide()


def vamp(p: Protocol) -> tuple[Any, Any]:
    """The guide's answer to pseudo-inputs as prior."""
    guide = p.guide()
    return VampPriorModel(PIXELS, guide, p.latents, p.components, p.decoder()), guide


def flow(p: Protocol) -> tuple[Any, Any]:
    """Coupling layers as prior."""
    hidden = p.hidden[:1]
    return FlowPriorModel(PIXELS, p.latents, 8, hidden, p.decoder()), p.guide()


def layers(p: Protocol) -> tuple[Any, Any]:
    """Two layers of codes, inferred from the top down."""
    width = p.hidden[-1]
    model = HierarchicalModel(PIXELS, (p.latents, p.latents), width, p.decoder())
    encoder = p.network(PIXELS, width, p.hidden[:-1])
    return model, TopDownGuide(PIXELS, model, width, encoder)


def convolutions(p: Protocol) -> tuple[Any, Any]:
    """Convolutions each way, and a standard normal prior."""
    decoder = ConvDecoder(p.latents, IMAGE, p.hidden[::-1])
    encoder = ConvEncoder(IMAGE, 2 * p.latents, p.hidden)
    return BernoulliModel(IMAGE, p.latents, decoder), NormalGuide(IMAGE, p.latents, encoder)


def diagonal(p: Protocol) -> tuple[Any, Any]:
    """A diagonal normal guide, with the network of ``bent``."""
    model, width = BernoulliModel(PIXELS, p.latents, p.decoder()), p.hidden[-1]
    last = nn.Linear(width, 2 * p.latents)
    encoder = nn.Sequential(p.network(PIXELS, width, p.hidden[:-1]), nn.Tanh(), last)
    return model, NormalGuide(PIXELS, p.latents, encoder)


def bent(flow: str, count: int) -> Callable[[Protocol], tuple[Any, Any]]:
    """A guide of so many layers of a flow, whose normal has the network of ``diagonal``."""

    def make(p: Protocol) -> tuple[Any, Any]:
        model, width = BernoulliModel(PIXELS, p.latents, p.decoder()), p.hidden[-1]
        encoder = p.network(PIXELS, width, p.hidden[:-1])
        return model, FlowGuide(PIXELS, p.latents, flow, count, width, encoder)

    return make


def rezende_rate(epoch: int, epochs: int) -> float:
    """Times 10^-0.2 at epochs 200, 350 and 500 of 500, and at the same shares of fewer."""
    return float(10 ** (-0.2 * sum(500 * epoch >= mark * epochs for mark in (200, 350, 500))))


def falling(epoch: int, epochs: int) -> float:
    """Half a cosine down to a hundredth."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * epoch / epochs)) / 2


def burda_rate(epoch: int, epochs: int) -> float:
    """10^(-i/7) for 3^i epochs, i = 0 ... 7."""
    ends = np.cumsum([3**i for i in range(8)])
    return float(10 ** (-int(np.searchsorted(ends, epoch, side="right")) / 7))


def rmsprop(parameters: list[Tensor], rows: int) -> torch.optim.Optimizer:
    """Centered, at 1e-3, for a loss that is a sum."""
    return torch.optim.RMSprop(parameters, lr=1e-3, centered=True, foreach=True)


def adam(rate: float, epsilon: float) -> Callable[[list[Tensor], int], torch.optim.Optimizer]:
    """For a loss that is a mean over rows."""
    return lambda parameters, rows: torch.optim.Adam(
        parameters, lr=rate, eps=epsilon * rows, fused=True
    )


MEANFIELD = Protocol(
    (256, 256), 128, nn.ReLU, rmsprop, lambda epoch, epochs: 1.0, batch_size=128, epochs=167,
    samples=1000, make=standard, published={"ELBO": -103.31, "log p": -97.10},
)  # fmt: skip
REZENDE = Protocol(
    (400,), 40, nn.ReLU, adam(1e-4, 1e-8), rezende_rate, batch_size=100, epochs=500, samples=200,
    make=standard, published={"log p": -89.9},
)  # fmt: skip
VAE = Protocol(
    (200, 200), 50, nn.SiLU, adam(2e-3, 1e-8), falling, batch_size=100, epochs=400, samples=5000,
    make=standard, dynamic=True, warm_up=0.1, xavier=True, published={"log p": -86.76},
)  # fmt: skip
TOMCZAK = Protocol(
    (300, 300), 40, None, adam(2e-3, 1e-8), falling, batch_size=250, epochs=50, samples=5000,
    make=standard, warm_up=0.1, published={"log p": -88.56},
)  # fmt: skip
DIAGONAL = replace(
    TOMCZAK, rate=lambda epoch, epochs: 1.0, epochs=1000, patience=10, warm_up=0.005,
    make=diagonal, published={"log p": -89.9},
)  # fmt: skip
PROTOCOLS = {
    "meanfield": MEANFIELD,
    "rezende": REZENDE,
    "rezende-warm": replace(REZENDE, warm_up=0.2),
    "vae": VAE,
    "iwae5": replace(VAE, particles=5, published={"log p": -85.54}),
    "iwae50": replace(VAE, particles=50, epochs=100, published={"log p": -84.78}),
    "standard": TOMCZAK,
    "mixture": replace(TOMCZAK, make=mixture, published={}),
    "vampprior": replace(TOMCZAK, make=vamp, published={"log p": -85.57}),
    "flow": replace(TOMCZAK, make=flow, published={}),
    "layers": replace(TOMCZAK, make=layers, published={"log p": -86.05}),
    "conv": replace(TOMCZAK, make=convolutions, hidden=(32, 64), shape=IMAGE, published={}),
    "diagonal": DIAGONAL,
    "planar": replace(DIAGONAL, make=bent("planar", 10), published={"log p": -87.5}),
    "planar80": replace(DIAGONAL, make=bent("planar", 80), published={"log p": -85.1}),
    "autoregressive": replace(DIAGONAL, make=bent("autoregressive", 4), published={}),
    "spline": replace(DIAGONAL, make=bent("spline", 2), published={}),
}
FULL = {  # of the dynamic protocols
    "batch_size": 20, "epochs": 3280, "rate": burda_rate, "activation": nn.Tanh, "warm_up": 0.0,
    "optimizer": adam(1e-3, 1e-4),
}  # fmt: skip
SHORT = {"epochs": 50, "optimizer": adam(1e-3, 1e-8)}  # of rezende: 10 times the rate
TINY = {"epochs": 2, "batch_size": 50, "samples": 10, "hidden": (8,), "latents": 3}
