"""Data files are read as they were written, and the error for a bad file says where it is bad."""

import contextlib
import gzip
import pickle
import random
import warnings

import numpy as np
import pandas as pd
import pytest
from parts.extras import PARQUET, load_digits, load_wine, needs_pyarrow

from ppl_vae.data.files import read_data

WINE = load_wine(as_frame=True).data
DIGITS = load_digits().images.astype(np.uint8)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.TSV", "\t")]
)
def test_a_table_of_text_is_read_as_it_was_written(tmp_path, name, separator):
    WINE.to_csv(tmp_path / name, index=False, sep=separator)
    pd.testing.assert_frame_equal(read_data(tmp_path / name), WINE)


@needs_pyarrow
def test_a_parquet_file_is_read_as_it_was_written(tmp_path):
    WINE.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_data(tmp_path / "a.parquet"), WINE)


def test_arrays_are_read_in_their_shape_and_dtype(tmp_path):
    np.save(tmp_path / "a.npy", DIGITS)
    np.savez(tmp_path / "one.npz", anything=DIGITS)
    np.savez_compressed(tmp_path / "two.npz", x=DIGITS, label=load_digits().target)
    for name in ("a.npy", "one.npz"):
        back = read_data(tmp_path / name)
        assert (back.dtype, back.shape) == (DIGITS.dtype, DIGITS.shape)
        assert (back == DIGITS).all()
    assert list(read_data(tmp_path / "two.npz")) == ["x", "label"]


def test_a_large_array_is_mapped_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_vae.data.numpy_files.LARGE", 1000)
    np.save(tmp_path / "a.npy", DIGITS)
    assert isinstance(read_data(tmp_path / "a.npy"), np.memmap)


@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_byte_order_marks_blank_lines_and_quotes_do_not_matter(tmp_path, start):
    path = written(tmp_path, "a.csv", start + '"a ""x""", b\r\n1, 2\r\n\r\n"3",4\r\n')
    frame = read_data(path)
    assert list(frame.columns) == ['a "x"', "b"]
    assert frame.to_numpy().tolist() == [[1, 2], [3, 4]]


def test_a_first_column_without_a_name_labels_the_rows(tmp_path):
    WINE.iloc[:2].set_axis(["u", "v"]).to_csv(tmp_path / "a.csv")
    frame = read_data(tmp_path / "a.csv")
    assert list(frame.index) == ["u", "v"]
    assert list(frame.columns) == list(WINE.columns)


