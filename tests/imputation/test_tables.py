"""Missing cells of mixed tables come back in the table's own columns, types and categories."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pandas.testing import assert_frame_equal
from parts.frames import frames

from ppl_vae import build, fit, impute, table
from ppl_vae.data.plain_columns import is_missing, plain, text_of
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.table import TableModel

pytestmark = pytest.mark.filterwarnings("ignore::ppl_vae.evaluation.summary.UnreliableWarning")
WORDS = ["?", -999]
ROWS = 60


def people():
    """Rows of every kind of column; each column but the first has gaps of its own sort."""
    random = np.random.default_rng(0)
    days = [datetime.date(1980, 1, 1) + datetime.timedelta(int(d)) for d in range(0, 6000, 100)]

    def holed(values, hole, dtype=None):
        missing = random.random(ROWS) < 0.25
        cells = [hole if gap else value for value, gap in zip(values, missing, strict=True)]
        return pd.Series(cells, dtype=dtype)

    frame = pd.DataFrame({
        "name": [f"row {i}" if i else None for i in range(ROWS)],
        "height": holed(random.normal(1.7, 0.1, ROWS), np.nan),
        "age": holed(random.poisson(30, ROWS), -999, "int16"),
        "rooms": holed(random.poisson(3, ROWS), None, "Int64"),
        "sex": holed(random.choice(["Male", "Female"], ROWS), "?"),
        "city": holed(random.choice(["Rome", "Oslo", "Lima"], ROWS), None, "category"),
        "size": holed(random.choice(["s", "m", "l"], ROWS),
                      None, pd.CategoricalDtype(["s", "m", "l"], ordered=True)),
        "born": holed(pd.to_datetime(pd.Series(days)), pd.NaT),
        "since": holed(days, None, object),
        "until": holed(map(str, days), "", object),
        "flag": holed(random.random(ROWS) > 0.5, None, "boolean"),
        "score": holed(map(str, random.poisson(30, ROWS)), "?", object),
        "price": holed([decimal.Decimal(i) / 4 for i in range(ROWS)], None, object),
        "rare": holed(random.normal(0, 1, ROWS), np.nan, "Sparse[float64]"),
        ("two", "parts"): holed(random.normal(0, 1, ROWS), np.nan),
        7: holed(random.choice([0.0, 1.0], ROWS), np.nan),
        "note": holed(["text"] * ROWS, None, object),
        "nothing": [None] * ROWS,
    })  # fmt: skip
    return frame.set_axis(random.integers(0, 20, ROWS))


@pytest.fixture(scope="module")
def fitted():
    """A pair that was fitted to the people, their table, and their missing cells filled."""
    frame = people()
    data = table(frame, missing=WORDS, ignore=["note"])
    torch.manual_seed(0)
    model, guide = pair_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit(model, guide, data, epochs=3, batch_size=20, progress=False, compile=False)
        result = impute(model, guide, frame, num_samples=100)
    return model, guide, data, frame, result


def pair_of(data):
    sizes = {"latents": 2, "hidden": (6,)}
    return build(TableModel, data, **sizes), build(TableGuide, data, **sizes)


def gaps(frame, place):
    return is_missing(plain(frame.iloc[:, place]), WORDS)


def left_out(data, name):
    return data.schema.named(name).is_left_out


def test_only_missing_cells_change_and_no_type_does(fitted):
    _, _, data, frame, result = fitted
    completed = result.completed
    assert completed.index.equals(frame.index)
    assert completed.columns.equals(frame.columns)
    assert completed.dtypes.tolist() == frame.dtypes.tolist()
    for place, name in enumerate(frame.columns):
        missing = gaps(frame, place)
        if left_out(data, name):
            missing[:] = False
        old, new = (each.iloc[:, place].tolist() for each in (frame, completed))
        kept = [(a, b) for a, b, m in zip(old, new, missing, strict=True) if not m]
        assert [repr(a) for a, _ in kept] == [repr(b) for _, b in kept], name
        assert left_out(data, name) or not gaps(completed, place).any(), name
    assert completed["nothing"].isna().all()
    assert completed["note"].isna().any()


def test_filled_cells_are_of_the_type_of_the_others(fitted):
    *_, frame, result = fitted
    for name in ("sex", "since", "until", "score", "price", "flag", "size"):
        missing = gaps(frame, frame.columns.get_loc(name))
        cells = result.completed[name].tolist()
        there = {type(cell) for cell, gap in zip(cells, missing, strict=True) if not gap}
        assert {type(cell) for cell, gap in zip(cells, missing, strict=True) if gap} == there
    assert set(result.completed["score"].map(len)) == {2}  # "31", not "31.0"
    assert set(result.completed["sex"]) == {"Male", "Female"}


def test_lines_are_in_the_values_of_their_columns(fitted):
    _, _, data, frame, result = fitted
    lines = result.frame
    assert len(lines) == int((~data["seen"]).sum())
    for place, name in enumerate(frame.columns):
        own = lines[[column == name for column in lines["column"]]]
        missing = gaps(frame, place)
        if left_out(data, name):
            assert own.empty
            continue
        assert own["row"].tolist() == frame.index[missing].tolist()
        assert list(map(text_of, own["value"])) == list(
            map(text_of, numbers_of_text(result.completed.iloc[:, place], missing))
        )
        if data.schema.named(name).is_category:
            assert own[["sd", "lower", "upper"]].isna().all().all()
            assert own["probability"].between(1 / 3, 1).all()
        else:
            assert own["probability"].isna().all()
            assert (own["sd"] > 0).all()
            assert ((own["lower"] <= own["value"]) & (own["value"] <= own["upper"])).all()
    of_days = lines[lines["column"] == "born"]
    assert {type(value) for value in of_days["lower"]} == {pd.Timestamp}
    assert of_days["sd"].mean() > 300  # days


def numbers_of_text(column, missing):
    """Return filled cells as ``frame`` has them: numbers where the column has text or decimals."""
    cells = [cell for cell, gap in zip(column.tolist(), missing, strict=True) if gap]
    if column.name == "score":
        return [int(cell) for cell in cells]
    return [float(cell) if isinstance(cell, decimal.Decimal) else cell for cell in cells]


@pytest.mark.parametrize("name", ["sex", "city", "size", "flag", 7])
def test_probabilities_agree_with_the_lines(fitted, name):
    *_, result = fitted
    found = result.probabilities(name)
    own = result.frame[[column == name for column in result.frame["column"]]]
    assert found.index.tolist() == own["row"].tolist()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.max(axis=1), own["probability"], atol=1e-12)
    assert found.columns[found.to_numpy().argmax(1)].tolist() == own["value"].tolist()


@pytest.mark.parametrize("name", ["height", "age", "born", "name", "nobody"])
def test_columns_without_categories_have_no_probabilities(fitted, name):
    *_, result = fitted
    with pytest.raises(ValueError, match=f"^column: expected one of .*{name}"):
        result.probabilities(name)


def test_draws_are_completed_frames_that_differ(fitted):
    _, _, data, frame, result = fitted
    drawn = result.draw(3)
    for each in drawn:
        assert each.dtypes.tolist() == frame.dtypes.tolist()
        assert table(each, schema=data.schema)["seen"].all()
        kept = data["seen"]
        read = table(each, schema=data.schema)["x"]
        assert torch.equal(read[kept], data["x"][kept])
    assert not drawn[0].equals(drawn[1])
    assert not drawn[1].equals(drawn[2])
    spread = np.std([each["height"].to_numpy() for each in result.draw(60)], axis=0)
    sd = result.frame.loc[result.frame["column"] == "height", "sd"]
    missing = frame["height"].isna().to_numpy()
    np.testing.assert_allclose(spread[missing].mean(), sd.mean(), rtol=0.15)


def test_a_table_its_frame_and_their_columns_in_any_order_give_the_same(fitted):
    model, guide, data, frame, result = fitted
    of_table = impute(model, guide, data, num_samples=100)
    assert_frame_equal(of_table.frame, result.frame)
    assert_frame_equal(of_table.completed, result.completed)
    turned = impute(model, guide, frame.iloc[:, ::-1], num_samples=100)
    assert_frame_equal(turned.completed, result.completed.iloc[:, ::-1])
    assert_frame_equal(turned.frame, result.frame)


def test_categories_that_a_later_frame_has_not_are_added(fitted):
    model, guide, _, frame, _ = fitted
    later = frame.assign(city=pd.Categorical([None] * ROWS, ["Lima"]))
    completed = impute(model, guide, later, num_samples=50).completed
    assert completed["city"].dtype.categories[0] == "Lima"
    assert set(completed["city"]) <= {"Rome", "Oslo", "Lima"}
    assert not completed["city"].isna().any()


def test_a_later_frame_of_whole_numbers_holds_real_ones(fitted):
    model, guide, _, frame, _ = fitted
    later = frame.assign(height=np.where(frame["height"].isna(), -999, 2))
    completed = impute(model, guide, later, num_samples=50).completed
    assert completed["height"].dtype == np.float64
    assert completed["height"].between(1, 2.5).all()


# A pair with a posterior in closed form

SHARES = torch.tensor([0.5, 0.3, 0.2])
HEIGHTS, MALE = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.2, 0.7, 0.9])
CITIES = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])


def mixture(x, seen):
    """Three columns, independent given a class: a height, a sex, a city."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(SHARES), infer={"enumerate": "parallel"})
        for name, fn, place in (
            ("height", dist.Normal(HEIGHTS[k], 0.5), 0),
            ("sex", dist.Bernoulli(MALE[k]), 1),
            ("city", dist.Categorical(CITIES[k]), 2),
        ):
            pyro.sample(name, fn.mask(seen[:, place]), obs=x[:, place])


