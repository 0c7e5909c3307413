"""Works of the step benchmark, and their contestants on torch.

    z ~ Normal(0, I) or OneHotCategorical(10)     z: (latents,)
    x ~ Bernoulli(logits=decoder(z))              x: (features,)
    loss = -ELBO of a batch                       one Adam update a step

A contestant is a function that takes a ``Work`` and returns a function ``epoch()``, which trains
once over the data in a new random order and returns the loss in nats per row. ``timed`` adds the
measurement of time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor
from torch._inductor.utils import fresh_inductor_cache
from torch.nn import functional as F

from ppl_vae import fit
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.linting.linter import lint_pair
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP, ConvDecoder, ConvEncoder
from ppl_vae.training.arguments import default_optimizer
from ppl_vae.training.stepper import CHECKED_EVERY, COMPILED, TRACED, Stepper

Epoch = Callable[[], float]
Laps = Callable[[int], tuple[list[float], float]]  # epochs -> seconds of each, and last loss
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


def timed(contestant: Callable[..., Epoch]) -> Callable[..., Laps]:
    """Return a contestant that measures each epoch's time, after one epoch that warms up."""

    @functools.wraps(contestant)
    def build(*arguments: Any) -> Laps:
        epoch = contestant(*arguments)

        def laps(epochs: int) -> tuple[list[float], float]:
            loss = epoch()
            clock = [time.perf_counter()]
            for _ in range(epochs):
                loss = epoch()
                clock.append(time.perf_counter())
            return [end - start for start, end in itertools.pairwise(clock)], loss

        return laps

    return build


def whole_fit(work: Work, compiled: bool, bf16: bool = False) -> Laps:
    """Prepare ``fit``; the seconds are those of its history, so all that its loop does counts.

    With ``bf16`` it runs under ``torch.autocast``; the numbers differ, so no ratio is formed. Every
    call is a new fit that continues with the weights of the fit before. The first epoch contains
    tracing and compilation, and is left out.
    """
    (model, guide), data = work.pair(), work.data()
    seeds = itertools.count()

    def laps(epochs: int) -> tuple[list[float], float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            history = fit(
                model, guide, data, elbo=work.elbo(), epochs=epochs + 1, batch_size=work.rows,
                compile=compiled and work.compiler, seed=next(seeds), progress=False,
            )  # fmt: skip
        if compiled and work.compiler and history.step != COMPILED:
            raise ValueError(f"{work.name}: the step is {history.step}, {history.step_reason}")
        seconds, elbo = history.frame["seconds"], history.frame["elbo"]
        return seconds.diff().iloc[1:].tolist(), -float(elbo.iloc[-1])

    return laps


def prepared(work: Work, kind: str) -> tuple[Stepper, float]:
    """Return a stepper for a kind of step, as ``fit`` makes it, and the seconds that took."""
    pair, rows = Pair.of(*work.pair(), "data"), as_rows(work.data())
    objective = lint_pair(pair, rows, elbo=work.elbo(), kl_weight=1.0, seed=0).objective
    assert objective is not None
    parameters = list(pair.trainable().values())
    stepper = Stepper(
        pair, rows, objective, parameters, default_optimizer(parameters), None,
        requested=True, batch_size=work.rows, weighted=False, watched=False,
    )  # fmt: skip
    stepper.kinds = {work.rows: kind}
    start = time.perf_counter()
    stepper.prepare()
    seconds = time.perf_counter() - start
    if stepper.kind != kind:
        raise ValueError(f"{work.name}: the step is {stepper.kind}, {stepper.reason}")
    return stepper, seconds


def preparations(work: Work) -> dict[str, float]:
    """Return the seconds to prepare the steps.

    ``traced``; ``cold`` and ``cached``, the compiled step with inductor's cache empty and full;
    ``check``, the comparison that long fits repeat, of the fastest kind of step.
    """
    stepper, traced = prepared(work, TRACED)
    seconds = {"traced": traced}
    with fresh_inductor_cache() if work.compiler else contextlib.nullcontext():
        for name in ("cold", "cached") if work.compiler else ():
            stepper, seconds[name] = prepared(work, COMPILED)
        start = time.perf_counter()
        stepper.check(0, CHECKED_EVERY)
        seconds["check"] = time.perf_counter() - start
    return seconds


@timed
def traced_step(work: Work) -> Epoch:
    """Prepare the traced step without a compiler, as ``fit`` runs it in fits of middle length."""
    stepper, _ = prepared(work, TRACED)

    def epoch() -> float:
        batches = torch.randperm(work.data_rows).split(work.rows)
        total = sum(stepper(index, 1.0)[0][0] * len(index) for index in batches)
        return total / work.data_rows**2  # every loss stands for the whole data set

    return epoch


@timed
def svi(work: Work) -> Epoch:
    """Prepare a bare loop of Pyro's SVI, as Pyro's examples write it."""
    (model, guide), data = work.pair(), work.data()
    inference = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), work.elbo())

    def epoch() -> float:
        batches = torch.randperm(len(data)).split(work.rows)
        total = sum(inference.step(data[index]) for index in batches)
        pyro.clear_param_store()  # another contestant's parameters have the same names
        return total / len(data)

    return epoch


