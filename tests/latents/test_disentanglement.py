"""``disentanglement``: closed-form cases, what leaves scores as they are, intervals, refusals."""

import time

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import sklearn

from ppl_vae import disentanglement
from ppl_vae.latents.additive_regression import AdditiveRegression
from ppl_vae.latents.factor_scores import SCORES, concentration, modularity
from ppl_vae.latents.factor_tables import balanced_accuracy, mutual_information
from ppl_vae.latents.variables import in_bins

DCI = ["dci_disentanglement", "dci_completeness", "dci_informativeness"]


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))


def guide(x):
    """Codes that are the rows themselves."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 0.01).to_event(1))


def score(codes, factors, **options):
    """The result for codes, (rows, latents), without intervals unless they are asked for."""
    options = {"num_bootstrap": 0, **options}
    return disentanglement(model, guide, np.asarray(codes, dtype=np.float32), factors, **options)


def values(codes, factors, **options):
    return score(codes, factors, **options).frame["value"]


def independent(rows, factors=3, seed=0):
    """Independent factors, uniform from 0 to 1, (rows, factors)."""
    return np.random.default_rng(seed).random((rows, factors))


def named(factors):
    return dict(zip("abcdef", np.transpose(factors), strict=False))


def test_independent_copies_of_the_factors_have_all_scores_1():
    factors = independent(1500)
    found = score(2 * factors[:, [2, 0, 1]] - 5, named(factors))
    assert found.frame["value"].to_numpy() == pytest.approx(np.ones(6), abs=0.01)
    expected = np.eye(3)[[2, 0, 1]]
    assert found.information.to_numpy() == pytest.approx(expected, abs=0.01)
    assert found.importance.to_numpy() == pytest.approx(expected, abs=0.01)


def test_a_rotation_of_two_equal_factors_is_informative_and_not_disentangled():
    factors = np.random.default_rng(0).standard_normal((3000, 2))
    turned = factors @ np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    found = values(turned, named(factors))
    assert found["dci_informativeness"] == pytest.approx(1.0, abs=0.02)
    bounds = {"mig": 0.03, "sap": 0.08, "modularity": 0.15, **dict.fromkeys(DCI[:2], 0.01)}
    assert all(found[name] < bound for name, bound in bounds.items()), found


@pytest.mark.parametrize("names", [False, True], ids=["numbers", "names"])
def test_a_second_code_that_errs_in_every_tenth_row_has_the_gap_of_the_formulas(names):
    random = np.random.default_rng(1)
    bit = random.permutation(np.arange(4000) % 2)
    wrong = random.permutation(np.arange(4000) % 10 == 0)
    factor = np.array(["no", "yes"])[bit] if names else bit
    found = values(np.stack([bit, bit ^ wrong], 1), {"bit": factor})
    entropy = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9))
    assert found["mig"] == pytest.approx(entropy, abs=0.02)  # in bits of one bit
    assert found["sap"] == pytest.approx(1 - 0.9 if names else 1 - 0.8**2, abs=0.02)
    assert found[DCI].isna().tolist() == [True, False, False]
    assert np.isnan(found["modularity"])  # one factor


def test_concentration_and_modularity_are_those_of_the_formulas():
    bits = 0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)
    assert concentration(np.array([[3.0, 1.0]])) == pytest.approx(1 + bits)
    assert concentration(np.array([[3.0, 0.0], [0.5, 0.5]])) == pytest.approx(3 / 4)
    assert modularity(np.array([[2.0, 1.0, 0.0]])) == pytest.approx(1 - 1 / (4 * 2))


def test_curves_of_one_code_are_informative_and_products_of_two_are_not():
    codes = 2 * independent(3000, 2) - 1
    bend, product = np.cos(7 * codes[:, 0]), codes[:, 0] * codes[:, 1]
    found = score(codes, {"bend": bend, "product": product}).importance
    assert found["bend"].to_numpy() == pytest.approx([0.95, 0.0], abs=0.03)
    assert found["product"].to_numpy() == pytest.approx([0.0, 0.0], abs=0.02)


def test_scores_do_not_depend_on_the_order_of_latents_and_factors():
    factors = named(independent(600))
    codes = np.stack([factors["a"] + 0.3 * factors["b"], factors["b"], factors["c"] ** 2], 1)
    one, other = score(codes, factors), score(codes[:, ::-1], dict(reversed(factors.items())))
    pd.testing.assert_frame_equal(one.frame, other.frame)
    turned = one.importance.to_numpy()[::-1, ::-1]
    assert other.importance.to_numpy() == pytest.approx(turned)


def test_an_increasing_function_of_the_codes_changes_sap_alone():
    factors = named(independent(600))
    codes = np.stack([factors["a"] + 0.3 * factors["b"], factors["b"] - factors["a"]], 1)
    before, after = values(codes, factors), values(np.exp(3 * codes), factors)
    assert after.drop("sap").tolist() == before.drop("sap").tolist()
    assert abs(after["sap"] - before["sap"]) > 0.01


def test_a_collapsed_latent_counts_as_constant_even_where_its_means_follow_a_factor():
    factors = independent(800, 2)

    def wide(x):
        with pyro.plate("data", len(x)):
            sd = torch.tensor([0.1, 0.1, 1.0, 0.0])
            mean = torch.cat([x, 1e-2 * x[:, :1], torch.ones(len(x), 1)], 1)
            pyro.sample("z", dist.Normal(mean, sd, validate_args=False).to_event(1))

    rows = torch.tensor(factors).float()
    found = disentanglement(model, wide, rows, named(factors), num_bootstrap=0)
    assert found.collapsed == ["z[2]", "z[3]"]
    assert (found.information.loc[["z[2]", "z[3]"]] == 0).all(axis=None)
    assert (found.importance.loc[["z[2]", "z[3]"]] == 0).all(axis=None)
    assert found.frame["value"]["mig"] == pytest.approx(1.0, abs=0.01)
    assert "collapsed, counted as constant: z[2], z[3]" in str(found)
    nothing = disentanglement(model, lambda x: wide(0 * x), rows, named(factors), num_bootstrap=20)
    assert (nothing.frame == 0).all(axis=None)


def test_latents_that_know_nothing_have_no_information_from_few_rows():
    random = np.random.default_rng(3)
    codes, factors = random.random((2, 400, 4))
    table = np.histogram2d(codes[:, 0], factors[:, 0], 20)[0]
    assert mutual_information(table) > 0.4  # nats by chance, of 3.0
    found = score(codes, named(factors))
    assert found.information.max(axis=None) < 0.05
    assert found.importance.max(axis=None) < 0.05
    assert found.frame["value"]["dci_informativeness"] < 0.05


def test_importances_of_latents_that_know_nothing_are_marked_as_those_of_noise():
    factors, random = independent(1000), np.random.default_rng(1)
    noise, telling = random.standard_normal((1000, 4)), factors + random.normal(0, 0.3, (1000, 3))
    found = score(noise, named(factors))
    assert found.noise > 0.5
    assert "the latents tell little of the factors" in str(found)
    for codes in (factors, telling):
        found = score(codes, named(factors))
        assert found.noise < 0.1
        assert "little" not in str(found)


def test_a_factor_with_a_level_for_each_row_is_refused_at_once():
    """Tables of all levels would take a minute, and the error was the same."""
    codes, names = independent(3000), [f"row {i}" for i in range(3000)]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r'bins of the codes and of factor "a".*by chance alone'):
        score(codes, {"a": names})
    with pytest.raises(ValueError, match=r'bins of the codes and of factor "a".*smaller num_bins'):
        score(codes, named(codes), num_bins=1000)
    assert time.perf_counter() - start < 10


def test_categorical_latents_and_factors_are_scored_by_their_categories():
    random = np.random.default_rng(2)
    kind, shade = random.integers(0, 3, 900), random.random(900)

    def mixed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Categorical(logits=9.0 * (x[:, :1] == torch.arange(3.0))))
            pyro.sample("z", dist.Normal(x[:, 1], 0.1))

    rows = torch.tensor(np.stack([kind, shade], 1)).float()
    factors = {"kind": np.array(["circle", "square", "star"])[kind], "shade": shade}
    found = disentanglement(model, mixed, rows, factors, num_bootstrap=0)
    assert found.importance.index.tolist() == ["kind", "z"]
    assert found.information.to_numpy() == pytest.approx(np.eye(2), abs=0.02)
    assert found.frame["value"]["mig"] == pytest.approx(1.0, abs=0.02)
    assert found.frame["value"]["sap"] == pytest.approx(((1 - 1 / 3) + 1) / 2, abs=0.06)


def test_intervals_cover_the_scores_of_many_rows():
    def drawn(rows, seed):
        random = np.random.default_rng(seed)
        factors = random.standard_normal((rows, 2))
        noise = 0.5 * random.standard_normal((rows, 2))
        return factors @ np.array([[1.0, 0.2], [0.5, 1.0]]) + noise, named(factors)

    truth = values(*drawn(60_000, 99), num_bins=6)
    frames = [score(*drawn(300, s), num_bins=6, num_bootstrap=40).frame for s in range(10)]
    r_squared = [frame["value"]["dci_informativeness"] for frame in frames]
    truth["dci_informativeness"] = np.mean(
        r_squared
    )  # fits to half of 60,000 rows have a larger one
    inside = sum((frame["lower"] <= truth) & (truth <= frame["upper"]) for frame in frames)
    for frame in frames:
        assert frame["value"].between(frame["lower"], frame["upper"]).all()
    # of 30 seeds, 28 or 29 intervals of each score held the truth; 14 to 24 of half the width
    assert (inside >= 8).all(), inside


def test_mutual_information_is_that_of_scikit_learn():
    metrics = sklearn("metrics")
    one, other = np.random.default_rng(0).integers(0, 5, (2, 100))
    other[:50] = one[:50]
    table = np.zeros((5, 5))
    np.add.at(table, (one, other), 1)
    assert mutual_information(table) == pytest.approx(metrics.mutual_info_score(one, other))


def test_balanced_accuracy_is_that_of_scikit_learn():
    metrics = sklearn("metrics")
    random = np.random.default_rng(0)
    table = random.integers(1, 20, (1, 1, 4, 3))
    rule = (table / table.sum(2, keepdims=True))[0, 0].argmax(1)
    bins, category = (np.repeat(part.ravel(), table.ravel()) for part in np.indices((4, 3)))
    expected = metrics.balanced_accuracy_score(category, rule[bins])
    assert balanced_accuracy(table, table)[0, 0] == pytest.approx(expected)


def test_the_regression_is_a_ridge_regression_on_bins():
    linear_model = sklearn("linear_model")
    random = np.random.default_rng(0)
    bins = np.stack([random.permutation(np.arange(60) % size) for size in (3, 5)], 1)
    outputs = random.standard_normal((60, 2)) + bins
    columns = np.concatenate([np.eye(3)[bins[:, 0]], np.eye(5)[bins[:, 1]]], 1)
    rows = random.integers(0, 60, 80)  # some of them several times
    reference = linear_model.Ridge(2.0).fit(columns[rows], outputs[rows])
    fit = AdditiveRegression(bins, [outputs]).fit(rows, 2.0)
    assert fit.effects == pytest.approx(reference.coef_.T)
    assert fit.constant == pytest.approx(reference.intercept_)


def test_bins_have_equally_many_rows_and_few_values_have_a_bin_each():
    counts = np.bincount(in_bins(independent(1000, 1)[:, 0] ** 9, 20))
    assert counts.tolist() == [50] * 20
    assert in_bins(np.array([3.0, 1.0, 3.0, 2.0]), 20).tolist() == [2, 0, 2, 1]


def test_the_seed_decides_the_result_and_the_generators_are_restored():
    codes, factors = independent(300), named(independent(300, 2, seed=1))
    before = torch.get_rng_state()
    frames = [score(codes, factors, num_bootstrap=20, seed=seed).frame for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0].equals(frames[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert not score(codes, factors, seed=None).frame.equals(frames[0])


def test_factors_come_as_a_frame_or_as_tensors_and_keep_their_names():
    factors = independent(300, 2)
    rows = pd.DataFrame(factors.astype(np.float32), index=[f"row {i}" for i in range(300)])
    frame = pd.DataFrame(factors, columns=["place", "size"], index=rows.index)
    one = disentanglement(model, guide, rows, frame, num_bootstrap=0)
    tensors = {name: torch.tensor(frame[name].to_numpy()) for name in frame}
    other = disentanglement(model, guide, rows, tensors, num_bootstrap=0)
    assert one.importance.columns.tolist() == ["place", "size"]
    assert one.frame.index.tolist() == list(SCORES)
    pd.testing.assert_frame_equal(one.frame, other.frame)


FACTORS = {"size": np.arange(200.0), "kind": ["a", "b"] * 100}


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({**FACTORS, "size": np.full(200, 3.0)}, r'factors\["size"\]: expected at least two diff'),
        ({**FACTORS, "size": np.arange(199.0)}, r'factors\["size"\]: expected 200 values.*got 199'),
        (
            {**FACTORS, "size": np.zeros((200, 2))},
            r'factors\["size"\]: expected one value for each',
        ),
        ({**FACTORS, "kind": [None, "b"] * 100}, r"got none in 100 of 200, the first is row 0"),
        ({**FACTORS, "size": [np.inf, *range(199)]}, r"expected finite numbers, got inf"),
        ({**FACTORS, "kind": ["a", 1.0] * 100}, r'factors\["kind"\]: expected numbers or names'),
        ({"who": [f"name {i}" for i in range(200)]}, r'expected more rows for the bins.* "who"'),
        (np.zeros((200, 2)), r"factors: expected a frame, or a mapping"),
        ({}, r"factors: expected at least one"),
        (pd.DataFrame(FACTORS).iloc[::-1], r"expected the rows of the data in their order"),
    ],
    ids=[
        "constant",
        "short",
        "wide",
        "missing",
        "infinite",
        "mixed",
        "names",
        "array",
        "none",
        "order",
    ],
)
def test_factors_that_cannot_be_scored_are_refused_by_name(factors, words):
    with pytest.raises(ValueError, match=words):
        score(independent(200), factors)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_bins": 1}, "num_bins: expected a whole number of at least 2"),
        ({"num_bootstrap": 5}, "num_bootstrap: expected a whole number of at least 20"),
        ({"seed": -1}, "seed"),
        ({"num_bins": 100}, "expected more rows for the bins"),
    ],
)
def test_arguments_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        score(independent(200), named(independent(200)), **options)


def test_a_guide_without_means_is_refused():
    rows, factors = torch.tensor(independent(60)).float(), {"a": np.arange(60.0)}
    with pytest.raises(ValueError, match="expected a latent in the row plate"):
        disentanglement(model, None, rows, factors)

    def heavy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Cauchy(x, 1.0).to_event(1))

    with pytest.raises(ValueError, match="expected finite means"):
        disentanglement(model, heavy, rows, factors)


def test_the_result_is_read_in_text_and_in_a_figure():
    factors = independent(300, 2)
    found = score(factors, named(factors), num_bootstrap=20)
    text = str(found)
    for words in ("2 latents, 2 factors, 300 rows", "mig", "lower", "z[1]", "importance"):
        assert words in text
    axes = found.plot()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["z[0]", "z[1]"]
    assert "mutual-information gap" in axes.get_title()
