"""What does the library add to a script that trains with plain ``pyro.infer.SVI``?

    python examples/svi_script.py [--epochs 60] [--run runs/svi]

Trains two pairs on scikit-learn's 1,797 digits (8 x 8 pixels, each black or white) as any script of
Pyro does: a pair from the zoo with ``Trace_ELBO``, and two functions with a discrete latent, whose
parameters are in Pyro's global store, with ``TraceGraph_ELBO``. The library then takes the pairs as
they are: it evaluates them on held-out digits, checks them against the data, saves and opens them.
"""

import argparse
import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.optim import Adam
from sklearn.datasets import load_digits
from torch import Tensor

from ppl_vae import build, lint, load, log_likelihood, predictive_check, reconstruct, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid

KINDS = 20
ENCODER = MLP(64, KINDS)  # networks of kinds_guide, below
BASELINE = MLP(64, 1)


def kinds_model(x: Tensor) -> None:
    """Every digit is of one of twenty kinds: k ~ Categorical(share), x ~ Bernoulli(ink[k])."""
    share = pyro.param("share", torch.full((KINDS,), 1 / KINDS), dist.constraints.simplex)
    ink = pyro.param("ink", lambda: torch.randn(KINDS, 64))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(share))
        pyro.sample("x", dist.Bernoulli(logits=ink[k]).to_event(1), obs=x)


def kinds_guide(x: Tensor) -> None:
    """Draw the kind of each digit in x, (rows, 64), with the probabilities that ENCODER gives."""
    pyro.module("kinds_encoder", ENCODER)  # "encoder" is the name of NormalGuide's network
    pyro.module("kinds_baseline", BASELINE)
    how = {"nn_baseline": lambda x: BASELINE(x)[..., 0], "nn_baseline_input": x}
    with pyro.plate("data", len(x)):
        kinds = dist.Categorical(logits=ENCODER(x))
        pyro.sample("k", kinds, infer={"baseline": how})


def train(model, guide, x: Tensor, elbo: ELBO, epochs: int) -> SVI:
    """Train a pair as an ordinary script of Pyro does, and return its ``SVI``."""
    svi = SVI(model, guide, Adam({"lr": 0.01}), elbo)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(128):
            svi.step(x[index])
    return svi


def evaluate(model, guide, svi: SVI, x: Tensor) -> dict:
    """Return Pyro's own estimate of the ELBO, and what the library says of the same pair."""
    scores = log_likelihood(model, guide, x, num_samples=200)
    check = predictive_check(model, guide, x)
    print(f"\n{check}")
    return {
        "ELBO by SVI": -sum(svi.evaluate_loss(x) for _ in range(50)) / 50 / len(x),
        "ELBO": scores["elbo"].mean(),
        "log-likelihood": scores["log_prob"].mean(),
        "high k-hat": (scores["k_hat"] > scores.attrs["k_hat_threshold"]).sum(),
    }


def main() -> None:
    """Train both pairs by SVI, then evaluate, check, save and open them."""
    parser = argparse.ArgumentParser(description="Plain SVI scripts, evaluated and saved.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/svi"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    pyro.set_rng_seed(0)

    x = torch.as_tensor(load_digits().data > 7).float()  # (1797, 64)
    test, training = x[torch.randperm(len(x))].split([300, len(x) - 300])
    pairs = {
        "code": (build(BernoulliModel, training), build(NormalGuide, training), Trace_ELBO()),
        "kinds": (kinds_model, kinds_guide, TraceGraph_ELBO()),
    }
    print(f"Training two pairs by SVI on {len(training)} digits, {len(test)} held out.")
    table, strips = {}, {"held-out digits": test[:12]}
    arguments.run.mkdir(parents=True, exist_ok=True)
    for name, (model, guide, elbo) in pairs.items():
        svi = train(model, guide, training, elbo, arguments.epochs)
        lint(model, guide, training).raise_if_failed()
        table[name] = evaluate(model, guide, svi, test)
        run = arguments.run / name
        shutil.rmtree(run, ignore_errors=True)  # of an earlier run of this script
        save(model, guide, run, data=training)
        # A run of zoo classes says how to make them; functions are passed, and get the weights.
        functions = {} if name == "code" else {"model": model, "guide": guide}
        opened = load(run, **functions)
        strips[f"pair {name}"] = reconstruct(*opened, test[:12])

    print(f"\nHeld-out digits, nats per row\n{pd.DataFrame(table).T.round(2).to_string()}")
    grid = image_grid(strips, shape=(8, 8), low=0, high=1, title="Probability of ink")
    grid.figure.savefig(arguments.run / "reconstructions.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/: reconstructions.png, and one run directory for each pair"
        '\nTry next  infer={"enumerate": "parallel"} in kinds_guide, then fit both functions, which'
        "\n          goes on from the values of the script with an exact sum over kinds"
    )


if __name__ == "__main__":
    main()
