"""What do a point, an encoder and an ensemble know of the same rows' codes?

    python examples/point_encoder_ensemble.py [--epochs 40] [--run runs/point_encoder_ensemble]

Fits a Bernoulli pair with two latents to 1,497 of scikit-learn's digits (8 x 8 pixels, each black
or white). Two latents are few enough to compute the posterior of each of the 300 other digits by a
sum over a grid. The model stays as it is, and other guides are fitted to it:

    point       one code a row (a Delta): the most probable code, as in an autoencoder
    encoder     a normal distribution for each row, from one network
    ensemble    five such encoders, each begun from another seed; the mean of their densities

A point has no spread, and an ensemble of points spreads by how much networks differ, which says
nothing of the posterior. The mean of five encoders is nearer to the posterior than one of them,
because they are wrong in different ways. Prints the spread of each, and its KL divergence from the
posterior; draws four digits.

Source: Lakshminarayanan et al. (2017), section 2.4, arXiv:1612.01474 (ensembles).
"""

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, encode, fit
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

HELD_OUT, MEMBERS, SIDE, WIDTH = 300, 5, 81, 4.0
COLORS = {"encoder, 95 %": "darkorange", "other encoders of the ensemble, 95 %": "seagreen"}
SHOWN = (0.5, 0.7, 0.9, 0.98)  # digits at these quantiles of the encoder's divergence


def main() -> None:
    """Fit the guides, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare a point, an encoder and an ensemble.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--run", type=Path, default=Path("runs/point_encoder_ensemble"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    images = torch.as_tensor(load_digits().data > 7).float()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = images[order[:HELD_OUT]], images[order[HELD_OUT:]]
    torch.manual_seed(0)
    model = build(BernoulliModel, train, latents=2, decoder=MLP(2, 64, (128,)))
    encoders = [fitted(model, NormalGuide, train, arguments.epochs, seed=0)]
    model.requires_grad_(False)
    encoders += [
        fitted(model, NormalGuide, train, arguments.epochs, seed) for seed in range(1, MEMBERS)
    ]
    points = [fitted(model, DeltaGuide, train, arguments.epochs, seed) for seed in range(MEMBERS)]

    axis = torch.linspace(-WIDTH, WIDTH, SIDE)
    grid = torch.cartesian_prod(axis, axis)  # (codes, 2)
    exact = posterior(model, test, grid)  # (rows, codes)
    answers = torch.stack([answer(model, guide, test) for guide in encoders])
    dots = torch.stack([answer(model, guide, test)[..., 0] for guide in points])
    each = torch.distributions.Normal(*answers[:, :, None].unbind(-1))  # (members, rows, 1, 2)
    densities = each.log_prob(grid).sum(-1)  # (members, rows, codes)
    ensemble = densities.logsumexp(0) - math.log(MEMBERS)
    table = {
        "exact posterior": (spread(exact, grid), 0.0),
        "point": (0.0, math.inf),
        f"{MEMBERS} points": (float(dots.std(0).mean()), math.inf),
        "encoder": (spread(densities[0], grid), float(divergence(exact, densities[0]).mean())),
        "ensemble": (spread(ensemble, grid), float(divergence(exact, ensemble).mean())),
    }
    frame = pd.DataFrame(table, index=["sd of a latent", "KL divergence"]).T
    print(frame.to_string(float_format="{:.3f}".format))
    print("\nMean over the held-out digits. KL(posterior || guide) in nats, by a sum over a grid.")

    arguments.run.mkdir(parents=True, exist_ok=True)
    chosen = divergence(exact, densities[0]).argsort()[[int(s * HELD_OUT) for s in SHOWN]]
    figure = draw(axis, test[chosen], exact[chosen], dots[:, chosen], answers[:, chosen])
    figure.savefig(arguments.run / "point_encoder_ensemble.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/point_encoder_ensemble.png"
        "\nTry next  refine(model, guide, test) of an encoder: is it nearer than the ensemble?"
    )


def fitted(
    model: BernoulliModel, kind: type, rows: Tensor, epochs: int, seed: int
) -> torch.nn.Module:
    """Return a guide fitted with the model, or to a model that is frozen."""
    torch.manual_seed(seed)
    outputs = 4 if kind is NormalGuide else 2
    guide = build(kind, rows, latents=2, encoder=MLP(64, outputs, (128,)))
    fit(
        model, guide, rows, epochs=epochs, batch_size=64, seed=seed, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    return guide


def answer(model: BernoulliModel, guide: torch.nn.Module, rows: Tensor) -> Tensor:
    """Return mean and sd of a guide's codes, (rows, 2 latents, 2)."""
    codes = encode(model, guide, rows)["z"]
    return torch.stack([torch.tensor(codes[name].to_numpy()) for name in ("mean", "sd")], -1)


