"""Contestants of the step benchmark on torch.

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
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from step_works import Work
from torch import Tensor
from torch._inductor.utils import fresh_inductor_cache
from torch.nn import functional as F

from ppl_vae import fit
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.linting.linter import lint_pair
from ppl_vae.training.arguments import default_optimizer
from ppl_vae.training.stepper import CHECKED_EVERY, COMPILED, TRACED, Stepper

Epoch = Callable[[], float]
Laps = Callable[[int], tuple[list[float], float]]  # epochs -> seconds of each, and last loss


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
