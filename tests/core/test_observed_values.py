"""Observed values outside their support: which are refused, and how they are named."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import ppl_vae
from ppl_vae import build, encode, fit, posterior_predictive, predictive_check, prior_predictive
from ppl_vae.core.observed_values import refuse_outside
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import support_text
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.categorical import CategoricalModel
from ppl_vae.models.gaussian import GaussianModel

ROWS = 40
BITS = (torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def rates(x, mask=None, **how):
    """Bernoulli features with a rate of one half."""
    fn = dist.Bernoulli(torch.full((3,), 0.5), **how)
    with pyro.plate("data", len(x)):
        pyro.sample("x", (fn if mask is None else fn.mask(mask)).to_event(1), obs=x)


def with_half(row=31, column=1):
    x = BITS.clone()
    x[row, column] = 0.5
    return x


def refused(model, data, match):
    with pytest.raises(ValueError, match=match):
        posterior_predictive(model, None, data, num_samples=1)


def test_a_masked_cell_is_not_judged():
    def masked(x):
        rates(x, mask=x != 0.5)

    def masked_around(x):
        with poutine.mask(mask=(x != 0.5).all(1)):
            rates(x)

    for model in (masked, masked_around):
        posterior_predictive(model, None, with_half(), num_samples=1)
    refused(rates, with_half(), r"0 or 1\), got 0.5 in row 31, column 1; threshold the values")


def test_a_distribution_made_without_checks_is_not_judged():
    model = lambda x: rates(x, validate_args=False)  # noqa: E731
    assert len(posterior_predictive(model, None, with_half(), num_samples=1)["x"][0]) == ROWS


def test_a_support_that_depends_on_a_latent_is_not_judged():
    def uniform(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Exponential(1.0))
            pyro.sample("x", dist.Uniform(0.0, top), obs=x)

    x = torch.full((ROWS,), 2.0)
    assert predictive_check(uniform, None, x, num_samples=19).rows == ROWS


def test_bounds_of_each_row_are_those_of_the_row():
    def binomial(x, total):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Binomial(total, torch.tensor(0.5)), obs=x)

    total = torch.arange(ROWS).float()
    refused(
        binomial,
        {"x": torch.where(total == 5, 6.0, 0.0), "total": total},
        r"support of Binomial \(whole numbers from 0 to 5\), got 6 in row 5; change the",
    )


def test_a_cell_is_named_by_its_column_in_the_data_where_a_site_observes_some_columns():
    def parts(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=x[:, 0])
            pyro.sample("b", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1), obs=x[:, 1:])

    frame = pd.DataFrame(with_half(31, 2).numpy(), columns=["u", "v", "w"])
    refused(parts, frame, r'site "b": .*got 0.5 in row 31, column "w"; threshold')


def test_the_first_bad_row_is_named_where_a_plate_inside_the_rows_comes_first():
    def inner(x):
        with pyro.plate("data", len(x)), pyro.plate("inner", 3, dim=-2):
            pyro.sample("x", dist.Bernoulli(torch.tensor(0.5)), obs=x.T)

    x = with_half(31, 0)
    x[7, 2] = 0.5
    refused(inner, x, r"got 0.5 in row 7, column 2; threshold")


def test_vectors_are_judged_as_a_whole():
    def shares(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Dirichlet(torch.ones(3)), obs=x)

    x = torch.full((ROWS, 3), 1 / 3)
    x[12] *= 2
    refused(shares, x, r"numbers from 0 that sum to 1\), got 0.666667, .* in row 12; change")


def test_rows_are_compared_once_and_not_at_all_where_all_numbers_are_possible():
    runs = []

    def counted(model):
        def run(x):
            runs.append(len(x))
            model(x)

        return run

    def normal(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)

    for model, expected in ((rates, [5, ROWS]), (normal, [5])):
        runs.clear()
        pair = Pair.of(counted(model), None, "data")
        rows = pair.rows(BITS)
        for _ in range(3):
            refuse_outside(pair, rows.take(torch.arange(ROWS)), torch.arange(ROWS), rows)
        assert runs == expected


def test_a_look_at_the_values_changes_no_number():
    model, guide = BernoulliModel(3), NormalGuide(3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    codes = encode(model, guide, BITS, seed=None)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_vae.core.blocks.refuse_outside", lambda *_: None)
        assert encode(model, guide, BITS, seed=None).equals(codes)
    assert torch.equal(torch.get_rng_state(), after)
    torch.set_rng_state(state)


def test_held_out_rows_are_refused_before_the_first_step():
    x = torch.stack([torch.arange(ROWS) % 3, torch.arange(ROWS) % 2], 1)
    bad = x.clone()
    bad[31, 1] = 2
    pair = build(CategoricalModel, x, latents=2), build(NormalGuide, x, latents=2)
    mend = (
        "of validation; code the categories of a column 0, 1, 2, ..., and build the model on data"
    )
    text = r"\(whole numbers from 0 to 1\), got 2 in row 31, column 1 " + mend
    with pytest.raises(ValueError, match=text):
        fit(*pair, x, validation=bad, epochs=1, progress=False)


def test_a_held_out_elbo_that_is_not_finite_names_the_row_and_the_column():
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    bad = x.clone()
    bad[31, 1] = 1e30
    pair = GaussianModel(3), NormalGuide(3)
    text = r"held-out ELBO became -inf at epoch 1: site .* row 31 with 1e\+30 in column 1; keep"
    with pytest.raises(ValueError, match=text):
        fit(*pair, x, validation=bad, epochs=1, compile=False, progress=False)


def test_rows_of_which_only_the_form_is_read_are_not_judged():
    like = torch.full((ROWS, 3), 0.5)
    drawn = prior_predictive(rates, like, num_samples=2)["x"]
    new = ppl_vae.generate(rates, None, like, num_samples=9)
    assert {*drawn.unique().tolist(), *np.unique(new)} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (dist.Bernoulli(0.5), "0 or 1"),
        (dist.Poisson(1.0), "whole numbers from 0"),
        (dist.Geometric(0.5), "whole numbers from 0"),
        (dist.Categorical(torch.ones(4)), "whole numbers from 0 to 3"),
        (dist.Normal(0.0, 1.0), "real numbers"),
        (dist.LogNormal(0.0, 1.0), "positive numbers"),
        (dist.HalfNormal(1.0), "numbers from 0"),
        (dist.Pareto(1.0, 2.0), "numbers from 1"),
        (dist.Beta(1.0, 1.0), "numbers between 0 and 1"),
        (dist.Dirichlet(torch.ones(3)), "numbers from 0 that sum to 1"),
        (dist.OneHotCategorical(torch.ones(3)), "a single 1 among zeros"),
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), "real numbers"),
        (dist.Multinomial(4, torch.ones(3)), "whole numbers from 0 that sum to 4"),
        (dist.VonMises(0.0, 1.0), "real numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_support_is_told_in_words(fn, text):
    support = ppl_vae.core.supports.support_of(fn)
    assert support_text(support) == text
