"""``compare``: exact differences, errors that cover them, and no verdict that rests on sand."""

import math
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import scipy_stats
from parts.known_densities import (
    FEATURES,
    ROWS,
    W,
    covariance,
    linear,
    marginal,
    normal,
    posterior,
    rows,
)

from ppl_vae import compare, load, log_likelihood, save
from ppl_vae.evaluation.comparison import Comparison
from ppl_vae.evaluation.leads import RowLikelihoods, student_quantile
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.state_space import StateSpaceModel

STUDIES = 200
COVERED = range(181, 198)
"""How many of 200 intervals of 95 % hold the truth, with a probability of 99 %."""

pytestmark = pytest.mark.usefixtures("double")
stats = scipy_stats()


def expected_difference(other, first):
    """E[log p_other(x) - log p_first(x)] for rows of ``linear()``, from covariances."""

    def mean(c):
        trace = torch.trace(torch.linalg.solve(c, covariance()))
        return -0.5 * (trace + torch.logdet(c))

    return float(mean(other) - mean(first))


def scored(name, model, guide, x, num_samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return name, log_likelihood(model, guide, x, num_samples=num_samples), num_samples


def studies(*frames):
    """Compare 200 data sets, cut out of one whose rows and draws are independent."""
    for start in range(0, ROWS * STUDIES, ROWS):
        cut = slice(start, start + ROWS)
        parts = [RowLikelihoods.of(name, frame.iloc[cut], count) for name, frame, count in frames]
        yield Comparison.of(parts, pd.RangeIndex(ROWS), frames[0][2], 0.95)


def covering(found, truth):
    """How many intervals hold the true difference of "b" from "a"."""
    inside = 0
    for each in found:
        sign = 1 if each.frame.index[0] == "a" else -1
        line = each.frame.iloc[1]
        inside += line["lower"] <= sign * truth <= line["upper"]
    return int(inside)


# Exact differences


def test_differences_are_those_of_the_exact_densities():
    narrow, x = 0.4 * W, rows()
    pairs = {
        "narrow": (linear(narrow), posterior(narrow)),
        "true": (linear(), posterior()),
        "wide": (normal(2.0), None),
    }
    found = compare(pairs, x, num_samples=30)
    wide = dist.Normal(0.0, 2.0).log_prob(x).sum(1)
    exact = {"narrow": marginal(narrow).log_prob(x), "true": marginal().log_prob(x), "wide": wide}
    assert list(found.frame.index) == ["true", "narrow", "wide"]
    assert list(found.rows) == list(pairs)
    for name, log_prob in exact.items():
        np.testing.assert_allclose(found.rows[name], log_prob, atol=1e-9)
        line, difference = found.frame.loc[name], (log_prob - exact["true"]).numpy()
        assert line["log_prob"] == pytest.approx(float(log_prob.mean()))
        assert line["se"] == pytest.approx(float(log_prob.std()) / ROWS**0.5)
        if name == "true":
            assert line["difference":"rows_better"].isna().all()
            continue
        error = difference.std(ddof=1) / ROWS**0.5
        reach = stats.t.ppf(0.975, ROWS - 1) * error
        assert line["difference"] == pytest.approx(difference.mean())
        assert line["difference_se"] == pytest.approx(error)
        ends = difference.mean() - reach, difference.mean() + reach
        assert (line["lower"], line["upper"]) == pytest.approx(ends, rel=1e-5)
        assert line["rows_better"] == (difference > 0).mean()
        assert line["k_hat_above"] == line["unreliable"] == 0
    assert found.best == "true"


def test_the_sentence_has_the_lead_its_error_and_its_interval():
    found = compare({"wide": (normal(3.0), None), "unit": (normal(1.0), None)}, rows())
    (line,) = found.frame.iloc[1:].to_numpy()
    lead, error, low, high = -line[2], line[3], -line[5], -line[4]
    assert repr(found) == (
        f"unit explains the rows better than wide by {lead:.2f} +- {error:.2f} nats a row "
        f"(95 % interval: {low:.2f} to {high:.2f})"
    )
    assert str(found).startswith("log-likelihood of 40 rows in nats a row, 1000 draws each\n")
    assert repr(found) in str(found)


def test_the_log_likelihoods_are_those_of_log_likelihood_and_the_index_is_the_datas():
    x = pd.DataFrame(np.eye(4), index=list("abcd"), columns=list("wxyz"))
    pairs = {name: (BernoulliModel(4, 2).double(), NormalGuide(4, 2).double()) for name in "pq"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.get_rng_state()
        found = compare(pairs, x, num_samples=30, seed=3)
        assert torch.equal(state, torch.get_rng_state())
        for name, pair in pairs.items():
            alone = log_likelihood(*pair, x, num_samples=30, seed=3)
            pd.testing.assert_series_equal(found.rows[name], alone["log_prob"], check_names=False)
    assert list(found.rows.index) == list("abcd")


def test_the_same_pair_twice_has_no_difference_and_no_best():
    pair = linear(), posterior(shift=0.05, spread=1.1)
    found = compare({"one": pair, "two": pair}, rows())
    line = found.frame.loc["two"]
    assert line["difference"] == line["difference_se"] == line["rows_better"] == 0
    assert found.best is None
    assert repr(found).startswith("no clear difference between one and two: 0.000 +- 0.000 nats")


def test_runs_are_compared_as_load_opens_them(tmp_path):
    x = torch.rand(30, 4).round()
    for name in "ab":
        save(BernoulliModel(4, 2), NormalGuide(4, 2), tmp_path / name, data=x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare({name: load(tmp_path / name) for name in "ab"}, x, num_samples=30)
    assert set(found.frame.index) == {"a", "b"}


# Errors


def test_intervals_cover_the_difference_of_exact_densities():
    x, narrow = rows(ROWS * STUDIES), 0.9 * W
    truth = expected_difference(covariance(narrow), covariance())
    a = scored("a", linear(), posterior(), x, 30)
    b = scored("b", linear(narrow), posterior(narrow), x, 30)
    assert covering(studies(a, b), truth) in COVERED


@pytest.mark.slow
def test_intervals_of_the_public_function_cover_the_difference_of_exact_densities():
    narrow = 0.9 * W
    pairs = {"a": (linear(), posterior()), "b": (linear(narrow), posterior(narrow))}
    truth = expected_difference(covariance(narrow), covariance())
    found = (compare(pairs, rows(seed=seed), num_samples=30) for seed in range(STUDIES))
    assert covering(found, truth) in COVERED


def test_intervals_hold_the_error_of_the_draws():
    """The models are one, so that draws alone make the difference."""
    x = rows(ROWS * STUDIES)
    a = scored("a", linear(), posterior(shift=0.2, spread=1.2), x, 100)
    b = scored("b", linear(), posterior(shift=-0.1, spread=1.4), x, 100)
    found = list(studies(a, b))
    assert covering(found, 0.0) >= COVERED.start
    assert np.mean([each.frame.iloc[1]["difference_se"] for each in found]) < 0.05


def test_an_estimate_that_few_draws_make_too_low_is_not_called_worse():
    """The pairs are one, up to the error of the draws; so many rows show the bias."""

    def summed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", marginal(), obs=x)

    drawn = linear(), posterior(spread=1.6)
    found = compare({"summed": (summed, None), "drawn": drawn}, rows(20000), num_samples=100)
    line = found.frame.loc["drawn"]
    assert line["unreliable"] == 0
    assert line["difference"] < -3 * line["difference_se"]
    assert line["lower"] < 0 < line["upper"]
    assert found.best is None


@pytest.mark.filterwarnings("ignore::ppl_vae.evaluation.summary.UnreliableWarning")
def test_intervals_hold_the_error_of_draws_that_all_rows_share():
    def drawn(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc[..., None], 1.0).expand([len(x)]), obs=x)

    def guide(x):
        pyro.sample("loc", dist.Normal(0.0, 0.3))

    def summed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.09**0.5), obs=x)

    x = 1.0 + torch.randn(ROWS)
    pairs = {"a": (summed, None), "b": (drawn, guide)}
    found = [compare(pairs, x, num_samples=100, seed=seed) for seed in range(60)]
    assert covering(found, 0.0) >= 54
    of_rows = [each.rows.diff(axis=1)["b"].std() / ROWS**0.5 for each in found]
    assert np.mean([each.frame.iloc[1]["difference_se"] for each in found]) > 1.2 * np.mean(of_rows)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("degrees", [3, 5, 30, 1000])
