"""Which parts are photographs made of?

    python examples/sparse_features.py [--epochs 40] [--run runs/sparse_features]

Fits a sparse model to patches of 8 x 8 pixels of the two photographs in scikit-learn, and compares
its dictionary with as many principal components as explain the patches equally well. Both write a
patch as a sum of parts. Components are at right angles and in order of their variance. The parts of
the sparse model are free, and the prior asks each patch to need few of them. Prints how many parts
make nine tenths of a patch, and how many pixels a part covers, on average, and draws the parts: in
patches this small, the two dictionaries differ little.

The patches are whitened as in Olshausen & Field (1996): neighboring pixels are nearly equal, and
without whitening all parts would be smooth.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from torch import Tensor

from ppl_vae import build, encode, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.sparse import SparseModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid

SIDE, LATENTS, HIDDEN, SHOWN = 8, 128, (128,), 24


def main() -> None:
    """Fit the sparse model, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare sparse features with components.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--run", type=Path, default=Path("runs/sparse_features"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    patches = whitened_patches()
    pyro.set_rng_seed(0)
    model = build(SparseModel, patches, latents=LATENTS)
    encoder = MLP(SIDE**2, 2 * LATENTS, HIDDEN, torch.nn.SiLU)
    guide = build(NormalGuide, patches, latents=LATENTS, encoder=encoder)
    fit(
        model, guide, patches, epochs=arguments.epochs, batch_size=128, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3),
    )  # fmt: skip
    codes = encode(model, guide, patches)["z"]["mean"].to_numpy()
    parts = (model.scale[:, None] * model.decoder.weight).detach().T.numpy()  # (latents, pixels)
    explained = 1 - float(
        (patches.numpy() - model.loc.numpy() - codes @ parts).var() / patches.var()
    )
    components = PCA(min(max(explained, 0.1), 0.99)).fit(patches.numpy())
    sizes = codes * np.linalg.norm(parts, axis=1)  # of each part in each patch
    largest = np.argsort(-sizes.std(0))[:SHOWN]
    dictionaries = {
        "sparse model": (sizes, parts[largest]),
        "principal components": (
            components.transform(patches.numpy()), components.components_[:SHOWN],
        ),
    }  # fmt: skip
    rows, images = [], {}
    for name, (shares, shown) in dictionaries.items():
        pixels = concentration(shown).mean()
        rows.append([name, parts_needed(shares), pixels])
        images[f"{name}: a part covers {pixels:.0f} of 64 pixels"] = shown
    columns = ["dictionary", "parts that make 90 % of a patch", "pixels that a part covers"]
    table = pd.DataFrame(rows, columns=columns).set_index("dictionary")
    print(table.to_string(float_format="{:.1f}".format))
    print(f"Both explain {explained:.1%} of the variance of the pixels.")
    figure = draw(images)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "sparse_features.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/sparse_features.png"
        "\nTry next  decoder=MLP(128, 64) in build(SparseModel, ...): a sparse autoencoder."
    )


def whitened_patches() -> Tensor:
    """Return patches of the photographs with as much power in fine as in coarse waves.

    Returns:
        (8480, 64): 8 x 8 pixels without overlap, of spread one in each photograph.
    """
    patches = []
    for photograph in load_sample_images().images:  # (427, 640, 3) each
        gray = photograph.mean(-1)
        down, across = (np.fft.fftfreq(size) for size in gray.shape)
        frequency = np.hypot(down[:, None], across)  # cycles per pixel
        gain = frequency * np.exp(-((frequency / 0.3) ** 4))  # the finest waves are noise
        white = np.fft.ifft2(np.fft.fft2(gray) * gain).real
        tiles = torch.tensor(white / white.std()).float().unfold(0, SIDE, SIDE)
        patches.append(tiles.unfold(1, SIDE, SIDE).reshape(-1, SIDE**2))
    return torch.cat(patches)


def parts_needed(shares: np.ndarray) -> float:
    """Return how many parts make nine tenths of the squared size of a row's parts, on average.

    Args:
        shares: (rows, parts): the size of each part in each row.
    """
    squares = -np.sort(-(shares**2), axis=1)  # the largest first
    reached = squares.cumsum(1) / squares.sum(1, keepdims=True)
    return float(((reached < 0.9).sum(1) + 1).mean())


def concentration(parts: np.ndarray) -> np.ndarray:
    """Return how many pixels each part covers: 1 for a point, 64 for a constant, (parts,).

    Args:
        parts: (parts, pixels).
    """
    return (parts**2).sum(1) ** 2 / (parts**4).sum(1)


def draw(parts: dict[str, np.ndarray]) -> plt.Figure:
    """Draw the parts that come first, each scaled to its largest value."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.1), layout="constrained")
    for ax, (title, vectors) in zip(axes, parts.items(), strict=True):
        images = vectors[:SHOWN] / np.abs(vectors[:SHOWN]).max(1, keepdims=True)
        image_grid(images, columns=8, shape=(SIDE, SIDE), low=-1, high=1, title=title, ax=ax)
    figure.suptitle(f"Which parts are photographs made of? The {SHOWN} that matter most")
    return figure


if __name__ == "__main__":
    main()
