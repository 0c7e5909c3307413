"""Which groups does a prior with clusters find in digits?

    python examples/clustered_prior.py [--epochs 100] [--run runs/clustered_prior]

Fits two Bernoulli pairs with two latents to scikit-learn's digits (8 x 8 pixels, each black or
white). They differ in the prior: a standard normal, and a mixture of normals whose weights, centers
and spreads are learned. No label is used. Prints the held-out log-likelihood in nats per image and
the agreement of clusters and labels, and draws the components over the codes, with new digits of
each component.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from ppl_vae import build, encode, fit, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.mixture_prior import MixturePriorModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid, latent_map

LATENTS, HIDDEN, COMPONENTS, HELD_OUT, SHOWN = 2, (128,), 10, 300, 8


def main() -> None:
    """Fit both pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare a clustered prior with a normal one.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/clustered_prior"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    shuffled = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    images = torch.as_tensor(digits.data > 7).float()[shuffled]  # (1797, 64): ink or paper
    labels = digits.target[shuffled]
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    rows = []
    for name, cls in {"standard normal": BernoulliModel, "mixture": MixturePriorModel}.items():
        pyro.set_rng_seed(0)
        sizes = {"components": COMPONENTS} if cls is MixturePriorModel else {}
        decoder = MLP(LATENTS, 64, HIDDEN)
        model = build(cls, train, latents=LATENTS, decoder=decoder, **sizes)
        guide = build(NormalGuide, train, latents=LATENTS, encoder=MLP(64, 2 * LATENTS, HIDDEN))
        fit(
            model, guide, train, epochs=arguments.epochs, batch_size=100, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")
            scores = log_likelihood(model, guide, test, num_samples=200)["log_prob"]
        rows.append([name, scores.mean(), scores.sem()])
    columns = ["prior", "held-out log-likelihood", "standard error"]
    table = pd.DataFrame(rows, columns=columns).set_index("prior")
    print(table.to_string(float_format="{:.2f}".format))

    codes = torch.tensor(encode(model, guide, images)["z"]["mean"].to_numpy())
    clusters = model.cluster(codes).argmax(-1)
    agreement = adjusted_rand_score(labels, clusters)
    print(f"\nAdjusted Rand index of clusters and labels (1 is perfect): {agreement:.2f}")
    figure = draw(model, codes, labels)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "clustered_prior.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/clustered_prior.png"
        "\nTry next  more latents: codes have room for more than the digit, and clusters for style."
    )


@torch.no_grad()
def draw(model: MixturePriorModel, codes: Tensor, labels: np.ndarray) -> plt.Figure:
    """Draw the components over the codes of all digits, and new digits of each component."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12.4, 5.8), layout="constrained", width_ratios=[1.2, 1]
    )
    latent_map(
        codes, labels, title="Codes of all digits, and the prior's components, A to J", ax=left
    )
    prior = model.prior()
    weights, strips = prior.mixture_distribution.probs, {}
    for letter, k in zip("ABCDEFGHIJ", weights.argsort(descending=True), strict=True):
        center, spread = model.centers[k], model.log_spreads[k].exp()
        width, height = (4 * spread).tolist()  # two standard deviations to each side
        left.add_patch(Ellipse(center.tolist(), width, height, fill=False, linewidth=0.8))
        edge = (center + 1.4 * spread * torch.tensor([1.0, -1.0])).tolist()
        left.annotate(letter, edge, fontsize=13, color="firebrick", weight="bold")
        z = center + spread * torch.randn(SHOWN, LATENTS)
        label = f"{letter}: {weights[k]:.0%}"
        strips[label] = model.decoder(z).sigmoid().reshape(SHOWN, 8, 8)
    image_grid(
        strips, low=0, high=1, title="New digits of each component, and its weight", ax=right
    )
    figure.suptitle("Which groups does a prior with clusters find in digits, without labels?")
    return figure


if __name__ == "__main__":
    main()
