"""A row on which the networks overflow is marked and counted; the other rows have their numbers."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import (
    elbo_terms,
    encode,
    log_likelihood,
    posterior_predictive,
    predictive_check,
    reconstruct,
)
from ppl_vae.evaluation.summary import ElboSummary, LikelihoodSummary

FAR = 2


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
    with pytest.warns(UserWarning, match=r"overflow of the pair in 1 of 40 rows, first in row 2:"):
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
    with pytest.warns(UserWarning, match=r"elbo_terms: .* 1 of 40 rows, first in row 2:"):
        terms = elbo_terms(*pair, rows_with_one_far(far))
    assert terms.iloc[FAR].isna().all()
    assert terms.drop(index=FAR).notna().all(axis=None)
    assert np.isfinite(ElboSummary.of(terms).together.mean)


def test_a_block_of_far_rows_alone_is_marked(pair, monkeypatch):
    from ppl_vae.core import blocks

    monkeypatch.setattr(blocks, "ELEMENTS", 5)  # a row a block
    with pytest.warns(UserWarning, match=r"1 of 40 rows, first in row 2:"):
        terms = elbo_terms(*pair, rows_with_one_far(1000.0), num_samples=3)
    assert terms.isna().any(axis=1).sum() == 1


@pytest.mark.parametrize("far", [1000.0, -1000.0])
@pytest.mark.parametrize("function", [encode, reconstruct])
def test_a_far_row_has_no_code_and_the_others_have_theirs(pair, function, far):
    x = pd.DataFrame(rows_with_one_far(far), columns=list("abcde"))
    with pytest.warns(UserWarning, match=rf"{function.__name__}: .* 1 of 40 rows, first in row 2:"):
        result = function(*pair, x, num_samples=600)
    assert result.iloc[FAR].isna().all()
    others = x.drop(index=FAR)
    near = function(*pair, others, num_samples=600)
    np.testing.assert_allclose(result.drop(index=FAR), near, atol=0.6)


@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_replicates_of_a_far_row_are_nan_in_every_group_of_replicates(pair, far, monkeypatch):
    from ppl_vae.predictive import replicates

    monkeypatch.setattr(replicates, "PARTICLES", 4)
    x = rows_with_one_far(far)
    with pytest.warns(UserWarning, match=r"posterior_predictive: .* 1 of 40 rows, first in row 2:"):
        drawn = posterior_predictive(*pair, x, num_samples=12)["x"]
    assert drawn[:, FAR].isnan().all()
    assert drawn.isfinite().all(-1).sum(1).eq(39).all()
    with pytest.warns(UserWarning, match=r"posterior_predictive: .* 1 of 40 rows, first in row 2:"):
        parts = list(posterior_predictive(*pair, x, num_samples=12, stream=True))
    assert all(not part.masks["x"][FAR].any() for part in parts)
    assert all(part.latents["z"][:, FAR].isnan().all() for part in parts)


@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_a_check_leaves_a_far_row_out(pair, far):
    x = rows_with_one_far(far)
    with pytest.warns(UserWarning, match=r"predictive_check: .* 1 of 40 rows, first in row 2:"):
        check = predictive_check(*pair, x, num_samples=50)
    near = predictive_check(*pair, x[np.arange(40) != FAR], num_samples=50)
    assert check.left_out == 1
    assert "1 row left out" in str(check)
    assert check.frame.notna().all(axis=None)
    columns = check.frame.index.intersection(near.frame.index)
    observed = check.features["observed"].sort_index(), near.features["observed"].sort_index()
    np.testing.assert_allclose(*observed, rtol=1e-4, atol=1e-6)
    assert len(columns) == len(check.frame)
    assert np.isnan(check.pit["x"][FAR]).all()


def test_integers_cannot_mark_a_far_row():
    torch.manual_seed(0)
    guide = Guide()
    net = nn.Linear(2, 3)

    def model(x, kind):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("kind", dist.Categorical(logits=net(z)), obs=kind)

    data = {"x": rows_with_one_far(1000.0), "kind": torch.arange(40) % 3}
    with pytest.raises(ValueError, match=r'site "kind": .* row 2, which integers cannot mark'):
        posterior_predictive(model, guide, data, num_samples=5)
    with pytest.warns(UserWarning, match=r"1 of 40 rows, first in row 2:"):
        check = predictive_check(model, guide, data, num_samples=30)
    assert check.left_out == 1
    with pytest.warns(UserWarning, match=r"1 of 40 rows, first in row 2:"):
        expected = reconstruct(model, guide, data)
    assert expected["kind"].isnan().sum() == 1


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
