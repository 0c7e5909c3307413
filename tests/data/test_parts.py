"""Files read in parts hold the rows of the whole file, and tell its faults in the same words."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from ppl_vae import read_data
from ppl_vae.data.parts import read_parts, regrouped

FRAME = pd.DataFrame(
    {
        "code": [f"{i:03}" for i in range(25)],
        "day": pd.date_range("2024-02-28", periods=25),
        "height": np.linspace(1, 2, 25),
        "count": range(25),
    }
)


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=7)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("rows", [1, 4, 25, 100])
def test_parts_are_the_rows_of_the_file(tmp_path, ending, rows):
    path = write(FRAME, tmp_path / f"rows{ending}")
    choice = {"columns": ["count", "height"], "index": "code"}
    parts = list(read_parts(path, rows, keep=["code", "day"], **choice))
    assert all(len(part) == rows for part, _ in parts[:-1])
    whole = read_data(path, **choice)
    pd.testing.assert_frame_equal(pd.concat([part for part, _ in parts]), whole)
    kept = pd.concat([kept for _, kept in parts])
    assert list(kept["code"]) == list(FRAME["code"]), "leading zeros are lost"
    day = FRAME["day"] if ending == ".parquet" else FRAME["day"].astype(str)
    assert list(kept["day"]) == list(day)
    assert list(kept.index) == list(whole.index)


def test_fields_and_forms_are_those_of_the_whole_file(tmp_path):
    path = write(FRAME, tmp_path / "rows.csv")
    like = {"x": pd.DataFrame({"height": [0.0]}), "size": pd.Series([0.0], name="count")}
    parts = [part for part, _ in read_parts(path, 10, like)]
    whole = read_data(path, like)
    for key in like:
        pd.testing.assert_series_equal(
            pd.concat([part[key].squeeze() for part in parts]), whole[key].squeeze()
        )


@pytest.mark.parametrize("arrays", [{"x": np.arange(24.0).reshape(8, 3)}, {"x": 2, "n": 1}])
def test_arrays_are_handed_on_in_parts(tmp_path, arrays):
    path = tmp_path / "rows.npz"
    np.savez(path, **{key: np.ones((8, 3)) * np.asarray(v) for key, v in arrays.items()})
    parts = [part for part, _ in read_parts(path, 3)]
    whole = read_data(path)
    if isinstance(whole, dict):
        for key, value in whole.items():
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), value)
    else:
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(ValueError, match="keep: expected"):
        list(read_parts(path, 3, keep=["x"]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda lines: [*lines[:20], "1,2\n", *lines[20:]], "line 21: expected 4 values"),
        (lambda lines: [*lines[:20], "1,2,3,4,5\n"], "line 21: expected 4 values"),
        (lambda lines: [*lines[:22], "a,b,tall,4\n"], 'column "height": .* "tall" in line 23'),
        (lambda lines: lines[:1], "expected rows below"),
    ],
)
def test_faults_in_later_parts_are_told_with_their_line(tmp_path, fault, message):
    path = write(FRAME, tmp_path / "rows.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(fault(lines)))
    columns = ["height", "count"]
    with pytest.raises(ValueError, match=message):
        list(read_parts(path, 6, columns=columns))
    with pytest.raises(ValueError, match=message):
        read_data(path, columns=columns)


@pytest.mark.parametrize("rows", [1, 3, 10, 40])
def test_parts_are_regrouped_in_their_order(rows):
    cuts = [0, 2, 3, 9, 20, 25]
    form = {"x": FRAME[["height"]], "n": FRAME["count"], "a": FRAME[["count"]].to_numpy()}
    form |= {"t": torch.arange(25), "s": scipy.sparse.csr_matrix(np.eye(25))}
    parts = [{key: part[a:b] for key, part in form.items()} for a, b in itertools.pairwise(cuts)]
    found = list(regrouped(parts, rows))
    assert [len(part["n"]) for part in found[:-1]] == [rows] * (len(found) - 1)
    assert 0 < len(found[-1]["n"]) <= rows
    pd.testing.assert_frame_equal(pd.concat([p["x"] for p in found]), form["x"])
    assert [int(v) for part in found for v in part["t"]] == list(range(25))
    assert [int(v) for part in found for v in part["a"][:, 0]] == list(range(25))
    assert sum(part["s"].toarray().sum() for part in found) == 25


def test_missing_columns_are_named(tmp_path):
    for ending in (".csv", ".parquet"):
        path = write(FRAME, tmp_path / f"rows{ending}")
        with pytest.raises(ValueError, match=r'keep: expected columns .* none called "dayy"'):
            list(read_parts(path, 5, columns=["count"], keep=["dayy"]))
        with pytest.raises(ValueError, match='none called "weight"'):
            list(read_parts(path, 5, like=pd.DataFrame({"weight": [1.0]})))


def test_an_empty_parquet_file_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    FRAME[:0].to_parquet(path)
    with pytest.raises(ValueError, match="at least one row"):
        list(read_parts(path, 5, columns=["count"]))


def test_arrays_and_sparse_matrices_of_any_layout_are_of_one_form(tmp_path):
    dense = np.arange(12.0).reshape(6, 2)
    np.save(tmp_path / "rows.npy", dense)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    (found,) = regrouped([mapped[:2], dense[2:]], 6)
    assert np.array_equal(found, dense)
    layouts = [
        scipy.sparse.csr_matrix(dense[:2]),
        scipy.sparse.csc_array(dense[2:4]),
        scipy.sparse.coo_matrix(dense[4:]),
    ]
    (found,) = regrouped(layouts, 6)
    assert np.array_equal(found.toarray(), dense)
