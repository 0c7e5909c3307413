"""Has the posterior of a deep pair collapsed, and what brings its latents back?

    python examples/posterior_collapse.py [--epochs 60] [--run runs/posterior_collapse]

Fits a Bernoulli pair with 10 latents to scikit-learn's digits (8 x 8 pixels, each black or white).
Model and guide have three layers of sigmoid units. At the beginning hardly anything of a latent
gets through so many layers, and the KL divergence pulls the guide to the prior before the decoder
has learned to read the latents. The pair is fitted three times from the same weights: as it is,
with a KL warm-up (a weight that rises from 0 to 1 over half of all updates), and with free bits
(a tenth of a nat for each latent that costs nothing). A callback watches the first fit.

Prints the usage of the latents of the first pair, and the number of active latents and the ELBO of
all three. Draws the usage of the latents under each.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from ppl_vae import RowELBO, fit, latent_usage, schedules
from ppl_vae.callbacks import ActiveUnits
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

LATENTS, PIXELS, HIDDEN, BATCH = 10, 64, (64, 64, 64), 128


def main() -> None:
    """Fit the pair in three ways, print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description="Mend a posterior that has collapsed.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/posterior_collapse"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = torch.as_tensor(load_digits().data > 7).float()  # (1797, 64): ink or paper
    steps = arguments.epochs * -(-len(digits) // BATCH)
    watch = ActiveUnits(digits, every=2)
    ways = {
        "as it is": {"callbacks": [watch]},
        "KL warm-up": {"kl_weight": schedules.linear(max(1, steps // 2))},
        "free bits": {"elbo": RowELBO(free_bits=0.1)},
    }
    lines, usages = [], {}
    for name, settings in ways.items():
        pyro.set_rng_seed(0)
        model = BernoulliModel(PIXELS, LATENTS, MLP(LATENTS, PIXELS, HIDDEN, torch.nn.Sigmoid))
        encoder = MLP(PIXELS, 2 * LATENTS, HIDDEN, torch.nn.Sigmoid)
        guide = NormalGuide(PIXELS, LATENTS, encoder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = fit(
                model, guide, digits, epochs=arguments.epochs, batch_size=BATCH, compile=False,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
                progress=False, **settings,
            )  # fmt: skip
        for warning in caught:
            print(f"While fitting: {warning.message}\n")
        usages[name] = usage = latent_usage(model, guide, digits)
        lines.append([name, len(usage.active), usage.frame["kl"].sum()])
        lines[-1].append(history.frame["elbo"].iloc[-1])
        if name == "as it is":
            print(usage)
    columns = ["fitted", "active latents", "KL of all latents", "ELBO"]
    table = pd.DataFrame(lines, columns=columns).set_index("fitted")
    print(f"\nIn nats per digit:\n{table.to_string(float_format='{:.2f}'.format)}")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for ax, (name, usage) in zip(axes, usages.items(), strict=True):
        usage.plot(ax)
        ax.title.set_text(f"{name}: {len(usage.active)} of {LATENTS} latents active")
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "posterior_collapse.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/posterior_collapse.png"
        "\nTry next  one layer of ReLU units, BernoulliModel(64, 10): it needs neither mend."
    )


if __name__ == "__main__":
    main()
