"""Does variational inference find what can be solved exactly, and what does a deep pair add?

    python examples/ppca.py [--epochs 400] [--run runs/ppca]

Probabilistic PCA has an exact likelihood, an exact posterior and a solution in closed form. Two
latents are fitted to scikit-learn's 178 wines (13 measurements, standardized) in four ways: by
eigenvectors, by gradient descent on the exact likelihood, by SVI with a linear guide, and as a
deep pair. Prints the log-likelihood of each in nats per row and draws the four latent spaces.
"""

import argparse
import math
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.datasets import load_wine
from torch import Tensor

from ppl_vae import build, encode, fit, log_likelihood
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.plots import latent_map

LATENTS, HELD_OUT = 2, 50


def main() -> None:
    """Fit in four ways, print a table and draw the figure."""
    parser = argparse.ArgumentParser(description="Fit probabilistic PCA to wines in four ways.")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--run", type=Path, default=Path("runs/ppca"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second one
    torch.manual_seed(0)

    wine = load_wine()
    x = torch.as_tensor(wine.data).float()  # (178, 13)
    shuffled = torch.randperm(len(x))
    test, train = shuffled[:HELD_OUT], shuffled[HELD_OUT:]
    x = (x - x[train].mean(0)) / x[train].std(0, correction=0)
    print(f"Fitting {LATENTS} latents to {len(train)} wines in four ways, {len(test)} held out.")

    ways = {
        "PPCA by eigenvectors": by_eigenvectors,
        "PPCA by gradient descent": by_gradient_descent,
        "PPCA by SVI, linear guide": by_svi,
        "Deep pair by SVI": as_deep_pair,
    }
    table, codes, first = {}, {}, None
    for name, way in ways.items():
        start = time.perf_counter()
        model, guide = way(x[train], arguments.epochs)
        seconds = time.perf_counter() - start
        first = first or model
        held_out = log_prob(model, guide, x[test])
        table[name] = {
            "training": log_prob(model, guide, x[train])["log_prob"].mean(),
            "held out": held_out["log_prob"].mean(),
            "k-hat > 0.7": (held_out["k_hat"] > 0.7).sum(),
            "angle": angle(model, first) if isinstance(model, PPCAModel) else math.nan,
            "seconds": seconds,
        }
        found = means(model, guide, x)
        codes[name] = turned(found, next(iter(codes.values()))) if codes else found
    table = pd.DataFrame(table).T.astype({"k-hat > 0.7": int})
    print(f"\n{table.round(2).to_string(na_rep='')}")
    print(
        "\ntraining, held out: log-likelihood, nats per wine"
        "\nk-hat > 0.7: held-out wines whose log-likelihood is estimated badly, most often too low"
        "\nangle: degrees between the plane that was found and that of the eigenvectors"
    )

    arguments.run.mkdir(parents=True, exist_ok=True)
    figure = draw(codes, table, wine.target + 1)
    figure.savefig(arguments.run / "latent_spaces.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/: latent_spaces.png"
        "\nTry next  NormalGuide in by_svi, which knows no correlations between latents: what does"
        "\n          it cost, and which way do the axes turn?"
    )


def by_eigenvectors(x: Tensor, epochs: int) -> tuple:
    """The maximum of the likelihood in closed form; ``None`` for the guide: inference is exact."""
    model = build(PPCAModel, x, latents=LATENTS)
    model.solve(x)
    return model, None


def by_gradient_descent(x: Tensor, epochs: int) -> tuple:
    """Adam on the exact likelihood: a model with nothing latent."""
    model = build(PPCAModel, x, latents=LATENTS)
    fit(model.marginal, None, x, epochs=epochs, **steps(0.05, epochs))
    return model, None


def by_svi(x: Tensor, epochs: int) -> tuple:
    """The ELBO, with a guide whose family holds the exact posterior."""
    pair = build(PPCAModel, x, latents=LATENTS), build(LinearGuide, x, latents=LATENTS)
    fit(*pair, x, epochs=epochs, **steps(0.05, epochs))
    return pair


def as_deep_pair(x: Tensor, epochs: int) -> tuple:
    """Networks both ways, every feature with a noise of its own; few epochs, as few rows ask."""
    pair = build(GaussianModel, x, latents=LATENTS), build(NormalGuide, x, latents=LATENTS)
    epochs = max(1, epochs // 4)
    fit(*pair, x, epochs=epochs, batch_size=32, **steps(0.003, epochs))
    return pair


def steps(rate: float, epochs: int) -> dict:
    """Adam, whose rate falls to nothing: sampled gradients would keep it from settling."""
    return {
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=rate),
        "scheduler": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    }


@torch.no_grad()
def log_prob(model, guide, x: Tensor) -> pd.DataFrame:
    """Log-likelihood of every row, in nats: exact, or importance-sampled with its own k-hat."""
    if guide is None:
        return pd.DataFrame({"log_prob": model.log_prob(x), "k_hat": -math.inf})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="log_likelihood: k-hat")  # the table says it
        return log_likelihood(model, guide, x)


@torch.no_grad()
def means(model, guide, x: Tensor) -> Tensor:
    """Posterior mean of every row's code, (rows, latents): exact, or the guide's."""
    if guide is not None:
        return torch.tensor(encode(model, guide, x)["z"]["mean"].to_numpy())
    p = model.density()
    precision = p.cov_factor.T @ p.cov_factor + p.cov_diag[0] * torch.eye(LATENTS)
    return (x - p.loc) @ p.cov_factor @ precision.inverse()


def turned(codes: Tensor, onto: Tensor) -> Tensor:
    """Codes, rotated or reflected onto others: the prior Normal(0, I) has no axes of its own."""
    left, _, right = torch.linalg.svd(codes.T @ onto)
    return codes @ left @ right


@torch.no_grad()
def angle(model: PPCAModel, other: PPCAModel) -> float:
    """Largest angle between the planes that two models' codes span, in degrees."""
    a, b = (torch.linalg.qr(m.weight.double())[0] for m in (model, other))
    sine = torch.linalg.matrix_norm(b - a @ (a.T @ b), 2)
    return math.degrees(math.asin(min(1.0, float(sine))))


def draw(codes: dict, table: pd.DataFrame, labels: Any) -> plt.Figure:
    """The four latent spaces side by side, on the same axes."""
    figure, panels = plt.subplots(
        2, 2, figsize=(9.6, 8.8), layout="constrained", sharex=True, sharey=True
    )
    low, high = (torch.stack([torch.aminmax(c)[i] for c in codes.values()]) for i in (0, 1))
    limits = float(low.min()) - 0.2, float(high.max()) + 0.2
    panels[0, 0].set(xlim=limits, ylim=limits)
    for ax, (name, points) in zip(panels.flat, codes.items(), strict=True):
        unsure = table.loc[name, "k-hat > 0.7"]
        title = f"{name} (k-hat > 0.7 in {unsure} of {HELD_OUT} wines)" if unsure else name
        title += f"\nheld-out log-likelihood {table.loc[name, 'held out']:.2f} nats per wine"
        latent_map(points, labels, title=title, ax=ax)
        ax.get_legend().remove()  # each group bears its name
        ax.label_outer()
    figure.suptitle("178 wines of cultivars 1, 2 and 3: posterior mean of their two latents")
    return figure


if __name__ == "__main__":
    main()
