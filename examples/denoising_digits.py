"""What does a guide learn that is shown corrupted rows?

    python examples/denoising_digits.py [--epochs 50] [--run runs/denoising_digits]

Fits pairs to scikit-learn's digits (8 x 8 pixels, gray levels 0 to 16): one with a normal guide,
and two with the same guide inside a denoising one, which hides half of the pixels, or adds noise,
in training. The model scores the clean digit in all of them. Then they reconstruct held-out digits
that were corrupted in the same way. Prints the error against the clean digits, and draws digits,
what the guides are shown, and what comes out.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, fit, reconstruct
from ppl_vae.guides.denoising import DenoisingGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.nn import MLP, GaussianNoise, MaskingNoise
from ppl_vae.plots import image_grid

LATENTS, SIGMA, HIDDEN, HELD_OUT, SHOWN = 16, 2.0, (128,), 300, 14
CORRUPTIONS = {"half of the pixels hidden": MaskingNoise(0.5), "noise": GaussianNoise(0.7)}


def main() -> None:
    """Fit the pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Denoise digits.")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--run", type=Path, default=Path("runs/denoising_digits"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    images = torch.as_tensor(load_digits().data).float()
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    plain = fitted(train, None, arguments.epochs)

    figure, axes = plt.subplots(len(CORRUPTIONS), 1, figsize=(9.4, 5.9), layout="constrained")
    table = {}
    for ax, (name, corruption) in zip(axes, CORRUPTIONS.items(), strict=True):
        denoising = fitted(train, corruption, arguments.epochs)
        with torch.no_grad():
            shown = denoising[1].corrupted(test)
        made = {"shown": shown, "normal guide": reconstruct(*plain, shown),
                "denoising guide": reconstruct(*denoising, shown)}  # fmt: skip
        table[name] = {way: error(rows, test) for way, rows in made.items()}
        table[name]["denoising guide, clean digits"] = error(reconstruct(*denoising, test), test)
        strips = {way: rows[:SHOWN] for way, rows in {"digit": test, **made}.items()}
        image_grid(strips, shape=(8, 8), low=0, high=16, title=name.capitalize(), ax=ax)
    table["nothing"] = {"normal guide": error(reconstruct(*plain, test), test)}
    print(pd.DataFrame(table).T.to_string(float_format="{:.2f}".format, na_rep=""))
    print("\nErrors: root mean square against the clean digit, in gray levels from 0 to 16.")

    figure.suptitle("Held-out digits, what the guides are shown, and what is reconstructed from it")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "denoising_digits.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/denoising_digits.png"
        "\nTry next  SaltAndPepperNoise(0.3), or the guide of one corruption on the other."
    )


def fitted(train: Tensor, corruption: torch.nn.Module | None, epochs: int) -> tuple:
    """Return a fitted model, and its guide, around which a denoising one corrupts the rows."""
    torch.manual_seed(0)
    decoder, encoder = MLP(LATENTS, 64, HIDDEN), MLP(64, 2 * LATENTS, HIDDEN)
    sizes = {"latents": LATENTS, "sigma": SIGMA}
    model = build(IsotropicModel, train, decoder=decoder, **sizes)
    guide = build(NormalGuide, train, latents=LATENTS, encoder=encoder)
    if corruption is not None:
        guide = build(DenoisingGuide, train, guide=guide, corruption=corruption, loc=0.0)
    fit(
        model, guide, train, epochs=epochs, batch_size=64, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    return model, guide


def error(rows: Tensor, clean: Tensor) -> float:
    """Return the root mean square of the difference of rows, (rows, 64), in gray levels."""
    return float((rows - clean).square().mean().sqrt())


if __name__ == "__main__":
    main()
