"""Every public function refuses the row plates that ``lint`` refuses, with the same words."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro import poutine
from pyro.infer import config_enumerate
from torch import nn

import ppl_vae
from ppl_vae import IWAE, RowELBO
from ppl_vae.core.pair import Pair
from ppl_vae.core.row_plate import check_row_plate, row_plate_faults
from ppl_vae.data.rows import as_rows

X = torch.randn(10, generator=torch.Generator().manual_seed(0))


def sequential(x):
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"x_{i}", dist.Normal(z, 1.0), obs=x[i])


def sequential_guide(x):
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z_{i}", dist.Normal(x[i] / 2, 0.7))


def vectorized(plate="data", dim=-1):
    def model(x):
        x = x.reshape(-1, *[1] * (-dim - 1))
        with pyro.plate(plate, len(x), dim=dim):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        x = x.reshape(-1, *[1] * (-dim - 1))
        with pyro.plate(plate, len(x), dim=dim):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    return model, guide


def without_a_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide_without_a_plate(x):
    pyro.sample("z", dist.Normal(x / 2, 0.7))


def looking_elsewhere():
    model, _ = vectorized()

    def guide(x):
        with pyro.plate("other", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    return model, guide


def of_fewer_rows(x):
    with pyro.plate("data", len(x), subsample=torch.arange(1)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:1])


def guide_of_fewer_rows(x):
    with pyro.plate("data", len(x), subsample=torch.arange(1)):
        pyro.sample("z", dist.Normal(x[:1] / 2, 0.7))


def all_rows_against_all_rows(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0), obs=x)


FAULTY = {
    "rows against rows": (all_rows_against_all_rows, vectorized()[1], r"squeeze\(-1\)"),
    "a loop": (sequential, sequential_guide, "at dim -1, got dim None"),
    "dim -2": (*vectorized(dim=-2), "at dim -1, got dim -2"),
    "another name": (*vectorized("rows"), 'got plate "rows"; pass plate="rows"'),
    "no plate": (without_a_plate, guide_without_a_plate, "got no plate at dim -1"),
    "no plate in the guide": (vectorized()[0], guide_without_a_plate, "of the guide, got no plate"),
    "other plates in the guide": (*looking_elsewhere(), r"\['data'\], got \['other'\]"),
    "fewer rows": (of_fewer_rows, guide_of_fewer_rows, "rows of the batch, got 1"),
}
FUNCTIONS = {
    "log_likelihood": ppl_vae.log_likelihood,
    "elbo_terms": ppl_vae.elbo_terms,
    "reconstruct": ppl_vae.reconstruct,
    "generate": ppl_vae.generate,
    "interpolate": ppl_vae.interpolate,
    "traverse": ppl_vae.traverse,
    "posterior_predictive": ppl_vae.posterior_predictive,
    "predictive_check": ppl_vae.predictive_check,
    "fit": lambda *pair, **how: ppl_vae.fit(*pair, progress=False, epochs=1, **how),
    "lint": lambda *pair, **how: ppl_vae.lint(*pair, **how).raise_if_failed(),
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_fault_of_the_row_plate_is_refused(function, fault):
    model, guide, message = FAULTY[fault]
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[function](model, guide, X)


@pytest.mark.parametrize("bound", [IWAE(3), RowELBO(), RowELBO(2, vectorize_particles=False)])
@pytest.mark.parametrize("fault", FAULTY)
def test_a_bound_formed_row_by_row_refuses_it_too(fault, bound):
    model, guide, message = FAULTY[fault]
    pair = Pair.of(model, guide, "data")
    with pytest.raises(ValueError, match=message):
        bound.losses_and_surrogate(pair, as_rows(X).take(torch.arange(10)), 10, None)


@pytest.mark.parametrize("fault", ["a loop", "dim -2", "another name", "no plate"])
def test_what_looks_at_one_half_refuses_the_faults_of_that_half(fault):
    model, guide, message = FAULTY[fault]
    with pytest.raises(ValueError, match=message):
        ppl_vae.prior_predictive(model, X)
    with pytest.raises(ValueError, match="row plate"):
        ppl_vae.encode(vectorized()[0], guide, X)


@pytest.mark.usefixtures("double")
def test_a_loop_over_rows_is_refused_and_the_vectorized_pair_gives_the_exact_number():
    """For x ~ Normal(k, 1) and k in {0, 1} with probability 1/2."""

    def looped(x):
        for i in pyro.plate("data", len(x)):
            k = pyro.sample(f"k_{i}", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample(f"x_{i}", dist.Normal(k, 1.0), obs=x[i])

    def summed(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    x = X.double()
    parts = [dist.Normal(k, 1.0).log_prob(x) + torch.tensor(0.5).log() for k in (0.0, 1.0)]
    exact = torch.stack(parts).logsumexp(0)
    for function in (ppl_vae.log_likelihood, ppl_vae.elbo_terms):
        with pytest.raises(ValueError, match=r'plate "data": .*not a for loop'):
            function(looped, None, x)
    found = ppl_vae.log_likelihood(summed, None, x)["log_prob"]
    np.testing.assert_allclose(found, exact, atol=1e-12)


@pytest.mark.parametrize("size", ["no size", "the data's size"])
def test_a_plate_without_a_size_or_with_a_subsample_of_the_batch_is_sound(size):
    def plate(x):
        return pyro.plate("data") if size == "no size" else pyro.plate("data", 10, len(x))

    def model(x):
        with plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with plate(x):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    check_row_plate(Pair.of(model, guide, "data"), as_rows(X))
    assert ppl_vae.log_likelihood(model, guide, X)["log_prob"].between(-10, 0).all()


def test_features_in_place_of_the_rows_are_told_to_be_an_event():
    def model(x):
        with pyro.plate("features", 3), pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    for function in (ppl_vae.elbo_terms, FUNCTIONS["lint"]):
        with pytest.raises(ValueError, match=r"got dim -2 .* write .to_event\(1\) where the last"):
            function(model, None, torch.ones(40, 3))


SQUARES = {
    "logits (N, 1), labels (N,)": (1, (40,), 0, "as in logits.squeeze(-1)"),
    "logits (N,), labels (N, 1)": (0, (40, 1), 0, "of the value, as in y.squeeze(-1)"),
    "logits (N, 1), labels (N, 1)": (1, (40, 1), 0, "add .to_event(1) to the distribution"),
}


@pytest.mark.parametrize("case", SQUARES)
def test_rows_that_are_scored_against_all_rows(case):
    last, shape, to_event, mend = SQUARES[case]
    net = nn.Linear(3, 1)
    y = torch.arange(40).remainder(2).float().reshape(shape)

    def other(x, y):
        pyro.module("net", net)
        logits = net(x) if last else net(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=logits).to_event(to_event), obs=y)

    pieces = ("expected batch_shape (16,), one entry for each row", "every row against all rows")
    got = "batch_shape (16, 16)" if last else "obs= of shape (16, 1)"
    verdict = ppl_vae.lint(other, None, (torch.ones(40, 3), y))
    assert_only_finding(verdict, "error", 'site "y"', *pieces, got, mend)


def test_as_many_categories_as_rows_are_no_such_fault():
    def model(y):
        with pyro.plate("data", len(y)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(16)))
            pyro.sample("y", dist.Normal(kind.double(), 1.0), obs=y)

    y = torch.zeros(16).double()
    summed = poutine.enum(config_enumerate(model), first_available_dim=-2)
    traces = poutine.trace(summed).get_trace(y), poutine.trace(lambda y: None).get_trace(y)
    assert tuple(traces[0].nodes["y"]["fn"].batch_shape) == (16, 16)
    assert not list(row_plate_faults("data", *traces, 16))


def test_a_row_of_as_many_features_as_rows_is_no_such_fault():
    square = torch.randn(16, 16, generator=torch.Generator().manual_seed(3))

    def other(x):
        loc = pyro.param("loc", torch.zeros(16))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([len(x), 16]).to_event(1), obs=x)

    assert not ppl_vae.lint(other, None, square).findings
