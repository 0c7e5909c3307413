"""What is it worth that draws of the guide have gradients?

    python examples/gradients.py [--epochs 20] [--run runs/gradients]

The ELBO is an expectation over draws of the guide, and so is its gradient. Two estimates of the
gradient are right on average. The score function weights the gradient of log q(z) by how good the
draw z was. Reparameterization writes z = m + s e, with noise e, and differentiates through z, so
that it sees in which direction a better z lies (Kingma & Welling, 2014, arXiv:1312.6114).

Fits a pair to scikit-learn's digits (8 x 8 pixels, each black or white) and estimates, for held-out
digits, the gradient with respect to the mean and the log-variance of their codes, from 1 to 256
draws: by the score function, by the score function less a baseline (the average of the other
draws), with reparameterization, and with reparameterization less the gradient of log q(z) at a
fixed z, which is 0 on average and all noise near the posterior (Roeder, Wu & Duvenaud, 2017,
arXiv:1703.09194). Then compares two fits: of the score function and of reparameterized draws.

Prints the error by the number of draws, and the draws that each estimate needs for the error of one
reparameterized draw. Draws one figure: the errors, and the learning curves.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from pyro import poutine
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

LATENTS, HELD_OUT, DIGITS, DRAWS = 8, 300, 16, 2048
NUMBERS = 2 ** np.arange(9)  # of draws: 1, 2, 4, ..., 256
SCORE, BASELINE = "score function", "the same, less a baseline"
PATHWISE, LANDING = "reparameterized", "the same, without its score term"


class SampledNormal(dist.Normal):
    """The normal distribution, whose draws are said to have no gradients."""

    has_rsample = False


class ScoreFunctionGuide(NormalGuide):
    """The normal guide, whose draws have no gradients: fit then uses the score function."""

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features)."""
        mean, v = self.encoder(self.standardize(x)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", SampledNormal(mean, self.to_positive(v / 2)).to_event(1))


def main() -> None:
    """Fit with either gradient, measure the errors, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare estimates of the ELBO's gradient.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--run", type=Path, default=Path("runs/gradients"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = torch.as_tensor(load_digits().data > 7).float()
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    test, train = digits[:HELD_OUT], digits[HELD_OUT:]
    curves = {}
    for name, guide_class in {SCORE: ScoreFunctionGuide, PATHWISE: NormalGuide}.items():
        pyro.set_rng_seed(0)  # the same initial weights
        model = build(BernoulliModel, train, latents=LATENTS)
        guide = build(guide_class, train, latents=LATENTS)
        history = fit(
            model, guide, train, validation=test, epochs=arguments.epochs, batch_size=64,
            compile=False, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )  # fmt: skip
        curves[f"{name} ({history.objective})"] = history.frame.set_index("epoch")[
            "validation_elbo"
        ]
    found = errors(model, guide, test[:DIGITS])  # of the pair that was fitted last
    needed = (found / found.loc[1, PATHWISE]).loc[NUMBERS[-1]] ** 2 * NUMBERS[-1]
    print(found.to_string(float_format="{:.3f}".format))
    print("\nDraws for the error of one reparameterized draw:")
    print(needed.to_string(float_format="{:,.1f}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(found, curves).savefig(arguments.run / "gradients.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/gradients.png"
        "\nTry next  elbo=RowELBO(sticking_the_landing=True) in fit, without the score term."
    )


def errors(model: BernoulliModel, guide: NormalGuide, x: Tensor) -> pd.DataFrame:
    """Return the error of each estimate of the gradient, by the number of draws.

    The error is the root mean square over digits, parameters (mean and log-variance of each latent)
    and repetitions, divided by the root mean square of the gradient itself.
    """
    pathwise, _, scores = one_by_one(model, guide, x)
    exact = (pathwise + scores).mean(1, keepdim=True)  # (digits, 1, parameters), of 2,048 draws
    torch.manual_seed(1)
    pathwise, log_weights, scores = one_by_one(model, guide, x)
    rows = {}
    for number in NUMBERS.tolist():
        groups = (len(x), DRAWS // number, number)
        log_weight = log_weights.reshape(*groups, 1)
        score = scores.reshape(*groups, -1)
        others = (log_weight.sum(2, keepdim=True) - log_weight) / max(number - 1, 1)
        estimates = {
            SCORE: (log_weight * score).mean(2),
            BASELINE: ((log_weight - others) * score).mean(2),
            PATHWISE: pathwise.reshape(*groups, -1).mean(2),
            LANDING: (pathwise + scores).reshape(*groups, -1).mean(2),
        }
        rows[number] = {
            name: (float((found - exact).square().mean() / exact.square().mean())) ** 0.5
            for name, found in estimates.items()
        }
        if number == 1:
            rows[number][BASELINE] = np.nan  # one draw has no others
    return pd.DataFrame(rows).T.rename_axis("draws")


def one_by_one(
    model: BernoulliModel, guide: NormalGuide, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the ELBO from single draws, and the parts of the score function.

    Each digit stands in as many rows as there are draws. Rows do not depend on each other, so that
    one backward pass gives the gradient of every draw.

    Returns:
        The reparameterized gradients, (digits, draws, parameters); log p(x, z) - log q(z given x),
        (digits, draws); and the gradients of log q(z given x), (digits, draws, parameters).
    """
    rows = x.repeat_interleave(DRAWS, 0)
    parameters = guide.encoder(guide.standardize(rows)).detach().requires_grad_()
    mean, v = parameters.chunk(2, -1)
    q = dist.Normal(mean, guide.to_positive(v / 2)).to_event(1)
    z = q.rsample()
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(rows)
    trace.compute_log_prob()
    log_weight = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"] - q.log_prob(z)
    (pathwise,) = torch.autograd.grad(log_weight.sum(), parameters, retain_graph=True)
    (score,) = torch.autograd.grad(q.log_prob(z.detach()).sum(), parameters)
    parts = pathwise, log_weight.detach(), score
    return tuple(part.unflatten(0, (len(x), DRAWS)) for part in parts)  # type: ignore[return-value]


def draw(found: pd.DataFrame, curves: dict[str, pd.Series]) -> plt.Figure:
    """Draw the errors against the number of draws, and the learning curves."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for name, marker in {SCORE: "s", BASELINE: "^", PATHWISE: "o", LANDING: "v"}.items():
        left.loglog(found.index, found[name], marker=marker, label=name)
    left.axhline(1, color="0.6", linewidth=1)
    left.annotate(
        "as large as the gradient", (NUMBERS[-1], 1), xytext=(0, 4), textcoords="offset points",
        color="0.4", fontsize=9, horizontalalignment="right",
    )  # fmt: skip
    left.set_ylim(top=30 * found.max().max())  # room for the legend
    left.set(xlabel="draws", ylabel="error of the gradient, as a share of it")
    left.set_title("Error of the estimate at the fitted guide")
    left.legend(loc="upper right")
    for (name, curve), color in zip(curves.items(), ("C0", "C2"), strict=True):
        right.plot(curve.index, curve, color=color, label=name)
    right.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    right.set(xlabel="epoch", ylabel="held-out ELBO, nats per image")
    right.set_title("Fits of one draw a row")
    right.legend(loc="lower right")
    figure.suptitle("What is it worth that draws have gradients?")
    return figure


if __name__ == "__main__":
    main()
