"""Edge cases: draws that belong together, NaN and infinity, odd shapes, bad arguments."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import PAIRS, made
from torch import nn

import ppl_vae
from ppl_vae import log_likelihood, posterior_predictive, predictive_check, prior_predictive
from ppl_vae.checks.p_values import verdicts
from ppl_vae.checks.statistics import ValueKind


def normal_rows(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1), obs=x)


def normal_codes(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


def test_a_discrepancy_is_compared_draw_by_draw_however_much_the_draws_differ():
    x = torch.randn(100, 2) + 1.0
    shared = lambda x, latents: 100 * latents["z"].mean() + x.mean()  # noqa: E731
    line = predictive_check(normal_rows, normal_codes, x, statistics=shared).frame.iloc[0]
    assert line["flagged"]
    assert line["observed"] - line["mean"] == pytest.approx(1.0, abs=0.3)
    assert line["lower"] < line["mean"] < line["upper"] < line["observed"]
    fair = predictive_check(normal_rows, normal_codes, x - 1.0, statistics=shared).frame.iloc[0]
    assert fair["p_value"] > 0.05


@pytest.mark.parametrize("short_first", [True, False])
def test_a_site_missing_from_some_blocks_of_rows_is_refused(short_first):
    lengths = torch.full((20_000,), 4)
    lengths[slice(0, 9000) if short_first else slice(-9000, None)] = 2

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            for t in range(int(lengths.max())):
                with pyro.poutine.mask(mask=t < lengths):
                    pyro.sample(f"x_{t}", dist.Normal(7.0, 0.01), obs=x[:, t])

    with pytest.raises(ValueError, match=r'site "x_[23]": .* in every block of rows'):
        posterior_predictive(model, None, (torch.zeros(20_000, 4), lengths), num_samples=2)


@pytest.mark.parametrize("network", ["softmax", "flatten", "convolution"])
def test_replicates_are_right_whatever_network_follows_an_observed_site(network):
    layer = nn.Conv1d(1, 1, 3)
    change = {
        "softmax": lambda x: x.softmax(1).sum(-1),
        "flatten": lambda x: x.flatten(1).sum(1),
        "convolution": lambda x: layer(x[:, None])[:, 0, 0],
    }[network]

    def model(x, y):
        with pyro.plate("data", len(x)):
            drawn = pyro.sample("x", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Normal(change(drawn), 1e-3), obs=y)

    made = posterior_predictive(model, None, (torch.zeros(6, 3), torch.zeros(6)), num_samples=6)
    for x, y in zip(made["x"], made["y"], strict=True):
        torch.testing.assert_close(change(x), y, atol=0.01, rtol=0)


def test_an_enumerated_latent_is_drawn_given_the_other_latents_of_its_draw():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            k = pyro.sample("k", dist.Bernoulli(logits=50 * z), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(k, 3.0), obs=x)

    part = next(posterior_predictive(model, None, torch.zeros(200), num_samples=20, stream=True))
    agree = (part.latents["z"] > 0) == (part.latents["k"] > 0.5)
    assert agree.float().mean() > 0.95


def test_an_enumerated_latent_outside_the_row_plate_is_refused():
    def model(x):
        g = pyro.sample("g", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.5 * g, 1.0), obs=x)

    with pytest.raises(ValueError, match='site "g": expected the guide to draw it'):
        posterior_predictive(model, None, torch.ones(50), num_samples=3)
    made = prior_predictive(model, torch.ones(50), num_samples=200)["x"]
    assert made.mean() == pytest.approx(
        0.25, abs=0.06
    )  # g is drawn once for all rows of a replicate
    assert made.mean(1).std() == pytest.approx(0.29, abs=0.05)


def test_an_auxiliary_site_of_the_guide_is_drawn_once_for_all_blocks_of_rows():
    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(a, 0.1))
            pyro.sample("x", dist.Normal(z, 0.001), obs=x)

    def guide(x):
        u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("a", dist.Delta(u))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(u, 0.001))

    made = posterior_predictive(model, guide, torch.zeros(30_000), num_samples=3)["x"]
    assert made.std(1).max() < 0.003
    assert made.mean(1).std() > 0.1


def test_functions_of_the_same_name_are_numbered():
    model, guide, x = made(PAIRS["gaussian"])
    both = [lambda x: x.max(), lambda x: x.min()]
    frame = predictive_check(model, guide, x, statistics=both, num_samples=5).frame
    assert set(frame.loc["(own)"].index) == {"<lambda>", "<lambda> #2"}
    assert set(frame["observed"]) == {float(x.max()), float(x.min())}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinity_in_the_data_is_refused_with_site_and_row(value):
    model, _, x = made(PAIRS["gaussian"])
    x[7, 2] = value
    with pytest.raises(ValueError, match=r'site "x": .* NaN or infinity in 1 row, .* row 7'):
        predictive_check(model, None, x, num_samples=5)


def test_a_users_statistic_that_is_nan_for_the_data_is_refused():
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.raises(ValueError, match='"<lambda>" to return numbers for the data, got NaN'):
        predictive_check(model, guide, x, statistics=lambda x: x.sum() * torch.nan, num_samples=5)


def test_p_values_stay_exact_with_nan_among_the_values():
    torch.manual_seed(0)
    p, flags = [], 0
    for _ in range(500):
        values = torch.randn(100, 12).double()
        values[torch.rand(100, 12) < 0.3] = torch.nan
        (verdict,) = verdicts([(values[:1], values[1:])])
        p.append(verdict.p_value)
        flags += verdict.p_adjusted <= 0.05
    assert flags / 500 == pytest.approx(0.05, abs=0.03)
    assert sum(value <= 0.5 for value in p) / 500 == pytest.approx(0.5, abs=0.07)


def test_a_built_in_statistic_that_is_nan_for_the_data_is_left_out():
    model, guide, x = made(PAIRS["gaussian"])
    check = predictive_check(model, guide, x[:1], num_samples=5)
    assert {"mean", "median"} <= set(check.frame.loc["x"].index)
    assert not {"sd", "skewness", "correlation"} & set(check.frame.loc["x"].index)
    assert check.frame["observed"].notna().all()


def test_columns_that_hardly_ever_vary_do_not_hide_a_large_fault():
    rate = torch.cat([torch.full((30,), 10.0), torch.full((30,), 0.0125)])

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    torch.manual_seed(0)
    x = torch.poisson(rate.expand(400, -1))
    assert not predictive_check(model, None, x).frame["flagged"].any()
    x[:, :30] = x[:, :30].clamp(max=16)
    line = predictive_check(model, None, x).frame.loc[("x", "maximum")]
    assert line["p_value"] < 0.03  # 0.39 without a smallest step for the spread
    assert int(line["feature"]) < 30


def test_a_correlation_is_over_the_rows_in_which_both_cells_are_unmasked():
    torch.manual_seed(0)
    z = torch.randn(200)
    x = torch.stack([z, z + 0.1 * torch.randn(200), torch.randn(200)], 1)
    unmasked = torch.rand(200, 3) < 0.8
    unmasked[:, 1] = z > 1
    expected = pd.DataFrame(x.masked_fill(~unmasked, torch.nan).numpy()).corr().to_numpy()
    masked = x.masked_fill(~unmasked, 1e6)[None]
    found = ValueKind("real").compute(masked, unmasked)["correlation"][0]
    np.testing.assert_allclose(found, expected[np.triu_indices(3, 1)], atol=1e-5)


def test_the_text_says_when_replicates_are_too_few_for_a_flag():
    model, guide, x = made(PAIRS["gaussian"])
    assert "nothing can be flagged" in str(predictive_check(model, guide, x + 100, num_samples=18))
    check = predictive_check(model, guide, x + 100, num_samples=19)
    assert check.frame["flagged"].any()
    assert "nothing can be flagged" not in str(check)


def test_a_row_plate_at_another_dimension_than_the_last_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("x", dist.Normal(torch.zeros(len(x), 3), 1.0), obs=x)

    with pytest.raises(ValueError, match="expected the row plate at dim -1, got dim -2"):
        prior_predictive(model, torch.zeros(3, 3))


@pytest.mark.parametrize("columns", [(), (1,)])
def test_a_site_of_one_feature_can_be_checked(columns):
    def model(x):
        with pyro.plate("data", len(x)):
            fn = dist.Normal(torch.zeros(len(x), *columns), 1.0).to_event(len(columns))
            pyro.sample("x", fn, obs=x)

    check = predictive_check(model, None, torch.randn(80, *columns) + 2.0)
    assert check.frame.loc[("x", "mean"), "flagged"]
    assert "correlation" not in check.frame.loc["x"].index


def test_a_plate_inside_the_row_plate_is_drawn_scored_and_checked():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            with pyro.plate("f", 3):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.5))  # the posterior

    x = torch.randn(50, 3) + torch.randn(50, 1)
    scores = log_likelihood(model, guide, x, num_samples=30)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1.0).log_prob(x)
    torch.testing.assert_close(torch.tensor(scores["log_prob"]), exact.double(), atol=1e-4, rtol=0)
    part = next(posterior_predictive(model, guide, x, num_samples=400, stream=True))
    assert part.values["x"].shape[1:] == (50, 3)
    torch.testing.assert_close(part.observed["x"], x)
    center = x.sum(-1, keepdim=True).expand(50, 3) / 4
    whole = posterior_predictive(model, guide, x, num_samples=2000)["x"]
    torch.testing.assert_close(whole.mean(0), center, atol=0.12, rtol=0)
    assert not predictive_check(model, guide, x).frame["flagged"].any()


def test_many_categories_of_several_features_have_rates_and_pairs_across_features():
    def model(x):
        with pyro.plate("data", len(x)):
            fn = dist.Categorical(logits=torch.zeros(len(x), 3, 400)).to_event(1)
            pyro.sample("x", fn, obs=x)

    x = torch.randint(400, (200, 3))
    x[:, 1] = 7
    check = predictive_check(model, None, x, num_samples=30)
    assert check.frame.loc[("x", "rate"), ["feature", "observed"]].tolist() == ["1 = 7", 1.0]
    pairs = check.features.loc[("x", "co-occurrence")].index
    assert all(a[0] != b[0] for a, b in (pair.split(" & ") for pair in pairs))


def test_a_feature_whose_cells_are_all_masked_is_nan_and_never_the_worst():
    model, guide, data = made(PAIRS["masked"])
    data["seen"][:, 3] = False
    check = predictive_check(model, guide, data, num_samples=30)
    lines = check.features.xs("3", level="feature")
    assert lines["observed"].isna().all()
    assert "3" not in set(check.frame["feature"])


def takes_three(x, latents, more):
    return x


@pytest.mark.parametrize(
    "function", [takes_three, lambda x: x["no"], lambda x, latents: latents["no"], lambda x: []]
)
def test_a_function_that_raises_is_named_in_the_error(function):
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.raises(ValueError, match=f'statistics: .*"{function.__name__}"'):
        predictive_check(model, guide, x, statistics=function, num_samples=5)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"seed": "a"}, {"sites": 3}])
def test_a_bad_argument_is_named_in_the_error(wrong):
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        posterior_predictive(model, guide, x, num_samples=2, **wrong)


def test_reconstructions_use_the_posterior_of_enumerated_latents():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(10 * k[..., None], 1.0).to_event(1), obs=x)

    x = torch.tensor([[0.0], [10.0]]).repeat(20, 1)
    torch.testing.assert_close(ppl_vae.reconstruct(model, lambda x: None, x), x, atol=0.1, rtol=0)
