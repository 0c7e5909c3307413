"""Rows learned by heart are found; rows of an honest generator are not called copies."""

import numpy as np
import pandas as pd
import pytest

from ppl_vae import privacy_check, table
from ppl_vae.plots import distance_histogram


def rows(count, seed, share=0.0):
    """Rows of mixed columns that depend on one number; a share of the cells is missing."""
    random = np.random.default_rng(seed)
    z = random.normal(size=count)
    frame = pd.DataFrame({
        "level": z + 0.5 * random.normal(size=count),
        "income": np.exp(z + 0.3 * random.normal(size=count)),
        "visits": random.poisson(np.exp(z + 1)),
        "sex": np.where(random.random(count) < 1 / (1 + np.exp(-z)), "Male", "Female"),
        "city": random.choice(["Rome", "Oslo", "Lima"], count),
    })  # fmt: skip
    return frame.mask(random.random(frame.shape) < share)


def few_categories(count, seed):
    random = np.random.default_rng(seed)
    return pd.DataFrame({"city": random.choice(["Rome", "Oslo", "Lima"], count, p=[0.6, 0.3, 0.1])})


def check(made, real, **options):
    return privacy_check(made, real, progress=False, **options)


@pytest.mark.parametrize(("count", "made"), [(2, 5), (40, 200), (300, 300)])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_an_honest_generator_is_not_flagged(count, made, share):
    for seed in range(40):
        new, real = rows(made, seed, share), rows(count, 1000 + seed, share)
        assert not check(new, real).too_close, seed


