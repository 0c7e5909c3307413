"""A protocol of ``mnist.py`` for some steps, by this library and by Pyro's own SVI, timed."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pyro
import torch
from mnist_protocols import Protocol
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn

from ppl_vae import fit


def beside_svi(protocol: Protocol, train: Tensor, seed: int, steps: int) -> None:
    """Time a protocol's steps under ``fit`` and in a plain Pyro loop, an epoch of each in turn."""
    rows = len(train)
    epoch_steps = math.ceil(rows / protocol.batch_size)
    model, guide = protocol.pair(seed)
    pyro.clear_param_store()
    plain = protocol.optimizer([nn.Parameter(torch.zeros(1))], 1)
    settings = {k: v for k, v in plain.defaults.items() if k in ("lr", "centered", "eps")}
    wrapped = getattr(pyro.optim, type(plain).__name__)(settings)
    svi = SVI(model, guide, wrapped, TraceMeanField_ELBO())
    ours: list[float] = []
    theirs: list[float] = []
    mark = time.perf_counter()

    def turn(row: dict[str, float], *pair: Any) -> bool:
        nonlocal mark
        ours.append((time.perf_counter() - mark) / epoch_steps)
        began = time.perf_counter()
        for index in torch.randperm(rows).split(protocol.batch_size):
            svi.step(train[index])
        pyro.clear_param_store()  # the pair of ``fit`` has parameters of the same names
        theirs.append((time.perf_counter() - began) / epoch_steps)
        mark = time.perf_counter()
        return len(ours) * epoch_steps >= steps + epoch_steps

    own = protocol.pair(seed)
    fit(
        *own, train, optimizer=lambda p: protocol.optimizer(p, rows), callbacks=[turn],
        epochs=10**6, batch_size=protocol.batch_size, compile=True, seed=seed, progress=False,
    )  # fmt: skip
    ours, theirs = ours[1:], theirs[1:]  # the first of each warms up
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(f"{len(ours) * epoch_steps:,} steps of each, an epoch in turn: ms a step, median (range)")
    for name, times in (("ppl_vae.fit", ours), ("Pyro SVI", theirs)):
        middle, low, high = (1e3 * f(times) for f in (statistics.median, min, max))
        print(f"{name:12} {middle:6.2f} ({low:.2f} to {high:.2f})")
    middle, low, high = (f(ratios) for f in (statistics.median, min, max))
    print(f"ratio        {middle:6.2f} ({low:.2f} to {high:.2f})")
