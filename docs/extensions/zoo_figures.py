"""Figures of the zoo: rows of real data, and what a fitted model makes, or a guide keeps.

All files of the zoo are shown on the same data, scikit-learn's digits of 8 x 8 pixels, in the form
that each model is for: black or white, gray values, counts, categories, or the eight lines of an
image as a sequence.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import numpy as np
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import fit, generate, reconstruct
from ppl_vae.cli.pairs import NO_GUIDE, build_pair
from ppl_vae.zoo.catalog import find_class

SHOWN = 10
BLACK_OR_WHITE = {
    "bernoulli", "conditional", "deep_markov", "deep_mixture", "discrete", "flow_prior",
    "hierarchical", "mixture_prior", "semisupervised", "sigmoid_belief", "vampprior",
}  # fmt: skip
SEQUENCES = {"deep_markov", "hmm", "sequence", "state_space"}
WITH_MASK = {"deep_markov", "sequence", "state_space", "table", "not_missing_at_random"}
WITH_LABELS = {"conditional", "semisupervised", "semisupervised_gaussian"}


def rows_of(model: str, guide: str, rows: int | None = None) -> dict[str, Tensor]:
    """Return digits as the fields that a model and a guide read.

    Args:
        model: Name of a model of the zoo.
        guide: Name of a guide of the zoo, or ``"none"``.
        rows: How many of the 1,797 digits; all if ``None``.
    """
    digits, labels = _digits()
    x, y = digits[:rows], labels[:rows]
    if model in BLACK_OR_WHITE:
        x = (x > 7).float()
    elif model == "continuous_bernoulli":
        x = x / 16
    elif model == "discretized_logistic":
        x = (x / 16 * 255).round()
    elif model == "categorical":
        x = (x / 6).floor()
    elif model not in ("poisson", "negative_binomial", "zero_inflated", "topics"):
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        x = x + noise  # a density of whole numbers grows without bound
    if model in SEQUENCES:
        x = x.reshape(-1, 8, 8)
    fields = {"x": x}
    if model in WITH_LABELS:
        known = torch.arange(len(x)) % 10 == 0
        fields["y"] = y if model == "conditional" else torch.where(known, y, -1)
    if model in WITH_MASK:
        shown = torch.ones_like(x, dtype=torch.bool)
        if model in ("table", "not_missing_at_random"):  # one pixel in ten is missing
            shown = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.1
            fields["x"] = torch.where(shown, x, 0.0)
        fields["seen"] = shown
    if model in SEQUENCES - {"hmm"}:
        fields["lengths"] = torch.full((len(x),), 8)
    fields["index"] = torch.arange(len(x))
    classes = _classes(model, guide)
    read = {name for cls in classes for name in inspect.signature(cls.forward).parameters}
    return {name: field for name, field in fields.items() if name in read}


def _classes(model: str, guide: str) -> list[type[Any]]:
    none = guide == NO_GUIDE
    return [find_class(model, "models"), *([] if none else [find_class(guide, "guides")])]


def pair_of(model: str, guide: str, data: dict[str, Tensor], latents: int) -> tuple[Any, Any]:
    """Return a new pair, with as many latents as is said where their number is free."""
    takes = [inspect.signature(cls).parameters for cls in _classes(model, guide)]
    settings = [f"latents={latents}"] if any("latents" in names for names in takes) else []
    return build_pair(model, guide, data, settings, seed=0)


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return all digits, (1797, 64), whole numbers from 0 to 16, and which digits they are."""
    digits = load_digits()
    return torch.as_tensor(digits.data).float(), torch.as_tensor(digits.target)


def draw(model: str, guide: str, what: str, epochs: int) -> plt.Figure:
    """Fit a pair to digits, and draw some of them above rows that the pair makes.

    Args:
        model: Name of a model of the zoo.
        guide: Name of a guide that fits to it, or ``"none"``.
        what: ``"generate"``, new rows of the model, or ``"reconstruct"``, the same rows decoded
            from the codes that the guide gives them.
        epochs: Passes over the data.
    """
    data: dict[str, Any] = rows_of(model, guide)
    with warnings.catch_warnings(), pyro.get_param_store().scope():
        warnings.simplefilter("ignore")  # a short fit has not converged, and says so
        pair = pair_of(model, guide, data, 16)
        fit(*pair, data, epochs=epochs, progress=False, compile=False)
        few = {name: field[:SHOWN] for name, field in data.items()}
        made = generate(*pair, few, num_samples=SHOWN) if what == "generate" else None
        made = reconstruct(*pair, few) if made is None else made
    below = made["x"] if isinstance(made, dict) else made
    return images(data["x"], torch.as_tensor(np.asarray(below, dtype=float)), what)


def images(rows: Tensor, made: Tensor, what: str) -> plt.Figure:
    """Draw digits in two lines, the data above."""
    figure, axes = plt.subplots(2, SHOWN, figsize=(8, 2), layout="constrained")
    high = float(rows.max())
    for line, shown in zip(axes, (rows, made), strict=True):
        for ax, row in zip(line, shown, strict=False):
            ax.imshow(row.reshape(8, 8), cmap="gray_r", vmin=0, vmax=high)
            ax.set_xticks([])
            ax.set_yticks([])
    for ax, text in zip(
        axes[:, 0], ("data", "made" if what == "generate" else "kept"), strict=True
    ):
        ax.set_ylabel(text, fontsize=11)
    return figure