def test_probabilities_are_those_of_the_exact_posterior():
    frame = pd.DataFrame({
        "height": [1.2, 2.1, 3.9, None, 1.5, -0.3], "sex": [None, "M", None, "F", "M", "F"],
        "city": [None, None, "Rome", "Oslo", "Lima", None],
    })  # fmt: skip
    data = table(frame, kinds={"height": "real"})
    result = impute(mixture, None, data, num_samples=6_000)
    x, seen = data["x"], data["seen"]
    log_class = SHARES.log() + seen[:, :1] * dist.Normal(HEIGHTS, 0.5).log_prob(x[:, :1])
    log_class = log_class + seen[:, 1:2] * dist.Bernoulli(MALE).log_prob(x[:, 1:2])
    log_class = log_class + seen[:, 2:] * CITIES.log()[:, x[:, 2].long()].T
    of_class = log_class.softmax(1).numpy()
    for name, chances in (("sex", torch.stack([1 - MALE, MALE], 1)), ("city", CITIES)):
        found = result.probabilities(name)
        assert found.columns.tolist() == list(data.schema.named(name).categories)
        rows = frame.index[frame[name].isna()]
        exact = of_class[rows] @ chances.numpy()
        np.testing.assert_allclose(found.loc[rows], exact, atol=0.03)
        assert found.columns[exact.argmax(1)].tolist() == result.completed.loc[rows, name].tolist()
    height = result.frame[result.frame["column"] == "height"]
    assert height["value"].item() == pytest.approx(of_class[3] @ HEIGHTS.numpy(), abs=0.05)


