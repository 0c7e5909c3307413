"""A fault that only the values of summed latents show is told by the latent's name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import IWAE, RowELBO, encode, fit, lint, log_likelihood, reconstruct
from ppl_vae.distributions import BernoulliVector, RelaxedCategoricalVector

SUM = {"enumerate": "parallel"}


def table(logits):
    """A model with two means, whose latent has as many values as there are logits."""
    means = nn.Parameter(torch.randn(2))

    def model(x):
        pyro.param("means", means)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=logits), infer=SUM)
            pyro.sample("x", dist.Normal(means[k], 1.0), obs=x)

    return model


def joined(x):
    """A model that joins a drawn and a summed latent without a look at their dimensions."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        k = pyro.sample("k", dist.OneHotCategorical(logits=torch.zeros(3)), infer=SUM)
        pyro.sample("x", dist.Normal(torch.cat([z, k], -1), 1.0).to_event(1), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def wide(x):
    """A model and a guide at once: 2^40 configurations, and nothing observed but a mean of them."""
    with pyro.plate("data", len(x)):
        bits = pyro.sample("bits", BernoulliVector(torch.zeros(40)), infer=SUM)
        pyro.sample("x", dist.Normal(bits.mean(-1), 1.0), obs=x)


QUIET = {"epochs": 1, "progress": False}
CALLS = {
    "fit": lambda *pair: fit(*pair, **QUIET),
    "log_likelihood": log_likelihood,
    "encode": encode,
    "joint": lambda *pair: encode(*pair, joint=True),
    "reconstruct": reconstruct,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("logits", [torch.zeros(3), torch.tensor([0.0, 0.0, -50.0])])
def test_a_category_without_a_row_in_a_table_is_told_by_its_site(call, logits):
    """Also where the category is so improbable that a draw never shows it."""
    with pytest.raises(ValueError, match=r'^site "k": expected categories from 0 to 1 .* got 2; '):
        CALLS[call](table(logits), None, torch.randn(20))


@pytest.mark.parametrize("call", CALLS)
def test_code_that_does_not_take_all_values_is_told_by_the_latent_that_is_summed(call):
    with pytest.raises(ValueError, match=r'^site "k": expected code .* of shape \(3, 1, 3\), got '):
        CALLS[call](joined, guide, torch.randn(9, 5))


@pytest.mark.parametrize("bound", [RowELBO, IWAE])
def test_a_fault_of_one_particle_is_not_laid_on_the_others(bound):
    with pytest.raises(ValueError, match=r'^site "k": expected code that takes all values'):
        fit(joined, guide, torch.randn(9, 5), elbo=bound(3), **QUIET)


def test_lint_names_the_latent_whose_values_the_code_does_not_take():
    (finding,) = lint(joined, guide, torch.randn(9, 5)).findings
    assert finding.where == 'site "k"'


@pytest.mark.parametrize("call", ["fit", "log_likelihood", "joint"])
def test_too_many_configurations_of_a_vector_are_told_by_its_site(call):
    with pytest.raises(ValueError, match=r'^site "bits": .* 1,099,511,627,776 joint values'):
        CALLS[call](wide, None, torch.randn(5))


def test_joint_values_that_the_guide_sums_are_refused_before_they_fill_the_memory():
    def model(x):
        with pyro.plate("data", len(x)):
            bits = pyro.sample("bits", BernoulliVector(torch.zeros(20)))
            pyro.sample("x", dist.Normal(bits.mean(-1), 1.0), obs=x)

    def summed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("bits", BernoulliVector(torch.zeros(20)), infer=SUM)

    with pytest.raises(ValueError, match=r'^site "bits": .* 1,048,576 joint values'):
        encode(model, summed, torch.randn(5), joint=True)


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_positive_is_named(temperature):
    with pytest.raises(ValueError, match=r"^temperature: expected a positive number, got"):
        RelaxedCategoricalVector(torch.zeros(2, 3), torch.tensor(temperature))
