"""Frames given to a fitted pair are read by the schema of the fit, in whatever form and order."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import polars, pyarrow

import ppl_vae
from ppl_vae import build, encode, fit, generate, load, log_likelihood, table
from ppl_vae.data.mixed_tables import joined_tables
from ppl_vae.data.rows import Rows
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.table import TableModel

RANDOM = np.random.default_rng(0)
ROWS = 80
FRAME = pd.DataFrame(
    {
        "age": RANDOM.poisson(40, ROWS), "city": RANDOM.choice(["Rome", "Oslo", "Bern"], ROWS),
        "balance": RANDOM.normal(5e6, 50, ROWS), "member": RANDOM.random(ROWS) < 0.5,
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RANDOM.integers(0, 900, ROWS), "D"),
        "size": pd.Categorical(RANDOM.choice(["S", "M"], ROWS), ["S", "M", "L"], ordered=True),
    },
    index=[f"p{i}" for i in range(ROWS)],
).astype({"city": object})  # fmt: skip
FRAME.loc["p3", ["city", "balance"]] = None
TAIL = FRAME.iloc[:7]
QUICK = {"epochs": 1, "progress": False, "compile": False}


def built(data, **how):
    torch.manual_seed(0)
    return tuple(
        build(cls, data, latents=2, hidden=(8,), **how) for cls in (TableModel, TableGuide)
    )


def fitted(data):
    pair = built(data)
    fit(*pair, data, **QUICK)
    return pair


@pytest.fixture(scope="module")
def pair():
    return fitted(table(FRAME))


def scores(pair, data):
    found = log_likelihood(*pair, data, num_samples=20, progress=False)["log_prob"]
    return found.to_numpy()


def test_a_frame_is_read_by_the_schema_of_the_fit(pair):
    wanted = scores(pair, table(TAIL, schema=table(FRAME).schema))
    assert np.isfinite(wanted).all()
    forms = {
        "raw": TAIL,
        "other order": TAIL[TAIL.columns[::-1]],
        "other categories": TAIL.astype({"city": pd.CategoricalDtype(["Rome", "Bern", "Oslo"])}),
        "own table": table(TAIL),
        "other kinds": table(TAIL, kinds={"age": "real", "city": "ordinal"}),
        "copies": copy.deepcopy(table(TAIL)),
        "pickled": pickle.loads(pickle.dumps(table(TAIL))),
        "polars": polars().DataFrame(pyarrow().Table.from_pandas(TAIL, preserve_index=False)),
    }
    for name, data in forms.items():
        assert np.allclose(scores(pair, data), wanted, atol=1e-5), name


def test_a_table_without_its_frame_is_read_by_the_schema_of_the_fit(pair):
    own = table(TAIL)
    made = ppl_vae.Table(own, own.schema, index=TAIL.index)
    assert made.schema.codes != table(FRAME).schema.codes
    assert np.allclose(scores(pair, made), scores(pair, TAIL), rtol=1e-4)
    assert list(log_likelihood(*pair, made, num_samples=5, progress=False).index) == list(
        TAIL.index
    )


def test_rows_that_were_read_before_are_read_by_the_schema_of_the_fit(pair):
    wanted = scores(pair, TAIL)
    rows = Rows(table(FRAME.iloc[:20]))
    assert np.allclose(scores(pair, rows.subset(torch.arange(7))), wanted, atol=1e-5)


@pytest.mark.parametrize("form", ["tensor", "array", "mapping", "frame in mapping", "names"])
def test_numbers_without_a_schema_are_refused(pair, form):
    data = table(TAIL)
    forms = {
        "tensor": data["x"], "array": data["x"].numpy(), "mapping": dict(data),
        "frame in mapping": {"x": TAIL.select_dtypes("number")},
        "names": {**data},
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"data: expected a frame, or what table\(frame\) returns"):
        log_likelihood(*pair, forms[form], progress=False)


def test_a_schema_of_another_pair_never_mixes(pair):
    other = TAIL.assign(city=["Rome", "Paris"] * 3 + ["Oslo"])
    with pytest.raises(ValueError, match=r'"city".*Paris'):
        log_likelihood(*pair, other, progress=False)
    with pytest.raises(ValueError, match=r'"city".*Paris'):
        log_likelihood(*pair, table(other), progress=False)
    guide = build(TableGuide, table(other), latents=2, hidden=(8,))
    with pytest.raises(ValueError, match=r'one table, got two whose column "\w+" differs'):
        log_likelihood(pair[0], guide, TAIL, progress=False)
    with pytest.raises(ValueError, match="one table"):
        fit(pair[0], guide, table(FRAME), **QUICK)


def test_a_pair_that_was_only_built_reads_frames_by_its_schema():
    built_pair = built(table(FRAME))
    own = log_likelihood(*built_pair, table(FRAME).part(slice(7)), num_samples=20, progress=False)
    assert np.allclose(scores(built_pair, TAIL), own["log_prob"], atol=1e-5)


def test_a_fit_to_a_frame_of_a_built_pair_keeps_the_schema():
    pair = built(table(FRAME))
    fit(*pair, TAIL, **QUICK)
    assert np.isfinite(scores(pair, FRAME)).all()


def test_a_run_that_is_opened_again_reads_frames_by_its_schema(tmp_path):
    data = table(FRAME, covariates="member")
    pair = built(data)
    fit(*pair, data, run=tmp_path / "run", **QUICK)
    opened = load(tmp_path / "run")
    assert np.allclose(scores(opened, TAIL), scores(pair, TAIL), atol=1e-6)
    made = generate(*opened, TAIL, num_samples=4, progress=False)
    assert list(made.columns) == list(FRAME.columns)
    same = [column for column in FRAME if made[column].dtype == FRAME[column].dtype]
    assert same == list(FRAME.columns)


def test_generated_rows_are_rows_of_the_table(pair):
    made = generate(*pair, TAIL, num_samples=300, progress=False)
    assert made.dtypes.equals(FRAME.dtypes)
    assert set(made["city"]) <= {"Rome", "Oslo", "Bern"}
    assert (made["age"] >= 0).all()
    assert not made.isna().any().any()
    assert abs(made["balance"].mean() - 5e6) < 1000
    assert made["since"].dt.normalize().equals(made["since"])


def test_covariates_are_given_by_the_names_of_their_columns():
    frame = FRAME.fillna({"city": "Rome"})
    data = table(frame, covariates=["city", "age"])
    pair = fitted(data)
    made = generate(*pair, TAIL.fillna({"city": "Oslo"}), num_samples=5, progress=False,
                    given={"city": "Oslo", "age": [30, 31, 32, 33, 34]})  # fmt: skip
    assert made["city"].tolist() == ["Oslo"] * 5
    assert made["age"].tolist() == [30, 31, 32, 33, 34]
    for given, message in {
        ("city", "Paris"): 'given: column "city".*Paris',
        ("city", None): "city.*missing",
        ("balance", 3.0): "expected covariates among .*balance.*impute",
        ("shoe", 3.0): "expected covariates among",
    }.items():
        with pytest.raises(ValueError, match=message):
            generate(*pair, frame, num_samples=2, progress=False, given=dict([given]))
    with pytest.raises(ValueError, match="one value or 2, got 3"):
        generate(*pair, frame, num_samples=2, progress=False, given={"age": [1, 2, 3]})


def test_a_covariate_with_a_gap_is_refused_by_its_row():
    with pytest.raises(
        ValueError, match=r'"city": expected a value in every row.*row 3 \(label .p3'
    ):
        table(FRAME, covariates="city")


def test_covariates_are_numbers_of_unit_size_and_come_back():
    frame = pd.DataFrame({
        "gain": np.r_[np.zeros(60), RANDOM.lognormal(9, 1, 40)], "x": RANDOM.normal(size=100),
        "year": RANDOM.integers(1990, 2024, 100), "day": pd.date_range("2024", periods=100),
    })  # fmt: skip
    data = table(frame, covariates=["gain", "year", "day"], kinds={"gain": "positive"})
    assert data["y"].abs().max() < 6  # the logarithm of 0 is nowhere
    back = data.schema.decoded(data["x"].numpy(), None, data["y"].numpy())
    assert np.allclose(back["gain"], frame["gain"], rtol=1e-4)
    pd.testing.assert_frame_equal(back[["year", "day"]], frame[["year", "day"]])


def test_parts_of_tables_join_to_the_table():
    for data in (table(FRAME), ppl_vae.Table(table(FRAME), table(FRAME).schema, index=FRAME.index)):
        parts = [data.part(slice(0, 30)), data.part(slice(30, ROWS))]
        joined = joined_tables(parts)
        assert all((joined[name] == data[name]).all() for name in data)
        assert list(joined.index) == list(FRAME.index)
        assert joined.schema is data.schema


def test_fields_beside_a_table_keep_its_schema(pair):
    data = table(TAIL) | {"index": torch.arange(7)}
    assert data.schema.codes == table(TAIL).schema.codes
    assert np.allclose(scores(pair, data), scores(pair, TAIL), atol=1e-5)
    with pytest.raises(ValueError, match=r'fields: expected others .* got "x"'):
        table(TAIL) | {"x": torch.zeros(7, 6)}


ARGUMENTS = {
    "data": ([[1, 2]], "data: expected a frame, got"),
    "kinds": ({"age": "number"}, 'kinds: column "age": expected one of'),
    "ignore": (["shoe"], 'ignore: expected columns of the data, got none called "shoe"'),
    "covariates": ({"a": 1}, "covariates: expected a list"),
    "missing": ([[1]], "missing: expected texts, numbers or dates"),
    "unseen": ("skip", "unseen: expected error or missing, got 'skip'"),
    "schema": ({}, "schema: expected a Schema"),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_wrong_arguments_are_named(argument):
    value, message = ARGUMENTS[argument]
    with pytest.raises(ValueError, match=message):
        table(**{"data": FRAME, argument: value})


def test_a_schema_stands_alone():
    schema = table(FRAME).schema
    with pytest.raises(ValueError, match="missing: expected none beside a schema"):
        table(FRAME, missing="?", schema=schema)
    with pytest.raises(ValueError, match="unseen: expected error or missing, got 'gap'"):
        table(FRAME, unseen="gap", schema=schema)


def test_names_of_any_type_are_found_by_their_text():
    frame = pd.DataFrame({1: [0.5, 1.5, 2.5], 2: list("abc"), 3: [1, 2, 4]})
    schema = table(frame, ignore="1", kinds={"3": "real"}, covariates="2").schema
    assert [column.kind for column in schema.columns] == ["ignored", "categorical", "real"]
    levels = pd.DataFrame(
        [[1.5, 2], [2.5, 3], [0.5, 7]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    )
    schema = table(levels, ignore=[("a", 1)]).schema
    assert [column.kind for column in schema.columns] == ["ignored", "count"]


def test_encoded_codes_have_the_labels_of_the_rows(pair):
    assert list(encode(*pair, TAIL, progress=False).index) == list(TAIL.index)
