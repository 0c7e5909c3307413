"""Built-in statistics beside pandas, scipy and numpy, over complete and masked data."""

import math
import warnings

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from ppl_vae.checks.pair_sums import MAX_PAIRED_COLUMNS, paired_columns
from ppl_vae.checks.statistics import STATISTICS, ValueKind
from ppl_vae.checks.summaries import QUANTILES, quantiles

REAL, COUNTS, BINARY = ValueKind("real"), ValueKind("counts"), ValueKind("binary")
PRECISION = {torch.float32: 2e-4, torch.float64: 1e-9}


def reference(column):
    """Return every statistic of one column of values, (cells,), computed by pandas and scipy."""
    values = pd.Series(column)
    mean, zeros = values.mean(), (values == 0).mean()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy warns of constant columns
        shape = {"skewness": stats.skew(column), "kurtosis": stats.kurtosis(column, fisher=False)}
        dispersion = values.var() / mean
    quantiles = {
        name: np.quantile(column, share, method="inverted_cdf") for name, share in QUANTILES.items()
    }
    return {
        "mean": mean, "sd": values.std(), "minimum": values.min(), "maximum": values.max(),
        "zero fraction": zeros, "dispersion index": dispersion, "rate": mean, **shape, **quantiles,
    }  # fmt: skip


def correlations(x, unmasked):
    """Return the correlation of each pair, over the rows in which both cells are unmasked."""
    matrix = pd.DataFrame(np.where(unmasked, x, np.nan)).corr().to_numpy()
    return matrix[np.triu_indices(x.shape[1], 1)]


def joint_rates(x, unmasked):
    x = np.where(unmasked, x, np.nan)
    return [
        np.nanmean(x[:, i] * x[:, j]) for i, j in zip(*np.triu_indices(x.shape[1], 1), strict=True)
    ]


def check(kind, x, dtype, unmasked=None, atol=None):
    """Compare all statistics of a kind of values with the reference, for one data set."""
    given = torch.as_tensor(x, dtype=dtype)
    x = given.double().numpy()
    whole = np.ones(x.shape, bool) if unmasked is None else unmasked
    found = kind.compute(given[None], None if unmasked is None else torch.from_numpy(unmasked))
    columns = [reference(x[whole[:, j], j]) for j in range(x.shape[1])]
    assert list(found) == kind.names
    for name, values in found.items():
        assert values.dtype == torch.float64
        if name == "correlation":
            expected = correlations(x, whole)
        elif name == "co-occurrence":
            expected = joint_rates(x, whole)
        else:
            expected = [column[name] for column in columns]
        tolerance = PRECISION[dtype] if atol is None else atol
        np.testing.assert_allclose(values[0], expected, tolerance, tolerance, err_msg=name)


def draws(name, rows, features, seed=0):
    rng = np.random.default_rng(seed)
    shape = rows, features
    return {
        "normal": lambda: rng.normal(size=shape),
        "skewed": lambda: rng.gamma(0.5, size=shape),
        "heavy": lambda: rng.standard_t(3, size=shape),
        "integers": lambda: rng.integers(-3, 4, size=shape),
        "counts": lambda: rng.negative_binomial(2, 0.3, size=shape),
        "bits": lambda: rng.integers(0, 2, size=shape),
        "correlated": lambda: rng.normal(size=(rows, 1)) + rng.normal(size=shape),
    }[name]()


