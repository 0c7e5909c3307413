"""Does variational inference find an exact solution, and what does a deep pair add to it?

    python examples/ppca.py [--epochs 400] [--run runs/ppca]

Probabilistic PCA has an exact likelihood, an exact posterior and a solution in closed form. This
script fits two latents to scikit-learn's 178 wines (13 measurements, standardized) in four ways: by
eigenvectors, by gradient descent on the exact likelihood, by SVI with a linear guide, and with a
deep pair. It prints the log-likelihood of each fit in nats per row and draws the latent spaces.
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
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
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
            "high k-hat": unreliable(held_out),
            "angle": angle(model, first) if isinstance(model, PPCAModel) else math.nan,
            "seconds": seconds,
        }
        code = posterior_means(model, guide, x)
        codes[name] = rotated(code, next(iter(codes.values()))) if codes else code
    table = pd.DataFrame(table).T.astype({"high k-hat": int})
    print(f"\n{table.round(2).to_string(na_rep='')}")
    print(
        "\ntraining, held out: log-likelihood, nats per wine"
        "\nhigh k-hat: held-out wines whose log-likelihood is estimated badly, most often too low"
        "\nangle: degrees between the fitted plane and the plane of the eigenvectors"
    )

    arguments.run.mkdir(parents=True, exist_ok=True)
    figure = draw(codes, table, wine.target + 1)
    figure.savefig(arguments.run / "latent_spaces.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/: latent_spaces.png"
        "\nTry next  NormalGuide in by_svi, whose latents are uncorrelated: how much log-likelihood"
        "\n          does that cost, and how do the axes turn?"
    )


def by_eigenvectors(x: Tensor, epochs: int) -> tuple:
    """Maximize the likelihood in closed form; the guide is ``None``, for inference is exact."""
    model = build(PPCAModel, x, latents=LATENTS)
    model.solve(x)
    return model, None


def by_gradient_descent(x: Tensor, epochs: int) -> tuple:
    """Maximize the exact likelihood with Adam: a model without latents."""
    model = build(PPCAModel, x, latents=LATENTS)
    fit(model.marginal, None, x, epochs=epochs, **steps(0.05, epochs))
    return model, None


def by_svi(x: Tensor, epochs: int) -> tuple:
    """Maximize the ELBO, with a guide whose family contains the exact posterior."""
    pair = build(PPCAModel, x, latents=LATENTS), build(LinearGuide, x, latents=LATENTS)
    fit(*pair, x, epochs=epochs, **steps(0.05, epochs))
    return pair


def as_deep_pair(x: Tensor, epochs: int) -> tuple:
    """Fit networks in both directions, for few epochs because there are few rows."""
    pair = build(GaussianModel, x, latents=LATENTS), build(NormalGuide, x, latents=LATENTS)
    epochs = max(1, epochs // 4)
    fit(*pair, x, epochs=epochs, batch_size=32, **steps(0.003, epochs))
    return pair


def steps(rate: float, epochs: int) -> dict:
    """Return Adam with a learning rate that falls to 0, so that noisy gradients can converge."""
    return {
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=rate),
        "scheduler": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    }


@torch.no_grad()
def log_prob(model, guide, x: Tensor) -> pd.DataFrame:
    """Return every row's log-likelihood in nats: exact, or importance-sampled with its k-hat."""
    if guide is None:
        return pd.DataFrame({"log_prob": model.log_prob(x), "k_hat": -math.inf})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="log_likelihood: k-hat")  # the table has it
        return log_likelihood(model, guide, x)


def unreliable(scores: pd.DataFrame) -> int:
    """Return in how many rows k-hat lies above the threshold for the number of draws."""
    return int((scores["k_hat"] > scores.attrs.get("k_hat_threshold", math.inf)).sum())


@torch.no_grad()
def posterior_means(model, guide, x: Tensor) -> Tensor:
    """Return the posterior mean of every row's latents, (rows, latents): exact, or the guide's."""
    if guide is not None:
        return torch.tensor(encode(model, guide, x)["z"]["mean"].to_numpy())
    p = model.density()
    precision = p.cov_factor.T @ p.cov_factor + p.cov_diag[0] * torch.eye(LATENTS)
    return (x - p.loc) @ p.cov_factor @ precision.inverse()


def rotated(codes: Tensor, onto: Tensor) -> Tensor:
    """Rotate or reflect codes to be close to others: Normal(0, I) prefers no axes."""
    left, _, right = torch.linalg.svd(codes.T @ onto)
    return codes @ left @ right


@torch.no_grad()
def angle(model: PPCAModel, other: PPCAModel) -> float:
    """Return the largest angle between the planes of two models' latents, in degrees."""
    a, b = (torch.linalg.qr(m.weight.double())[0] for m in (model, other))
    sine = torch.linalg.matrix_norm(b - a @ (a.T @ b), 2)
    return math.degrees(math.asin(min(1.0, float(sine))))


def draw(codes: dict, table: pd.DataFrame, labels: Any) -> plt.Figure:
    """Draw the four latent spaces side by side, on the same axes."""
    figure, panels = plt.subplots(
        2, 2, figsize=(9.6, 8.8), layout="constrained", sharex=True, sharey=True
    )
    low, high = (torch.stack([torch.aminmax(c)[i] for c in codes.values()]) for i in (0, 1))
    limits = float(low.min()) - 0.2, float(high.max()) + 0.2
    panels[0, 0].set(xlim=limits, ylim=limits)
    for ax, (name, points) in zip(panels.flat, codes.items(), strict=True):
        unsure = table.loc[name, "high k-hat"]
        title = f"{name} (high k-hat in {unsure} of {HELD_OUT} wines)" if unsure else name
        title += f"\nheld-out log-likelihood {table.loc[name, 'held out']:.2f} nats per wine"
        latent_map(points, labels, title=title, ax=ax)
        ax.get_legend().remove()  # each group has its name beside it
        ax.label_outer()
    figure.suptitle("178 wines of cultivars 1, 2 and 3: posterior mean of their two latents")
    return figure


if __name__ == "__main__":
    main()