@torch.no_grad()
def posterior(model: BernoulliModel, rows: Tensor, grid: Tensor) -> Tensor:
    """Return the log-density of each row's posterior at each code of a grid, (rows, codes)."""
    logits = model.decoder(grid)
    joint = rows @ logits.T - torch.nn.functional.softplus(logits).sum(-1)
    joint = joint - grid.square().sum(-1) / 2
    cell = 2 * math.log(2 * WIDTH / (SIDE - 1))
    return joint - joint.logsumexp(-1, keepdim=True) - cell


def spread(density: Tensor, grid: Tensor) -> float:
    """Return the mean sd of a latent under log-densities on a grid, (rows, codes)."""
    weights = density.softmax(-1).to(grid.dtype)
    mean = weights @ grid
    return float((weights @ grid.square() - mean.square()).clamp_min(0).sqrt().mean())


def divergence(exact: Tensor, density: Tensor) -> Tensor:
    """Return KL(exact || density) of each row in nats, of log-densities on a grid."""
    return (exact.softmax(-1) * (exact - density)).sum(-1)


def draw(axis: Tensor, images: Tensor, exact: Tensor, dots: Tensor, answers: Tensor) -> plt.Figure:
    """Draw the posterior of some digits, and what each guide says of it."""
    figure, panels = plt.subplots(1, len(images), figsize=(15, 4.7), layout="constrained")
    edge = axis.numpy()
    for column, ax in enumerate(panels):
        density = exact[column].exp().reshape(SIDE, SIDE).T.numpy()
        ax.pcolormesh(edge, edge, density, cmap="Blues", shading="nearest", rasterized=True)
        center = (exact[column].softmax(-1) @ torch.cartesian_prod(axis, axis)).tolist()
        for member in reversed(range(MEMBERS)):  # the encoder is the first, and drawn last
            mean, sd = answers[member, column].unbind(-1)
            ax.add_patch(ellipse(mean, sd, member == 0))
        ax.plot(
            *dots[1:, column].T.tolist(), "+", color="black", label=f"{MEMBERS - 1} other points"
        )
        ax.plot(*dots[0, column].tolist(), "X", color="black", markersize=9, label="point")
        ax.set(xlim=(center[0] - 1.8, center[0] + 1.8), ylim=(center[1] - 1.8, center[1] + 1.8))
        ax.set_aspect("equal")
        inset = ax.inset_axes([0.74, 0.74, 0.25, 0.25])
        inset.imshow(images[column].reshape(8, 8).numpy(), cmap="gray_r")
        inset.set(xticks=[], yticks=[])
    handles = [
        *panels[0].get_legend_handles_labels()[0][::-1],
        *(plt.Line2D([], [], color=c, label=name) for name, c in COLORS.items()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("Exact posterior of four held-out digits' codes (blue), and three answers")
    return figure


def ellipse(mean: Tensor, sd: Tensor, first: bool) -> Ellipse:
    """Return the ellipse that holds 95 % of a normal distribution, whose semi-axes are 2.45 sd."""
    color = list(COLORS.values())[0 if first else 1]
    width = 2.4 if first else 1.2
    return Ellipse(mean.tolist(), *(4.9 * sd).tolist(), fill=False, color=color, linewidth=width)


if __name__ == "__main__":
    main()
