"""A schema that a user wrote or edited as JSON is read, completed from the data, or refused."""

import json

import numpy as np
import pandas as pd
import pytest

from ppl_vae import Schema, table

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RANDOM.poisson(40, 50), "price": RANDOM.lognormal(3, 1, 50),
        "size": RANDOM.choice(["S", "M", "L"], 50), "note": [f"n{i}" for i in range(50)],
    }
)  # fmt: skip


def edited(**changes):
    """The JSON of the schema with entries of columns changed, ``{column: {entry: value}}``."""
    content = json.loads(json.dumps(table(FRAME).schema.to_json()))
    for entry in content["columns"]:
        entry.update(changes.get(entry["name"], {}))
    return content


def read(**changes):
    return table(FRAME, schema=Schema.of_json(edited(**changes))).schema


@pytest.mark.parametrize("kind", ["real", "positive", "count", "categorical", "ordinal"])
@pytest.mark.parametrize("column", ["age", "size", "price"])
def test_an_edited_kind_is_read_anew(column, kind):
    if (column, kind) in {
        ("size", "real"),
        ("size", "positive"),
        ("size", "count"),
        ("price", "count"),
    }:
        with pytest.raises(ValueError, match=f'column "{column}"'):
            read(**{column: {"kind": kind}})
        return
    wanted = table(FRAME, kinds={column: kind}).schema.named(column)
    found = read(**{column: {"kind": kind}}).named(column)
    assert (found.kind, found.loc, found.scale) == (kind, wanted.loc, wanted.scale)
    assert (found.categories, found.atoms) == (wanted.categories, wanted.atoms)


def test_an_edited_order_of_categories_is_kept():
    schema = read(size={"kind": "ordinal", "categories": ["S", "M", "L"]})
    data = table(FRAME, schema=schema)
    place = data.columns["x"].index("size")
    assert (data["x"][:, place].numpy() == FRAME["size"].map({"S": 0, "M": 1, "L": 2})).all()


def test_columns_are_left_out_and_taken_in():
    assert [c.name for c in read(age={"kind": "ignored"}).modelled] == ["price", "size"]
    assert read(note={"kind": "categorical"}).named("note").categories == tuple(
        sorted(FRAME["note"])
    )


def test_a_schema_written_by_hand_needs_names_and_kinds_only():
    columns = [{"name": "age", "kind": "count"}, {"name": "size", "kind": "categorical"},
               {"name": "price", "kind": "positive"}, {"name": "note", "kind": "text"}]  # fmt: skip
    found = table(FRAME, schema=Schema.of_json({"columns": columns}))
    wanted = table(FRAME)
    assert found.schema.codes == wanted.schema.codes
    assert [c.layout() for c in found.schema.modelled] == [
        c.layout() for c in wanted.schema.modelled
    ]


BAD = {
    "no mapping": (lambda c: [1], "schema: expected"),
    "no columns": (lambda c: {}, "schema: expected"),
    "a column is text": (lambda c: {"columns": ["age"]}, "columns: expected"),
    "no name": (lambda c: {"columns": [{"kind": "real"}]}, "columns: expected"),
    "kind": (lambda c: edited(age={"kind": "number"}), '"age": kind: expected one of real'),
    "no kind": (lambda c: {"columns": [{"name": "age"}]}, '"age": kind'),
    "scale": (lambda c: edited(age={"scale": 0}), '"age": scale: expected a number above 0, got 0'),
    "scale text": (lambda c: edited(age={"scale": "1"}), '"age": scale: expected a number'),
    "loc": (lambda c: edited(age={"loc": float("nan")}), '"age": loc'),
    "lower": (lambda c: edited(age={"lower": "low"}), '"age": lower'),
    "unit": (lambda c: edited(age={"unit": "years"}), '"age": unit: expected null or days'),
    "atoms": (lambda c: edited(age={"atoms": [None]}), '"age": atoms'),
    "categories": (lambda c: edited(size={"categories": "SML"}), '"size": categories'),
    "twice": (lambda c: edited(size={"categories": ["S", "S"]}), "expected each category once"),
    "nested": (lambda c: edited(size={"categories": [["S"]]}), '"size": categories'),
    "binary": (lambda c: edited(size={"kind": "binary"}), '"size": categories: expected two'),
    "form": (lambda c: edited(size={"form": 3}), '"size": form'),
    "unseen": (lambda c: {**c, "unseen": "ignore"}, "unseen: expected error or missing"),
    "missing": (lambda c: {**c, "missing": "?"}, "missing: expected a list"),
    "words": (lambda c: {**c, "missing": [[1]]}, "missing: expected texts"),
    "covariates": (lambda c: {**c, "covariates": ["shoe"]}, 'covariates: .*none called "shoe"'),
    "left out": (lambda c: {**c, "covariates": ["note"]}, 'covariates: column "note"'),
    "names": (lambda c: {"columns": c["columns"] * 2}, 'each name once, got "age" twice'),
    "nothing": (lambda c: {"columns": [c["columns"][3]]}, "expected a column that a model can"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_schema_is_refused_by_its_name(name, tmp_path):
    make, message = BAD[name]
    content = make(edited())
    with pytest.raises(ValueError, match=message):
        Schema.of_json(content)
    (tmp_path / "schema.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"schema\.json: cannot be read as a schema: .*"):
        Schema.load(tmp_path / "schema.json")


def test_files_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json", "no.json"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a schema"):
            Schema.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a", "", "größe", 3, ("a", 1), ("b", ("c", 2))])
def test_names_of_columns_are_kept_in_json(name):
    frame = pd.DataFrame({"other": [1.5, 2.5, 0.5]})
    frame.columns = pd.Index([name], tupleize_cols=False)
    schema = Schema.of_json(json.loads(json.dumps(table(frame).schema.to_json())))
    assert schema.columns[0].name == name
    assert schema.decoded(np.zeros((2, 1))).columns.equals(frame.columns)
