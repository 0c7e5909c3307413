"""Graphs of a pair's particles: the numbers of the pair, and only where a graph may be used."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.evaluation.particle_terms import ParticleTerms
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.zoo.catalog import find_class


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "ppca"])
def test_graphs_give_the_weights_of_the_pair_for_pairs_of_the_zoo(name):
    x = (torch.randn(50, 5) > 0).float()
    model, guide = find_class(name, "models")(5, 2), find_class("normal", "guides")(5, 2)
    pair, data = Pair.of(model, guide, "data"), as_rows(x)
    for calls, kind in ((1, "eager"), (400, "traced"), (10**6, "compiled")):
        weights = ParticleTerms(pair, data, 8)
        weights.prepare(50, calls, "auto")
        assert weights.kind == kind
        torch.manual_seed(0)
        found = weights(data.take(torch.arange(50)))["log_weights"]
        torch.manual_seed(0)
        right = weights.eager(data.take(torch.arange(50)))["log_weights"]
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-3)
        again = weights(data.take(torch.arange(50)))["log_weights"]
        assert (again != found).any(), "frozen draws"


def test_a_graph_is_not_used_for_numbers_of_another_dtype():
    x = torch.randn(20, 4).round()
    pair = Pair.of(BernoulliModel(4, 2), NormalGuide(4, 2), "data")
    x = (x > 0).float()
    terms = ParticleTerms(pair, as_rows(x), 8)
    terms.prepare(20, 10**6, "auto")
    assert terms.kind == "compiled"
    for dtype in (torch.int64, torch.float64, torch.bool):
        other = as_rows(x.to(dtype)).take(torch.arange(20))
        torch.manual_seed(0)
        found = terms(other)["log_weights"]
        torch.manual_seed(0)
        torch.testing.assert_close(found, terms.eager(other)["log_weights"])


def test_a_pair_that_branches_on_values_runs_its_own_python():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            wide = 3.0 if float(x.sum()) > 0 else 0.5
            pyro.sample("x", dist.Normal(z, wide), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    x = torch.linspace(-2, 2, 50)
    weights = ParticleTerms(Pair.of(model, guide, "data"), as_rows(x), 8)
    weights.prepare(10, 10**6, "auto")
    assert weights.kind == "eager"
