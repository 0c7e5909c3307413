"""Does a guide without correlations lose much where the posterior has some?

    python examples/correlated_posterior.py [--epochs 300] [--run runs/correlated_posterior]

Fits probabilistic PCA with four latents to 178 wines (13 measurements, standardized) under its
exact posterior, which has correlations. Then the model stays, and two guides are fitted to it: a
normal with independent latents, and one with a full covariance, both with a linear network, which
is all that this model needs. What the first loses is its family's fault: no encoder wins it back.

Prints the inference gap of both guides in its two parts, beside the gap that the posterior's
covariance predicts for the first. Draws the gap of every wine.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppl_vae import fit, inference_gap
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.multivariate_normal import MultivariateNormalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.ppca import PPCAModel

LATENTS = 4


def main() -> None:
    """Fit the model and both guides, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Find and mend a posterior without correlations.")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--run", type=Path, default=Path("runs/correlated_posterior"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    pyro.set_rng_seed(0)

    # The model, under its exact posterior.
    wines = torch.as_tensor(scale(load_wine().data)).float()  # (178, 13)
    features = wines.shape[1]
    settings = {
        "batch_size": 32, "epochs": arguments.epochs, "progress": False, "seed": 0,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, 0.01),
        "scheduler": lambda adam: CosineAnnealingLR(adam, arguments.epochs),
    }  # fmt: skip
    model = PPCAModel(features, LATENTS)
    fit(model, LinearGuide(features, LATENTS), wines, **settings)
    model.requires_grad_(False)

    # Two guides of the same model. What is the gap of each, and why?
    numbers = LATENTS + LATENTS * (LATENTS + 1) // 2
    guides = {
        "independent latents": NormalGuide(features, LATENTS, nn.Linear(features, 2 * LATENTS)),
        "full covariance": MultivariateNormalGuide(features, LATENTS, nn.Linear(features, numbers)),
    }
    gaps = {}
    for name, guide in guides.items():
        fit(model, guide, wines, **settings)
        gaps[name] = inference_gap(model, guide, wines)
        print(f"{name}\n{gaps[name]}\n")

    # Both gaps in one table, beside what the covariance of the posterior predicts.
    lines = {name: [*gap.summary["mean"], gap.cause] for name, gap in gaps.items()}
    index = [*gaps["full covariance"].summary.index, "cause"]
    table = pd.DataFrame(lines, index=index).loc[["gap", "approximation", "amortization", "cause"]]
    print(f"In nats per wine:\n{table.T.to_string(float_format='{:.3f}'.format)}")
    print(f"The posterior's covariance predicts an approximation gap of {predicted(model):.3f}.")

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
    for ax, (name, gap) in zip(axes, gaps.items(), strict=True):
        gap.plot(ax)
        ax.title.set_text(f"{name}: cause {gap.cause}")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "correlated_posterior.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/correlated_posterior.png"
        "\nTry next  examples/small_encoder.py, where the network is to blame."
    )


def predicted(model: PPCAModel) -> float:
    """Return what the best independent normal loses: its divergence from the posterior, in nats."""
    weight, noise = model.weight, (-2 * model.log_sigma).exp()
    precision = torch.eye(LATENTS) + noise * weight.T @ weight
    return float(precision.diagonal().log().sum() - torch.logdet(precision)) / 2


if __name__ == "__main__":
    main()
