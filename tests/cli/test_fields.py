"""Columns and arrays that are fields of their own: in Python, on the command line, in a run."""

import numpy as np
import pandas as pd
import pytest
from parts.extras import sparse

from ppl_vae.data.files import read_data

SIZES = np.arange(1, 41) / 10.0


@pytest.fixture
def table(tmp_path):
    """40 rows of counts a, b, c, whose means are proportional to the column library, and a name."""
    counts = np.random.default_rng(0).poisson(3 * SIZES[:, None], (40, 3))
    frame = pd.DataFrame(counts, columns=["a", "b", "c"]).assign(library=SIZES)
    frame.insert(0, "cell", [f"c{n}" for n in range(40)])
    path = tmp_path / "cells.csv"
    frame.to_csv(path, index=False)
    return path


CHOSEN = ("--field", "size=library", "--id", "cell")


def test_a_column_becomes_a_field_of_its_own(table):
    data = read_data(table, drop="cell", fields={"size": "library", "y": "c"})
    assert list(data) == ["x", "size", "y"]
    assert list(data["x"].columns) == ["a", "b"]
    assert data["size"].tolist() == SIZES.tolist()
    assert data["size"].shape == (40,)
    like = read_data(table, columns=["b", "a"], fields={"size": "library"})
    back = read_data(table, like)
    assert list(back["x"].columns) == ["b", "a"]
    assert back["size"].name == "library"
    other = read_data(table, like, fields={"size": "c"})
    assert other["size"].name == "c"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"fields": {"size": "librery"}}, 'none called "librery"; did you mean library?'),
        ({"fields": {"size": "library"}, "drop": "library"}, "fields: expected other names"),
        ({"fields": {"size": "a"}, "columns": ["a", "b"]}, "fields: expected other names than"),
        ({"fields": {"x": "library"}, "drop": "cell"}, 'fields: expected another name than "x"'),
        ({"fields": {"size": "cell"}}, 'column "cell": expected numbers, got "c0" in line 2'),
        ({"fields": ["library"]}, "fields: expected {"),
        ({"fields": {"size": 3}}, "fields: expected names of columns, got 3"),
    ],
)
def test_a_wrong_field_is_refused_with_the_mend(table, choice, message):
    with pytest.raises(ValueError, match=r".") as raised:
        read_data(table, **choice)
    assert message in str(raised.value)


def test_a_column_that_a_run_needs_is_asked_for_by_name(table):
    like = read_data(table, drop="cell", fields={"size": "library"})
    renamed = pd.read_csv(table).rename(columns={"library": "librarie"})
    renamed.to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"the run's columns.*library.*did you mean librarie"):
        read_data(table, like)
    assert read_data(table, like, fields={"size": "librarie"})["size"].name == "librarie"


def test_an_array_of_a_file_becomes_a_field(tmp_path):
    counts, path = np.ones((40, 3), int), tmp_path / "a.npz"
    np.savez(path, counts=counts, library=SIZES)
    data = read_data(path, fields={"size": "library"})
    assert list(data) == ["x", "size"]
    assert data["x"].shape == (40, 3)
    like = {"x": counts[:2], "size": pd.Series(SIZES[:2], name="library")}
    assert list(read_data(path, like)) == ["x", "size"]
    np.savez(path, counts=counts, library=SIZES, label=SIZES)
    both = {"x": "counts", "size": "library"}
    assert list(read_data(path, fields=both)) == ["label", "x", "size"]
    assert list(read_data(path, like, fields={"x": "counts"})) == ["x", "size"]
    with pytest.raises(ValueError, match=r"none called \"x\"; fields= says which one it is"):
        read_data(path, like)
    with pytest.raises(ValueError, match=r"fields: expected arrays of.*did you mean library"):
        read_data(path, fields={"size": "librari"})
    with pytest.raises(ValueError, match=r'another name than that of an array.*got "label"'):
        read_data(path, fields={"label": "library"})
    np.save(tmp_path / "a.npy", counts)
    with pytest.raises(ValueError, match=r'fields: expected arrays of.*none called "library"'):
        read_data(tmp_path / "a.npy", fields={"size": "library"})


