"""Latents that ``.mask(False)`` hides whole: Pyro's KL divergence of them has no shape."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from ppl_vae import RowELBO, elbo_terms, fit, lint, log_likelihood

X = torch.linspace(-1, 1, 24).reshape(12, 2)
WRAPPERS = {
    "mask in the event": lambda fn: fn.mask(False).to_event(1),
    "mask around the event": lambda fn: fn.to_event(1).mask(False),
}
OBJECTIVES = [None, TraceMeanField_ELBO(), Trace_ELBO(), RowELBO(), RowELBO(free_bits=0.1)]


def pair(wrap):
    """Return a pair whose latent is hidden by ``wrap``; its guide is no prior."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", wrap(dist.Normal(x.new_zeros(len(x), 2), 1.0)))
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", wrap(dist.Normal(x + pyro.param("shift", torch.ones(())), 0.5)))

    return model, guide


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
@pytest.mark.parametrize("elbo", OBJECTIVES, ids=lambda elbo: type(elbo).__name__)
def test_a_latent_hidden_whole_adds_nothing_to_any_objective(wrap, elbo):
    model, guide = pair(wrap)
    assert lint(model, guide, X, elbo=elbo).errors == []
    with pytest.warns(UserWarning, match='parameter "guide.shift"'):  # it has no gradient
        history = fit(model, guide, X, elbo=elbo, epochs=1, compile=False, progress=False)
    assert torch.isfinite(torch.tensor(history.frame["elbo"].iloc[-1]))


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_the_elbo_of_a_pair_with_a_hidden_latent_is_its_log_likelihood(wrap):
    model, guide = pair(wrap)
    terms = elbo_terms(model, guide, X)
    expected = dist.Normal(0.0, 1.0).log_prob(X).sum(-1)
    assert (terms["z"] == 0).all()
    assert torch.allclose(torch.tensor(terms["x"].to_numpy()).float(), expected)
    log_prob = log_likelihood(model, guide, X, num_samples=8)["log_prob"]
    assert torch.allclose(torch.tensor(log_prob.to_numpy()).float(), expected)