def test_the_share_of_close_rows_is_right():
    """Rows of the same kind are as close to the real rows as these are to one another."""
    shares = [check(rows(500, s), rows(500, 100 + s)).frame["close"].mean() for s in range(6)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_copies_are_found(share):
    real = rows(300, 0, share)
    found = check(real.sample(200, random_state=0), real)
    assert found.too_close
    assert found.copies[0] == 1
    assert found.copies[1] < 0.5
    assert "closer to real ones than these to one another" in str(found)
    honest = check(rows(200, 1, share), real)
    assert "no closer to real rows" in str(honest)


def test_some_copies_among_honest_rows_are_found_with_the_rows_that_they_copy():
    real = rows(400, 0).set_axis([f"row {i}" for i in range(400)])
    made = pd.concat([rows(320, 1), real.iloc[:80]], ignore_index=True)
    found = check(made, real)
    assert found.too_close
    copied = found.frame[found.frame["distance"] == 0]
    assert copied["closest"].tolist() == [f"row {i}" for i in range(80)]
    assert copied.index.tolist() == list(range(320, 400))
    assert copied["close"].all()


def test_rows_near_real_ones_are_found():
    real = rows(300, 0)
    near = real.assign(level=real["level"] + 0.001, income=real["income"] * 1.001)
    found = check(near, real)
    assert found.copies[0] == 0
    assert found.too_close
    assert found.frame["close"].mean() > 0.9


def test_a_table_of_few_categories_repeats_by_chance():
    found = check(few_categories(300, 1), few_categories(300, 0))
    assert found.copies == (1.0, 1.0)
    assert not found.too_close
    assert not found.frame["close"].any()


def test_the_distance_is_the_mean_over_the_columns():
    real = pd.DataFrame({"n": [0.0, 10.0, 4.0], "c": ["a", "b", "a"], "d": ["u", "v", "v"]})
    made = pd.DataFrame({"n": [1.0, np.nan, 99.0], "c": ["a", "b", "new"], "d": ["u", "u", None]})
    frame = check(made, real).frame
    np.testing.assert_allclose(frame["distance"], [0.1 / 3, 2 / 3, 1], atol=1e-6)
    assert frame["closest"].iloc[0] == 0
    holed = real.assign(d=["u", None, "v"])
    np.testing.assert_allclose(
        check(made.assign(n=9.0, c="b"), holed).frame["distance"], [1.1 / 3, 1.1 / 3, 0.1 / 3],
        atol=1e-6,
    )  # fmt: skip


def test_a_category_that_no_real_row_has_equals_no_gap():
    real = pd.DataFrame({"n": [0.0, 10.0, 4.0], "c": ["a", "b", None]})
    made = pd.DataFrame({"n": [4.0, 4.0], "c": ["new", None]})
    np.testing.assert_allclose(check(made, real).frame["distance"], [0.5, 0.0])


def test_covariates_and_columns_left_out_do_not_count():
    real = rows(50, 0).assign(key=[f"k{i}" for i in range(50)])
    data = table(real, covariates=["sex"])
    turned = real.drop(columns="key").assign(sex=real["sex"].map({"Male": "Female"}).fillna("Male"))
    assert check(turned, data).copies[0] == 1
    assert check(turned, real).copies[0] == 0


def test_few_rows_of_many_are_chosen_by_the_seed():
    made, real = rows(90, 1), rows(80, 0)
    first, again, other = (check(made, real, num_rows=30, seed=s) for s in (0, 0, 1))
    assert len(first.frame) == len(first.real) == 30
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert first.frame.index.tolist() != other.frame.index.tolist()


def test_any_index_and_rows_of_another_program_are_taken():
    real = rows(20, 0).set_axis(pd.MultiIndex.from_product([["a", "b"], range(10)]))
    made = rows(5, 1).assign(visits=[-3.5, 1e6, 2, 0.1, 7], city="Nowhere")
    found = check(made, real)
    assert set(found.frame["closest"]) <= set(real.index)
    assert (found.frame["distance"] >= 0.2).all()  # the city is another one in each real row


@pytest.mark.parametrize(
    ("made", "real", "message"),
    [
        (rows(3, 0).to_numpy(), rows(3, 0), "^generated: expected a frame with rows"),
        (rows(3, 0).head(0), rows(3, 0), "^generated: expected a frame with rows"),
        (rows(3, 0).drop(columns="sex"), rows(3, 0), '^generated: .*"sex"'),
        (rows(3, 0).assign(level="high"), rows(30, 0), '^generated: column "level"'),
        (rows(3, 0), rows(1, 0), "^data: expected two rows or more, got 1"),
        (rows(3, 0), [1, 2], "^data: expected a frame"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(made, real, message):
    with pytest.raises(ValueError, match=message):
        check(made, real)


def test_the_plot_shows_both_kinds_of_rows():
    ax = check(rows(60, 1), rows(50, 0)).plot()
    assert ax.get_legend_handles_labels()[1] == ["real rows", "generated rows"]
    filled, line = ax.patches[:2]
    assert filled.get_facecolor() != line.get_facecolor()
    assert filled.get_xy()[:, 1].max() > 0.02
    assert ax.get_xlabel() == "distance to the closest (other) real row"


def test_copies_are_in_sight_beside_a_row_far_away():
    ax = distance_histogram(np.r_[np.zeros(300), np.full(700, 0.01)], np.r_[np.full(999, 0.01), 1])
    generated = ax.patches[1].get_xy()
    assert generated[:, 0].max() < 0.1
    assert generated[generated[:, 0] == 0, 1].max() == pytest.approx(0.3)
    assert (generated[:, 1].max(), generated[:, 1].min()) == pytest.approx((0.7, 0))


def wide(count, seed, spread=1.0):
    """Rows of independent columns; those that vary less are close to any of the others."""
    numbers = np.random.default_rng(seed).normal(0, spread, (count, 12))
    return pd.DataFrame(numbers, columns=[f"c{place}" for place in range(12)])


def test_rows_that_vary_less_are_not_called_learned_by_heart_with_rows_held_out():
    for seed in range(20):
        real, held, made = wide(300, seed), wide(200, 50 + seed), wide(400, 100 + seed, 0.5)
        alone, fair = check(made, real), check(made, real, held_out=held)
        assert alone.too_close
        assert "or generated rows vary less than real ones" in str(alone)
        assert not fair.too_close, seed
        assert "no closer than to rows that were held out" in str(fair)
        assert fair.expected == 0.6
        assert fair.nearer == pytest.approx(0.6, abs=0.2)
        pd.testing.assert_frame_equal(fair.frame, alone.frame)
        assert fair.held_out.shape == (400,)


def test_rows_learned_by_heart_are_found_with_rows_held_out():
    real, held = wide(400, 0), wide(100, 1)
    some = pd.concat([wide(320, 2, 0.5), real.iloc[:80]], ignore_index=True)
    for made in (real.sample(200, random_state=0), real + 0.05, some):
        found = check(made, real, held_out=held)
        assert found.too_close
        assert "rows were learned by heart" in str(found)
    assert not check(held, real, held_out=held).too_close


def test_rows_held_out_that_are_equal_to_real_ones_count_as_these():
    for seed in range(10):
        real, held, made = (few_categories(n, seed + n) for n in (300, 50, 300))
        found = check(made, real, held_out=table(held))
        assert not found.too_close
        assert found.nearer == pytest.approx(found.expected, abs=0.1)


@pytest.mark.parametrize("held", [3, rows(3, 0).head(0), rows(3, 0).drop(columns="sex")])
def test_rows_held_out_need_the_columns(held):
    with pytest.raises(ValueError, match=r"^held_out: (expected|.*sex)"):
        check(rows(3, 0), rows(9, 0), held_out=held)
