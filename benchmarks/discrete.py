"""Discrete latents on static binarized MNIST: the estimators of the gradient beside each other.

    python benchmarks/discrete.py categorical-gumbel categorical-rloo --data DIR --out rows.jsonl
    python benchmarks/discrete.py bernoulli-gumbel bernoulli-rloo --data DIR --out rows.jsonl
    python benchmarks/discrete.py categorical-score --epochs 20 --rows 1000 --data DIR
    python benchmarks/discrete.py --draw rows.jsonl discrete.png

A row is a kind of latents and an estimator, as ``categorical-rloo``:

    categorical        20 latents of 10 states
    bernoulli          200 latents of 2 states
    belief             sigmoid belief network of 200 latents, everything linear
    layers             sigmoid belief network of two layers of 200 latents
    gumbel             relaxed guide; temperature 1, times 0.98 each epoch down to 0.5, or times
                       0.95 down to 0.2 for latents of 2 states, whose soft values tell more
    straight-through   the same, one-hot draws with the relaxed draws' gradients
    score              score function without a baseline, four particles
    average            the mean of the batch's other rows as baseline, four particles
    network            a network (784-100-1) as baseline, four particles
    rloo               the mean of the row's other particles as baseline, four particles
    vimco              the importance-weighted bound of four particles, the same kind of baseline

Model 784 <- 256 <- 256 <- z, guide 784 -> 256 -> 256 -> z, SiLU (linear both ways in the belief
networks); a learned prior; Adam over half a cosine, batches of 100, no KL warm-up; the weights of
the best epoch by the validation ELBO. The learning rate is the best of 3e-4, 1e-3 and 3e-3 by the
validation ELBO after ``--grid-epochs`` epochs, for each row alone. log p is from 1,000 samples
(``log_likelihood``), of all test rows or of ``--rows`` of them, evenly spaced. A fit goes on where
it was cut off; lines of ``--out`` that are there are not computed again.

Measured with ``--epochs 100``, seed 0, all test rows: categorical-gumbel -log p 94.11 +- 0.26,
-ELBO 104.19 (rate 1e-3; relaxed draws earn more than discrete ones, the trained objective is 94.9
where the training ELBO is 100.7); categorical-rloo 98.00 +- 0.28, -ELBO 106.10 (rate 1e-3, best
epoch 88); with ``--rate 1e-3``: bernoulli-gumbel 101.37 +- 0.27, -ELBO 112.18 (codes of 0 and 1
instead of -1 and 1, at the rate 3e-3: 110.84); bernoulli-rloo 102.75 +- 0.28, -ELBO 113.72. 16 to
36 minutes each, beside other work on two cores. belief-rloo, 50 epochs at the same rate: 110.46 +-
0.26, -ELBO 121.30; layers-rloo likewise 101.85 +- 0.25, -ELBO 111.49, still rising. With
``--epochs 10 --rows 1000 --rate 1e-3``, at equal evaluations of the decoder among the estimators of
four particles, +- 1: bernoulli-gumbel 119.4, straight-through 128.7, score 154.8, average 122.6,
network 124.9, rloo 114.7, vimco 116.9; categorical-gumbel 111.7, straight-through 122.6, score
141.1, rloo 113.9.

Published: Jang, Gu & Poole (2017), table 1, arXiv:1611.01144: log p bounds of 1,000 samples for one
layer of the same latents, where each estimator has its own rate as well, and the score function has
variance normalization. Mnih & Gregor (2014), table 1, arXiv:1402.0030 (as recalled: the bound of
sigmoid belief networks of 200 and of 200-200 latents).
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from json_lines import ResultLines
from mnist import Images
from mnist_protocols import PIXELS
from torch import nn

from ppl_vae import IWAE, RowELBO, fit, log_likelihood
from ppl_vae.guides.bernoulli import BernoulliGuide
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.guides.relaxed import RelaxedGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.sigmoid_belief import SigmoidBeliefModel
from ppl_vae.nn import MLP

LATENTS = {"categorical": (20, 10), "bernoulli": (200, 2)}
BELIEF = {"belief": 200, "layers": (200, 200)}
PUBLISHED = {
    "categorical-score": 110.6, "categorical-straight-through": 110.9, "categorical-gumbel": 101.5,
    "bernoulli-score": 112.2, "bernoulli-straight-through": 116.0, "bernoulli-gumbel": 105.0,
    "belief-network": 113.1, "layers-network": 99.8,
}  # fmt: skip
HIDDEN = (256, 256)
RATES = (3e-4, 1e-3, 3e-3)
PARTICLES = 4
ESTIMATORS: dict[str, Callable[[], Any] | None] = {
    "gumbel": None,
    "straight-through": None,
    "score": partial(RowELBO, PARTICLES),
    "average": partial(RowELBO, PARTICLES, baseline="average"),
    "network": partial(RowELBO, PARTICLES),
    "rloo": partial(RowELBO, PARTICLES, baseline="leave_one_out"),
    "vimco": partial(IWAE, PARTICLES, baseline="leave_one_out"),
}
DRAWN = [name for name, make_elbo in ESTIMATORS.items() if make_elbo is not None]
ROWS = [f"{kind}-{estimator}" for kind in LATENTS for estimator in ESTIMATORS]
ROWS += [f"{kind}-{estimator}" for kind in BELIEF for estimator in DRAWN]


def make_pair(name: str, seed: int) -> tuple[Any, Any]:
    """Return the model and the guide of a row."""
    torch.manual_seed(seed)
    kind, _, estimator = name.partition("-")
    baseline = MLP(PIXELS, 1, (100,)) if estimator == "network" else None
    if kind in BELIEF:
        sizes = BELIEF[kind]
        encoder = nn.Linear(PIXELS, 200)
        guide = BernoulliGuide(PIXELS, sizes, encoder, baseline=baseline)
        return SigmoidBeliefModel(PIXELS, sizes), guide
    latents, states = LATENTS[kind]
    size = latents if states == 2 else latents * states
    model = DiscreteModel(PIXELS, latents, states, MLP(size, PIXELS, HIDDEN))
    encoder = MLP(PIXELS, size, HIDDEN)
    if estimator in ("gumbel", "straight-through"):
        hard = estimator == "straight-through"
        how = {"temperature": 1.0, "straight_through": hard}
        return model, RelaxedGuide(PIXELS, latents, states, encoder, **how)
    if states == 2:
        return model, BernoulliGuide(PIXELS, latents, encoder, baseline=baseline)
    return model, CategoricalGuide(PIXELS, latents, states, encoder, baseline=baseline)


def cool(row: dict[str, float], model: Any, guide: Any) -> None:
    """Lower the temperature of a relaxed guide: a callback of ``fit``."""
    if hasattr(guide, "temperature"):
        factor, lowest = (0.95, 0.2) if guide.states == 2 else (0.98, 0.5)
        guide.temperature.mul_(factor).clamp_(min=lowest)


def train(name: str, images: Images, settings: dict[str, Any], run: Path) -> tuple[Any, Any, Any]:
    """Fit the pair of a row; return it and the history."""
    model, guide = make_pair(name, settings["seed"])
    make_elbo = ESTIMATORS[name.partition("-")[2]]
    epochs = settings["epochs"]
    steps = epochs * math.ceil(len(images.train) / settings["batch_size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lint warns of the estimators that are compared here
        history = fit(
            model, guide, images.train, validation=images.valid,
            elbo=make_elbo() if make_elbo else None,
            optimizer=lambda parameters: torch.optim.Adam(parameters, settings["rate"]),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, 2 * steps
            ),
            epochs=epochs, batch_size=settings["batch_size"], callbacks=[cool],
            seed=settings["seed"], run=run, resume=True,
        )  # fmt: skip
    return model, guide, history


def best_rate(name: str, images: Images, arguments: argparse.Namespace, runs: Path) -> float:
    """Return the rate with the highest validation ELBO after a short fit; print all of them."""
    if arguments.rate is not None:
        return float(arguments.rate)
    results, found = ResultLines(arguments.out), {}
    for rate in RATES:
        settings = {
            "row": name, "rate": rate, "epochs": arguments.grid_epochs, "seed": arguments.seed,
            "batch_size": arguments.batch_size, "stage": "grid",
        }  # fmt: skip
        line = results.find(**settings)
        if line is None:
            run = runs / f"{name}-{rate:g}-{arguments.grid_epochs}"
            _, _, history = train(name, images, settings, run)
            line = {**settings, "validation_elbo": history.validation_elbo}
            results.append(line)
        found[rate] = line["validation_elbo"]
    shown = ", ".join(f"{rate:g}: {elbo:.2f}" for rate, elbo in found.items())
    print(f"{name}: validation ELBO after {arguments.grid_epochs} epochs by rate: {shown}")
    return max(found, key=lambda rate: found[rate])


def measure(name: str, images: Images, arguments: argparse.Namespace) -> dict[str, Any]:
    """Choose the rate, fit, score the test rows; return the line of the results."""
    results = ResultLines(arguments.out)
    settings = {
        "row": name, "epochs": arguments.epochs, "seed": arguments.seed, "stage": "result",
        "batch_size": arguments.batch_size, "samples": arguments.samples, "rows": arguments.rows,
    }  # fmt: skip
    line = results.find(**settings)
    if line is not None:
        return line
    rate = best_rate(name, images, arguments, arguments.runs)
    began = time.perf_counter()
    run = arguments.runs / f"{name}-{rate:g}-{arguments.epochs}"
    model, guide, history = train(name, images, {**settings, "rate": rate}, run)
    print(history)
    seconds = time.perf_counter() - began
    test = images.test
    if arguments.rows:
        test = test[torch.linspace(0, len(test) - 1, arguments.rows).long()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the share of such rows is printed instead
        scores = log_likelihood(model, guide, test, num_samples=arguments.samples, seed=0)
    column = history.frame[["seconds", "validation_elbo"]]
    line = {
        **settings,
        "rate": rate,
        "log_prob": scores["log_prob"].mean(),
        "log_prob_se": scores["log_prob"].std() / math.sqrt(len(scores)),
        "elbo": scores["elbo"].mean(),
        "unreliable": float((scores["k_hat"] > scores.attrs["k_hat_threshold"]).mean()),
        "best_epoch": int(history.best_epoch),
        "seconds_fit": round(seconds),
        "curve": [[round(s), round(e, 2)] for s, e in column.itertuples(index=False)],
    }
    results.append(line)
    return line


def show(line: dict[str, Any]) -> None:
    """Print a line of the results beside what was published."""
    published = PUBLISHED.get(line["row"])
    print(
        f"{line['row']:30} -log p {-line['log_prob']:7.2f} +- {line['log_prob_se']:.2f}"
        f"  published {'' if published is None else published:>6}  -ELBO {-line['elbo']:7.2f}"
        f"  rate {line['rate']:g}, {line['epochs']} epochs, best {line['best_epoch']}, "
        f"{line['seconds_fit']} s, k-hat high in {line['unreliable']:.0%}"
    )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Draw the validation ELBO of all lines against epochs, a panel for each kind of latents."""
    lines = [line for line in lines if line["stage"] == "result"]
    kinds = [k for k in (*LATENTS, *BELIEF) if any(line["row"].startswith(k) for line in lines)]
    size = (6 * len(kinds), 5)
    figure, grid = plt.subplots(
        1, len(kinds), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    axes = grid[0]
    for ax, kind in zip(axes, kinds, strict=True):
        for line in lines:
            if line["row"].startswith(kind):
                elbos = [elbo for _, elbo in line["curve"]]
                label = f"{line['row'].partition('-')[2]}, {line['epochs']} epochs"
                ax.plot(range(1, len(elbos) + 1), elbos, label=label)
        ax.set(title=kind, xlabel="epoch", xscale="log")
        ax.legend(fontsize="small", loc="lower right")
    axes[0].set_ylabel("held-out ELBO (nats per row; higher is better)")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Fit and score the rows that are named, or draw the results of a file."""
    parser = argparse.ArgumentParser(description="Estimators of the gradient on MNIST.")
    parser.add_argument(
        "rows_", nargs="*", choices=[*ROWS, []], metavar="row", help=", ".join(ROWS)
    )
    parser.add_argument("--data", type=Path, help="folder of mnist_binarized.npz")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--runs", type=Path, default=Path("runs/discrete"), help="kept fits")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--grid-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rate", type=float, help="leave the grid out")
    parser.add_argument("--rows", type=int, help="score so many test rows, evenly spaced")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", nargs=2, type=Path, metavar=("RESULTS", "FIGURE"))
    parser.add_argument("--tiny", action="store_true", help="200 rows, two epochs")
    arguments = parser.parse_args()
    if arguments.draw:
        lines = [json.loads(line) for line in arguments.draw[0].read_text().splitlines()]
        return draw(lines, arguments.draw[1])
    if arguments.data is None:
        parser.error("--data: expected the folder of mnist_binarized.npz")
    if arguments.tiny:
        arguments.epochs, arguments.grid_epochs, arguments.samples = 2, 1, 20
    count = 200 if arguments.tiny else None
    images = Images(arguments.data, dynamic=False, seed=0, count=count)
    for name in arguments.rows_:
        show(measure(name, images, arguments))
    return None


if __name__ == "__main__":
    main()
