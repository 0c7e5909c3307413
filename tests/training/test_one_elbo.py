"""One ELBO: every function that reports an ELBO reports the same one, and ``lint`` names the rest.

The bound is that of the unscaled model and guide, in nats per row. Four functions of the library
and Pyro's own ``loss`` estimate it, each from many draws; z-scores compare the estimates. Where
Pyro's loss of the raw functions is another number, ``lint`` says which site makes it differ, and
the history has that number as ``objective``.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import PAIRS, Guide, Model, made, normal, reals
from parts.zoo import FEW_MODELS, zoo_pair
from pyro.infer import Trace_ELBO
from torch import nn

from ppl_vae import RowELBO, elbo_terms, fit, lint, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective

DRAWS = 20
LARGEST_Z = 5.0


def tilted():
    class Tilted(Guide):
        def forward(self, x):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))
                pyro.factor("tilt", 0.3 * z.sum(-1), has_rsample=True)

    return Model(), Tilted(), reals()


class Penalized(Model):
    """A model with a factor."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = self.code(x)
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
            pyro.factor("penalty", -0.1 * z.square().sum(-1))


def penalized():
    return Penalized(), Guide(), reals()


class Signs(Model):
    """A model that observes a sign beside the row."""

    def forward(self, x, y):
        with pyro.plate("data", len(x)):
            z = self.code(x)
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
            pyro.sample("y", dist.Bernoulli(logits=z[..., 0]), obs=y)


class SignsGuide(Guide):
    """A guide with a classifier of the sign beside its draw, as an observed site or a factor."""

    def __init__(self, how):
        super().__init__()
        self.how, self.classifier = how, nn.Linear(5, 1)

    def forward(self, x, y):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        fn = dist.Bernoulli(logits=self.classifier(x)[..., 0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))
            if self.how == "observed":
                pyro.sample("y", fn, obs=y, infer={"is_auxiliary": True})
            else:
                pyro.factor("class", -5 * fn.log_prob(y), has_rsample=False)


def signs(how):
    x = reals()
    return Signs(), SignsGuide(how), {"x": x, "y": (x.sum(-1) > 0).float()}


class Scaled(Model):
    def code(self, x):
        with pyro.poutine.scale(scale=5.0):
            return super().code(x)


class ScaledGuide(Guide):
    def forward(self, x):
        with pyro.poutine.scale(scale=5.0):
            super().forward(x)


class Doubled(Trace_ELBO):
    """A loss of a user's own: twice Pyro's."""

    def _differentiable_loss_particle(self, model_trace, guide_trace):
        loss, surrogate = super()._differentiable_loss_particle(model_trace, guide_trace)
        return 2 * loss, 2 * surrogate


AGREE = {
    **PAIRS,
    "tilted": tilted,
    "penalized": penalized,
    **{
        "-".join(names): lambda names=names: zoo_pair(*names)
        for names in itertools.product(FEW_MODELS, ("normal", "linear"))
    },
}
"""Pairs whose training loss is the ELBO: ``lint`` says nothing of a difference."""

DIFFER = {
    "observed": (lambda: signs("observed"), None, 'site "y"'),
    "factor": (lambda: signs("factor"), None, 'site "class"'),
    "scale": (lambda: (Scaled(), ScaledGuide(), reals()), None, 'site "z"'),
    "loss": (lambda: (Model(), Guide(), reals()), Doubled(), "elbo"),
}
"""The three kinds in which ``lint`` speaks: a term of the guide that is no part of its draws'
density (observed, or a factor of no draw), a scale of the user's, and a loss of the user's."""


def of_draws(values):
    """Mean and standard error of independent estimates."""
    values = torch.tensor([float(v) for v in values], dtype=torch.float64)
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def estimates(model, guide, data, report, elbo=None):
    """The ELBO by every function that reports it, as {name: (mean, standard error)}, per row.

    ``report`` is what ``lint`` says of the pair.
    """
    for half in (model, guide):
        if isinstance(half, nn.Module):
            half.eval()
    rows = as_rows(data)
    still = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0), "compile": False}
    history = fit(
        model, guide, data, elbo=elbo, epochs=DRAWS, batch_size=len(rows), progress=False,
        validation=data, **still,
    )  # fmt: skip
    found = {
        "history": of_draws(history.frame["elbo"]),
        "objective": of_draws(history.frame["objective"]),
        "held out": (history.validation_elbo, history.validation_elbo_se),
    }
    terms = [elbo_terms(model, guide, data, num_samples=3, seed=s) for s in range(8)]
    by_row = [t.sum(axis=1).mean() for t in terms]
    in_all = [
        r + sum(t.attrs["global"].values()) / len(rows) for r, t in zip(by_row, terms, strict=True)
    ]
    found["elbo_terms"] = of_draws(in_all)
    # log_likelihood leaves out the terms of latents outside the row plate
    without_global = [
        log_likelihood(model, guide, data, num_samples=3, seed=s)["elbo"].mean() for s in range(8)
    ]
    if not any(t.attrs["global"] for t in terms):
        found["log_likelihood"] = of_draws(without_global)
    pair = Pair.of(model, guide, "data")
    batch = rows.take(torch.arange(len(rows)), pair.device())
    with forked(0), pair.evaluating():
        if not lint(model, guide, data, elbo=RowELBO()).errors:
            bound = BatchLoss(pair, Objective.of(RowELBO(), ""), len(rows))
            values = [-bound.negative_elbo(batch) / len(rows) for _ in range(DRAWS)]
            found["RowELBO"] = of_draws(values)
        plain = Objective.of(elbo or report.objective.elbo, "").elbo
        losses = [-plain.loss(pair.model, pair.guide, batch) / len(rows) for _ in range(DRAWS)]
        if elbo is not None:  # a derived class may leave ``loss`` as it is
            losses = [
                -float(plain.differentiable_loss(pair.model, pair.guide, batch)) / len(rows)
                for _ in range(DRAWS)
            ]
        found["Pyro"] = of_draws(losses)
    return found


