"""Works of the step benchmark: pairs, their sizes and their data, the same for every contestant.

z ~ Normal(0, I) or OneHotCategorical(10)     z: (latents,)
x ~ Bernoulli(logits=decoder(z))              x: (features,)
loss = -ELBO of a batch                       one Adam update a step
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor

from ppl_vae.guides.classifier import ClassifierGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.semisupervised import SemisupervisedModel
from ppl_vae.nn import MLP, ConvDecoder, ConvEncoder

Product = tuple[int, int, int, bool]

CLASSES = 10


@dataclass(frozen=True)
class Work:
    """A variational autoencoder and its sizes: the same for every contestant.

    Attributes:
        name: How the command line calls it.
        rows: Rows in a batch.
        features: Width of a row.
        hidden: Width of the one hidden layer of encoder and decoder.
        latents: Width of the code.
        particles: Draws of the code for each row.
        data_rows: N, rows of the data set.
        epochs: Measured epochs a round.
        compiler: Whether to compile; else the compiled contestants run as written.
        objective: Class of Pyro's ELBO.
        asked: The ratio aimed at: how many times faster than each peer ``fit`` should be.
    """

    name: str
    rows: int = 128
    features: int = 30
    hidden: int = 64
    latents: int = 20
    particles: int = 1
    data_rows: int = 20_000
    epochs: int = 2
    compiler: bool = True
    objective: type[ELBO] = TraceMeanField_ELBO
    asked: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Updates in one epoch, a smaller last batch included."""
        return math.ceil(self.data_rows / self.rows)

    def data(self) -> Tensor:
        """Return bits in ten clusters, a tenth of the bits flipped, (data_rows, features)."""
        generator = torch.Generator().manual_seed(0)
        centers = torch.rand(10, self.features, generator=generator).round()
        cluster = torch.randint(10, (self.data_rows,), generator=generator)
        flipped = torch.rand(self.data_rows, self.features, generator=generator) < 0.1
        return (centers[cluster] - flipped.float()).abs()

    def pair(self) -> tuple[Any, Any]:
        """Return a new model and guide, with the same weights for every contestant."""
        torch.manual_seed(0)
        decoder = MLP(self.latents, self.features, hidden=(self.hidden,))
        encoder = MLP(self.features, 2 * self.latents, hidden=(self.hidden,))
        model = BernoulliModel(self.features, self.latents, decoder)
        return model, NormalGuide(self.features, self.latents, encoder)

    def elbo(self) -> ELBO:
        """Return a new ELBO object of Pyro's."""
        return self.objective(
            num_particles=self.particles,
            vectorize_particles=self.particles > 1,
            max_plate_nesting=1,
        )

    def products(self, rows: int) -> list[Product]:
        """Return a step's layers as (rows, inputs, outputs, whether the input needs a gradient)."""
        drawn = self.particles * rows
        return [
            (rows, self.features, self.hidden, False),
            (rows, self.hidden, 2 * self.latents, True),
            (drawn, self.latents, self.hidden, True),
            (drawn, self.hidden, self.features, True),
        ]


class ClassModel(PyroModule):
    """p(x, z) with one of ten classes a row.

    Args:
        decoder: (..., 10) -> (..., features), the logits.
    """

    def __init__(self, decoder: MLP) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.OneHotCategorical(logits=x.new_zeros(CLASSES)))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class ClassGuide(PyroModule):
    """q(z given x).

    Args:
        encoder: (..., features) -> (..., 10), the logits.
        infer: Pyro's instructions for the latent site.
    """

    def __init__(self, encoder: MLP, infer: dict[str, str]) -> None:
        super().__init__()
        self.encoder, self.infer = encoder, infer

    def forward(self, x: Tensor) -> None:
        """Propose classes for rows x, (rows, features)."""
        logits = self.encoder(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.OneHotCategorical(logits=logits), infer=dict(self.infer))


