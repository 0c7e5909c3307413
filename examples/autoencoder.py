"""Why are samples of an autoencoder junk, and those of a variational one are not?

    python examples/autoencoder.py [--epochs 60] [--run runs/autoencoder]

Fits the same decoder to scikit-learn's digits (8 x 8 pixels, gray levels 0 to 16) with three
guides: a point without a regularizer (the plain autoencoder), a point with the regularizer of the
prior, and a normal distribution. All reconstruct held-out digits equally well. But a decoder has
learned what to do with its guide's codes alone: the plain autoencoder puts them anywhere, and the
regularized one shrinks them, which its decoder undoes. So most draws of the prior are no codes, and
decode to junk. A guide with a spread has to fill the prior.

Prints how well held-out digits are reconstructed, where the codes lie, and how near samples and
digits are to each other. Draws two of the latents, with the circle that holds 95 % of the prior,
and new digits from the prior.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, encode, fit, generate, reconstruct
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid, latent_map

LATENTS, SIGMA, HIDDEN, HELD_OUT, SHOWN, SAMPLES = 8, 2.0, (128,), 300, 40, 1000
WAYS = {
    "Autoencoder": (DeltaGuide, LATENTS, 0.0),
    "Autoencoder with ½‖z‖²": (DeltaGuide, LATENTS, 1.0),
    "Variational autoencoder": (NormalGuide, 2 * LATENTS, 1.0),
}
"""Guide, outputs of its network, and KL weight."""


def main() -> None:
    """Fit in three ways, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare samples of three autoencoders.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/autoencoder"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    shuffled = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    images = torch.as_tensor(digits.data).float()[shuffled]
    test, train = images[:HELD_OUT], images[HELD_OUT:]

    figure, axes = plt.subplots(
        2, len(WAYS), figsize=(13, 7.2), layout="constrained", height_ratios=[2.2, 1]
    )
    table = {}
    for column, (name, (cls, outputs, kl_weight)) in enumerate(WAYS.items()):
        torch.manual_seed(0)
        sizes = {"latents": LATENTS, "sigma": SIGMA}
        model = build(IsotropicModel, train, decoder=MLP(LATENTS, 64, HIDDEN), **sizes)
        guide = build(cls, train, latents=LATENTS, encoder=MLP(64, outputs, HIDDEN))
        fit(
            model, guide, train, kl_weight=kl_weight, epochs=arguments.epochs, batch_size=64,
            progress=False, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )  # fmt: skip
        codes = encode(model, guide, images)["z"]["mean"]
        samples = generate(model, guide, train, num_samples=SAMPLES, expected=True)
        table[name] = {
            "held-out error": root_mean_square(reconstruct(model, guide, test) - test),
            "sd of codes": codes.to_numpy().std(),
            "sample to digit": nearest(samples, train),
            "digit to sample": nearest(test, samples),
        }
        title = f"{name}: codes of sd {table[name]['sd of codes']:.1f}"
        ax = latent_map(codes.iloc[:, :2], title=title, ax=axes[0, column])
        ax.set(xlim=(-7, 7), ylim=(-7, 7), aspect="equal")
        ax.add_patch(plt.Circle((0, 0), 2.45, fill=False, color="black", linewidth=1.6, zorder=9))
        image_grid(
            samples[:SHOWN], shape=(8, 8), columns=10, low=0, high=16,
            title="new digits, from the prior", ax=axes[1, column],
        )  # fmt: skip
    table["Held-out digits"] = {"digit to sample": nearest(test, train)}
    print(pd.DataFrame(table).T.to_string(float_format="{:.2f}".format, na_rep=""))
    print("\nErrors and distances to the nearest one: root mean square, gray levels per pixel.")
    print("Last line: from held-out digits to the nearest of the training digits.")

    figure.suptitle(f"Two of the {LATENTS} latents; 95 % of the prior lies inside the circle")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "autoencoder.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/autoencoder.png"
        "\nTry next  LATENTS = 2, where the regularized points do fill the prior."
    )


def root_mean_square(errors: Tensor) -> float:
    """Return the root of the mean square of errors, (rows, 64), in gray levels."""
    return float(errors.square().mean().sqrt())


def nearest(rows: Tensor, others: Tensor) -> float:
    """Return the mean distance of rows, (rows, 64), to the nearest of others, (others, 64)."""
    return float(torch.cdist(rows, others).amin(1).mean()) / 8  # 64 pixels


if __name__ == "__main__":
    main()
