"""Which parts are these images made of?

    python examples/sparse_features.py [--epochs 40] [--run runs/sparse_features]

Simulates images of 8 x 8 pixels, each the sum of a few of sixteen bars (Földiák, 1990, Biological
Cybernetics 64), and noise. Fits a sparse model with twice as many latents as there are bars, and
takes as many principal components as there are bars. Both write an image as a sum of parts.
Components are at right angles and explain the most variance, so that each is a mixture of bars; the
prior of the sparse model asks each image to need few parts, and these are the bars.

Prints the cosine of each bar with the part nearest to it, on average and at least, and draws the
images and the parts.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from torch import Tensor

from ppl_vae import build, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.sparse import SparseModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid

SIDE, ROWS, SHOWN = 8, 4000, 16


def main() -> None:
    """Fit the sparse model, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare sparse features with components.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--run", type=Path, default=Path("runs/sparse_features"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    images, bars = simulated()
    latents = 2 * len(bars)
    pyro.set_rng_seed(0)
    model = build(SparseModel, images, latents=latents)
    encoder = MLP(SIDE**2, 2 * latents, (128,), torch.nn.SiLU)
    guide = build(NormalGuide, images, latents=latents, encoder=encoder)
    fit(
        model, guide, images, epochs=arguments.epochs, batch_size=128, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3),
    )  # fmt: skip
    parts = (model.scale[:, None] * model.decoder.weight).detach().T.numpy()  # (latents, pixels)
    dictionaries = {
        "sparse model": parts[np.argsort(-np.linalg.norm(parts, axis=1))],
        "principal components": PCA(len(bars)).fit(images.numpy()).components_,
    }
    nearest = {name: cosines(bars, found) for name, found in dictionaries.items()}
    table = pd.DataFrame(
        {name: [cosine.mean(), cosine.min()] for name, cosine in nearest.items()},
        index=["mean cosine with the bars", "least"],
    ).T
    print(table.to_string(float_format="{:.2f}".format))
    grids = {"images, sums of few bars": images.numpy()} | {
        f"{name}: cosine {nearest[name].mean():.2f}": found for name, found in dictionaries.items()
    }
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(grids).savefig(arguments.run / "sparse_features.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/sparse_features.png"
        "\nTry next  decoder=MLP(32, 64) in build(SparseModel, ...): a sparse autoencoder."
    )


def simulated() -> tuple[Tensor, np.ndarray]:
    """Return images and the bars that they are sums of.

    Returns:
        The images, (4000, 64), and the bars, (16, 64), of length one: eight rows, eight columns.
    """
    random = np.random.default_rng(0)
    lines = np.eye(SIDE)[:, :, None] * np.ones(SIDE)  # (bars, down, across)
    bars = np.concatenate([lines, lines.transpose(0, 2, 1)]).reshape(2 * SIDE, -1) / SIDE**0.5
    amounts = random.laplace(size=(ROWS, len(bars))) * (random.random((ROWS, len(bars))) < 0.3)
    noise = 0.05 * random.standard_normal((ROWS, SIDE**2))
    return torch.tensor(amounts @ bars + noise).float(), bars


def cosines(bars: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the cosine of each bar with the part nearest to it, whatever its sign, (bars,).

    Args:
        bars: (bars, pixels), of length one.
        parts: (parts, pixels).
    """
    directions = parts / np.linalg.norm(parts, axis=1, keepdims=True)
    nearest: np.ndarray = np.abs(bars @ directions.T).max(1)
    return nearest


def draw(grids: dict[str, np.ndarray]) -> plt.Figure:
    """Draw the first images of each grid, each scaled to its largest value."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
    for ax, (title, vectors) in zip(axes, grids.items(), strict=True):
        images = vectors[:SHOWN] / np.abs(vectors[:SHOWN]).max(1, keepdims=True)
        image_grid(images, columns=4, shape=(SIDE, SIDE), low=-1, high=1, title=title, ax=ax)
    figure.suptitle("Which parts are these images made of? The sparse model finds the bars")
    return figure


if __name__ == "__main__":
    main()