class ClassWork(Work):
    """A ten-way categorical latent: enumerated under ``TraceEnum_ELBO``, else drawn."""

    @property
    def enumerated(self) -> bool:
        """Whether the guide sums the classes out."""
        return self.objective is TraceEnum_ELBO

    def pair(self) -> tuple[Any, Any]:
        """Return a new model and guide, with the same weights for every contestant."""
        torch.manual_seed(0)
        decoder = MLP(CLASSES, self.features, hidden=(self.hidden,))
        encoder = MLP(self.features, CLASSES, hidden=(self.hidden,))
        infer = {"enumerate": "parallel"} if self.enumerated else {}
        return ClassModel(decoder), ClassGuide(encoder, infer)

    def products(self, rows: int) -> list[Product]:
        """Return the layers of a step; the decoder meets each class once where enumerated."""
        decoded = CLASSES if self.enumerated else rows
        return [
            (rows, self.features, self.hidden, False),
            (rows, self.hidden, CLASSES, True),
            (decoded, CLASSES, self.hidden, False),
            (decoded, self.hidden, self.features, True),
        ]


class LabelWork(ClassWork):
    """The semi-supervised pair of the zoo; every tenth row has a label, in its last column.

    SVI's loss contains the classifier's own term, which the ELBO of ``fit``'s history does not.
    """

    def data(self) -> Tensor:
        """Return bits, and beside them a label or -1, (data_rows, features + 1)."""
        rows = torch.arange(self.data_rows)
        labels = torch.where(rows % 10 == 0, rows // 10 % CLASSES, -1)
        return torch.cat([super().data(), labels[:, None].float()], 1)

    def pair(self) -> tuple[Any, Any]:
        """Return a new model and guide, with the same weights for every contestant."""
        torch.manual_seed(0)
        sizes = {"features": self.features, "latents": self.latents, "classes": CLASSES}
        decoder = MLP(self.latents + CLASSES, self.features, hidden=(self.hidden,))
        classifier = MLP(self.features, CLASSES, hidden=(self.hidden,))
        encoder = MLP(self.features, self.hidden, hidden=(self.hidden,))
        guide = ClassifierGuide(**sizes, hidden=self.hidden, classifier=classifier, encoder=encoder)
        return LabelInRow(SemisupervisedModel(**sizes, decoder=decoder)), LabelInRow(guide)

    def products(self, rows: int) -> list[Product]:
        """Return the layers of a step: joint layer and decoder meet each row with every class."""
        summed = CLASSES * rows
        return [
            (rows, self.features, self.hidden, False),
            (rows, self.hidden, CLASSES, True),
            (rows, self.features, self.hidden, False),
            (rows, self.hidden, self.hidden, True),
            (summed, self.hidden + CLASSES, self.hidden, True),
            (summed, self.hidden, 2 * self.latents, True),
            (summed, self.latents + CLASSES, self.hidden, True),
            (summed, self.hidden, self.features, True),
        ]


class LabelInRow(PyroModule):
    """A model or guide of rows and labels that reads the label from a row's last column."""

    def __init__(self, half: PyroModule) -> None:
        super().__init__()
        self.inner = half

    def forward(self, x: Tensor) -> None:
        """Run the half on rows with labels, (rows, features + 1)."""
        self.inner(x[:, :-1], x[:, -1])


class ConvWork(Work):
    """Square gray images, two convolutions each way, with ``hidden`` and twice as many channels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width; ``features`` pixels where that is a square."""
        return 1, math.isqrt(self.features), math.isqrt(self.features)

    def data(self) -> Tensor:
        """Return bits in ten clusters as images, (data_rows, 1, height, width)."""
        return super().data()[:, : math.prod(self.shape)].reshape(-1, *self.shape)

    def pair(self) -> tuple[Any, Any]:
        """Return a new model and guide, with the same weights for every contestant."""
        torch.manual_seed(0)
        channels = (self.hidden, 2 * self.hidden)
        decoder = ConvDecoder(self.latents, self.shape, hidden=channels[::-1])
        encoder = ConvEncoder(self.shape, 2 * self.latents, hidden=channels)
        model = BernoulliModel(self.shape, self.latents, decoder)
        return model, NormalGuide(self.shape, self.latents, encoder)
