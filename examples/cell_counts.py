"""Which likelihood describes counts of cells: Poisson, negative binomial, zero-inflated?

    python examples/cell_counts.py [--data pbmc_counts.npz] [--genes 200] [--out cell_counts.png]

A cell's molecules are counted gene by gene, and its library size is the sum. Without --data the
counts are simulated: 1,000 cells of four types with library sizes of a factor of ten, negative
binomial given type and size, so more variable than Poisson, without any inflation of zeros. --data
takes a sparse matrix of scipy, cells by genes, whose most variable genes are used.

Three pairs that differ in the likelihood alone are fitted to 80 % of the cells. On the others,
compare says which one is best, and how far its lead can be trusted, and predictive_check which
statistics of the data each one reproduces: the variance by the mean (dispersion) and the share of
zeros of every gene.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

from ppl_vae import build, compare, fit, predictive_check, read_data
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.models.zero_inflated import ZeroInflatedModel

LIKELIHOODS = {
    "Poisson": PoissonModel,
    "negative binomial": NegativeBinomialModel,
    "zero-inflated": ZeroInflatedModel,
}
STATISTICS = {
    "dispersion index": "variance / mean of a gene",
    "zero fraction": "share of cells without a gene",
}


def main() -> None:
    """Fit the three pairs, print their scores and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare likelihoods on counts of cells.")
    parser.add_argument("--data", type=Path, help="a sparse matrix, cells by genes (.npz)")
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("cell_counts.png"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    if arguments.data is None:
        counts, origin = simulated(1000, arguments.genes), "simulated cells"
    else:
        counts, origin = read_data(arguments.data), f"cells of {arguments.data.name}"
    data = with_size(counts, arguments.genes)
    order = np.random.default_rng(0).permutation(len(data["size"]))
    test, train = ({name: array[rows] for name, array in data.items()} for rows in split(order))
    fitted, held_out = len(train["size"]), len(test["size"])
    print(f"{origin}, {arguments.genes} genes: {fitted} cells to fit to, {held_out} held out")

    checks, pairs = {}, {}
    for name, likelihood in LIKELIHOODS.items():
        pyro.set_rng_seed(0)
        model = build(likelihood, train, latents=4)
        guide = build(NormalGuide, train, latents=4)
        fit(
            model, guide, train, validation=0.1, epochs=arguments.epochs, patience=15,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
        )  # fmt: skip
        pairs[name] = model, guide
        checks[name] = predictive_check(model, guide, test, num_samples=100)
        print(f"\n{name}\n{checks[name]}")
    found = compare(pairs, test)
    print(f"\n{found}")
    draw(checks, found.frame["difference"], origin).savefig(arguments.out, dpi=130)
    print(f"\nLook at {arguments.out}")


def simulated(cells: int, genes: int) -> np.ndarray:
    """Return simulated counts, (cells, genes): negative binomial given type and library size.

    Four types of cells have gene profiles of their own; the library size of a cell is log-normal.
    """
    random = np.random.default_rng(0)
    profiles = random.gamma(0.5, 1.0, genes) * np.exp(random.normal(0, 0.7, (4, genes)))
    means = profiles[random.integers(0, 4, cells)] * random.lognormal(0.5, 0.5, (cells, 1))
    theta = random.uniform(0.5, 3.0, genes)  # variance: mean + mean^2 / theta
    return random.poisson(means * random.gamma(theta, 1 / theta, (cells, genes)))


def with_size(counts: object, genes: int) -> dict[str, np.ndarray]:
    """Return the counts of the most variable genes and the library size of each cell.

    Args:
        counts: (cells, all genes), dense or a sparse matrix.
        genes: Number of genes.

    Returns:
        ``{"x": (cells, genes), "size": (cells,)}``; sizes are molecules, of the genes chosen or
        not, by their mean over the cells.
    """
    size = np.asarray(counts.sum(1), dtype=float).reshape(-1)
    counts, size = counts[size > 0], size[size > 0]  # a cell without a molecule says nothing
    mean = np.asarray(counts.mean(0)).reshape(-1)
    squares = counts**2 if isinstance(counts, np.ndarray) else counts.power(2)
    variance = np.asarray(squares.mean(0)).reshape(-1) - mean**2
    x = counts[:, np.argsort(-variance)[:genes]]
    return {"x": x if isinstance(x, np.ndarray) else x.toarray(), "size": size / size.mean()}


def split(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fifth of the rows to test on, and the others to fit to."""
    return np.split(order, [len(order) // 5])


def draw(checks: dict, difference: pd.Series, origin: str) -> plt.Figure:
    """Draw every gene's dispersion and zeros in the data beside those in replicates.

    Args:
        checks: A predictive check of each likelihood.
        difference: Log-likelihood of a held-out cell below the best one's, by likelihood; NaN for
            the best one.
        origin: Where the counts come from, for the title.
    """
    figure, axes = plt.subplots(
        2, 3, figsize=(10, 7), sharex="row", sharey="row", layout="constrained"
    )
    for name, column in zip(checks, axes.T, strict=True):
        features = checks[name].features
        for statistic, ax in zip(STATISTICS, column, strict=True):
            genes = features.xs(statistic, level="statistic")
            missed = (genes["observed"] < genes["lower"]) | (genes["observed"] > genes["upper"])
            for rows, color in ((genes[~missed], "0.55"), (genes[missed], "tab:red")):
                ax.vlines(rows["observed"], rows["lower"], rows["upper"], color=color, lw=0.6)
                ax.scatter(rows["observed"], rows["mean"], s=8, color=color, zorder=3)
            ends = [genes["observed"].min(), genes["observed"].max()]
            ax.plot(ends, ends, color="black", lw=0.8, zorder=0)
            outside = f"{missed.sum()} of {len(genes)} genes outside"
            ax.text(0.03, 0.97, outside, transform=ax.transAxes, va="top")
            if statistic == "dispersion index":
                ax.set(xscale="log", yscale="log")
                ax.xaxis.set_minor_formatter(NullFormatter())
                ax.yaxis.set_minor_formatter(NullFormatter())
        behind = -difference[name]
        verdict = f"{behind:.1f} nats per cell behind"
        verdict = "largest held-out log-likelihood" if np.isnan(behind) else verdict
        column[0].set_title(f"{name}\n{verdict}")
    for ax, statistic in zip(axes[:, 0], STATISTICS, strict=True):
        ax.set_ylabel(f"{STATISTICS[statistic]},\nin replicates of the model")
    for ax, statistic in zip(axes[:, 1], STATISTICS, strict=True):
        ax.set_xlabel(f"{STATISTICS[statistic]}, in the held-out cells")
    figure.suptitle(
        f"Which likelihood describes {origin}? A gene that the model reproduces is on the line.\n"
        "Red: the data are outside the replicates' 90 % interval, as 10 % of genes are by chance"
    )
    return figure


if __name__ == "__main__":
    main()