@timed
def by_hand(work: Work, compiled: bool) -> Epoch:
    """Prepare PyTorch without Pyro: the same networks and loss, fused Adam.

    With ``compiled``, loss and gradient of whole batches are compiled; a smaller last batch runs as
    written. The options (torch's own draws, C++ around the kernels) make it up to twice as fast.
    """
    (model, guide), data = work.pair(), work.data()
    encoder, decoder = guide.encoder, model.decoder
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    particles = [work.particles] if work.particles > 1 else []

    def loss_of(x: Tensor) -> Tensor:
        mean, log_variance = encoder(x).chunk(2, -1)  # (rows, latents) each
        noise = torch.randn([*particles, *mean.shape])
        logits = decoder(mean + (log_variance / 2).exp() * noise)  # (..., rows, features)
        target = x.expand(logits.shape)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / work.particles
        return loss + 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()

    whole = loss_of
    if compiled:
        loss_of.__code__ = loss_of.__code__.replace()  # a compiler's cache for each work
        options = {"fallback_random": True, "cpp_wrapper": True}
        whole = (
            torch.compile(loss_of, dynamic=False, options=options)
            if work.compiler
            else torch.compile(loss_of, dynamic=False, backend="eager")
        )

    def step(x: Tensor) -> float:
        optimizer.zero_grad()
        loss = whole(x) if len(x) == work.rows else loss_of(x)
        loss.backward()
        optimizer.step()
        return loss.item()

    def epoch() -> float:
        batches = torch.randperm(len(data)).split(work.rows)
        return sum(step(data[index]) for index in batches) / len(data)

    return epoch


@timed
def products_alone(work: Work) -> Epoch:
    """Prepare the matrix products of a step and nothing else: a floor for programs on torch.

    The gradient of the data is left out, because no step needs it.
    """
    ragged = work.data_rows % work.rows
    sizes = [work.rows] * (work.data_rows // work.rows) + [ragged] * bool(ragged)
    layers = {
        size: [_layer(*product) for product in work.products(size)] for size in dict.fromkeys(sizes)
    }

    @torch.no_grad()
    def epoch() -> float:
        for size in sizes:
            for x, weight, y, dx, dweight in layers[size]:
                torch.mm(x, weight.T, out=y)
                torch.mm(y.T, x, out=dweight)
                if dx is not None:
                    torch.mm(y, weight, out=dx)
        return math.nan

    return epoch


def _layer(
    rows: int, inputs: int, outputs: int, needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Return input, weight, output, and gradients of input and weight, for one layer."""
    x, weight = torch.full((rows, inputs), 1e-3), torch.full((outputs, inputs), 1e-3)
    dx = torch.empty_like(x) if needed else None
    return x, weight, torch.empty(rows, outputs), dx, torch.empty_like(weight)
