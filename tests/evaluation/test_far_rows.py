"""A row on which the networks overflow is marked and counted; the other rows have their numbers."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import elbo_terms, log_likelihood
from ppl_vae.evaluation.summary import ElboSummary, LikelihoodSummary

FAR = 7


class Model(PyroModule):
    """Five features from a code of two."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 5)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    """An encoder of unbounded activations."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 4)

    def forward(self, x):
        loc, log_scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Model(), Guide()


def rows_with_one_far(far):
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    x[FAR] = far
    return x


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_a_far_row_is_nan_and_the_others_have_their_log_likelihood(pair, far, compiled):
    x = rows_with_one_far(far)
    with pytest.warns(UserWarning, match=r"overflow of the pair in 1 of 40 rows, first in row 7:"):
        scores = log_likelihood(*pair, x, num_samples=3000, compile=compiled)
    others = np.arange(40) != FAR
    assert scores.iloc[FAR].isna().all()
    near = log_likelihood(*pair, x[others], num_samples=3000)
    difference = (scores["log_prob"][others].to_numpy() - near["log_prob"].to_numpy()).mean()
    assert abs(difference) < 0.3
    summary = LikelihoodSummary.of(scores, 3000, has_guide=True)
    assert summary.overflowed == 1
    assert np.isfinite(summary.log_prob.mean)
    assert any("is NaN in 1 of 40 rows" in sentence for sentence in summary.sentences())


@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_the_terms_of_a_far_row_are_nan_and_the_others_are_there(pair, far):
    with pytest.warns(UserWarning, match=r"elbo_terms: .* 1 of 40 rows, first in row 7:"):
        terms = elbo_terms(*pair, rows_with_one_far(far))
    assert terms.iloc[FAR].isna().all()
    assert terms.drop(index=FAR).notna().all(axis=None)
    assert np.isfinite(ElboSummary.of(terms).together.mean)


def test_a_block_of_far_rows_alone_is_marked(pair, monkeypatch):
    from ppl_vae.core import blocks

    monkeypatch.setattr(blocks, "ELEMENTS", 5)  # a row a block
    with pytest.warns(UserWarning, match=r"1 of 40 rows, first in row 7:"):
        terms = elbo_terms(*pair, rows_with_one_far(1000.0), num_samples=3)
    assert terms.isna().any(axis=1).sum() == 1


@pytest.mark.parametrize("function", [log_likelihood, elbo_terms])
def test_faults_of_the_data_and_of_all_rows_are_still_refused(pair, function):
    x = rows_with_one_far(0.0)
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="row 3"):
        function(*pair, x)
    with pytest.raises(ValueError, match="data: expected"):
        function(*pair, torch.full((9, 5), 1e4))

    def positive(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Gamma(1.0, 1.0).expand([5]).to_event(1), obs=x)

    with pytest.raises(ValueError, match="expected values in the support"):
        function(positive, None, rows_with_one_far(-1.0).abs() * torch.tensor([1, 1, 1, 1, -1.0]))
