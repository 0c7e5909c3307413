"""What does a second layer of codes add?

    python examples/second_layer.py [--epochs 60] [--run runs/second_layer]

Fits two pairs to scikit-learn's digits (8 x 8 pixels, each black or white). Both have the same
linear decoder, the same optimizer and number of steps. In one, the code next to the data has a
standard normal prior; in the other, its prior is a second layer, through a network. The KL weight
rises over the first half of the steps (Sønderby et al., 2016, arXiv:1602.02282).

Prints the held-out log-likelihood of both in nats per image and what each code holds. Draws one
figure: the held-out ELBO over the epochs, and new digits, of one upper code in each row, whose
lower code is drawn anew.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, elbo_terms, fit, log_likelihood
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid
from ppl_vae.schedules import linear

LOWER, UPPER, HELD_OUT, TOPS, SHOWN = 16, 4, 300, 5, 12
LAYERS = {"one layer": (LOWER,), "two layers": (LOWER, UPPER)}


def main() -> None:
    """Fit both pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare one layer of codes with two.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/second_layer"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = torch.as_tensor(load_digits().data > 7).float()
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    test, train = digits[:HELD_OUT], digits[HELD_OUT:]
    rows, curves = [], {}
    for name, latents in LAYERS.items():
        torch.manual_seed(0)
        decoder = MLP(LOWER, digits.shape[1], hidden=())
        model = build(HierarchicalModel, train, latents=latents, decoder=decoder)
        guide = build(TopDownGuide, train, model=model)
        history = fit(
            model, guide, train, validation=test, epochs=arguments.epochs, batch_size=64,
            kl_weight=linear(max(1, arguments.epochs * len(train) // 64 // 2)), progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")
            scores = log_likelihood(model, guide, test, num_samples=500)["log_prob"]
        rows.append([name, scores.mean(), scores.sem()])
        curves[name] = history.frame.set_index("epoch")["validation_elbo"]
    columns = ["codes", "held-out log-likelihood", "standard error"]
    table = pd.DataFrame(rows, columns=columns).set_index("codes")
    print(table.to_string(float_format="{:.2f}".format))
    held = -elbo_terms(model, guide, test, num_samples=20).mean()  # KL divergences from the prior
    print(f"Of the two codes, the upper holds {held['z2']:.1f} nats, the lower {held['z1']:.1f}.")

    figure = draw(curves, new_digits(model))
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "second_layer.png", dpi=130)
    gain = table["held-out log-likelihood"].diff().iloc[-1]
    print(
        f"\nThe second layer gains {gain:.1f} nats per image."
        f"\n\nLook at   {arguments.run}/second_layer.png"
        "\nTry next  hidden=(64,) in the decoder, which takes over what the second layer does here."
    )


def new_digits(model: HierarchicalModel) -> dict[str, Tensor]:
    """Return probabilities of ink, {upper code: (shown, 8, 8)}; only the lower code differs."""
    torch.manual_seed(1)
    upper = torch.randn(TOPS, 1, UPPER).expand(-1, SHOWN, -1)
    with torch.no_grad():
        mean, log_variance = model.given_above(1, upper)
        lower = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        ink = model.decoder(lower).sigmoid().unflatten(-1, (8, 8))  # (tops, shown, 8, 8)
    return {f"upper code {number}": images for number, images in enumerate(ink, 1)}


def draw(curves: dict[str, pd.Series], strips: dict[str, Tensor]) -> plt.Figure:
    """Draw the held-out ELBO over the epochs, and new digits of the two layers below."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8.4, 7.0), layout="constrained", height_ratios=[1.1, 1]
    )
    for name, curve in curves.items():
        above.plot(curve.index, curve, label=name)
    above.set(xlabel="epoch", ylabel="held-out ELBO, nats per image")
    above.legend(loc="lower right")
    image_grid(
        strips,
        low=0,
        high=1,
        title="New digits of two layers: one upper code in each row, the lower drawn anew",
        ax=below,
    )
    figure.suptitle("What does a second layer of codes add?")
    return figure


if __name__ == "__main__":
    main()