def test_quantiles_are_those_of_students_t(level, degrees):
    exact = stats.t.ppf((1 + level) / 2, degrees)
    assert student_quantile(level, degrees) == pytest.approx(exact, rel=0.02)


def test_a_wider_level_gives_a_wider_interval():
    pairs = {"a": (normal(1.0), None), "b": (normal(1.1), None)}
    narrow, wide = (compare(pairs, rows(), level=level).frame.iloc[1] for level in (0.5, 0.99))
    assert wide["lower"] < narrow["lower"] < narrow["upper"] < wide["upper"]


def test_a_few_rows_have_no_interval_and_no_best():
    found = compare({"a": (normal(1.0), None), "b": (normal(9.0), None)}, rows(3))
    assert found.frame.iloc[1][["lower", "upper"]].isna().all()
    assert found.best is None
    assert "from 3 rows, too few for an interval" in repr(found)


# Rows that are not reliable


def test_every_pair_must_be_behind_for_one_to_be_the_best():
    pairs = {"wide": (normal(3.0), None), "unit": (normal(1.0), None), "twin": (normal(1.0), None)}
    found = compare(pairs, rows())
    assert list(found.frame.index) == ["unit", "twin", "wide"]
    assert found.best is None
    assert repr(found).startswith("no clear difference between unit and twin")
    found = compare({**pairs, "twin": (normal(9.0), None)}, rows())
    assert found.best == "unit"
    assert "twin" not in repr(found)


