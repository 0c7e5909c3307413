"""How many rows does importance sampling fail on, and which guide is the cure?

    python benchmarks/khat.py [--pairs digits counts] [--guides normal refine] [--epochs 300]
                              [--draws 1000] [--steps 100] [--long 100000] [--tiny]

Fits the pairs of ``examples/digits.py`` and ``examples/cell_counts.py`` (Poisson) as
these do. ``normal`` is the guide that the pair was fitted with, ``refine`` that guide refined for
the held-out rows. Any other name of the zoo is a guide that is fitted to the model as it is. Prints
for each guide, on the held-out rows: the mean log-likelihood and ELBO in nats per row, the share of
rows whose k-hat is above 0.7, and the time that the guide took (fitting, or refining) and that its
evaluation took.

``--long 100000`` compares log-likelihoods with those from so many draws. Rows are reliable where
the guide ``normal`` has a k-hat below 0.7 even then: there each guide has to agree with it. On the
other rows a guide has to agree with its own long run, and must not be below the guide ``normal``.
Errors are sd of log p from the effective number of draws; z is a difference by its error.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from sklearn.datasets import load_digits

from ppl_vae import build, fit, log_likelihood, refine
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.nn import MLP
from ppl_vae.zoo.catalog import find_class

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import cell_counts


def digits(epochs: int) -> tuple[Any, Any, Any, Any]:
    """Return the pair of ``examples/digits.py``, its rows, and its 300 held-out rows."""
    torch.manual_seed(0)
    images = torch.as_tensor(load_digits().data > 7).float()
    order = torch.randperm(len(images))
    test, train = images[order[:300]], images[order[300:]]
    model = build(BernoulliModel, images, latents=8, decoder=MLP(8, 64, (256,)))
    guide = build(NormalGuide, images, latents=8, encoder=MLP(64, 16, (256,)))
    fit(model, guide, train, validation=test, epochs=epochs, patience=30, progress=False)
    return model, guide, train, test


def counts(epochs: int) -> tuple[Any, Any, Any, Any]:
    """Return the pair of ``examples/cell_counts.py``, its rows, and its 200 held-out rows."""
    data = cell_counts.with_size(cell_counts.simulated(1000, 100), 100)
    order = np.random.default_rng(0).permutation(1000)
    test, train = (
        {name: array[rows] for name, array in data.items()} for rows in cell_counts.split(order)
    )
    pyro.set_rng_seed(0)
    model = build(PoissonModel, train, latents=4)
    guide = build(NormalGuide, train, latents=4)
    fit(
        model, guide, train, validation=0.1, epochs=epochs, patience=15, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
    )  # fmt: skip
    return model, guide, train, test


PAIRS = {"digits": digits, "counts": counts}


def other_guide(name: str, model: Any, train: Any, epochs: int) -> Any:
    """Return a guide of the zoo, fitted to a model that stays as it is."""
    torch.manual_seed(0)
    guide = build(find_class(name, "guides"), train, latents=model.latents)
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    fit(
        model, guide, train, validation=0.1, epochs=epochs, patience=30, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 3e-3),
    )  # fmt: skip
    for parameter in trainable:
        parameter.requires_grad_(True)
    return guide


def error(scores: pd.DataFrame, draws: int) -> np.ndarray:
    """Return the standard error of each row's log-likelihood, from its effective draws."""
    return np.sqrt((1 / scores["ess"] - 1 / draws).clip(lower=0)).to_numpy()


def z_scores(first: tuple[pd.DataFrame, int], second: tuple[pd.DataFrame, int]) -> np.ndarray:
    """Return the difference of two estimates of each row, by its error.

    Args:
        first: The scores, and the number of draws.
        second: The same of the estimate that is subtracted.
    """
    difference = (first[0]["log_prob"] - second[0]["log_prob"]).to_numpy()
    return difference / np.hypot(np.hypot(error(*first), error(*second)), 1e-6)


def main() -> None:
    """Print a table for each pair."""
    parser = argparse.ArgumentParser(description="Rows with a high k-hat, and their cure.")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--guides", nargs="+", default=["normal", "refine"])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.epochs, arguments.draws, arguments.steps = 2, 100, 5
        arguments.long = min(arguments.long, 200)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UnreliableWarning)
    for name in arguments.pairs:
        report(name, arguments)


def report(name: str, arguments: argparse.Namespace) -> None:
    """Fit a pair, evaluate each guide, and print the table."""
    start = time.perf_counter()
    model, normal, train, test = PAIRS[name](arguments.epochs)
    seconds = {"normal": time.perf_counter() - start}
    guides = {"normal": normal}
    for each in arguments.guides:
        start = time.perf_counter()
        if each == "refine":
            guides[each] = refine(model, normal, test, steps=arguments.steps)
        elif each != "normal":
            guides[each] = other_guide(each, model, train, arguments.epochs)
        seconds.setdefault(each, time.perf_counter() - start)
    draws, long = arguments.draws, arguments.long
    lines, scores, long_scores = {}, {}, {}
    for each, guide in guides.items():
        start = time.perf_counter()
        scores[each] = log_likelihood(model, guide, test, num_samples=draws)
        evaluated = time.perf_counter() - start
        above = (scores[each]["k_hat"] > 0.7).sum()
        lines[each] = {
            "log p": f"{scores[each]['log_prob'].mean():.2f}",
            "ELBO": f"{scores[each]['elbo'].mean():.2f}",
            "k-hat > 0.7": f"{above} of {len(scores[each])} ({above / len(scores[each]):.1%})",
            "median ess": f"{scores[each]['ess'].median():.0f}",
            "guide, s": f"{seconds[each]:.1f}",
            "evaluation, s": f"{evaluated:.1f}",
        }
        if long:
            long_scores[each] = log_likelihood(model, guide, test, num_samples=long, seed=1)
    print(f"\n{name}: {len(scores['normal'])} held-out rows, {draws:,} draws a row, at most "
          f"{arguments.epochs} epochs, refined by {arguments.steps} steps\n")  # fmt: skip
    print(pd.DataFrame(lines).T.to_string())
    if long:
        agreement(scores, long_scores, draws, long)


def agreement(
    scores: dict[str, pd.DataFrame], long_scores: dict[str, pd.DataFrame], draws: int, long: int
) -> None:
    """Print how far the guides' log-likelihoods agree with those of long runs."""
    plain = long_scores["normal"]
    reliable = (plain["k_hat"] < 0.7).to_numpy()
    print(f"\nk-hat of the guide normal at {long:,} draws is below 0.7 in {reliable.sum()} of "
          f"{len(reliable)} rows")  # fmt: skip
    for each, found in scores.items():
        if each == "normal":
            continue
        z = z_scores((found, draws), (plain, long))
        own = z_scores((found, draws), (long_scores[each], long))
        gain = long_scores[each]["log_prob"] - plain["log_prob"]
        print(f"  {each}, in these rows: mean z {z[reliable].mean():+.2f}, "
              f"{(np.abs(z[reliable]) > 3).sum()} rows beyond 3")  # fmt: skip
        if not reliable.all():
            print(f"  {each}, in the others: {(np.abs(own[~reliable]) > 3).sum()} rows beyond 3 of "
                  f"their own long run, {(z[~reliable] < -3).sum()} more than 3 below normal; mean "
                  f"gain {gain[~reliable].mean():+.3f} nats")  # fmt: skip


if __name__ == "__main__":
    main()
