"""What is a guide worth as a proposal, beside the prior and the exact posterior?

    python examples/importance_sampling.py [--epochs 30] [--run runs/importance_sampling]

The likelihood of a row is an integral over codes, p(x) = E_q[p(x, z) / q(z)] for any proposal q. In
probabilistic PCA it is known exactly, and so is the posterior. This script solves the model for
scikit-learn's digits (8 x 8 pixels, gray levels 0 to 16) and estimates log p(x) of held-out digits
from more and more draws of three proposals: the prior, a guide that was fitted to the model, and
the posterior. The average of the weights has the right mean for each proposal. But next to no draw
of the prior explains a given digit: of 10,000 draws about one counts, and the estimate is too low.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, fit, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.ppca import PPCAModel

LATENTS, HELD_OUT, REPEATS = 10, 50, 5
DRAWS = (1, 10, 100, 1000, 10_000)


def main() -> None:
    """Estimate in three ways, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Importance sampling from three proposals.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run", type=Path, default=Path("runs/importance_sampling"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    torch.manual_seed(0)

    images = torch.as_tensor(load_digits().data).float()
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    model = build(PPCAModel, train, latents=LATENTS)
    model.solve(train)
    model.requires_grad_(False)
    guide = build(NormalGuide, train, latents=LATENTS)
    fit(model, guide, train, epochs=arguments.epochs, progress=False)

    proposals = {"prior": None, "guide": guide, "posterior": posterior_of(model)}
    exact = model.log_prob(test).numpy()
    lines = [
        {"proposal": name, "draws": draws, **estimate(model, proposal, test, draws, exact)}
        for name, proposal in proposals.items()
        for draws in DRAWS
    ]
    table = pd.DataFrame(lines).set_index(["proposal", "draws"])
    print(f"Exact log-likelihood of {HELD_OUT} held-out digits: {exact.mean():.2f} nats on average")
    print(table.to_string(float_format="{:.2f}".format))
    print("\nerror: mean of estimate minus truth; spread: its sd over repetitions; nats per digit")

    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(table).savefig(arguments.run / "importance_sampling.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/importance_sampling.png"
        "\nTry next  LATENTS = 2: with few latents, the prior is a proposal, too."
    )


def posterior_of(model: PPCAModel) -> Callable[[Tensor], None]:
    """Return the exact posterior as a guide.

    It is Normal(C Wᵀ (x - mean) / v, C) with C = (I + WᵀW / v)⁻¹, v the variance of the noise.
    """
    density = model.density()
    weight, noise = density.cov_factor, density.cov_diag[0]
    covariance = (torch.eye(LATENTS) + weight.T @ weight / noise).inverse()

    def posterior(x: Tensor) -> None:
        mean = (x - density.loc) @ weight @ covariance / noise
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance))

    return posterior


def estimate(
    model: PPCAModel, proposal: Any, rows: Tensor, draws: int, exact: Any
) -> dict[str, float]:
    """Return the error of estimates with a number of draws, their spread, and what draws count."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="log_likelihood: k-hat")  # the figure has it
        frames = [
            log_likelihood(model, proposal, rows, num_samples=draws, seed=seed)
            for seed in range(REPEATS)
        ]
    errors = pd.DataFrame([frame["log_prob"].to_numpy() - exact for frame in frames])
    return {
        "error": errors.to_numpy().mean(),
        "spread": errors.std().mean(),
        "effective draws": pd.concat(frames)["ess"].median(),
    }


def draw(table: pd.DataFrame) -> plt.Figure:
    """Draw the errors and the effective draws over the number of draws."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    markers = {"prior": "^", "guide": "o", "posterior": "s"}
    for name, marker in markers.items():
        of_proposal = table.loc[name]
        left.plot(of_proposal.index, of_proposal["error"], marker=marker, label=name)
        right.plot(of_proposal.index, of_proposal["effective draws"], marker=marker, label=name)
    left.axhline(0, color="black", linewidth=0.8)
    left.set(xscale="log", xlabel="draws", ylabel="nats per digit")
    left.set_title("Estimate minus exact log-likelihood")
    right.set(xscale="log", yscale="log", xlabel="draws", ylabel="effective draws, median digit")
    right.set_title("How many draws count")
    left.set_yscale("symlog", linthresh=0.1)
    left.set_ylim(top=1)
    left.legend()
    right.legend()
    figure.suptitle(f"log p(x) of held-out digits under PCA with {LATENTS} latents, by sampling")
    return figure


if __name__ == "__main__":
    main()
