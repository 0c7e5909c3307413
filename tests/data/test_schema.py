"""A schema reads cells as numbers and gives the same cells back; what does not fit is named."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from ppl_vae import Schema, table

RANDOM = np.random.default_rng(0)
PEOPLE = pd.DataFrame(
    {
        "age": RANDOM.poisson(40, 60),
        "income": RANDOM.lognormal(10, 1, 60),
        "balance": RANDOM.normal(0, 50, 60),
        "city": RANDOM.choice(["Rome", "Oslo", "Bern"], 60),
        "member": RANDOM.random(60) < 0.5,
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RANDOM.integers(0, 900, 60), "D"),
        "size": pd.Categorical(RANDOM.choice(["S", "M", "L"], 60), ["S", "M", "L"], ordered=True),
        "name": [f"person {i}" for i in range(60)],
    },
    index=[f"p{i}" for i in range(60)],
)


def there_and_back(frame, **how):
    schema = table(frame, **how).schema
    x, seen = schema.encoded(frame, schema.modelled)
    return schema.decoded(x, seen, index=frame.index)


def refuses(message, frame, **how):
    with pytest.raises(ValueError, match=message):
        table(frame, **how)


def test_a_table_comes_back_cell_by_cell():
    back = there_and_back(PEOPLE)
    pd.testing.assert_frame_equal(back, PEOPLE.drop(columns="name"), check_exact=False, rtol=1e-12)


def test_numbers_far_from_zero_keep_their_digits_in_single_precision():
    years = pd.DataFrame({"t": 2.4e6 + np.linspace(0, 1, 50)})
    data = table(years)
    back = data.schema.decoded(data["x"].numpy())
    assert np.abs(back["t"] - years["t"]).max() < 1e-6
    assert data["x"].abs().max() <= 1


TIMES = pd.to_datetime(["2024-02-29 10:00:00", "1999-12-31 23:59:59", "2024-03-31 02:30:00"])
DATES = {
    "ns": (pd.Series(TIMES.as_unit("ns")), "seconds"),
    "s": (pd.Series(TIMES.as_unit("s")), "seconds"),
    "zone": (pd.Series(TIMES.tz_localize("UTC").tz_convert("Europe/Rome")), "seconds"),
    "days": (pd.Series(TIMES.normalize()), "days"),
    "milliseconds": (pd.Series(TIMES + pd.to_timedelta("7ms")), "milliseconds"),
    "microseconds": (pd.Series(TIMES + pd.to_timedelta([7, 0, 999_999], "us")), "microseconds"),
    "text of days": (pd.Series(["2024-02-29", "1999-12-31", None], dtype=object), "days"),
    "text": (pd.Series(["2024-02-29 10:00:00", "1999-12-31 23:59:59"], dtype=object), "seconds"),
    "ISO text": (pd.Series(["2024-02-29T10:00:00Z", "1999-12-31T23:59:59Z"]), "seconds"),
    "parts": (pd.Series(["2024-02-29T10:00:00.250", "1999-12-31T23:59:59.000"]), "milliseconds"),
    "objects": (pd.Series([datetime.date(2024, 2, 29), datetime.date(9999, 12, 31)]), "days"),
    "datetimes": (
        pd.Series([datetime.datetime(2024, 2, 29, 1), datetime.datetime(1, 1, 1)], dtype=object),
        "seconds",
    ),
    "aware": (
        pd.Series(
            [
                datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC),
                datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC),
            ],
            dtype=object,
        ),
        "seconds",
    ),
    "far": (pd.Series(np.array(["1500-01-01", "9000-01-01"], "datetime64[s]")), "days"),
    "periods": (pd.Series(pd.period_range("2024-01", periods=3, freq="M")), "days"),
    "quarters": (pd.Series(pd.period_range("2024Q1", periods=3, freq="Q")), "days"),
}


@pytest.mark.parametrize("name", DATES)
def test_dates_come_back_as_they_were(name):
    column, unit = DATES[name]
    frame = pd.DataFrame({"d": column})
    schema = table(frame).schema
    assert (schema.columns[0].kind, schema.columns[0].unit) == ("date", unit)
    pd.testing.assert_frame_equal(there_and_back(frame), frame)
    assert [type(v) for v in there_and_back(frame)["d"]] == [type(v) for v in frame["d"]]
    copy = Schema.of_json(json.loads(json.dumps(schema.to_json())))
    x, seen = copy.encoded(frame, copy.modelled)
    pd.testing.assert_frame_equal(copy.decoded(x, seen), frame)


@pytest.mark.parametrize("name", DATES)
def test_drawn_dates_of_any_number_are_valid(name):
    frame = pd.DataFrame({"d": DATES[name][0]})
    schema = table(frame).schema
    made = schema.decoded(np.array([[-1e15], [-1e6 + 0.4], [0.3], [1e6], [1e15]]))
    x, seen = schema.encoded(made, schema.modelled)
    assert seen.all()
    assert np.isfinite(x).all()
    assert made["d"].dtype == frame["d"].dtype


@pytest.mark.parametrize(
    ("values", "kind", "drawn", "valid"),
    [
        ([0.5, 1.5, 9.5], "positive", [0.0, 3.5], [1e-30, 3.5]),  # single precision calls it 0
        ([1, 5, 9], "positive", [0.2, 3.6], [1, 4]),
        ([0] * 30 + [5, 9, 900], "positive", [0.2, 3.6, 0.0], [0, 4, 0]),
        ([40] * 30 + [5, 9, 900], "positive", [0.2, 40.0], [1, 40]),
        (np.array([1, 5, 9], "int8"), "real", [-500.0, 3.4, 500.0], [-128, 3, 127]),
        (np.array([1, 5, 9], "uint64"), "count", [-1.0, 3.4, 1e30], [0, 3, 2**64 - 2048]),
        ([1.0, 5.0, 9.0], "count", [-1.0, 3.4], [0.0, 3.0]),
    ],
)
def test_drawn_numbers_are_valid_numbers_of_the_column(values, kind, drawn, valid):
    frame = pd.DataFrame({"a": values})
    schema = table(frame, kinds={"a": kind}).schema
    made = schema.decoded(np.array(drawn)[:, None] - schema.columns[0].offset)
    assert made["a"].dtype == frame["a"].dtype
    assert made["a"].tolist() == valid


def test_spans_of_time_have_a_unit_and_come_back():
    hours = pd.DataFrame(
        {"t": pd.to_timedelta([1, 5, 30, 7], "h"), "d": pd.to_timedelta([1, 2, 5, 7], "D")}
    )
    schema = table(hours).schema
    assert [c.unit for c in schema.columns] == ["seconds", "days"]
    pd.testing.assert_frame_equal(there_and_back(hours), hours)
    refuses('"t".*expected a span of time, got 3', hours.assign(t=[3, 4, 5, 6]), schema=schema)


def test_dates_with_and_without_a_time_zone_are_not_taken_for_one_another():
    naive = pd.DataFrame({"d": TIMES})
    aware = pd.DataFrame({"d": TIMES.tz_localize("Asia/Tokyo")})
    tokyo = table(aware).schema
    rome = aware.assign(d=aware["d"].dt.tz_convert("Europe/Rome"))
    assert (table(rome, schema=tokyo)["x"] == table(aware)["x"]).all()
    refuses("expected a date with a time zone", naive, schema=tokyo)
    refuses("expected a date without a time zone", aware, schema=table(naive).schema)
    text = pd.DataFrame({"d": ["2024-02-29T10:00:00+09:00", "1999-12-31T10:00:00+09:00"]})
    assert table(text, schema=tokyo)["x"][0, 0] == table(aware)["x"][0, 0]


WRONG = {
    "age": (
        "a lot",
        r'column "age" \(count\): expected a number, got .a lot. in row 3 \(label .p3.\)',
    ),
    "income": (-1.0, r'column "income" \(positive\): expected a number above 0'),
    "balance": (
        np.inf,
        r'column "balance" \(real\): expected numbers up to 1e\+15.*out: ignore=\[.balance.\]',
    ),
    "city": (
        "Paris",
        r'column "city" \(categorical\): expected one of its 3 categories, .* got .Paris. in row 3',
    ),
    "member": ("maybe", r'column "member" \(binary\): expected one of its 2 categories'),
    "since": ("soon", r'column "since" \(date\): expected a date, got .soon. in row 3'),
    "size": ("XL", r'column "size" \(ordinal\)'),
}


@pytest.mark.parametrize("column", WRONG)
def test_a_cell_that_does_not_fit_is_named_by_column_and_row(column):
    value, message = WRONG[column]
    schema = table(PEOPLE).schema
    other = PEOPLE.astype({column: object})
    other.iloc[3, list(PEOPLE.columns).index(column)] = value
    refuses(message, other, schema=schema)


def test_columns_that_are_lost_or_new_are_named():
    schema = table(PEOPLE).schema
    refuses('none called "age"', PEOPLE.drop(columns="age"), schema=schema)
    refuses('column "shoe": expected the columns', PEOPLE.assign(shoe=1), schema=schema)
    refuses('"age" twice', PEOPLE[["age", "city", "age"]])
    renamed = PEOPLE.rename(columns={"age": "agee"})
    refuses('none called "age"; did you mean agee', renamed, schema=schema)
    years = pd.DataFrame({"year 1": [1.5, 2.5], "year 2": [3.5, 4.5]})
    refuses(
        'none called "year 1"$', years[["year 2"]], schema=table(years).schema
    )  # it has a place
    assert len(table(PEOPLE.drop(columns="name"), schema=schema)["x"]) == 60  # it was left out


def test_unseen_categories_may_be_missing():
    frame = PEOPLE[["city", "age"]]
    later = frame.assign(city="Paris")
    told = f"taken for missing: {len(later)} of column \"city\", first 'Paris'$"
    known = table(frame).schema
    for how in ({"schema": table(frame, unseen="missing").schema},
                {"schema": known, "unseen": "missing"}):  # fmt: skip
        with pytest.warns(UserWarning, match=told):
            data = table(later, **how)
        place = data.columns["x"].index("city")
        assert not data["seen"][:, place].any()
        assert data["seen"][:, 1 - place].all()
        assert data.schema.codes == known.codes
    refuses('Paris.* missing: table\\(..., unseen="missing"\\)$', later, schema=known)


def test_an_unknown_category_of_a_covariate_is_an_error_even_so():
    frame = PEOPLE[["city", "age"]].dropna()
    schema = table(frame, covariates="city").schema
    with pytest.raises(ValueError, match=r"categories, .*, got 'Paris' in row 0.*; correct it$"):
        table(frame.assign(city="Paris"), schema=schema, unseen="missing")


@pytest.mark.parametrize(
    "later",
    [
        lambda f: f[["b", "a"]],
        lambda f: f.astype({"a": pd.CategoricalDtype(["z", "y", "x"])}),
        lambda f: f.astype({"a": "category", "b": float}),
        lambda f: f.astype({"a": "string", "b": str}),
        lambda f: f.astype({"b": object}),
        lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    ],
)
def test_the_codes_are_the_same_in_every_type_and_order(later):
    frame = pd.DataFrame({"a": list("xyzx"), "b": [3, 1, 0, 1]})
    data = table(frame, kinds={"b": "ordinal"})
    assert (table(later(frame), schema=data.schema)["x"] == data["x"]).all()


def test_whole_categories_are_found_with_gaps_and_without():
    frame = pd.DataFrame({"a": [1, 2, 7, 2]})
    schema = table(frame, kinds={"a": "categorical"}).schema
    for values in ([1.0, None, 7.0], ["1", "", "7"], pd.array([1, None, 7], "Int64"), [1, None, 7]):
        data = table(pd.DataFrame({"a": values}), schema=schema)
        assert data["seen"][:, 0].tolist() == [True, False, True]
        assert data["x"][[0, 2], 0].tolist() == [0, 2]
    text = table(pd.DataFrame({"a": ["0", "?", "1", "x"]}), missing="?").schema
    assert table(pd.DataFrame({"a": [1, 0]}), schema=text)["x"][:, 0].tolist() == [1, 0]


def test_the_json_of_a_schema_gives_the_same_numbers(tmp_path):
    schema = table(PEOPLE, missing=["?", -1], covariates="member", unseen="missing").schema
    schema.save(tmp_path / "schema.json")
    copy = Schema.load(tmp_path / "schema.json")
    assert copy == schema
    for name in ("x", "seen", "y"):
        assert (table(PEOPLE, schema=copy)[name] == table(PEOPLE, schema=schema)[name]).all()
    x, seen = copy.encoded(PEOPLE, copy.modelled)
    back = copy.decoded(x, seen, copy.covariate_values(PEOPLE), PEOPLE.index)
    pd.testing.assert_frame_equal(back, PEOPLE.drop(columns="name"), rtol=1e-6)


def test_the_print_names_kinds_units_gaps_and_notes():
    text = str(
        table(PEOPLE.assign(city=PEOPLE["city"].replace("Bern", "?")), covariates="member").schema
    )
    assert "schema of 8 columns: 6 described by the model, 1 covariate, 1 left out" in text
    for word in ("binary, covariate", "identifier, left out", "Oslo, Rome", "days", "2020-01"):
        assert word in text
    assert 'missing=["?"]' in text
    assert "25.0%" in str(table(pd.DataFrame({"a": [1.5, 2, 3, None]})).schema)
