"""Does a prior that is made of the guide's own answers fit digits better than a normal one?

    python examples/vampprior.py [--epochs 100] [--run runs/vampprior]

Fits two Bernoulli pairs with two latents to scikit-learn's digits (8 x 8 pixels, each black or
white). They differ in the prior: a standard normal, and the VampPrior, which is the mean of
q(z given u) over 50 learned pseudo-inputs u. Prints the held-out log-likelihood in nats per image,
and draws both latent spaces, with their priors, and the pseudo-inputs.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from pyro.nn import PyroModule
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, encode, fit, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.vampprior import VampPriorModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid, latent_map

LATENTS, HIDDEN, PSEUDO_INPUTS, HELD_OUT, SHOWN = 2, (128,), 50, 300, 20


def main() -> None:
    """Fit both pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare the VampPrior with a normal prior.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/vampprior"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    shuffled = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    images = torch.as_tensor(digits.data > 7).float()[shuffled]  # (1797, 64): ink or paper
    labels = digits.target[shuffled]
    test, train = images[:HELD_OUT], images[HELD_OUT:]

    figure = plt.figure(figsize=(12.4, 7.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[5, 1])
    rows = []
    for column, (name, cls) in enumerate(PRIORS.items()):
        model, guide = fitted(cls, train, arguments.epochs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")
            scores = log_likelihood(model, guide, test, num_samples=200)["log_prob"]
        rows.append([name, scores.mean(), scores.sem()])
        codes = encode(model, guide, images)["z"]["mean"]
        title = f"{name}: {scores.mean():.1f} nats per held-out digit"
        ax = latent_map(codes, labels, title=title, ax=figure.add_subplot(grid[0, column]))
        draw_density(ax, model)
    columns = ["prior", "held-out log-likelihood", "standard error"]
    table = pd.DataFrame(rows, columns=columns).set_index("prior")
    print(table.to_string(float_format="{:.2f}".format))

    pseudo = model.pseudo_logits.detach().sigmoid()[:SHOWN].reshape(-1, 8, 8)
    title = f"{SHOWN} of the {PSEUDO_INPUTS} pseudo-inputs that make the VampPrior"
    image_grid(pseudo, columns=SHOWN, low=0, high=1, title=title, ax=figure.add_subplot(grid[1, :]))
    figure.suptitle("Codes of digits under two priors, whose density is drawn as lines")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "vampprior.png", dpi=130)
    gain = table["held-out log-likelihood"].diff().iloc[-1]
    print(
        f"\nThe VampPrior gains {gain:.1f} nats per image."
        f"\n\nLook at   {arguments.run}/vampprior.png"
        "\nTry next  another guide: the model runs whatever guide it is built with."
    )


PRIORS = {"Standard normal": BernoulliModel, "VampPrior": VampPriorModel}


def fitted(cls: type, train: Tensor, epochs: int) -> tuple[PyroModule, NormalGuide]:
    """Return a fitted model of a class, and its guide."""
    pyro.set_rng_seed(0)
    guide = build(NormalGuide, train, latents=LATENTS, encoder=MLP(64, 2 * LATENTS, HIDDEN))
    partner = {"guide": guide, "pseudo_inputs": PSEUDO_INPUTS} if cls is VampPriorModel else {}
    model = build(cls, train, latents=LATENTS, decoder=MLP(LATENTS, 64, HIDDEN), **partner)
    fit(
        model, guide, train, epochs=epochs, batch_size=100, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    return model, guide


@torch.no_grad()
def draw_density(ax: plt.Axes, model: PyroModule) -> None:
    """Draw lines of equal density of the model's prior over a map of the codes."""
    if isinstance(model, VampPriorModel):
        prior = model.prior()
    else:
        prior = torch.distributions.MultivariateNormal(torch.zeros(LATENTS), torch.eye(LATENTS))
    x, y = (torch.linspace(*limits, 200) for limits in (ax.get_xlim(), ax.get_ylim()))
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (200, 200, 2)
    density = prior.log_prob(points).exp()
    levels = density.max() * torch.tensor([0.01, 0.05, 0.2, 0.5])
    ax.contour(x, y, density, levels=levels, colors="black", linewidths=0.6, alpha=0.7)


if __name__ == "__main__":
    main()
