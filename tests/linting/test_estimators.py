"""Lint says how the gradient of a discrete latent is estimated, and what would estimate it better.

The advice depends on how many configurations all drawn latents of a row have together.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine import trace
from torch import nn

from ppl_vae import IWAE, RowELBO, lint
from ppl_vae.distributions import BernoulliVector, CategoricalVector
from ppl_vae.elbo.configurations import count_in_words, joint_configurations, values_of_event
from ppl_vae.guides.bernoulli import BernoulliGuide
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.guides.relaxed import RelaxedGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.sigmoid_belief import SigmoidBeliefModel

FEATURES = 5
X = (torch.rand(40, FEATURES, generator=torch.Generator().manual_seed(0)) > 0.5).float()
LEAVE_ONE_OUT = 'pass elbo=RowELBO(4, baseline="leave_one_out")'


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (dist.Bernoulli(torch.tensor(0.5)), 2),
        (dist.Bernoulli(torch.full((7, 3), 0.5)).to_event(1), 8),
        (dist.Bernoulli(torch.full((7, 3), 0.5)).to_event(2).mask(True), 2**21),
        (dist.Categorical(torch.ones(7, 4)), 4),
        (dist.Categorical(torch.ones(7, 4)).to_event(1), 4**7),
        (dist.OneHotCategorical(torch.ones(7, 4)), 4),
        (dist.OneHotCategorical(torch.ones(7, 4)).to_event(1), 4**7),
        (dist.Binomial(6, torch.full((2,), 0.5)), 7),
        (dist.Poisson(torch.ones(3)), math.inf),
        (dist.Multinomial(3, torch.ones(2)), math.inf),
        (BernoulliVector(torch.zeros(9, 3)), 8),
        (CategoricalVector(torch.zeros(9, 2, 3)), 9),
    ],
)
def test_values_are_counted_from_shapes(fn, values):
    assert values_of_event(fn) == values
    if fn.has_enumerate_support and values < 100:
        assert len(fn.enumerate_support(expand=False)) == values


def test_a_count_beyond_all_floats_has_words():
    fn = dist.Bernoulli(torch.full((2000,), 0.5)).to_event(1)
    assert count_in_words(values_of_event(fn)) == "10^602"


def coins(places, *, together):
    """Coins in a plate inside the rows, read place by place or all together."""

    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.plate("coins", places, dim=-2):
                z = pyro.sample("z", dist.Bernoulli(x.new_full((places, len(x)), 0.5)))
                if not together:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x.T[:places])
            if together:
                pyro.sample("x", dist.Normal(z.sum(-2), 1.0), obs=x[:, 0])

    def guide(x):
        logit = pyro.param("logit", torch.zeros(()))
        with pyro.plate("data", len(x)), pyro.plate("coins", places, dim=-2):
            pyro.sample("z", dist.Bernoulli(logits=logit.expand(places, len(x))))

    return model, guide


@pytest.mark.parametrize(("together", "count"), [(True, 2**5), (False, 2)])
def test_places_of_a_plate_count_together_where_a_site_reads_them_all(together, count):
    model, guide = coins(5, together=together)
    latents = {"z": trace(guide).get_trace(X).nodes["z"]}
    assert joint_configurations(latents, trace(model).get_trace(X), "data") == count
    verdict = lint(model, guide, X)
    mend = "BernoulliVector" if together else 'infer={"enumerate": "parallel"}'
    assert_only_finding(verdict, "warning", 'site "z"', f"has {count} configurations", mend)
    assert ("BernoulliVector" in str(verdict)) is together


@pytest.mark.parametrize("elbo", [None, Trace_ELBO(), TraceGraph_ELBO(), RowELBO(2), IWAE(2)])
def test_few_configurations_without_a_baseline_are_to_be_summed(elbo):
    verdict = lint(DiscreteModel(FEATURES, 3, 3), CategoricalGuide(FEATURES, 3, 3), X, elbo=elbo)
    pieces = "it has 27 configurations", "enumerated=True", LEAVE_ONE_OUT
    assert_only_finding(verdict, "warning", 'site "z"', *pieces)
    assert "BernoulliVector" not in str(verdict.findings[0])
    assert verdict.sites.set_index("site").loc["z", "estimator"] == "score function"
    summed = CategoricalGuide(FEATURES, 3, 3, enumerated=True)
    if elbo is None:
        assert not lint(DiscreteModel(FEATURES, 3, 3), summed, X).findings


def test_a_distribution_that_pyro_does_not_enumerate_is_named():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((3,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x[:, 0])

    def guide(x):
        logit = pyro.param("logit", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logit).to_event(1))

    pieces = "it has 8 configurations", "ppl_vae.distributions.BernoulliVector", "no .to_event(...)"
    assert_only_finding(lint(model, guide, X), "warning", 'site "z"', *pieces)


def test_many_configurations_are_counted_over_all_layers():
    pair = SigmoidBeliefModel(FEATURES, (10, 4)), BernoulliGuide(FEATURES, (10, 4))
    pieces = "(with z2 it has 16,384 configurations)", LEAVE_ONE_OUT, "ppl_vae.guides.relaxed"
    verdict = lint(*pair, X)
    assert_only_finding(verdict, "warning", 'site "z1"', *pieces)
    assert "enumerate" not in str(verdict.findings[0])


@pytest.mark.parametrize(
    ("elbo", "baseline", "estimator"),
    [
        (RowELBO(4, baseline="leave_one_out"), None, "leave_one_out"),
        (IWAE(4, baseline="leave_one_out"), None, "leave_one_out"),
        (RowELBO(baseline="average"), nn.Linear(FEATURES, 1), "average, network"),
        (RowELBO(baseline="average"), None, "average"),
        (RowELBO(), nn.Linear(FEATURES, 1), "network"),
        (None, nn.Linear(FEATURES, 1), "network"),
    ],
)
def test_a_baseline_is_no_finding_and_in_the_table(elbo, baseline, estimator):
    guide = BernoulliGuide(FEATURES, 8, baseline=baseline)
    verdict = lint(DiscreteModel(FEATURES, 8, 2), guide, X, elbo=elbo)
    assert not verdict.findings, str(verdict)
    table = verdict.sites.set_index("site")
    assert table.loc["z", "estimator"] == f"score function ({estimator})"


def test_trace_elbo_ignores_a_network():
    guide = BernoulliGuide(FEATURES, 8, baseline=nn.Linear(FEATURES, 1))
    verdict = lint(DiscreteModel(FEATURES, 8, 2), guide, X, elbo=Trace_ELBO())
    assert [f.where for f in verdict.findings if "baseline" in f.problem] == ['site "z"']


@pytest.mark.parametrize("elbo", [None, Trace_ELBO(), TraceMeanField_ELBO(), RowELBO(2)])
@pytest.mark.parametrize("states", [2, 3])
def test_a_relaxed_guide_has_no_finding_under_any_elbo(elbo, states):
    model, guide = DiscreteModel(FEATURES, 8, states), RelaxedGuide(FEATURES, 8, states)
    verdict = lint(model, guide, X, elbo=elbo)
    assert not verdict.findings, str(verdict)
    assert verdict.objective.relaxes
    table = verdict.sites.set_index("site")
    assert table.loc["z", "estimator"] == "relaxed draw"
    words = {2: "0 or 1", 3: "a single 1 among zeros"}
    assert table.loc["z", "support"] == words[states]