def test_booleans_are_numbers_and_columns_may_be_named_by_rising_numbers(tmp_path):
    frame = read_data(written(tmp_path, "a.csv", "0,1,2\nTrue,1,5\nFalse,2,6\n"))
    assert list(frame.columns) == ["0", "1", "2"]
    assert frame.astype(float).to_numpy().tolist() == [[1, 1, 5], [0, 2, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected column names and rows, got an empty file"),
        ("\n \n", "got an empty file"),
        ("a,b\n", "expected rows below the column names, got none"),
        ("a,b\n1,2\n3\n5,6\n", "line 3: expected 2 values, one for each column, got 1"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: expected 2 values, one for each column, got 3"),
        ("a,b\n1,2,3\n4,5,6\n", "line 2: expected 2 values, one for each column, got 3"),
        ("a,b\n0,2,3\n1,5,6\n", "line 2: expected 2 values, one for each column, got 3"),
        ("a,b\n1,2,3\n4,5\n", "line 2: expected 2 values, one for each column, got 3"),
        ("a,b\n1,2\n4,5,\n", "line 3: expected 2 values, one for each column, got 3"),
        (",a\nu,1,2\nv,3,4\n", "line 2: expected 2 values, one for each column, got 3"),
        (",a\nu,1\nv\n", "line 3: expected 2 values, one for each column, got 1"),
        ('a,b\n"1\n",2\n3\n', "line 4: expected 2 values"),
        ("a,b\n1,2\n3,?\n5,6\n7,x\n", 'column "b": expected numbers, got "?" in line 3 (2 of 4'),
        ("a,b\n\n1,2\nu,3\n", 'column "a": expected numbers, got "u" in line 4'),
        ("a;b\n1,5;2\n2,5;3\n", 'column "a": expected numbers, got "1,5" in line 2'),
        ("day\n2024-01-02\n2024-01-03\n", 'got "2024-01-02" in line 2'),
        ("a\n1e999999999999\nx\n", 'got "x" in line 3'),
        ("a\n" + "9" * 400 + "\n1\n", 'column "a": too large a number in line 2'),
        ("a,a\n1,2\n", 'line 1: two columns are called "a"'),
        ("a,,b\n1,2,3\n", "line 1: column 2 has no name"),
        ("a,b,\n1,2,\n", "line 1: column 3 has no name"),
        ("14.2,1.7\n13.2,1.8\n", "line 1: expected column names, got numbers (14.2, 1.7"),
        ("0,0,5\n0,1,2\n", 'two columns are called "0"'),
        ("7,3,5\n0,1,2\n", "line 1: expected column names, got numbers"),
        ('a,b\n1,"2\n3,4\n', "line 2"),
    ],
)
def test_a_bad_table_says_which_line_or_column(tmp_path, text, message):
    path = written(tmp_path, "a.csv", text)
    with pytest.raises(ValueError, match=r"a\.csv") as raised:
        read_data(path)
    assert message in str(raised.value)


def test_text_that_is_not_utf_8_says_which_line(tmp_path):
    path = written(tmp_path, "a.csv", "a,b\n1,2\n3,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.csv, line 3: expected UTF-8"):
        read_data(path)
    path = written(tmp_path, "b.csv", "h\u00f6he\n1\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"b\.csv, line 1: expected UTF-8"):
        read_data(path)


@pytest.mark.parametrize("kind", ["csv", PARQUET])
def test_missing_cells_are_nan_and_counted_by_column(tmp_path, kind):
    name = f"a.{kind}"
    data = WINE.iloc[:, :3].copy()
    data.iloc[4:6, 1] = np.nan
    data.to_csv(tmp_path / name, index=False) if "csv" in name else data.to_parquet(tmp_path / name)
    place = "line 6" if "csv" in name else "row 4"
    with pytest.warns(UserWarning, match=f'"malic_acid" has 2 missing .* first in {place}'):
        frame = read_data(tmp_path / name)
    assert frame.isna().sum().tolist() == [0, 2, 0]


def test_a_missing_cell_in_the_last_column_is_not_a_short_line(tmp_path):
    with pytest.warns(UserWarning, match='"b" has 1 missing'):
        assert read_data(written(tmp_path, "a.csv", "a,b\n1,\n2,3\n")).shape == (2, 2)


def test_the_form_of_other_rows_selects_columns_by_name(tmp_path):
    mixed = WINE.assign(grower="someone").iloc[:, ::-1]
    mixed.to_csv(tmp_path / "a.csv", index=False)
    pd.testing.assert_frame_equal(read_data(tmp_path / "a.csv", WINE.iloc[:2]), WINE)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": DIGITS, "label": DIGITS[:, 0, 0]}, 'got none called "label"; did you mean lable?'),
        ((DIGITS, DIGITS, DIGITS), "expected an .npz file of 3 arrays, got 2"),
        (DIGITS, "expected one table or array, got arrays ['x', 'lable']"),
        ({"x": DIGITS[:, :4], "lable": DIGITS[:, 0, 0]}, 'npz["x"]: expected rows of shape (4, 8)'),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, like, message):
    np.savez(tmp_path / "a.npz", x=DIGITS, lable=DIGITS[:, 0, 0])
    with pytest.raises(ValueError, match="npz") as raised:
        read_data(tmp_path / "a.npz", like)
    assert message in str(raised.value)


def test_arrays_are_read_in_the_form_of_a_tuple_or_a_mapping(tmp_path):
    np.savez(tmp_path / "a.npz", DIGITS, DIGITS[:, 0])
    first, second = read_data(tmp_path / "a.npz", (DIGITS, DIGITS[:, 0]))
    assert (first.shape, second.shape) == (DIGITS.shape, DIGITS[:, 0].shape)
    np.savez(tmp_path / "b.npz", x=DIGITS)
    assert list(read_data(tmp_path / "b.npz", {"x": DIGITS[:2]})) == ["x"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array(["u", "v"])}, "expected numbers, got dtype <U1"),
        ({"x": np.array([{}, {}])}, "holds Python objects, which are never loaded"),
        ({"x": np.zeros((0, 3))}, "expected at least one row, got none"),
        ({"x": np.float64(3)}, "expected rows along the first dimension, got one number"),
        (
            {"x": np.zeros(3), "y": np.zeros(4)},
            "expected arrays of one length, got {'x': 3, 'y': 4}",
        ),
        ({}, "expected arrays, got none"),
    ],
)
def test_arrays_without_rows_of_numbers_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a\.npz") as raised:
        read_data(tmp_path / "a.npz")
    assert message in str(raised.value)