def test_sequences_are_compared_by_a_particle_filter():
    random = torch.Generator().manual_seed(0)
    models = {
        "near": StateSpaceModel(2, 2).double(),
        "far": StateSpaceModel(2, 2, loc=3.0).double(),
    }
    data = {
        "x": torch.randn(30, 6, 2, generator=random),
        "lengths": torch.randint(1, 7, (30,), generator=random),
    }
    pairs = {name: (model, None) for name, model in models.items()}
    found = compare(pairs, data, method=dict.fromkeys(pairs, "particle_filter"))
    with torch.no_grad():
        exact = {name: model.log_prob(**data).numpy() for name, model in models.items()}
    line, truth = found.frame.loc["far"], (exact["far"] - exact["near"]).mean()
    assert abs(line["difference"] - truth) < 0.2 < -truth
    assert found.frame["k_hat_above"].isna().all()
    assert found.best == "near"
    assert "k-hat" not in repr(found)
    with pytest.warns(UnreliableWarning, match="the particle filter is not reliable"):
        few = compare(pairs, data, method="particle_filter", num_samples=24)
    assert few.frame.loc["far", "unreliable"] > 0


# Rows without a number


def test_rows_on_which_a_pair_overflows_are_left_out_and_said():
    def spare(scale):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(0.0, scale).expand(x.shape[1:]).to_event(1), obs=x)

        return model

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, (x[:, 0] / 100).exp()))

    x = torch.cat([rows(), torch.full((1, FEATURES), 1e5)])
    pairs = {"bounded": (normal(9.0), None), "overflows": (spare(1.5), guide)}
    with pytest.warns(UserWarning, match=r'compare: pairs\["overflows"\]: .* in 1 of 41 rows'):
        found = compare(pairs, x)
    assert found.left_out == 1
    assert found.rows["overflows"].isna().sum() == 1
    assert found.frame.index[0] == "overflows"
    assert found.best is None  # it may be the row that it explains worst
    assert "1 of 41 rows are left out: a pair overflows" in repr(found)
    pairs = {"unit": (normal(1.5), None), "overflows": (spare(9.0), guide)}
    with pytest.warns(UserWarning, match="overflow of the pair in 1 of 41 rows"):
        assert compare(pairs, x).best == "unit"


def test_a_row_of_probability_0_is_said():
    def bounded(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0))
            each = dist.Uniform(-9.0 - z, 9.0 + z, validate_args=False)
            pyro.sample("x", each, obs=x)

    def unit(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.cat([torch.randn(30), torch.tensor([20.0])])
    found = compare({"bounded": (bounded, None), "unit": (unit, None)}, x, num_samples=50)
    assert found.frame.loc["bounded", "log_prob"] == -math.inf
    assert found.best is None
    assert "bounded gives 1 of 31 rows a probability of 0 (log-likelihood -inf)" in repr(found)
    assert found.plot().get_yticklabels()[1].get_text() == "bounded"


def test_the_figure_has_every_pair_in_order():
    pairs = {"wide": (normal(3.0), None), "unit": (normal(1.0), None), "twin": (normal(1.0), None)}
    found = compare(pairs, rows())
    ax = found.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["unit", "twin", "wide"]
    drawn = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert drawn["no verdict"] == found.frame.loc["twin", "difference"]
    assert drawn["below it (95 % interval)"] == found.frame.loc["wide", "difference"]
