"""Which codes of digits cluster and classify best?

    python examples/digit_codes.py [--epochs 50] [--run runs/digit_codes]

Fits three encoders to scikit-learn's digits (8 x 8 pixels, gray levels 0 to 16), without a look at
the labels: principal components, an autoencoder (a point guide) and a variational one, all with the
same number of latents. The codes of the training digits are clustered by k-means, and a logistic
regression learns the labels of few of them. Prints how well the clusters are the labels (adjusted
Rand index: 1 for the same groups, 0 for chance) and how many held-out digits get the right label,
and draws the three latent spaces.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ppl_vae import build, encode, fit
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.nn import MLP
from ppl_vae.plots import latent_map

LATENTS, SIGMA, HIDDEN, HELD_OUT, LABELLED, REPEATS = 8, 2.0, (128,), 500, 50, 20
GUIDES = {"autoencoder": (DeltaGuide, LATENTS, 0.0), "variational": (NormalGuide, 2 * LATENTS, 1.0)}
"""Guide, outputs of its network, and KL weight."""


def main() -> None:
    """Encode in three ways, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Cluster and classify codes of digits.")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--run", type=Path, default=Path("runs/digit_codes"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    shuffled = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    images, labels = torch.as_tensor(digits.data).float()[shuffled], digits.target[shuffled]
    train = images[HELD_OUT:]
    codes = {"PCA": PCA(LATENTS).fit(train).transform(images)}
    codes |= {name: encoded(train, images, arguments.epochs, *way) for name, way in GUIDES.items()}
    table = pd.DataFrame({name: scores(points, labels) for name, points in codes.items()}).T
    print(table.to_string(float_format="{:.2f}".format))
    print(
        f"\nclusters: adjusted Rand index of ten clusters. right labels: share of {HELD_OUT} "
        f"held-out\ndigits, from {LABELLED} labelled ones (mean of {REPEATS} choices, with its "
        "standard deviation)"
    )
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(codes, labels, table).savefig(arguments.run / "digit_codes.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/digit_codes.png"
        "\nTry next  DenoisingGuide around the guide: does corruption make better codes?"
    )


def encoded(
    train: Tensor, images: Tensor, epochs: int, cls: type, outputs: int, kl_weight: float
) -> np.ndarray:
    """Return the codes of images, (images, latents), from a pair that is fitted to some of them."""
    torch.manual_seed(0)
    sizes = {"latents": LATENTS, "sigma": SIGMA}
    model = build(IsotropicModel, train, decoder=MLP(LATENTS, 64, HIDDEN), **sizes)
    guide = build(cls, train, latents=LATENTS, encoder=MLP(64, outputs, HIDDEN))
    fit(
        model, guide, train, kl_weight=kl_weight, epochs=epochs, batch_size=64, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    return encode(model, guide, images)["z"]["mean"].to_numpy()


def scores(codes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return how well codes cluster and classify; the first rows are held out."""
    clusters = KMeans(10, n_init=5, random_state=0).fit_predict(codes[HELD_OUT:])
    scaled = StandardScaler().fit(codes[HELD_OUT:]).transform(codes)
    random, right = np.random.default_rng(0), []
    for _ in range(REPEATS):
        few = HELD_OUT + random.permutation(len(labels) - HELD_OUT)[:LABELLED]
        classifier = LogisticRegression(max_iter=1000).fit(scaled[few], labels[few])
        right.append(classifier.score(scaled[:HELD_OUT], labels[:HELD_OUT]))
    return {
        "clusters": adjusted_rand_score(labels[HELD_OUT:], clusters),
        "right labels": np.mean(right),
        "sd": np.std(right),
    }


def draw(codes: dict[str, np.ndarray], labels: np.ndarray, table: pd.DataFrame) -> plt.Figure:
    """Draw the codes of each way on the plane that separates the labels best."""
    figure, axes = plt.subplots(1, len(codes), figsize=(14, 4.9), layout="constrained")
    for ax, (name, points) in zip(axes, codes.items(), strict=True):
        line = table.loc[name]
        title = (
            f"{name[0].upper()}{name[1:]}\nclusters {line['clusters']:.2f}, "
            f"right labels {line['right labels']:.0%}"
        )
        latent_map(points, labels, title=title, ax=ax)
        ax.get_legend().remove()  # each label is written beside its codes
    figure.suptitle(f"Codes of digits, {LATENTS} numbers each, that no label has shaped")
    return figure


if __name__ == "__main__":
    main()