def test_cells_that_are_missing_beside_the_table_are_refused():
    def beside(x, seen, extra):
        mixture(x, seen)
        with pyro.plate("rows", len(x)):
            fn = dist.Normal(torch.zeros(len(x)), 1.0)
            pyro.sample("extra", fn.mask(extra > 0), obs=extra)

    frame = pd.DataFrame({"height": [1.5, None], "sex": ["M", "F"], "city": ["Rome", "Oslo"]})
    data = table(frame) | {"extra": torch.tensor([0.0, 1.0])}
    with pytest.raises(ValueError, match='in the columns of the table, got some in "extra"'):
        impute(beside, None, data, plate="rows")


@settings(
    deadline=None, derandomize=True, database=None, max_examples=40,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(frames(most_rows=12))
def test_any_frame_is_filled_in_its_own_types(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            data = table(frame)
        except ValueError:
            return
        model, guide = pair_of(data)
        warnings.simplefilter("ignore", UnreliableWarning)
        result = impute(model, guide, data, num_samples=10)
    completed = result.completed
    assert completed.index.equals(frame.index)
    assert completed.columns.equals(frame.columns)
    assert completed.dtypes.tolist() == frame.dtypes.tolist()
    assert table(completed, schema=data.schema)["seen"].all()
    for place, name in enumerate(frame.columns):
        missing = is_missing(plain(frame.iloc[:, place]))
        column = data.schema.named(name)
        kept = np.ones(len(frame), bool) if column.is_left_out else ~missing
        old, new = (frame.iloc[kept, place].tolist(), completed.iloc[kept, place].tolist())
        assert list(map(repr, old)) == list(map(repr, new)), column.kind


def test_a_category_that_the_fit_did_not_have_stays_as_it_is(fitted):
    model, guide, data, frame, result = fitted
    place = frame.columns.get_loc("sex")
    later = frame.copy()
    unknown = np.flatnonzero(~gaps(frame, place))[:3]
    later.iloc[unknown, place] = "Neither"
    with pytest.warns(UserWarning, match="3 of column \"sex\", first 'Neither'"):
        read = table(later, schema=data.schema, unseen="missing")
    found = impute(model, guide, read, num_samples=50)
    for completed in (found.completed, *found.draw(2)):
        assert completed["sex"].tolist().count("Neither") == 3
        assert (completed.iloc[unknown, place] == "Neither").all()
        assert not gaps(completed, place).any()
    assert "3 hold a category that the fit did not have, and stay as they are" in str(found)
    assert len(found.frame) == len(result.frame) + 3
    assert "did not have" not in str(result)
