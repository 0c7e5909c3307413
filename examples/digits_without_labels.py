"""Which digits belong together, if nobody says which digit is which?

    python examples/digits_without_labels.py [--epochs 150 50] [--run runs/digits_without_labels]

Fits a deep mixture, ten clusters of codes, to scikit-learn's digits (8 x 8 pixels, 0 and 1) and no
label. A first fit has one normal prior for all digits; a Gaussian mixture of its codes says where
the clusters begin in the second. The encoder sees digits turned and moved at random in training, so
that clusters are not of how a digit lies. Prints how many digits are in a cluster of their kind, by
the assignment of clusters to labels that makes it largest, beside k-means and Gaussian mixtures on
principal components. Draws what each cluster draws, and its surest and least sure digits.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from ppl_vae import build, encode, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.deep_mixture import DeepMixtureModel
from ppl_vae.nn import MLP, RandomAffine
from ppl_vae.plots import image_grid

CLUSTERS, SIDE, LATENTS, HIDDEN, SMALL, SHOWN = 10, 8, 10, (256, 256), 0.1, 8


def main() -> None:
    """Cluster in several ways, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Cluster digits without labels.")
    parser.add_argument("--epochs", type=int, nargs=2, default=[150, 50], help="of both fits")
    parser.add_argument("--run", type=Path, default=Path("runs/digits_without_labels"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    x, labels = torch.as_tensor(digits.data > 7).float(), digits.target
    model, probabilities = deep_mixture(x, arguments.epochs)
    found = {"deep mixture": probabilities.argmax(1)}
    found["k-means"] = KMeans(CLUSTERS, n_init=10, random_state=0).fit_predict(x.numpy())
    for size in (5, 10, 20):
        scores = PCA(size, random_state=0).fit_transform(x.numpy())
        found[f"mixture on {size} principal components"] = mixture(scores).predict(scores)
    shares = {name: right(clusters, labels) for name, clusters in found.items()}
    table = pd.DataFrame({"in a cluster of their kind": shares})
    print(table.to_string(float_format="{:.1%}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure = draw(model, probabilities, x)
    figure.savefig(arguments.run / "digits_without_labels.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/digits_without_labels.png"
        "\nTry next  15 clusters: kinds of the same digit; or benchmarks/deep_mixture.py, on MNIST"
    )


def mixture(rows: np.ndarray) -> GaussianMixture:
    """Return the likeliest of five Gaussian mixtures with full covariances."""
    search = GaussianMixture(CLUSTERS, n_init=5, max_iter=300, reg_covar=1e-4, random_state=0)
    return search.fit(rows)


def deep_mixture(x: Tensor, epochs: list[int]) -> tuple[DeepMixtureModel, np.ndarray]:
    """Return the fitted model and each cluster's probability for each row, (rows, CLUSTERS)."""
    torch.manual_seed(0)
    moved = nn.Sequential(nn.Unflatten(-1, (1, SIDE, SIDE)), RandomAffine(), nn.Flatten())
    encoder = nn.Sequential(moved, MLP(SIDE**2, 2 * LATENTS, HIDDEN))
    decoder = MLP(LATENTS, SIDE**2, HIDDEN)
    guide = build(NormalGuide, x, latents=LATENTS, encoder=encoder, loc=0.0, scale=1.0)
    first = build(BernoulliModel, x, latents=LATENTS, decoder=decoder)
    fit(first, guide, x, epochs=epochs[0], kl_weight=SMALL, progress=False)
    start = mixture(encode(first, guide, x)["z"]["mean"].to_numpy())
    model = build(DeepMixtureModel, x, latents=LATENTS, clusters=CLUSTERS, decoder=decoder)
    model.place(start.weights_, start.means_, start.covariances_)
    fit(model, guide, x, epochs=epochs[1], progress=False)
    return model, encode(model, guide, x)["k"].to_numpy()


def right(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose cluster has their label, by the best assignment."""
    table = pd.crosstab(clusters, labels).to_numpy()
    return float(table[linear_sum_assignment(-table)].sum() / len(labels))


@torch.no_grad()
def draw(model: DeepMixtureModel, probabilities: np.ndarray, x: Tensor) -> plt.Figure:
    """Draw, for each cluster, what it draws, and the digits that it is surest and least sure of."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 6), layout="constrained")
    new, surest, least = {}, {}, {}
    best, confidence = probabilities.argmax(1), probabilities.max(1)
    weights = model.logits.softmax(-1)
    for letter, k in zip("ABCDEFGHIJ", weights.argsort(descending=True).tolist(), strict=True):
        label = f"{letter}: {weights[k]:.0%}"
        codes = model.code(k).sample((SHOWN,))
        new[label] = model.decoder(codes).sigmoid().reshape(SHOWN, SIDE, SIDE)
        rows = np.flatnonzero(best == k)
        rows = rows[np.argsort(-confidence[rows])]
        for strip, chosen in ((surest, rows[:SHOWN]), (least, rows[-SHOWN:])):
            pictures = torch.zeros(SHOWN, SIDE, SIDE)
            pictures[: len(chosen)] = x[chosen].reshape(-1, SIDE, SIDE)
            strip[label] = pictures
    titles = "New digits of each cluster, and its weight", "Its surest digits", "Its least sure"
    for ax, strips, title in zip(axes, (new, surest, least), titles, strict=True):
        image_grid(strips, low=0, high=1, title=title, ax=ax)
    figure.suptitle("Which digits belong together, if nobody says which digit is which?")
    return figure


if __name__ == "__main__":
    main()
