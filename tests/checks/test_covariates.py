"""A regression with a slope of the wrong sign is flagged; right models are not."""

import math

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import build, predictive_check, table
from ppl_vae.checks.covariates import NAME, Covariates
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.table import TableModel

RNG = torch.Generator().manual_seed(4)
T = torch.rand(60, generator=RNG) * 6
Y = 85 - 9 * T + 5 * torch.randn(60, generator=RNG)


def regression(slope, sd):
    """Right mean of y, and a slope and a spread of one's choice."""

    def model(t, y):
        with pyro.plate("data", len(t)):
            pyro.sample("y", dist.Normal(Y.mean() + slope * (t - T.mean()), sd), obs=y)

    return model


@pytest.mark.parametrize("guide", [None, lambda t, y: None])
def test_a_slope_of_the_wrong_sign_is_flagged_and_the_marginals_are_not(guide):
    sd = math.sqrt(float(Y.var()) - 25 * float(T.var()))  # y has the mean and sd of the data
    frame = predictive_check(regression(5.0, sd), guide, (T, Y)).frame
    flagged = frame[frame["flagged"]].index.tolist()
    assert flagged == [("y", NAME)]
    line = frame.loc[("y", NAME)]
    assert line["feature"] == "y ~ t"
    exact = torch.corrcoef(torch.stack([T, Y]))[0, 1].item()
    assert line["observed"] == pytest.approx(exact, abs=1e-6)
    assert line["mean"] > 0 > line["observed"]


def test_seven_rows_suffice():
    """What a fit that was ended too early gave, where least squares has 88.9 - 9.4 x."""
    x = torch.tensor([1.17, 2.97, 3.26, 4.69, 5.83, 6.0, 6.41])
    y = torch.tensor([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])

    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(6.31 + 5.32 * x, 37.68), obs=y)

    frame = predictive_check(model, None, (x, y), num_samples=1000).frame
    assert frame.loc[("y", NAME), "flagged"]
    assert frame.loc[("y", NAME), "observed"] == pytest.approx(-0.9369, abs=1e-4)


def test_the_right_regression_is_not_flagged():
    frame = predictive_check(regression(-9.0, 5.0), None, (T, Y)).frame
    assert not frame["flagged"].any()
    assert frame.loc[("y", NAME), "p_value"] > 0.05


def test_the_p_values_of_right_models_are_uniform():
    p_values = []
    for seed in range(60):
        pyro.set_rng_seed(seed)
        y = Y.mean() - 9 * (T - T.mean()) + 5 * torch.randn(60)
        check = predictive_check(
            regression(-9.0, 5.0), None, (T, y), statistics=NAME, num_samples=39, seed=seed
        )
        p_values.append(check.frame["p_value"].item())
    assert 0.3 < sum(p_values) / 60 < 0.7
    assert sum(p <= 0.1 for p in p_values) <= 14  # 6 are expected; P(more than 14) is 0.1 %


def test_correlations_are_pandas_own_also_under_a_mask():
    x, c = torch.randn(2, 30, 3), torch.randn(30, 2).double()
    unmasked = torch.rand(30, 3) > 0.3
    found = Covariates(c - c.mean(0), ["a", "b"]).correlations(x, unmasked).reshape(2, 3, 2)
    for s in range(2):
        for j in range(3):
            y = pd.Series(x[s, :, j].double().numpy()).where(unmasked[:, j].numpy())
            for k in range(2):
                assert found[s, j, k].item() == pytest.approx(y.corr(pd.Series(c[:, k].numpy())))


def columns(model, data, **settings):
    frame = predictive_check(model, None, data, num_samples=19, **settings).features
    names = [index[2] for index in frame.index if index[1] == NAME]
    return [name.split(" ~ ")[1] for name in names if name.startswith(("y ", "0 "))]


def test_covariates_are_the_columns_that_the_model_reads_and_does_not_observe():
    def model(y, t):
        with pyro.plate("data", len(t)):
            pyro.sample("y", dist.Normal(t.sum(-1), 1.0), obs=y)

    wide = torch.randn(60, 2)
    data = {"y": Y, "t": wide, "label": torch.arange(60)}  # nobody reads the label
    assert columns(model, data) == ["t[0]", "t[1]"]
    frame = pd.DataFrame(wide.numpy(), columns=["age", "dose"])
    assert columns(model, {"y": Y, "t": frame}) == ["age", "dose"]

    def of_one_table(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 1], 1.0), obs=x[:, 0])

    assert columns(of_one_table, torch.randn(60, 3)) == ["x[1]", "x[2]"]


def test_without_covariates_nothing_is_added():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)

    check = predictive_check(model, None, torch.randn(60, 3))
    assert NAME not in check.frame.index.get_level_values(1)


def test_an_observed_value_that_is_computed_is_not_taken_for_a_covariate():
    def model(y, t):
        with pyro.plate("data", len(t)):
            pyro.sample("y", dist.Normal(0.0 * t, 1.0), obs=(y / 10).tanh())

    frame = predictive_check(model, None, {"y": Y, "t": T}, num_samples=19).frame
    assert NAME not in frame.index.get_level_values(1)


def test_constant_covariates_and_masks_say_nothing():
    """Which cells are missing may depend on the values; the model need not say how."""

    def model(y, seen, one):
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(0.0, 1.0).mask(seen), obs=y)

    z = torch.randn(400)
    y = 0.9 * z + 0.19**0.5 * torch.randn(400)
    data = {"y": y, "seen": (z > 0) | (torch.rand(400) > 0.5), "one": torch.ones(400)}
    frame = predictive_check(model, None, data, num_samples=39).frame
    assert NAME not in frame.index.get_level_values(1)


def test_covariates_of_a_table_bear_the_names_of_its_columns_and_categories():
    frame = pd.DataFrame({"pay": Y.numpy(), "hours": [40, 20, 7, 40, 40] * 12, "age": T.numpy()})
    frame["sex"] = ["Female", "Male", "Male"] * 20
    data = table(frame, kinds={"hours": "count", "age": "real"}, covariates=["sex", "age", "hours"])
    values = pd.DataFrame(data["y"].numpy(), columns=data.schema.given_names)
    for name, cells in {
        "sex = Male": frame["sex"] == "Male",
        "hours = 40": frame["hours"] == 40,
    }.items():
        assert values[name].tolist() == cells.tolist()
    assert values["age"].corr(frame["age"]) == pytest.approx(1, abs=1e-5)
    rates = frame.assign(rate=T.exp().numpy())[["pay", "rate"]]
    of_logs = table(rates, kinds={"rate": "positive"}, covariates="rate")
    assert of_logs.schema.given_names == ["log rate"]
    assert torch.corrcoef(torch.stack([of_logs["y"][:, 0], T]))[0, 1].item() == pytest.approx(1)
    pair = build(TableModel, data, latents=1), build(TableGuide, data, latents=1)
    assert predictive_check(*pair, data, num_samples=20).frame.loc[
        ("positive", NAME), "feature"
    ] in {f"pay ~ {name}" for name in values}
