"""Statistics of pairs of columns of different sites, beside pandas; which pairs there are."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import predictive_check, sequences
from ppl_vae.checks.pair_sums import MAX_PAIRED_COLUMNS
from ppl_vae.checks.site_pairs import SitePairs
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.distributions import PaddedCategorical

REAL, COUNTS, BINARY = ValueKind("real"), ValueKind("counts"), ValueKind("binary")
KINDS = {"real": REAL, "count": COUNTS, "bit": BINARY, "code": ValueKind("categories", 4)}
FEATURES = {"real": ["age", "pay"], "count": ["visits"], "bit": ["sex"], "code": ["job", "race"]}
PAIRS = SitePairs(KINDS, FEATURES, {"code": [4, 3]})
SITE_OF = {feature: site for site, features in FEATURES.items() for feature in features}


def table(rows=400, seed=0):
    """Return ``{site: (rows, features)}``, every column tied to the others, and a mask of each."""
    maker = torch.Generator().manual_seed(seed)

    def noise(features):
        return torch.randn(rows, features, generator=maker)

    factor = noise(1)
    values = {
        "real": factor + noise(2), "count": torch.poisson(factor.exp(), generator=maker),
        "bit": (factor + noise(1) > 0).float(),
        "code": (factor + noise(2) + 1).clamp(0, 3 - 1e-3).long(),
    }  # fmt: skip
    values["code"][:, 0] += (noise(1)[:, 0] > 1.5).long()  # 4 categories; "race" has 3
    seen = {site: torch.rand(x.shape, generator=maker) < 0.8 for site, x in values.items()}
    return values, seen


def frame_of(values, seen):
    """Return a frame of all columns, NaN in masked cells."""
    parts = {
        name: np.where(seen[site][:, i], values[site][:, i].double(), np.nan)
        for site, names in FEATURES.items()
        for i, name in enumerate(names)
    }
    return pd.DataFrame(parts)


def expected(frame, label):
    """Return a statistic of a pair by its name, computed by pandas."""
    if " where " in label:
        number, _, category = label.partition(" where ")
        feature, _, code = category.partition(" = ")
        both = frame[[number, feature]].dropna()
        group = both.loc[both[feature] == float(code), number]
        few = min(len(group), len(both) - len(group)) < 10
        return np.nan if few else (group.mean() - both[number].mean()) / both[number].std(ddof=0)
    names, codes = zip(*(part.partition(" = ")[::2] for part in label.split(" & ")), strict=True)
    both = frame[list(names)].dropna()
    if not codes[0]:
        return both.corr().iloc[0, 1]
    present = [both[name] == float(code) for name, code in zip(names, codes, strict=True)]
    return (present[0] & present[1]).mean()


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("rows", [400, 30_000])  # one part of the rows, and several
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_of_pairs_are_those_of_pandas(masked, rows, dtype, precision):
    values, seen = table(rows)
    seen = seen if masked else {site: torch.ones_like(x).bool() for site, x in values.items()}
    values["real"] = values["real"].to(dtype) + 1000
    values["count"] = values["count"].to(dtype)
    frame = frame_of(values, seen)
    cells = {site: torch.where(seen[site], x, 77) for site, x in values.items()}
    given = {site: torch.stack([x, x.flip(0)]) for site, x in cells.items()}  # two data sets
    found = PAIRS.compute(given, {site: mask if masked else None for site, mask in seen.items()})
    assert list(found) == ["correlation", "group mean", "co-occurrence"]
    for statistic, numbers in found.items():
        labels = PAIRS.labels(statistic)
        wanted = [expected(frame, label) for label in labels]
        assert np.isfinite(wanted).mean() > 0.8
        np.testing.assert_allclose(numbers[0], wanted, atol=precision, err_msg=statistic)
        if not masked:
            np.testing.assert_allclose(numbers[1], wanted, atol=precision, err_msg=statistic)


def test_nan_in_masked_cells_changes_nothing():
    values, seen = table()
    given = {site: x[None].double() for site, x in values.items()}
    holes = {site: x.masked_fill(~seen[site], torch.nan) for site, x in given.items()}
    for name, numbers in PAIRS.compute(given, seen).items():
        torch.testing.assert_close(PAIRS.compute(holes, seen)[name], numbers, equal_nan=True)


def test_pairs_are_of_different_sites_and_have_the_names_of_their_columns():
    assert PAIRS.labels("correlation") == ["age & visits", "pay & visits"]
    jobs = [
        f"{name} = {code}" for name, count in (("job", 4), ("race", 3)) for code in range(count)
    ]
    assert PAIRS.labels("co-occurrence") == [f"sex = 1 & {job}" for job in jobs]
    numbers = ["age", "pay", "visits"]
    assert PAIRS.labels("group mean") == [
        f"{n} where {c}" for c in ["sex = 1", *jobs] for n in numbers
    ]


def test_positions_and_names_of_two_sites_are_told_apart():
    kinds = {"a": REAL, "b": REAL, "c": REAL}
    pairs = SitePairs(kinds, {"a": ["0", "size"], "b": ["size"], "c": ["age"]}, {})
    assert pairs.labels("correlation")[0] == "a[0] & b[size]"
    assert pairs.labels("correlation")[-1] == "b[size] & age"


def test_a_group_of_few_rows_has_no_mean():
    numbers, bits = torch.randn(1, 200, 1), torch.zeros(1, 200, 4)
    for feature, ones in enumerate((9, 10, 190, 191)):
        bits[0, :ones, feature] = 1
    pairs = SitePairs({"x": REAL, "y": BINARY}, {"x": ["age"], "y": list("abcd")}, {})
    found = pairs.compute({"x": numbers, "y": bits}, {"x": None, "y": None})["group mean"]
    assert found.isfinite().tolist() == [[False, True, True, False]]


def test_a_constant_number_has_no_statistic():
    pairs = SitePairs({"x": REAL, "y": BINARY, "z": REAL}, {k: [k] for k in "xyz"}, {})
    values = {"x": torch.full((1, 90, 1), 0.1), "y": (torch.rand(1, 90, 1) < 0.5).float()}
    found = pairs.compute({**values, "z": torch.randn(1, 90, 1)}, dict.fromkeys("xyz"))
    assert found["correlation"].isnan().all()
    assert found["group mean"].isnan().tolist() == [[True, False]]


def test_the_number_of_pairs_is_bounded_and_every_feature_of_categories_has_some():
    kinds = {"x": REAL, "y": COUNTS, "bits": BINARY, "codes": ValueKind("categories", 500)}
    sizes = {"x": 100, "y": 100, "bits": 5, "codes": 20}
    features = {site: [f"{site}{i}" for i in range(size)] for site, size in sizes.items()}
    pairs = SitePairs(kinds, features, {"codes": [3] * 10 + [500] * 10})
    assert len(pairs.labels("correlation")) == (MAX_PAIRED_COLUMNS // 2) ** 2
    names = {label.partition(" where ")[2] for label in pairs.labels("group mean")}
    assert 118 < len(names) <= 128
    paired = {name.partition(" = ")[0] for name in names}
    assert paired == {*features["bits"], *features["codes"]}
    values = {site: torch.ones(1, 30, size) for site, size in sizes.items()}
    found = pairs.compute(values, dict.fromkeys(sizes))
    assert all(found[name].shape[1] == len(pairs.labels(name)) for name in pairs.names)


def mixed(x, y, code, seen):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).mask(seen).to_event(1), obs=x)
        pyro.sample("y", dist.Poisson(2.0), obs=y)
        logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]])
        pyro.sample("code", PaddedCategorical(logits=logits).to_event(1), obs=code)


def mixed_data(rows=300):
    torch.manual_seed(0)
    code = torch.stack([torch.randint(2, (rows,)), torch.randint(3, (rows,))], 1)
    names = pd.DataFrame(torch.randn(rows, 2).numpy(), columns=["age", "pay"])
    counts = torch.poisson(torch.full((rows,), 2.0))
    return {"x": names, "y": counts, "code": code, "seen": torch.rand(rows, 2) < 0.9}


def test_a_check_has_lines_of_pairs_with_all_of_them_in_its_features():
    check = predictive_check(mixed, None, mixed_data(), num_samples=40)
    lines = check.frame.loc["(across sites)"]
    assert set(lines.index) == {"correlation", "group mean"}
    assert not check.frame["flagged"].any()
    named = check.features.loc[("(across sites)", "correlation")].index
    assert list(named) == ["age & y", "pay & y"]
    named = check.features.loc[("(across sites)", "group mean")].index
    codes = [f"code[{i}] = {code}" for i, count in enumerate((2, 3)) for code in range(count)]
    assert list(named) == [f"{name} where {code}" for code in codes for name in ("age", "pay", "y")]
    assert "(across sites)" in str(check)
    worst = check.replicated["(across sites)", "group mean"]
    assert worst.shape == (40,)


@pytest.mark.parametrize("wanted", ["group mean", "correlation"])
def test_a_statistic_of_pairs_can_be_asked_for_by_name(wanted):
    frame = predictive_check(mixed, None, mixed_data(), statistics=wanted, num_samples=20).frame
    assert set(frame.index.get_level_values("statistic")) == {wanted}
    assert ("(across sites)", wanted) in frame.index


def test_one_site_has_no_pairs_and_no_group_mean():
    check = predictive_check(mixed, None, mixed_data(), sites="x", num_samples=20)
    assert "(across sites)" not in check.frame.index
    with pytest.raises(ValueError, match=r"statistics: expected .* got 'group mean'"):
        predictive_check(mixed, None, mixed_data(), sites="x", statistics="group mean")


def test_a_site_of_sequences_is_in_no_pair():
    def model(x, y, lengths):
        with pyro.plate("data", len(y)):
            steps = (torch.arange(x.shape[1]) < lengths[:, None])[..., None]
            fn = dist.Normal(torch.zeros(x.shape[1:]), 1.0).mask(steps)
            pyro.sample("x", fn.to_event(2), obs=x)
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)
            pyro.sample("bit", dist.Bernoulli(0.5), obs=(y > 0).float())

    data = sequences([torch.randn(n, 1) for n in (3, 4, 5) * 20])
    check = predictive_check(model, None, {**data, "y": torch.randn(60)}, num_samples=20)
    assert check.steps == {"x": 240}
    assert list(check.frame.loc["(across sites)"].index) == ["group mean"]
    named = check.features.loc[("(across sites)", "group mean")].index
    assert list(named) == ["y where bit = 1"]


def test_rare_pairs_of_categories_do_not_hide_a_large_fault():
    """A pair that almost never comes has a spread of 0 in its replicates; one row is no fault."""
    probs = torch.full((30,), 0.002)
    probs[0] = 1 - probs[1:].sum()

    def model(a, b, c):
        with pyro.plate("data", len(a)):
            pyro.sample("a", dist.Categorical(probs), obs=a)
            pyro.sample("b", dist.Categorical(probs), obs=b)
            pyro.sample("c", dist.Bernoulli(0.5), obs=c)

    torch.manual_seed(0)
    a, b = dist.Categorical(probs).sample((2, 500))
    c = torch.where(a == 0, (torch.rand(500) < 0.5).float(), 1.0)
    c[:250] = 1 - (a[:250] == 0).float()
    check = predictive_check(model, None, (a, b, c), num_samples=60)
    line = check.frame.loc[("(across sites)", "co-occurrence")]
    assert line["feature"] == "a = 0 & c = 1"
    assert line["flagged"]
