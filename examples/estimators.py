"""Which gradient estimator suits a model of discrete latents?

    python examples/estimators.py [--epochs 5] [--draws 100] [--run runs/estimators]

Fits a model with four latents of three states each to scikit-learn's digits (8 x 8 pixels, each
black or white). Before and after the fit, ``gradient_estimators`` draws the gradient on one batch
again and again: with all 81 configurations summed; by the score function with no baseline, with the
mean of the other digits, with the mean of the row's other particles, and with a network, which is
trained in the fit; and by relaxed and straight-through draws at a temperature of 0.5. All guides
share one encoder, so that nothing but the estimator differs.

Prints bias, variance and time of each estimator after the fit and which one is recommended, and
draws one figure: variance against time, before and after.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from ppl_vae import RowELBO, fit, gradient_estimators
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.guides.relaxed import RelaxedGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.nn import MLP

LATENTS, STATES, PIXELS = 4, 3, 64
LEAVE_ONE_OUT = RowELBO(4, baseline="leave_one_out")


def main() -> None:
    """Measure, fit and measure again; print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare gradient estimators on one model.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/estimators"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = torch.as_tensor(load_digits().data > 7).float()
    pyro.set_rng_seed(0)
    model = DiscreteModel(PIXELS, LATENTS, STATES)
    sizes = {"features": PIXELS, "latents": LATENTS, "states": STATES}
    shared = sizes | {"encoder": MLP(PIXELS, LATENTS * STATES, (64,))}
    drawn = CategoricalGuide(**shared)
    with_network = CategoricalGuide(**shared, baseline=MLP(PIXELS, 1, (64,)))
    estimators = {
        "summed": CategoricalGuide(**shared, enumerated=True),
        "no baseline": (drawn, RowELBO()),
        "average": (drawn, RowELBO(baseline="average")),
        "leave one out": (drawn, LEAVE_ONE_OUT),
        "network": (with_network, RowELBO()),
        "relaxed": RelaxedGuide(**shared),
        "straight-through": RelaxedGuide(**shared, straight_through=True),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for ax, when in zip(axes, ("before the fit", "after the fit"), strict=True):
        if when == "after the fit":
            fit(
                model, with_network, digits, elbo=RowELBO(baseline="average"), progress=False,
                epochs=arguments.epochs, compile=False,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
            )  # fmt: skip
        found = gradient_estimators(model, estimators, digits, num_draws=arguments.draws)
        found.plot(ax)
        ax.title.set_text(f"Gradient of the guide {when}")
    print(found)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "estimators.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/estimators.png"
        "\nTry next  more latents: from 16,384 configurations on, no sum is exact any more."
    )


if __name__ == "__main__":
    main()