def test_every_command_that_reads_data_takes_fields_and_a_run_remembers_them(ppl, table):
    pair, few = ("negative_binomial", "normal"), ("--num-samples", "20")
    assert ppl("lint", *pair, table, *CHOSEN, "--json").json["ok"]
    ppl("fit", *pair, table, *CHOSEN, "--epochs", "1", "--validation", table, "--run", "run", "-q")
    other = table.with_name("other.csv")
    reordered = ["library", "c", "note", "cell", "a", "b"]
    pd.read_csv(table).assign(note="none")[reordered].to_csv(other, index=False)
    told = [ppl("evaluate", "run", file, *few, "--json").json["elbo"] for file in (table, other)]
    assert told[0] == told[1]
    options = ppl("evaluate", "run", table, *few, *CHOSEN, "--json").json["elbo"]
    assert options == told[0]
    ppl("check", "run", other, *few, *CHOSEN, "--quiet")
    ppl("report", "run", other, *few, *CHOSEN, "--replicates", "20", "--quiet")
    ppl("encode", "run", other, *CHOSEN, "--out", "codes.csv", "--quiet")
    assert read_data("codes.csv", index="cell").index[-1] == "c39"
    ppl("generate", "run", "--like", other, "--out", "new.csv", "--quiet")
    assert list(pd.read_csv("new.csv").columns) == ["a", "b", "c", "library"]
    ppl("evaluate", "run", "new.csv", *few, "--quiet")
    assert "--like DATA" in ppl("generate", "run", "--num-samples", "2").err
    ppl("generate", "run", "--like", other, "--field", "size=c", "--num-samples", "2", "--quiet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("size=librari",), "--field: expected columns of cells.csv, got none called"),
        (("size=librari",), "did you mean library?"),
        (("size",), "--field: expected FIELD=NAME, such as size=library, got size"),
        (("size=a", "size=b"), "--field: expected one column for size, got a and b"),
    ],
)
def test_a_wrong_option_is_an_error_of_the_command_line(ppl, table, words, message):
    options = [part for word in words for part in ("--field", word)]
    drop = ("--drop", "cell")
    assert message in ppl("lint", "poisson", "normal", "cells.csv", *drop, *options, code=2).err


def test_a_pair_fits_counts_in_a_sparse_file(ppl):
    counts = np.random.default_rng(0).poisson(1.0, (40, 4)).astype(float)
    sparse().save_npz("counts.npz", sparse().csr_matrix(counts))
    np.savez("dense.npz", counts=counts)
    words = ("--epochs", "1", "--run", "run", "--validation", "counts.npz", "--quiet")
    ppl("fit", "negative_binomial", "normal", "counts.npz", *words)
    few = ("--num-samples", "20", "--json")
    told = [ppl("evaluate", "run", file, *few).json["elbo"] for file in ("counts.npz", "dense.npz")]
    assert told[0] == told[1]
    assert ppl("generate", "run", "--json").json["form"] == "shape (4,)"


def test_the_size_of_sparse_counts_is_in_a_file_of_its_own(ppl):
    counts = np.random.default_rng(0).poisson(3 * SIZES[:, None], (40, 3))
    sparse().save_npz("counts.npz", sparse().csr_matrix(counts))
    np.save("sizes.npy", SIZES)
    pd.DataFrame({"library": SIZES}).to_csv("sizes.csv", index=False)
    pd.DataFrame(counts, columns=["a", "b", "c"]).to_csv("counts.csv", index=False)
    np.savez("both.npz", counts=counts, size=SIZES)
    pair, few = ("poisson", "normal"), ("--num-samples", "20", "--json")
    words = ("--validation", "0.5", "--epochs", "1", "--run", "run", "--quiet")
    ppl("fit", *pair, "counts.npz", "--field", "size=sizes.npy", *words)
    read = [("counts.npz", "--field", f"size=sizes.{end}") for end in ("npy", "csv")]
    read += [("both.npz",), ("counts.csv", "--field", "size=sizes.npy")]
    told = [ppl("evaluate", "run", *files, *few).json["elbo"] for files in read]
    assert told == [told[0]] * 4
    error = ppl("evaluate", "run", "counts.npz", *few, code=1).err
    assert "got 1; --field names the file of a field that has one of its own" in error
    ppl("fit", *pair, "counts.csv", "--epochs", "1", "--run", "sizeless", "--quiet")
    error = ppl("evaluate", "sizeless", "counts.csv", "--field", "size=sizes.npy", code=1).err
    assert 'expected no field "size", without which the model was fitted' in error


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("size=none.npy", 2, "none.npy: no such file; did you mean"),
        ("size=cells.csv", 1, "cells.csv: expected one column or array for a field, got ["),
        ("size=short.npy", 1, "expected arrays of one length"),
    ],
)
def test_a_wrong_file_of_a_field_is_named(ppl, table, word, code, message):
    np.save("short.npy", SIZES[:-1])
    pd.read_csv(table).drop(columns="cell").to_csv(table, index=False)
    assert message in ppl("lint", "poisson", "normal", table, "--field", word, code=code).err
