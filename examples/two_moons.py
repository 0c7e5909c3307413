"""Can a cluster be a moon?

    python examples/two_moons.py [--epochs 120] [--run runs/two_moons]

Points of scikit-learn's two moons lie along two half circles. In a mixture of normals a cluster is
an ellipse, so that two clusters are not the two moons, and with many clusters a moon is cut into
pieces. A deep mixture has a latent more in each cluster, the place along a curve, which a network
bends. In both the cluster is a discrete latent that is summed exactly.

Fits mixtures of 2 and 8 normals and a deep mixture of 2 clusters to 1,500 points. Prints the
log-likelihood of 500 held-out points, exact for the normals, and how well the clusters agree with
the moons (adjusted Rand index, 1 for a perfect match). Draws the densities, and the held-out points
by cluster.
"""

import argparse
import math
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from pyro.nn import PyroModule
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ppl_vae import build, encode, fit, log_likelihood
from ppl_vae.models.mixture import MixtureModel
from ppl_vae.nn import MLP

HELD_OUT, SIDE, CLUSTERS = 500, 60, (2, 8)


class DeepMixture(PyroModule):
    """p(x, k, z), z the place along the curve of cluster k."""

    def __init__(self) -> None:
        super().__init__()
        self.curves = nn.ModuleList(MLP(1, 2, (32, 32)) for _ in range(2))
        self.log_sd = nn.Parameter(torch.tensor(math.log(0.3)))

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, 2)."""
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=x.new_zeros(2)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            places = torch.stack([curve(z) for curve in self.curves], -2)  # (..., clusters, 2)
            mean = (one_hot(k, 2)[..., None] * places).sum(-2)
            pyro.sample("x", dist.Normal(mean, self.log_sd.exp()).to_event(1), obs=x)


class DeepMixtureGuide(PyroModule):
    """q(k, z given x): the cluster is summed exactly, the place has a normal in each cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster, self.place = MLP(2, 2, (32, 32)), MLP(4, 2, (32, 32))

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, 2)."""
        with pyro.plate("data", len(x)):
            q = dist.Categorical(logits=self.cluster(x))
            k = pyro.sample("k", q, infer={"enumerate": "parallel"})
            both = torch.cat(torch.broadcast_tensors(one_hot(k, 2), x), -1)
            mean, log_sd = self.place(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1))


def main() -> None:
    """Fit the models, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Cluster two moons by ellipses and by curves.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--run", type=Path, default=Path("runs/two_moons"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    warnings.filterwarnings("ignore", "log_likelihood")  # far from the moons k-hat is above 0.7

    points, moons = make_moons(1500 + HELD_OUT, noise=0.08, random_state=0)
    test, train = torch.tensor(points).float().split([HELD_OUT, 1500])
    across, down = np.meshgrid(np.linspace(-1.5, 2.5, SIDE), np.linspace(-1.1, 1.6, SIDE))
    grid = torch.tensor(np.stack([across, down], -1).reshape(-1, 2)).float()
    pyro.set_rng_seed(0)
    models = {f"{n} normals": (build(MixtureModel, train, components=n), None) for n in CLUSTERS}
    rows, drawn = {}, {}
    for name, (model, guide) in (
        models | {"2 curves": (DeepMixture(), DeepMixtureGuide())}
    ).items():
        fit(
            model, guide, train, epochs=arguments.epochs, progress=False, compile=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        )  # fmt: skip
        held_out = log_likelihood(model, guide, test, num_samples=300)["log_prob"]
        clusters = clusters_of(model, guide, test)
        rows[name] = {
            "held-out log-likelihood": held_out.mean(),
            "standard error": held_out.std() / HELD_OUT**0.5,
            "Rand index": adjusted_rand_score(moons[:HELD_OUT], clusters),
        }
        scores = log_likelihood(model, guide, grid, num_samples=200)["log_prob"]
        drawn[name] = scores.to_numpy().reshape(SIDE, SIDE), clusters
    table = pd.DataFrame(rows).T
    print(table.to_string(float_format="{:.2f}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(table, (across, down), drawn, test).savefig(arguments.run / "two_moons.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/two_moons.png"
        "\nTry next  noise=0.2 in make_moons, or a third curve that no point needs."
    )


def clusters_of(model: PyroModule, guide: PyroModule | None, x: Tensor) -> np.ndarray:
    """Return the most probable cluster of each row, (rows,)."""
    clusters: np.ndarray = encode(model, guide, x)["k"]["probability"].to_numpy().argmax(-1)
    return clusters


def draw(
    table: pd.DataFrame,
    grid: tuple[np.ndarray, np.ndarray],
    drawn: dict[str, tuple[np.ndarray, np.ndarray]],
    points: Tensor,
) -> plt.Figure:
    """Draw each density, with the held-out points on it, coloured by cluster."""
    figure, axes = plt.subplots(1, len(drawn), figsize=(12, 3.3), layout="constrained")
    for ax, (name, (log_density, clusters)) in zip(axes, drawn.items(), strict=True):
        density = np.exp(np.nan_to_num(log_density, nan=-np.inf))
        levels = np.linspace(0, 1.2, 13)
        ax.contourf(*grid, density, levels=levels, cmap="Greys", extend="max", alpha=0.7)
        ax.scatter(*points.T.numpy(), c=clusters, cmap="tab10", s=4)
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.set_title(
            f"{name}: {table.iloc[:, 0][name]:.2f} nats, Rand {table.iloc[:, 2][name]:.2f}"
        )
    figure.suptitle("Can a cluster be a moon? Densities, and held-out points by cluster")
    return figure


if __name__ == "__main__":
    main()
