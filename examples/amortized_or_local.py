"""What does an encoder's answer to new rows cost, beside a posterior fitted to each of them?

    python examples/amortized_or_local.py [--epochs 100] [--steps 10 30 100 300] [--run RUN]

Fits a Bernoulli pair to 1,497 of scikit-learn's digits (8 x 8 pixels, each black or white). For the
300 others the model stays as it is, and their posteriors come from

    the encoder        one call of a network for all rows, which is fast
    refine             the encoder's answers, improved row by row, by so many steps
    from the prior     the same without the encoder: no amortization

and again from an encoder of four hidden units, whose answers are worse and cost as little. Prints
time and ELBO, and draws one against the other.
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, elbo_terms, encode, fit, log_likelihood, refine
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

LATENTS = 8


def main() -> None:
    """Fit the model and the encoders, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Time and ELBO of encoders and of local fits.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--run", type=Path, default=Path("runs/amortized_or_local"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    torch.manual_seed(0)

    images = torch.as_tensor(load_digits().data > 7).float()  # (1797, 64): ink or paper
    shuffled = torch.randperm(len(images))
    new, train = images[shuffled[:300]], images[shuffled[300:]]
    model = build(BernoulliModel, images, latents=LATENTS, decoder=MLP(LATENTS, 64, (128,)))
    encoders = {
        f"encoder of {hidden} hidden units": build(
            NormalGuide, images, latents=LATENTS, encoder=MLP(64, 2 * LATENTS, (hidden,))
        )
        for hidden in (128, 4)
    }
    for guide in encoders.values():  # the first one is fitted with the model, the second to it
        fit(
            model, guide, train, epochs=arguments.epochs, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 3e-3),
        )  # fmt: skip
        model.requires_grad_(False)

    starts = {"prior": None, **encoders}
    steps = [0, *arguments.steps]
    table = pd.concat(local(model, guide, new, steps, name) for name, guide in starts.items())
    best = refine(model, encoders["encoder of 128 hidden units"], new, steps=steps[-1])
    log_prob = log_likelihood(model, best, new)["log_prob"].mean()
    print(table.round(3).to_string(index=False))
    print(f"log-likelihood of the new rows: {log_prob:.2f} nats per row")
    arguments.run.mkdir(parents=True, exist_ok=True)
    path = arguments.run / "amortized_or_local.png"
    draw(table, log_prob).savefig(path, dpi=130)
    print(
        f"\nLook at   {path}"
        "\nTry next  guides/local.py: a guide that never had an encoder, for the fit as well."
    )


def local(
    model: BernoulliModel, guide: NormalGuide | None, x: Tensor, steps: list[int], name: str
) -> pd.DataFrame:
    """Return the time and the ELBO of a guide and of its refinements on new rows.

    Args:
        model: The model, which stays as it is.
        guide: The guide to begin at; ``None`` is the prior.
        x: The new rows, (rows, 64).
        steps: Steps on each row, of each refinement; 0 is the guide as it is.
        name: What the guide is called.

    Returns:
        Columns ``start``, ``steps``, ``seconds`` for all rows, and ``elbo``, nats per row.
    """
    found = []
    for count in steps:
        start = time.perf_counter()
        better = refine(model, guide, x, steps=count) if count else guide
        if better is not None:
            encode(model, better, x)
        seconds = time.perf_counter() - start
        terms = elbo_terms(model, better, x, num_samples=100)
        found.append((name, count, seconds, terms.sum(axis=1).mean()))
    return pd.DataFrame(found, columns=["start", "steps", "seconds", "elbo"])


def draw(table: pd.DataFrame, log_prob: float) -> plt.Figure:
    """Draw the ELBO of the new rows against the time that their posteriors took."""
    figure, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    table = table[(table["steps"] > 0) | (table["start"] != "prior")]
    for (name, rows), marker in zip(table.groupby("start", sort=False), "sod", strict=True):
        ax.plot(rows["seconds"], rows["elbo"], marker=marker, label=f"from the {name}")
    ax.axhline(log_prob, color="0.5", lw=0.8)
    ax.annotate("log-likelihood", (0.01, log_prob), (0, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", color="0.4")  # fmt: skip
    counts = ", ".join(str(count) for count in sorted(table["steps"].unique()))
    ax.set(xscale="log", ylabel="ELBO (nats per row)",
           xlabel=f"seconds for 300 new rows (points: {counts} steps on each row)")  # fmt: skip
    ax.margins(y=0.1)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("New digits: an encoder answers at once, steps on each row close its gap")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