def test_a_number_that_pandas_refuses_is_named(tmp_path, monkeypatch):
    def overflow(*args, **settings):
        raise OverflowError

    monkeypatch.setattr(pd, "read_csv", overflow)
    with pytest.raises(ValueError, match='column "b": too large a number in line 3'):
        read_data(written(tmp_path, "a.csv", f"a,b\n1,2\n1,{'9' * 400}\n"))


class FailsWhenUnpickled:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savez(path, x=array)])
def test_arrays_of_python_objects_are_named_as_the_cause(tmp_path, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, np.array([{}, {}]))
    with pytest.raises(ValueError, match="holds Python objects, which are never loaded"):
        read_data(path)


def test_a_file_of_another_kind_is_not_called_damaged(tmp_path):
    with pytest.raises(ValueError, match=r"a\.npy: not a NumPy file; write it with numpy\.save"):
        read_data(written(tmp_path, "a.npy", "a,b\n1,2\n"))


@pytest.mark.parametrize(
    "name", ["a.npy", "a.npz", pytest.param("a.parquet", marks=needs_pyarrow), "a.csv"]
)
def test_a_pickle_is_never_executed(tmp_path, name):
    path = written(tmp_path, name, pickle.dumps(FailsWhenUnpickled()))
    with pytest.raises(ValueError, match=name):
        read_data(path)


@pytest.mark.parametrize("kind", ["csv", PARQUET, "npy", "npz"])
def test_a_damaged_file_gives_rows_or_a_value_error(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    table = WINE.iloc[:40, :4]
    {
        "csv": lambda: table.to_csv(path, index=False),
        "parquet": lambda: table.to_parquet(path),
        "npy": lambda: np.save(path, table.to_numpy()),
        "npz": lambda: np.savez_compressed(path, x=table.to_numpy(), y=table.to_numpy()),
    }[kind]()
    content, draw = path.read_bytes(), random.Random(0)
    for _ in range(60):
        changed = bytearray(
            content[: draw.randrange(len(content))] if draw.random() < 0.5 else content
        )
        for _ in range(draw.randrange(4)):
            if changed:
                changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(bytes(changed))
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")  # missing cells are counted in a warning
            read_data(path)


def test_an_unknown_extension_is_refused_with_the_known_ones(tmp_path):
    path = written(tmp_path, "a.json.gz", gzip.compress(b"[]"))
    with pytest.raises(ValueError, match=r"one of .csv, .tsv, .parquet, .npy, .npz, .*, got .gz"):
        read_data(path)
    with pytest.raises(ValueError, match="got no extension"):
        read_data(written(tmp_path, "a", "a\n1\n"))


def test_a_missing_file_is_refused_with_files_of_close_names(tmp_path):
    written(tmp_path, "wine.csv", "a\n1\n")
    with pytest.raises(ValueError, match=r"wines\.csv: no such file; did you mean wine\.csv\?"):
        read_data(tmp_path / "wines.csv")
    with pytest.raises(ValueError, match="there is no folder"):
        read_data(tmp_path / "away" / "wine.csv")
    with pytest.raises(ValueError, match=r"expected a folder of Parquet files \(.*wine\.csv"):
        read_data(tmp_path)
