"""Distributions that know no support, as wrappers of other libraries' flows have none."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import affine_autoregressive
from torch.distributions import Independent, Normal, TransformedDistribution

import ppl_vae
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.core.supports import is_discrete, support_of
from ppl_vae.nn import MLP

FEATURES, LATENTS = 5, 2
X = torch.rand(40, FEATURES, generator=torch.Generator().manual_seed(0)).round()


class FlowPrior(torch.nn.Module):
    """z from a flow, x ~ Bernoulli(decoder(z)); the guide's z is a flow or a Normal."""

    def __init__(self):
        super().__init__()
        self.prior, self.posterior = (affine_autoregressive(LATENTS, [8]) for _ in range(2))
        self.encoder, self.decoder = MLP(FEATURES, LATENTS), MLP(LATENTS, FEATURES)

    def model(self, x):
        pyro.module("vae", self)
        base = Independent(Normal(x.new_zeros(LATENTS), 1.0), 1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ZukoToPyro(TransformedDistribution(base, self.prior)))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def flow(self, x):
        base = Independent(Normal(self.encoder(x), 1.0), 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(TransformedDistribution(base, self.posterior)))

    def normal(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def unsupported(fn):
    """Wrap a distribution of torch so that its support is unknown."""
    return ZukoToPyro(fn)


@pytest.mark.parametrize("guide", ["flow", "normal"])
@pytest.mark.filterwarnings("ignore:parameter:UserWarning")  # the other guide's networks
@pytest.mark.filterwarnings("ignore::ppl_vae.evaluation.summary.UnreliableWarning")
def test_a_prior_without_a_support_fits_and_answers_every_question(guide):
    vae = FlowPrior()
    pair = vae.model, getattr(vae, guide)
    verdict = ppl_vae.lint(*pair, X)
    assert not verdict.errors
    assert verdict.sites.set_index("site").loc["z", "support"] == ""
    ppl_vae.fit(*pair, X, epochs=1, progress=False, compile=False)
    assert ppl_vae.log_likelihood(*pair, X, num_samples=5)["log_prob"].lt(0).all()
    assert ppl_vae.encode(*pair, X).notna().all(axis=None)
    for rows in (
        ppl_vae.reconstruct(*pair, X),
        ppl_vae.traverse(*pair, X),
        ppl_vae.interpolate(*pair, X),
        ppl_vae.posterior_predictive(*pair, X, num_samples=2)["x"],
    ):
        assert torch.isfinite(torch.as_tensor(np.asarray(rows))).all()


def test_a_likelihood_without_a_support_is_checked_as_real_numbers():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", unsupported(Independent(Normal(torch.zeros(FEATURES), 1.0), 1)), obs=x)

    assert not ppl_vae.lint(model, None, X).errors
    frame = ppl_vae.predictive_check(model, None, X, num_samples=20).frame
    assert frame["p_value"].notna().any()
    assert ppl_vae.generate(model, None, X, num_samples=3).shape == (3, FEATURES)


@pytest.mark.parametrize(
    ("fn", "support", "discrete"),
    [
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), "Real()", False),
        (
            dist.Poisson(torch.ones(3)).to_event(1).mask(False),
            "IntegerGreaterThan(lower_bound=0)",
            True,
        ),
        (unsupported(Normal(0.0, 1.0)), "None", False),
    ],
)
def test_the_support_of_a_distribution_is_that_inside_its_wrappers(fn, support, discrete):
    assert str(support_of(fn)) == support
    assert is_discrete(fn) is discrete
    assert (ValueKind.of(fn).name == "counts") is discrete
