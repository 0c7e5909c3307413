"""Each planted fault of a model is flagged on held-out rows, by the statistic that fits it."""

import re

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import ppl_vae
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.nn import MLP


class Counts(PyroModule):
    """z ~ Normal, counts ~ Poisson(exp(decoder(z)))."""

    def __init__(self):
        super().__init__()
        self.decoder = MLP(1, 6, hidden=(16,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(self.decoder(z).exp()).to_event(1), obs=x)


def student_noise(rows, maker):
    """Return noise of Student's t with 5 degrees of freedom, (rows, 6)."""
    six = torch.randn(6, rows, 6, generator=maker)
    return six[0] / six[1:].square().mean(0).sqrt()


def flagged(check):
    return set(check.frame.index[check.frame["flagged"]].get_level_values("statistic"))


def test_a_right_model_has_no_flags(linear_pair, linear_data):
    for seed in range(1, 4):
        assert not flagged(ppl_vae.predictive_check(*linear_pair, linear_data(seed)))


def test_heavy_tails_under_a_gaussian_likelihood_are_flagged_by_kurtosis(fitted, linear_data):
    torch.manual_seed(0)
    pair = fitted((PPCAModel(6, 2), LinearGuide(6, 2)), linear_data(0, noise=student_noise))
    check = ppl_vae.predictive_check(*pair, linear_data(1, noise=student_noise))
    assert farthest_out(check) == "kurtosis"
    assert not {"mean", "median", "correlation"} & flagged(check)
    line = check.frame.loc[("x", "kurtosis")]
    assert line["observed"] > line["upper"]


def farthest_out(check):
    """Return the statistic that is farthest out, or ``None`` where it is not flagged."""
    return check.frame.index[0][1] if check.frame["flagged"].iloc[0] else None


def poisson_counts(seed, spread, zeros=0.0, rows=1000):
    torch.manual_seed(seed)
    rate = torch.full((rows, 6), 4.0) * torch.linspace(0.5, 2.0, 6)
    if spread:
        rate = dist.Gamma(spread, spread / rate).sample()
    return torch.poisson(rate) * (torch.rand(rows, 6) >= zeros)


def test_overdispersed_counts_under_poisson_are_flagged_by_the_dispersion_index(fitted):
    torch.manual_seed(0)
    pair = fitted((Counts(), NormalGuide(6, 1)), poisson_counts(1, 2.0))
    check = ppl_vae.predictive_check(*pair, poisson_counts(2, 2.0))
    assert farthest_out(check) == "dispersion index"
    assert "mean" not in flagged(check)
    line = check.frame.loc[("x", "dispersion index")]
    assert line["observed"] > line["upper"]
    assert not line["upper"] > 2.5  # the replicates are not overdispersed


def test_excess_zeros_are_flagged_by_the_zero_fraction(fitted):
    torch.manual_seed(0)
    pair = fitted((Counts(), NormalGuide(6, 1)), poisson_counts(1, None, 0.25))
    check = ppl_vae.predictive_check(*pair, poisson_counts(2, None, 0.25))
    assert farthest_out(check) == "zero fraction"
    assert "mean" not in flagged(check)
    line = check.frame.loc[("x", "zero fraction")]
    assert line["observed"] > line["upper"]


def test_poisson_counts_under_poisson_have_no_flags(fitted):
    torch.manual_seed(0)
    pair = fitted((Counts(), NormalGuide(6, 1)), poisson_counts(1, None))
    assert not flagged(ppl_vae.predictive_check(*pair, poisson_counts(2, None)))


def test_a_missing_factor_is_flagged_by_correlation(fitted, linear_data):
    torch.manual_seed(0)
    one = fitted((PPCAModel(6, 1), LinearGuide(6, 1)), linear_data(0))
    check = ppl_vae.predictive_check(*one, linear_data(1))
    assert farthest_out(check) == "correlation"
    assert not {"mean", "median", "skewness", "kurtosis"} & flagged(check)


def bimodal(seed, rows=1000):
    maker = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=maker)
    side = (torch.rand(rows, generator=maker) < 0.5).float() * 2 - 1
    return torch.cat([x[:, :3], (0.4 * x[:, 3] + 1.5 * side)[:, None]], 1)


def test_a_bimodal_feature_under_a_unimodal_likelihood_is_flagged_by_kurtosis(fitted):
    torch.manual_seed(0)
    pair = fitted((PPCAModel(4, 1), LinearGuide(4, 1)), bimodal(0))
    check = ppl_vae.predictive_check(*pair, bimodal(1))
    assert "kurtosis" in flagged(check)
    assert not {"mean", "skewness", "correlation"} & flagged(check)
    line = check.frame.loc[("x", "kurtosis")]
    assert (line["feature"], line["observed"] < line["lower"]) == ("3", True)


