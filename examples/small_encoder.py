"""Is the encoder large enough, or is it the guide's family that loses?

    python examples/small_encoder.py [--epochs 100] [--hidden 2 8 128] [--rows 100] [--run RUN]

Fits a Bernoulli pair with four latents to scikit-learn's digits (8 x 8 pixels of 0 or 1). Then
the model stays as it is, and guides of one family, normals with independent latents, are fitted to
it: the encoder of the first has two hidden units, that of the last many. The best normal of each
digit is the same for all of them, and so is what the family loses. What the network loses falls
with the number of its hidden units.

Prints the inference gap of some digits in its two parts, for each encoder. Draws the gap of every
digit.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from ppl_vae import fit, inference_gap
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

LATENTS, PIXELS = 4, 64
PARTS = ["gap", "approximation", "amortization"]


def main() -> None:
    """Fit the model and the encoders, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Find and mend an encoder that is too small.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--hidden", type=int, nargs="+", default=[2, 8, 128])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/small_encoder"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    pyro.set_rng_seed(0)

    digits = torch.as_tensor(load_digits().data > 7).float()  # (1797, 64): ink or paper
    model = BernoulliModel(PIXELS, LATENTS, MLP(LATENTS, PIXELS, (64,)))
    settings = {
        "epochs": arguments.epochs,
        "batch_size": 128,
        "compile": False,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        "progress": False,
        "seed": 0,
    }
    fit(model, guide_of(128), digits, **settings)
    model.requires_grad_(False)

    gaps = {}
    for hidden in arguments.hidden:
        guide = guide_of(hidden)
        fit(model, guide, digits, **settings)
        gaps[hidden] = inference_gap(model, guide, digits[: arguments.rows])
    table = pd.DataFrame({hidden: gap.summary["mean"][PARTS] for hidden, gap in gaps.items()}).T
    table["error"] = [gap.summary.loc["gap", "error"] for gap in gaps.values()]
    table["cause"] = [gap.cause for gap in gaps.values()]
    table = table.rename_axis("hidden units")
    print(f"In nats per digit (error: standard error of the gap):\n{table.round(3).to_string()}")
    for hidden, gap in gaps.items():
        network = gap.summary.loc["amortization", "mean"] / gap.summary.loc["gap", "mean"]
        print(f"\n{hidden} hidden units: the network makes {network:.0%} of the gap.")
        print(gap.advice())

    figure, axes = plt.subplots(
        1, len(gaps), figsize=(5 * len(gaps), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for ax, (hidden, gap) in zip(axes[0], gaps.items(), strict=True):
        gap.plot(ax)
        ax.title.set_text(f"{hidden} hidden units: cause {gap.cause}")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "small_encoder.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/small_encoder.png"
        "\nTry next  examples/correlated_posterior.py, where the family is to blame."
    )


def guide_of(hidden: int) -> NormalGuide:
    """Return a guide whose encoder has so many hidden units."""
    return NormalGuide(PIXELS, LATENTS, MLP(PIXELS, 2 * LATENTS, (hidden,)))


if __name__ == "__main__":
    main()
