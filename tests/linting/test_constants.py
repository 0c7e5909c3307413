"""Constants observed outside the row plate, as a measurement beside the data: sound pairs."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from ppl_vae import elbo_terms, fit, lint, log_likelihood, posterior_predictive, predictive_check

X = torch.randn(40, generator=torch.Generator().manual_seed(0)) + 1
CONSTANTS = torch.tensor([1.5, 1.4, 1.7])


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    pyro.sample("anchor", dist.Normal(mu, 0.5), obs=torch.tensor(1.5))
    with pyro.plate("measurements", 3):
        pyro.sample("measured", dist.Normal(mu, 0.1), obs=CONSTANTS)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def posterior():
    """Return mean and sd of mu given everything, and the log-evidence of everything."""
    values = torch.cat([torch.tensor([1.5]), CONSTANTS, X])
    sds = torch.cat([torch.tensor([0.5]), torch.full((3,), 0.1), torch.ones(40)])
    precision = sds.pow(-2).sum() + 0.01
    mean = (values * sds.pow(-2)).sum() / precision
    sd = precision.rsqrt()
    log_joint = (
        dist.Normal(0.0, 10.0).log_prob(mean) + dist.Normal(mean, sds).log_prob(values).sum()
    )
    return mean, sd, log_joint - dist.Normal(mean, sd).log_prob(mean)


def exact_guide(x):
    mean, sd, _ = posterior()
    pyro.sample("mu", dist.Normal(mean, sd))


def learned_guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(0.2), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


def test_the_elbo_counts_each_constant_once():
    assert not lint(model, exact_guide, X).findings
    terms = elbo_terms(model, exact_guide, X, num_samples=400)
    assert set(terms.attrs["global"]) == {"mu", "anchor", "measured"}
    in_all = terms.to_numpy().sum() + sum(terms.attrs["global"].values())
    evidence = float(posterior()[2])
    assert math.isclose(in_all, evidence, abs_tol=1e-3)  # the exact posterior: no error
    assert math.isclose(-Trace_ELBO().loss(model, exact_guide, X), evidence, abs_tol=1e-3)


@pytest.mark.parametrize("batch_size", [10, 40])
def test_batches_do_not_repeat_a_constant(batch_size):
    history = fit(
        model, learned_guide, X, epochs=200, batch_size=batch_size, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.02),
    )  # fmt: skip
    assert math.isclose(history.frame["elbo"].tail(50).mean() * 40, posterior()[2], abs_tol=1.0)
    drawn = posterior_predictive(model, learned_guide, X, num_samples=50)
    assert list(drawn) == ["x"]
    assert math.isclose(drawn["x"].mean(), posterior()[0], abs_tol=0.15)
    assert log_likelihood(model, learned_guide, X)["log_prob"].notna().all()
    assert set(predictive_check(model, learned_guide, X, num_samples=30).replicated)


@pytest.mark.parametrize("statistic", [torch.mean, lambda x: x.new_tensor(float(len(x)))])
def test_a_value_computed_from_the_batch_is_refused(statistic):
    def reading(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        pyro.sample("statistic", dist.Normal(mu, 0.5), obs=statistic(x))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    (finding,) = lint(reading, exact_guide, X).errors
    assert finding.where == 'site "statistic"'
    assert "the same for every batch of rows" in finding.problem


def test_rows_outside_their_plate_and_constants_alone_are_refused():
    def unplated(x):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1), obs=x)

    (finding,) = lint(unplated, None, X).errors
    assert "no plate at dim -1" in finding.problem

    def no_rows(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        pyro.sample("anchor", dist.Normal(mu, 0.5), obs=torch.tensor(1.5))

    (finding,) = lint(no_rows, exact_guide, X).errors
    assert 'an observed site in the row plate "data", got none' in finding.problem