def test_a_shifted_feature_is_flagged_by_the_mean(linear_pair, linear_data):
    x = linear_data(1)
    x[:, 4] += 1.0
    check = ppl_vae.predictive_check(*linear_pair, x)
    assert farthest_out(check) == "mean"
    assert check.frame.loc[("x", "mean"), "feature"] == "4"
    assert not {"sd", "skewness", "kurtosis", "correlation"} & flagged(check)


def test_dependent_bits_are_flagged_by_co_occurrence_and_flipped_bits_by_the_rate(fitted):
    class Independent(PyroModule):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(5))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Bernoulli(logits=self.logits).to_event(1), obs=x)

    torch.manual_seed(0)
    factor = torch.randn(5000, 1)
    x = (torch.randn(5000, 5) + factor * torch.tensor([1.0, 1.0, 0, 0, 0]) > 0.3).float()
    model, _ = fitted((Independent(), None), x[:4500])
    check = ppl_vae.predictive_check(model, None, x[4500:])
    assert flagged(check) == {"co-occurrence"}
    assert check.frame.loc[("x", "co-occurrence"), "feature"] == "0 & 1"
    x[4500:, 2] = 1 - x[4500:, 2]
    assert "rate" in flagged(ppl_vae.predictive_check(model, None, x[4500:]))


@pytest.mark.parametrize("rows", ["fitted to", "held out"])
def test_a_perfect_model_has_no_flags_on_fitted_and_on_held_out_rows(
    rows, linear_pair, linear_data
):
    check = ppl_vae.predictive_check(*linear_pair, linear_data(0 if rows == "fitted to" else 9))
    assert not check.frame["flagged"].any()


RATES, SHARES = torch.tensor([2.0, 5.0]), torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])


def unrelated_sites(real, count, code, bit):
    """Each site is right by itself; nothing ties one site to another."""
    with pyro.plate("data", len(real)):
        factor = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
        pyro.sample("real", factor, obs=real)
        pyro.sample("count", dist.Poisson(RATES).to_event(1), obs=count)
        pyro.sample("code", dist.Categorical(SHARES).to_event(1), obs=code)
        pyro.sample("bit", dist.Bernoulli(torch.tensor([0.5, 0.2])).to_event(1), obs=bit)


def tied(data, one, other, strength=0.7):
    """Pair whole rows of two sites anew, so that a column of one rises with a column of the other.

    Each site keeps its rows: all that it is by itself stays as it was.

    Args:
        data: ``{site: frame}``.
        one: Site and column.
        other: Site and column.
        strength: Correlation of the ranks, nearly.
    """
    rows = len(data["real"])
    common, order = torch.randn(rows), {}
    for site, column in (one, other):
        noise = (1 - strength**2) ** 0.5 * torch.randn(rows)
        ties = torch.rand(rows).numpy()  # rows of the same value are put in a random order
        sort = data[site].assign(ties=ties).sort_values([column, "ties"]).index
        places = (strength * common + noise).argsort().numpy()
        order[site] = sort[places.argsort()]
    return {
        site: frame.loc[order[site]].reset_index(drop=True) if site in order else frame
        for site, frame in data.items()
    }


def unrelated_data(rows=1000, seed=0):
    torch.manual_seed(seed)
    empty = [torch.zeros(rows, 2)] * 4
    drawn = pyro.poutine.trace(pyro.poutine.uncondition(unrelated_sites)).get_trace(*empty)
    columns = {
        "real": ["age", "pay"], "count": ["visits", "calls"], "code": ["job", "race"],
        "bit": ["sex", "old"],
    }  # fmt: skip
    return {
        site: pd.DataFrame(drawn.nodes[site]["value"].numpy(), columns=names)
        for site, names in columns.items()
    }


@pytest.mark.parametrize(
    ("one", "other", "statistic", "columns"),
    [
        (("real", "age"), ("count", "calls"), "correlation", "age & calls"),
        (("real", "pay"), ("code", "job"), "group mean", "pay where job"),
        (("count", "visits"), ("bit", "sex"), "group mean", "visits where sex"),
        (("code", "race"), ("bit", "old"), "co-occurrence", "race & old"),
    ],
)
def test_a_fault_between_sites_is_flagged_by_the_pair_that_has_it(one, other, statistic, columns):
    data = unrelated_data()
    assert not flagged(ppl_vae.predictive_check(unrelated_sites, None, data))
    check = ppl_vae.predictive_check(unrelated_sites, None, tied(data, one, other))
    assert check.frame.index[0] == ("(across sites)", statistic)
    assert set(check.frame.index[check.frame["flagged"]].unique("site")) == {"(across sites)"}
    assert re.sub(r" = \d", "", check.frame.iloc[0]["feature"]) == columns
