"""Likelihoods with far tails: values near the cells, and a mark where a far draw decides one."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import impute, table
from ppl_vae.evaluation.summary import UnreliableWarning

WIDTHS = torch.tensor([0.5, 12.0])
"""Standard deviations of the logarithm: the mean of the second is exp(72)."""

DATA = {"x": torch.ones(6, 2), "seen": torch.arange(12).reshape(6, 2) % 3 > 0}


def observing(make):
    """Return a model of two columns, each with the distribution that ``make`` makes of a center."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 0.1).to_event(1))
            pyro.sample("x", make(z).mask(seen).to_event(1), obs=x)

    return model


def quiet(model, data, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnreliableWarning)
        result = impute(model, None, data, num_samples=2000, **options)
    return result, [str(w.message) for w in caught if w.category is UnreliableWarning]


def test_positive_numbers_get_the_median_which_no_far_draw_decides():
    result, told = quiet(observing(lambda z: dist.LogNormal(z, WIDTHS)), DATA)
    frame = result.frame
    np.testing.assert_allclose(np.log(frame["value"]), 0, atol=1.5)
    assert frame["value"].between(frame["lower"], frame["upper"]).all()
    assert torch.equal(result.completed["x"][DATA["seen"]], DATA["x"][DATA["seen"]])
    narrow = frame["column"] == 0
    spread = np.sqrt((np.exp(0.26) - 1) * np.exp(0.26))
    np.testing.assert_allclose(frame["sd"][narrow], spread, rtol=0.1)
    assert frame["sd"][~narrow].isna().all()  # no number: the far tail alone decides it
    assert not result.unreliable.any()
    assert not told
    assert (frame["reason"] == "").all()


@pytest.mark.parametrize("level", [0.9, 0.2, 0.999])
def test_a_mean_outside_the_draws_is_marked_whatever_the_level(level):
    """The exponential of a normal, which takes itself for any real number."""

    class Real(dist.LogNormal):
        support = dist.constraints.real

    result, told = quiet(observing(lambda z: Real(z, WIDTHS)), DATA, level=level)
    wide = (result.frame["column"] == 1).to_numpy()
    assert result.unreliable.tolist() == wide.tolist()
    assert (
        result.frame["reason"].tolist() == np.where(wide, "value outside its interval", "").tolist()
    )
    (message,) = told
    assert "2 values are outside the central 90% of the draws, first row 1, column 1" in message
    assert "2 values are outside" in str(result)
    assert "weights of all these rows are reliable" in str(result)


@pytest.mark.parametrize(
    "make",
    [
        lambda z: dist.Normal(z, torch.tensor([1.0, 1e-9])),
        lambda z: dist.StudentT(5.0, z, torch.tensor([1.0, 2.0])),
        lambda z: dist.Poisson(z.exp() * torch.tensor([0.02, 3.0])),
        lambda z: dist.Gamma(torch.tensor([0.5, 3.0]), z.exp()),
        lambda z: dist.Cauchy(z, torch.ones(2)),  # without a mean: its median
        lambda z: dist.Bernoulli(logits=z - torch.tensor([0.0, 4.0])),
    ],
)
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_ordinary_likelihoods_are_not_marked(make, level):
    result, _ = quiet(observing(make), DATA, level=level)
    assert not (result.frame["reason"] == "value outside its interval").any()


def test_counts_with_a_far_tail_are_marked():
    def counts(z):
        return dist.NegativeBinomial(torch.tensor(1e-3), logits=z.expand(-1, 2) + 14.0)

    result, _ = quiet(observing(counts), DATA)
    assert result.unreliable.all()


def test_a_positive_column_of_a_table_gets_the_median():
    frame = pd.DataFrame({"pay": [1.5, None, 2.5, 0.4], "height": [1.0, -2.0, None, 0.5]})
    data = table(frame)
    assert [column.kind for column in data.schema.modelled] == ["real", "positive"]

    def model(x, seen):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "height", dist.Normal(0.0, 1.0).expand([len(x)]).mask(seen[:, 0]), obs=x[:, 0]
            )
            pay = dist.LogNormal(0.0, 12.0).expand([len(x)]).mask(seen[:, 1])
            pyro.sample("pay", pay, obs=x[:, 1])

    result, told = quiet(model, data)
    line = result.frame[result.frame["column"] == "pay"].iloc[0]
    assert abs(np.log(line["value"])) < 1.5
    assert result.completed["pay"][1] == line["value"]
    assert line["lower"] < line["value"] < line["upper"]
    assert not told