def random_mask(x, seed=1):
    unmasked = np.random.default_rng(seed).random(x.shape) > 0.3
    unmasked[:3] = True
    return unmasked


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("name", ["normal", "skewed", "heavy", "integers", "correlated"])
def test_statistics_of_reals(name, dtype, masked):
    x = draws(name, 301, 4)
    check(REAL, x, dtype, random_mask(x) if masked else None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", PRECISION)
def test_statistics_of_counts(dtype, masked):
    x = draws("counts", 301, 4)
    check(COUNTS, x, dtype, random_mask(x) if masked else None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", PRECISION)
def test_statistics_of_bits(dtype, masked):
    x = draws("bits", 301, 4)
    check(BINARY, x, dtype, random_mask(x) if masked else None)


@pytest.mark.parametrize("masked", [False, True])
def test_sums_over_many_parts_of_rows_are_right(masked):
    x = draws("skewed", 150_000, 3)
    check(REAL, x, torch.float64, random_mask(x) if masked else None)


def test_correlation_is_pearsons():
    x = draws("correlated", 200, 5)
    found = REAL.compute(torch.as_tensor(x)[None], None, ["correlation"])["correlation"][0]
    expected = pd.DataFrame(x).corr().to_numpy()[np.triu_indices(5, 1)]
    np.testing.assert_allclose(found, expected, 1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_rates_of_categories(masked):
    x = torch.randint(4, (500, 1), generator=torch.Generator().manual_seed(0))
    unmasked = torch.from_numpy(random_mask(x.numpy())) if masked else None
    found = ValueKind("categories", 4).compute(x.float()[None], unmasked)["rate"][0]
    column = pd.Series(x[:, 0].numpy())[unmasked[:, 0].numpy() if masked else slice(None)]
    np.testing.assert_allclose(found, column.value_counts(normalize=True).sort_index())


def test_rates_and_co_occurrence_of_masked_categories_of_several_features():
    x = np.random.default_rng(0).integers(0, 3, (400, 2))
    unmasked = random_mask(x)
    kind = ValueKind("categories", 3)
    found = kind.compute(torch.as_tensor(x).float()[None], torch.from_numpy(unmasked))
    labels = kind.labels(["a", "b"])
    rates = dict(zip(labels["rate"], found["rate"][0].tolist(), strict=True))
    joint = dict(zip(labels["co-occurrence"], found["co-occurrence"][0].tolist(), strict=True))
    both = unmasked.all(1)
    for c in range(3):
        assert rates[f"b = {c}"] == pytest.approx((x[unmasked[:, 1], 1] == c).mean())
        expected = ((x[both, 0] == c) & (x[both, 1] == 2)).mean()
        assert joint[f"a = {c} & b = 2"] == pytest.approx(expected)


@pytest.mark.parametrize("hidden", [1e30, -1e30, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "kind", [REAL, COUNTS, BINARY, ValueKind("categories", 3)], ids=lambda kind: kind.name
)
def test_values_in_masked_cells_change_nothing(kind, hidden):
    x = torch.randint(2, (2, 50, 3)).float()
    unmasked = torch.rand(50, 3) > 0.3
    expected = kind.compute(x, unmasked)
    found = kind.compute(x.masked_fill(~unmasked, hidden), unmasked)
    for name, values in expected.items():
        torch.testing.assert_close(values, found[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "kind", [REAL, COUNTS, BINARY, ValueKind("categories", 3)], ids=lambda kind: kind.name
)
def test_a_mask_of_all_true_changes_nothing(kind):
    x = torch.randint(2, (2, 50, 1)).float()
    expected, found = kind.compute(x, None), kind.compute(x, torch.ones(50, 1, dtype=torch.bool))
    for name, values in expected.items():
        torch.testing.assert_close(values, found[name], equal_nan=True)


@pytest.mark.parametrize("unmasked", [None, torch.rand(2000, 70) > 0.2], ids=["whole", "masked"])
def test_data_sets_side_by_side_have_the_statistics_that_each_has_alone(unmasked):
    x = torch.randn(3, 2000, 70, dtype=torch.double)
    together = REAL.compute(x, unmasked)
    for i, one in enumerate(x):
        for name, values in REAL.compute(one[None], unmasked).items():
            torch.testing.assert_close(together[name][i], values[0])


# Values that are hard to sum


@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 2e-3), (torch.float64, 1e-8)])
def test_a_large_offset_costs_little_precision(dtype, step):
    x = torch.as_tensor(draws("skewed", 20_000, 3) + 1e6, dtype=dtype)
    found, exact = REAL.compute(x[None], None), x.double().numpy()
    np.testing.assert_allclose(found["mean"][0], exact.mean(0), 0, step)
    np.testing.assert_allclose(found["sd"][0], exact.std(0, ddof=1), 0, step)
    for name, share in QUANTILES.items():
        assert (found[name][0].numpy() == np.quantile(exact, share, 0, method="inverted_cdf")).all()


def test_a_constant_column_has_no_spread_and_no_shape():
    x = torch.cat([torch.full((100, 1), 3.0), torch.randn(100, 1)], 1)
    found = {name: values[0] for name, values in REAL.compute(x[None], None).items()}
    assert found["mean"][0] == found["minimum"][0] == found["maximum"][0] == 3
    assert found["median"][0] == 3
    assert found["sd"][0] == 0
    assert all(found[name][0].isnan() for name in ("skewness", "kurtosis", "correlation"))
    assert not any(values[1:].isnan().any() for values in found.values())


def test_one_row_has_a_mean_and_no_spread():
    found = {n: v[0] for n, v in REAL.compute(torch.tensor([[[2.0, -1.0]]]), None).items()}
    for name in ("mean", "minimum", "maximum", *QUANTILES):
        assert found[name].tolist() == [2, -1]
    assert found["sd"].isnan().all()


def test_a_column_of_zeros_among_counts():
    x = torch.tensor([[0.0, 2.0], [0.0, 0.0], [0.0, 4.0]])
    found = {name: values[0] for name, values in COUNTS.compute(x[None], None).items()}
    assert found["zero fraction"].tolist() == pytest.approx([1, 1 / 3])
    assert found["maximum"].tolist() == [0, 4]
    assert found["dispersion index"][0].isnan()
    assert found["dispersion index"][1] == 2


@pytest.mark.parametrize("rows", [1, 2, 19, 20, 140, 9001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_are_order_statistics_whatever_the_values(rows, dtype):
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(size=rows), rng.normal(size=rows) + 1e6, np.exp(8 * rng.normal(size=rows)),
        rng.integers(0, 3, rows), np.full(rows, 0.1), np.r_[np.zeros(rows - 1), 1e30],
        1e-30 * rng.normal(size=rows), np.r_[np.full(rows // 2, np.inf), np.ones(rows - rows // 2)],
    ):  # fmt: skip
        column = values.astype(dtype)
        found = quantiles(torch.from_numpy(column)[None, :, None], None)
        for name, share in QUANTILES.items():
            rank = max(0, math.ceil(share * rows) - 1)
            assert found[name].item() == np.sort(column)[rank]


# Labels and kinds of values


@pytest.mark.parametrize("features", [1, 2, 64, 65, 300])
@pytest.mark.parametrize(
    "kind", [REAL, COUNTS, BINARY, ValueKind("categories", 3)], ids=lambda kind: kind.name
)
def test_every_value_has_a_label(kind, features):
    x, unmasked = torch.randint(2, (1, 30, features)).float(), torch.ones(30, features) > 0
    labels = kind.labels([f"f{i}" for i in range(features)])
    for name, values in kind.compute(x, unmasked).items():
        assert len(labels[name]) == len(set(labels[name])) == values.shape[1]


@pytest.mark.parametrize("features", [5, 200])
@pytest.mark.parametrize("kind", [REAL, BINARY], ids=lambda kind: kind.name)
def test_the_most_dependent_pair_is_named(kind, features):
    chosen = paired_columns(features)
    assert len(chosen) == len(set(chosen)) == min(features, MAX_PAIRED_COLUMNS)
    assert (chosen[0], chosen[-1]) == (0, features - 1)
    one, other = chosen[1], chosen[3]
    x = (torch.randn(400, features) > 0).float()
    x[:, other] = x[:, one]
    name = "correlation" if kind is REAL else "co-occurrence"
    values = kind.compute(x[None], None)[name][0]
    labels = kind.labels(list(map(str, range(features))))[name]
    assert labels[int(values.argmax())] == f"{one} & {other}"


ones = torch.ones(5, 3)
KINDS = {
    "real": [
        dist.Normal(ones, 1).to_event(1), dist.LogNormal(ones, 1), dist.Beta(ones, 1.0),
        dist.MultivariateNormal(ones, torch.eye(3)), dist.Dirichlet(ones), dist.Delta(ones),
        dist.VonMises(ones, 1.0), dist.StudentT(3.0, ones).mask(False).to_event(1),
        dist.MixtureSameFamily(dist.Categorical(ones), dist.Normal(ones, 1.0)),
        dist.TransformedDistribution(dist.Normal(ones, 1), [dist.transforms.SigmoidTransform()]),
    ],
    "counts": [
        dist.Poisson(ones), dist.NegativeBinomial(ones, 0.5).to_event(1), dist.Geometric(ones / 2),
        dist.Binomial(3, ones / 2), dist.Multinomial(3, ones), dist.BetaBinomial(ones, ones, 3),
        dist.ZeroInflatedPoisson(ones, gate=ones / 2), dist.GammaPoisson(ones, 1.0).mask(True),
    ],
    "binary": [
        dist.Bernoulli(ones / 2).to_event(1), dist.OneHotCategorical(ones),
        dist.Bernoulli(ones / 2).mask(ones > 0).to_event(1), dist.Categorical(ones[:, :2]),
        dist.OneHotCategoricalStraightThrough(ones),
    ],
    "categories": [dist.Categorical(ones), dist.Categorical(logits=ones).mask(True)],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_values_is_told_by_the_distribution(kind):
    assert {ValueKind.of(fn).name for fn in KINDS[kind]} == {kind}
    assert kind in STATISTICS


def test_categories_are_counted():
    assert ValueKind.of(dist.Categorical(torch.ones(5, 4, 7)).to_event(1)).categories == 7
