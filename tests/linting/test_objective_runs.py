"""Halves that assert the shapes they have under their ELBO are run as that ELBO runs them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from ppl_vae import fit, lint

X = torch.randn(40, generator=torch.Generator().manual_seed(0))
PARALLEL = {"enumerate": "parallel"}


def mixture(x, shape=(3, 1)):
    weights = pyro.param("weights", torch.ones(3) / 3, constraint=dist.constraints.simplex)
    locs = pyro.param("locs", torch.tensor([-1.0, 0.0, 1.0]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer=PARALLEL)
        assert k.shape == shape, k.shape
        pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x)


def classifier(x):
    slopes = pyro.param("slopes", torch.zeros(3))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(logits=x[:, None] * slopes), infer=PARALLEL)
        assert k.shape == (3, 1)


def of_particles(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        assert z.shape == (5, len(x))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of_particles(x):
    slope = pyro.param("slope", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(slope * x, 1.0))
        assert z.shape == (5, len(x))


ENUM = TraceEnum_ELBO(max_plate_nesting=1)
PAIRS = {
    "summed in the model": (mixture, None, ENUM, "model"),
    "summed in the guide": (mixture, classifier, ENUM, "guide"),
    "particles": (
        of_particles, guide_of_particles,
        Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1), "guide",
    ),
    "particles and closed forms": (
        of_particles, guide_of_particles,
        TraceMeanField_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1),
        "guide",
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_lint_warns_that_evaluation_will_fail_and_fit_trains(pair):
    model, guide, elbo, where = PAIRS[pair]
    verdict = lint(model, guide, X, elbo=elbo)
    assert_only_finding(
        verdict, "warning", where, "expected to run as its sites are drawn",
        f"under {type(elbo).__name__} alone",
    )  # fmt: skip
    assert set(verdict.sites["site"]) == {"x", "k" if "summed" in pair else "z"}
    how = {"epochs": 30, "batch_size": 20, "progress": False, "compile": False}
    with pytest.warns(UserWarning, match="as its sites are drawn"):
        history = fit(model, guide, X, elbo=elbo, **how).frame["elbo"]
    assert history.iloc[-5:].mean() > history.iloc[:5].mean() - 0.1


def test_a_fault_under_the_elbo_is_an_error_all_the_same():
    def without_data(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)), infer=PARALLEL)
            assert k.shape == (3, 1)

    findings = lint(without_data, None, X, elbo=ENUM).errors
    assert ["expected an observed site" in str(finding) for finding in findings] == [True]


@pytest.mark.parametrize("elbo", [ENUM, TraceEnum_ELBO(), None])
def test_what_fails_under_the_elbo_too_is_reported_as_it_fails_when_drawn(elbo):
    verdict = lint(lambda x: mixture(x, shape=(7, 7)), None, X, elbo=elbo)
    assert_only_finding(verdict, "error", "model", "AssertionError", "torch.Size([16])")
