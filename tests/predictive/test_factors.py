"""Factors of a model, which replicates do not follow, are named beside the sites they concern."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import predictive_check
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.predictive.factors import sites_beside_factors


def survival(time, event, mark):
    """Exponential times, censored at 1; a second site beside them is not censored."""
    with pyro.plate("data", len(time)):
        z = pyro.sample("z", dist.Gamma(20.0, 20.0).expand([len(time)]))
        with pyro.poutine.mask(mask=event > 0):
            pyro.sample("time", dist.Exponential(z), obs=time)
        pyro.factor("censored", -z * time * (1 - event))
        pyro.sample("mark", dist.Normal(z, 1.0), obs=mark)


def guide(time, event, mark):
    with pyro.plate("data", len(time)):
        pyro.sample("z", dist.Gamma(20.0 + event, 20.0 + time))


def censored_data(rows=400):
    torch.manual_seed(0)
    z = dist.Gamma(20.0, 20.0).sample((rows,))
    time = dist.Exponential(z).sample()
    event = (time < 1.0).float()
    return {"time": time.clamp(max=1.0), "event": event, "mark": z + torch.randn(rows)}


def reweighted(x):
    """A factor that reads no data changes how the latent is distributed."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("weight", -z.square())
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def beside(model, data, *, prior):
    return sites_beside_factors(Pair.of(model, None, "data"), Rows(data), prior=prior)


def test_a_perfect_censored_model_is_flagged_and_the_verdict_says_that_it_means_nothing():
    """Uncensored times have the mean 1 - 1 / (e - 1) = 0.418; their replicates have the mean 1."""
    data = censored_data()
    check = predictive_check(survival, guide, data, statistics="mean", num_samples=99)
    line = check.frame.loc[("time", "mean")]
    assert line["observed"] == pytest.approx(0.418, abs=0.04)
    assert line["mean"] == pytest.approx(1.0, abs=0.1)
    assert line["flagged"]
    assert not check.frame.loc[("mark", "mean"), "flagged"]
    assert check.factors == {"time": ["censored"]}
    sentence = 'site "time": a flag is no finding, because replicates do not follow the factor'
    assert sentence in str(check)
    assert "censored" in str(check)
    assert 'site "mark"' not in str(check)


def test_with_latents_from_the_prior_every_site_is_named():
    assert beside(survival, censored_data(), prior=True) == {
        "time": ["censored"], "mark": ["censored"],
    }  # fmt: skip
    assert beside(reweighted, torch.zeros(9), prior=True) == {"x": ["weight"]}
    assert beside(reweighted, torch.zeros(9), prior=False) == {}


def test_a_factor_of_the_value_that_the_site_returned_reads_what_the_site_observes():
    def model(x):
        with pyro.plate("data", len(x)):
            value = pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
            pyro.factor("tilt", 0.1 * value)

    assert beside(model, torch.zeros(9), prior=False) == {"x": ["tilt"]}


def test_values_computed_from_the_data_and_written_in_place_are_followed():
    def model(x, limit):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=x.exp())
            penalty = torch.zeros(len(x))
            penalty[:] = -x
            pyro.factor("penalty", penalty)
            pyro.factor("limit", -limit)
            pyro.sample("limit_seen", dist.Normal(0.0, 1.0), obs=2 * limit)

    data = {"x": torch.zeros(9), "limit": torch.ones(9)}
    assert beside(model, data, prior=False) == {"y": ["penalty"], "limit_seen": ["limit"]}


def test_without_factors_nothing_is_said():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    check = predictive_check(model, None, torch.randn(20), num_samples=19)
    assert check.factors == {}
    assert len(check.headline) == 2
