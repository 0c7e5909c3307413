"""Generated rows of a table are valid rows of the table, with the covariates that were given."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import build, fit, generate, table
from ppl_vae.data.mixed_tables import rows_of_zeros
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.table import TableModel

ROWS = 80


@pytest.fixture(scope="module")
def fitted():
    """A model whose column ``height`` follows a covariate, its table and frame."""
    random = np.random.default_rng(0)
    sex = random.choice(["Male", "Female"], ROWS)
    frame = pd.DataFrame({
        "id": [f"row {i}" for i in range(ROWS)],
        "sex": sex,
        "height": np.where(sex == "Male", 5.0, -5.0) + 0.1 * random.normal(size=ROWS),
        "age": random.poisson(40, ROWS),
        "city": random.choice(["Rome", "Oslo", None], ROWS),
        "size": pd.Categorical(random.choice(["s", "m", "l"], ROWS), ["s", "m", "l"], ordered=True),
        "visits": pd.array(random.choice([0, 1, 2, None], ROWS), dtype="Int8"),
        "since": pd.date_range("2020-01-01", periods=ROWS).where(random.random(ROWS) < 0.8),
    })  # fmt: skip
    data = table(frame, covariates=["sex", "age"])
    torch.manual_seed(0)
    sizes = {"latents": 1, "hidden": (8,)}
    model, guide = build(TableModel, data, **sizes), build(TableGuide, data, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit(
            model, guide, data, epochs=100, batch_size=40, progress=False, compile=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.02),
        )  # fmt: skip
    return model, guide, data, frame


def made(fitted, given=None, count=20, **options):
    model, _, _, frame = fitted
    return generate(model, None, frame, num_samples=count, given=given, **options)


# Counts have no mean in closed form: theirs alone are draws, which the warning says.
@pytest.mark.filterwarnings('ignore:site "count". expected a distribution that knows its mean')
@pytest.mark.parametrize("expected", [False, True])
def test_rows_are_valid_by_the_schema_and_have_no_gaps(fitted, expected):
    *_, data, frame = fitted
    new = made(fitted, count=300, expected=expected)
    own = frame.drop(columns="id")
    assert new.columns.equals(own.columns)
    assert new.dtypes.tolist() == own.dtypes.tolist()
    assert new.index.equals(pd.RangeIndex(300))
    assert not new.isna().any().any()
    assert table(new, schema=data.schema)["seen"].all()
    assert set(new["city"]) <= {"Rome", "Oslo"}
    assert (new["visits"] >= 0).all()
    assert expected or new["city"].nunique() == 2


def test_a_table_and_its_frame_give_the_same_rows(fitted):
    model, _, data, frame = fitted
    one, other = (generate(model, None, each, num_samples=9) for each in (data, frame))
    pd.testing.assert_frame_equal(one, other)
    turned = generate(model, None, frame.iloc[:, ::-1], num_samples=9)
    pd.testing.assert_frame_equal(turned, one)


@pytest.mark.parametrize(("sex", "sign"), [("Male", 1), ("Female", -1)])
def test_a_covariate_that_is_given_shapes_the_rows(fitted, sex, sign):
    new = made(fitted, {"sex": sex}, count=50)
    assert (new["sex"] == sex).all()
    assert (sign * new["height"]).median() > 3
    assert new["age"].nunique() > 5  # the other covariate still comes from the data


MANY = ["Male", "Female"] * 10


@pytest.mark.parametrize(
    "values",
    [MANY, tuple(MANY), np.array(MANY), pd.Series(MANY, index=range(20, 40)), pd.Index(MANY),
     pd.Categorical(MANY)],
    ids=["list", "tuple", "array", "series", "index", "categories"],
)  # fmt: skip
def test_a_covariate_is_given_for_each_row(fitted, values):
    new = made(fitted, {"sex": values})
    assert new["sex"].tolist() == MANY
    assert ((new["height"] > 0) == (new["sex"] == "Male")).mean() > 0.9


@pytest.mark.parametrize("age", [33, 33.0, np.int64(33), np.array(33), torch.tensor(33), "33"])
def test_one_number_is_given_in_any_form(fitted, age):
    new = made(fitted, {"age": age, "sex": "Male"})
    assert (new["age"] == 33).all()
    assert (new["sex"] == "Male").all()


def test_numbers_of_a_tensor_are_given_row_by_row(fitted):
    assert made(fitted, {"age": torch.arange(20)})["age"].tolist() == list(range(20))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sex": "male"}, 'column "sex" .*one of its 2 categories'),
        ({"sex": None}, r'given\["sex"\]: expected values, got a missing one'),
        ({"sex": ["Male"] * 19}, r'given\["sex"\]: expected one value or 20, got 19'),
        ({"age": -3}, 'column "age" .*whole number from 0'),
        ({"age": "old"}, 'column "age" '),
        ({"city": "Rome"}, r"""covariates among \['sex', 'age'\], got 'city'.*draws of impute"""),
        ({"nobody": 1}, r"covariates among \['sex', 'age'\], got 'nobody'"),
        ({"id": "row 1"}, r"covariates among \['sex', 'age'\], got 'id'"),
        ([("sex", "Male")], "given: expected {field: values}"),
    ],
)
def test_a_wrong_covariate_is_refused_by_its_name(fitted, given, message):
    with pytest.raises(ValueError, match=f"^given.*{message}|^{message}"):
        made(fitted, given)


def test_a_table_without_covariates_takes_none():
    data = table(pd.DataFrame({"a": [1.5, 2.5, 0.5, 1.0]}))
    model = build(TableModel, data, latents=1, hidden=(2,))
    with pytest.raises(ValueError, match=r"^given: expected covariates among \[\], got 'a'"):
        generate(model, None, data, given={"a": 1.0})


def test_rows_without_data_have_covariates_that_a_row_can_have(fitted):
    """The model reads the category that the row shows, and not none."""
    *_, data, frame = fitted
    example = rows_of_zeros(data.schema, 2)
    mean = round(frame["age"].mean())
    same = table(frame.head(2).assign(sex="Female", age=mean), schema=data.schema)
    torch.testing.assert_close(example["y"], same["y"])
    new = made((*fitted[:3], example), count=50)
    assert (new["sex"] == "Female").all()
    assert new["height"].median() < -3
