"""How near does each family of guides come to a posterior that is curved?

    python examples/banana.py [--epochs 100] [--run runs/banana]

A model with two latents shows one number, z_2 + z_1 + z_1^2 / 2 with a little noise. The codes that
explain x = 1 lie along a parabola. The script fits guides of three families to this posterior: a
diagonal normal, a normal with full covariance, and a planar flow. It prints how many nats the ELBO
of each stays below log p(x), which a sum over a grid gives, and draws the guides under the contours
of the exact posterior.
"""

import argparse
import math
import warnings
from functools import partial
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppl_vae import elbo_terms, fit, log_likelihood
from ppl_vae.guides.flow import FlowGuide
from ppl_vae.guides.multivariate_normal import MultivariateNormalGuide
from ppl_vae.guides.normal import NormalGuide

NOISE, DRAWS, SIDE = 0.3, 20_000, 201
ROWS = torch.ones(640, 1)  # equal rows: one posterior, and many draws of the guide in a batch


class BananaModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x"."""

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, 1)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = z[..., 1:] + z[..., :1] + z[..., :1] ** 2 / 2
            pyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=x)


FAMILIES = {
    "diagonal normal": NormalGuide,
    "full covariance": MultivariateNormalGuide,
    "planar flow": partial(FlowGuide, flow="planar", layers=8),
}


def main() -> None:
    """Fit a guide of each family, print a table and draw the figure."""
    parser = argparse.ArgumentParser(description="Fit guides of three families to a banana.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/banana"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    model = BananaModel()
    axis = torch.linspace(-3.2, 3.2, SIDE)
    grid = torch.cartesian_prod(axis, axis)[:, None]  # (codes, 1 row, 2)
    posterior = log_density(model, grid)
    log_prob = float(posterior.double().logsumexp(0) + 2 * math.log(axis[1] - axis[0]))
    table, densities = {}, {}
    for name, family in FAMILIES.items():
        pyro.set_rng_seed(0)
        guide = family(1, 2)
        fit(
            model, guide, ROWS, epochs=arguments.epochs, batch_size=64, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
            scheduler=lambda adam: CosineAnnealingLR(adam, arguments.epochs),
        )  # fmt: skip
        terms = elbo_terms(model, guide, ROWS[:20], num_samples=DRAWS // 20)
        elbo = float(terms.sum(axis=1).mean())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")  # the table has it
            scores = log_likelihood(model, guide, ROWS[:2], num_samples=DRAWS).iloc[0]
        table[name] = {
            "ELBO": elbo,
            "gap": log_prob - elbo,
            "log p(x)": scores["log_prob"],
            "k-hat": scores["k_hat"],
        }
        densities[name] = log_density(guide, grid)
    table = pd.DataFrame(table).T
    print(f"log p(x) by a sum over a grid: {log_prob:.3f} nats\n\n{table.round(3).to_string()}")
    print("\ngap: log p(x) - ELBO, the KL divergence of guide and posterior, in nats")
    print("log p(x): estimated from draws of the guide; it can be trusted where k-hat is below 0.7")

    arguments.run.mkdir(parents=True, exist_ok=True)
    figure = draw(axis, posterior, densities, table)
    figure.savefig(arguments.run / "banana.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/banana.png"
        '\nTry next  flow="spline" in FAMILIES, or layers=1: what can one layer bend, and what not?'
    )


@torch.no_grad()
def log_density(half: PyroModule, z: Tensor) -> Tensor:
    """Return the log-density of codes z, (codes, 1, 2), in a guide; of a model, log p(x, z)."""
    given = poutine.condition(half, {"z": z})
    with pyro.get_param_store().scope():  # parameters of the guides have the same names
        trace = poutine.trace(given).get_trace(ROWS[:1])
    trace.compute_log_prob()
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    return sum(site["log_prob"] for site in sites if "log_prob" in site).squeeze(-1)


def draw(axis: Tensor, posterior: Tensor, densities: dict, table: pd.DataFrame) -> plt.Figure:
    """Draw the density of three guides, and the contours of the posterior over each."""
    figure, panels = plt.subplots(
        1, 3, figsize=(12.4, 5.6), layout="constrained", sharex=True, sharey=True
    )
    edge = axis.numpy()
    shares = posterior.exp().sort(descending=True).values
    cumulated = shares.cumsum(0) / shares.sum()
    levels = [shares[(cumulated < share).sum()].item() for share in (0.99, 0.9, 0.5)]
    for ax, (name, log_prob) in zip(panels, densities.items(), strict=True):
        density = log_prob.exp().reshape(SIDE, SIDE).T.numpy()
        ax.pcolormesh(edge, edge, density, cmap="Blues", shading="nearest", rasterized=True)
        ax.contour(
            edge, edge, posterior.exp().reshape(SIDE, SIDE).T.numpy(), levels, colors="firebrick",
            linewidths=1,
        )  # fmt: skip
        ax.set(title=f"{name}\nELBO {table['gap'][name]:.2f} nats below log p(x)", xlabel="$z_1$")
        ax.set_aspect("equal")
    panels[0].set_ylabel("$z_2$")
    figure.suptitle(
        "Guides (blue) and the exact posterior (red: its most probable 50, 90 and 99 %) where "
        "$z_2 + z_1 + z_1^2 / 2$ + noise is seen to be 1"
    )
    return figure


if __name__ == "__main__":
    main()
