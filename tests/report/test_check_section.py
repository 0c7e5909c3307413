"""The section of a report on checks: whose fault a flag is, and what is drawn of it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pages import report

import ppl_vae
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.report.check_section import flagged_names


def test_a_discrepancy_is_part_of_the_posterior_check_alone(tmp_path):
    def distance(x, latents):
        return (x.mean(-1) - latents["z"].mean(-1)).square().mean()

    x = (torch.rand(30, 4) > 0.5).float()
    page = report(
        tmp_path, BernoulliModel(4, 2), NormalGuide(4, 2), x, statistics=["built-in", distance]
    )
    assert "distance" in page.text
    assert "The check could not be made" not in page.text
    with pytest.warns(UserWarning, match='expected a guide for "distance"'):
        report(tmp_path, BernoulliModel(4, 2), None, x, statistics=distance, overwrite=True)


def shifted_pair():
    """A prior far from the data and a guide that follows the rows: only the prior check sees."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_full((len(x),), 5.0), 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.1))

    return model, guide, torch.linspace(-1, 1, 50)


def test_the_headline_weighs_the_prior_check_that_the_posterior_check_would_hide(tmp_path):
    model, guide, x = shifted_pair()
    guided, alone = (ppl_vae.predictive_check(model, g, x, num_samples=40) for g in (guide, None))
    assert not guided.frame["flagged"].any()
    flagged = int(alone.frame["flagged"].sum())
    assert flagged > 0
    page = report(tmp_path, model, guide, x)
    top = page.text.partition("What was fitted Learning")[2].partition("What was fitted")[0]
    total = len(alone.frame)
    assert f"The model alone misses {', '.join(flagged_names(alone)[:3])} and" in top
    assert "The latents of the data do not follow the prior" in top
    assert f"Statistics flagged {flagged} of {total} from the model alone" in top
    assert f"with latents from the guide 0 of {total}" in top
    assert "does not prove that they are right" not in top


def test_the_picture_of_a_flagged_feature_has_all_rows(tmp_path):
    """200 features: an evenly spaced sample would lack some rows, the one flagged among them."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(200), 1.0).to_event(1), obs=x)

    x = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    x[101, 7] = 30.0
    page = report(tmp_path, model, None, x, statistics="maximum", replicates=25)
    assert "Values of feature 7 in all 200 rows: observed, and in 20 of the replicates" in page.text


def test_a_censored_model_is_not_blamed_for_its_factor(tmp_path):
    def model(time, event):
        with pyro.plate("data", len(time)):
            with pyro.poutine.mask(mask=event > 0):
                pyro.sample("time", dist.Exponential(1.0), obs=time)
            pyro.factor("censored", -time * (1 - event))

    time = dist.Exponential(torch.ones(200)).sample()
    data = {"time": time.clamp(max=1.0), "event": (time < 1).float()}
    page = report(tmp_path, model, None, data)
    top = page.text.partition("What was fitted Learning")[2].partition("What was fitted")[0]
    assert "Flags of time are no findings: replicates do not follow the model's factors." in top
    assert "replicates do not follow the factor censored of the model" in page.text


def unrelated(a, b):
    with pyro.plate("data", len(a)):
        pyro.sample("number", dist.Normal(0.0, 1.0), obs=a)
        pyro.sample("bit", dist.Bernoulli(0.5), obs=b)


def test_a_fault_between_sites_is_named_by_its_columns_and_drawn(tmp_path):
    torch.manual_seed(0)
    a = torch.randn(200)
    b = (a + torch.randn(200) > 0).float()
    page = report(tmp_path, unrelated, None, (a, b), replicates=40)
    text = " ".join(page.text.split("Code of the pair")[:2])  # without the code of this file
    assert "The model alone misses group mean of number where bit = 1." in text
    assert "Give the pair more latents, or the model a larger decoder." in text
    assert "(across sites)" not in text
    assert "A group mean is the mean of a number in the rows of a category" in text
    assert "flagged group mean of number where bit = 1" in text
    drawn = "Histogram of the group mean of number where bit = 1 in the replicates"
    assert any(figure.startswith(drawn) for figure in page.figures)