def disagreements(found, reference, names):
    """Names of the estimates that are too far from the reference."""
    mean, error = found[reference]
    far = {}
    for name in names:
        other, other_error = found[name]
        spread = math.hypot(error, other_error) + 2e-5 * abs(mean)
        if abs(other - mean) > LARGEST_Z * spread:
            far[name] = (other, mean, spread)
    return far


# One kind of latent, of plate or of half each; the others, with the slow tests, repeat these.
EVERY_TIME = {
    "gaussian", "sampled_class", "mixture", "baseline", "obs_masked", "hierarchy", "tilted",
    "penalized", "enumerated_in_the_model", "enumerated_in_the_guide", "pyro_param", "ppca-linear",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in EVERY_TIME else pytest.mark.slow) for name in AGREE],
)
@pytest.mark.filterwarnings("ignore:layer .*BatchNorm")
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.filterwarnings("ignore:site .*expected a baseline")  # a plain score function
def test_every_elbo_is_one_number(name):
    model, guide, data = made(AGREE[name])
    report = lint(model, guide, data)
    assert not [f for f in report.findings if "enters the training loss" in f.problem]
    found = estimates(model, guide, data, report)
    assert not disagreements(found, "history", found.keys() - {"history"}), found


@pytest.mark.parametrize("name", DIFFER)
@pytest.mark.filterwarnings("ignore:.*enters the training loss")
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_lint_names_what_makes_the_training_loss_differ(name):
    make, elbo, where = DIFFER[name]
    model, guide, data = made(make)
    report = lint(model, guide, data, elbo=elbo)
    said = [f for f in report.findings if "enters the training loss and not the ELBO" in f.problem]
    assert [(f.severity, f.where) for f in said] == [("warning", where)]
    found = estimates(model, guide, data, report, elbo)
    rest = found.keys() - {"history", "objective", "Pyro"}
    assert not disagreements(found, "history", rest), found
    assert not disagreements(found, "objective", ["Pyro"]), found
    assert disagreements(found, "history", ["objective"]), found


def test_the_held_out_elbo_of_a_fit_is_measured_afresh():
    """The curve has one draw for every row, the same in every epoch, and the fit may follow it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.5)) * x, 1.2))

    x = torch.linspace(-2.0, 2.0, 20)
    variance, mean = 1.2**2, 0.5 * x
    likelihood = -0.5 * (math.log(2 * math.pi) + (x - mean) ** 2 + variance)
    kl = 0.5 * (variance + mean**2 - 1 - math.log(variance))
    exact = (likelihood - kl).mean().item()
    history = fit(
        model, guide, x, validation=x, epochs=100, progress=False, elbo=Trace_ELBO(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )  # fmt: skip
    curve, error = history.frame["validation_elbo"], history.validation_elbo_se
    assert abs(history.validation_elbo - exact) < 4 * error
    assert 0.01 < error < 0.4  # an estimate from 20 rows spreads by 0.3 nats, and there are 10
    assert history.validation_elbo != pytest.approx(curve.max(), abs=1e-3)
    assert f"held-out ELBO    {history.validation_elbo:.3f} ± {error:.3f} nats" in str(history)
    without = fit(model, guide, x, epochs=1, progress=False)
    assert (without.validation_elbo, without.validation_elbo_se) == (None, None)


def test_a_loss_that_fit_would_not_call_is_refused():
    class Ours(Trace_ELBO):
        def loss_and_grads(self, model, guide, *args, **kwargs):
            return 0.0

    with pytest.raises(
        ValueError, match="Ours has its own loss_and_grads, which fit does not call"
    ):
        fit(Model(), Guide(), reals(), elbo=Ours(), epochs=1, progress=False)
