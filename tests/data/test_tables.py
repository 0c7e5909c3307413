"""Tables of any width, packed tables, and the choice of columns; faults are told all at once."""

import gzip
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import needs_pyarrow

from ppl_vae.data.columns import column_order
from ppl_vae.data.files import read_data
from ppl_vae.data.rows import Rows

TABLE = "name,height,weight,site\nAnn,1.8,70,3\nBo,1.6,50,4\n"


def written(folder, text, name="a.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path, **choice):
    with pytest.raises(ValueError, match=r"expected|columns") as raised:
        read_data(path, **choice)
    return str(raised.value)


class Name(str):
    """The name of a column. It counts as a call whenever it is compared with another name."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return str.__eq__(self, other)

    def __str__(self):
        return self


def calls(work, *arguments):
    """Return how many functions run in a call, comparisons of names among them."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work(*arguments)
    finally:
        sys.setprofile(before)
    return count


# Width. Eight times as many columns take up to eight times as many calls.


def wide_file(folder, width):
    names, values = (f"g{n}" for n in range(width)), (f"{n}.5" for n in range(width))
    return written(folder, ",".join(names) + "\n" + ",".join(values) + "\n", f"{width}.csv")


def reversed_names(width):
    return pd.Index([Name(f"g{n}") for n in reversed(range(width))], dtype=object)


def test_the_work_to_read_a_table_grows_with_its_columns_alone(tmp_path):
    def read(path, names):
        assert read_data(path).shape == (1, len(names))
        like = pd.DataFrame(np.zeros((1, len(names))), columns=names)
        assert read_data(path, like).iloc[0, 0] == len(names) - 0.5

    work = [(wide_file(tmp_path, width), reversed_names(width)) for width in (250, 2000)]
    read(*work[0])  # what is imported or compiled at the first call
    narrow, wide = (calls(read, *arguments) for arguments in work)
    assert wide < 9 * narrow


def test_the_work_to_order_columns_grows_with_their_number_alone():
    def order(labels):
        names = list(labels[::-1])
        width = len(names)
        frame = pd.DataFrame(np.zeros((1, width)), columns=labels)
        assert column_order(frame.columns, [names])[:2] == [width - 1, width - 2]
        rows = Rows(frame, fitted=[{"0": names}])
        assert rows.columns == {"0": names}
        assert list(rows.restore(rows.take(torch.tensor([0]))).columns) == names[::-1]

    order(reversed_names(100))
    narrow, wide = (calls(order, reversed_names(width)) for width in (250, 2000))
    assert wide < 9 * narrow


# Packed files, and files of another kind


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv", "A.CSV.GZ"])
def test_a_table_packed_by_gzip_is_read_whatever_its_name(tmp_path, name):
    path = written(tmp_path, gzip.compress(b"a,b\n1,2\n3,4\n"), name)
    assert read_data(path).to_numpy().tolist() == [[1, 2], [3, 4]]


def test_the_message_for_a_packed_table_names_its_line(tmp_path):
    path = written(tmp_path, gzip.compress(b"a\tb\n1\t2\n3\tx\n"), "a.tsv.gz")
    assert 'column "b": expected numbers, got "x" in line 3' in refused(path)
    path = written(tmp_path, gzip.compress("a\n1\n".encode("utf-16")), "b.csv.gz")
    assert "line 1: expected UTF-8" in refused(path)


def test_a_damaged_packed_table_is_said_to_be_damaged(tmp_path):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)
    flipped = bytearray(whole)
    flipped[20] ^= 255
    for content in (whole[:-9], bytes(flipped), whole[:15]):
        path = written(tmp_path, content, "a.csv.gz")
        with pytest.raises(ValueError, match=r"a\.csv\.gz: (packed by gzip, and damaged|cannot)"):
            read_data(path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x03\x04....", "an Excel workbook; unpack it, or save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"BZh91AY", "packed by bzip2"),
        (b"PAR1\x15\x04", "a Parquet file; give its name the ending .parquet"),
    ],
)
def test_a_file_that_is_no_text_is_called_what_it_is(tmp_path, start, kind):
    assert kind in refused(written(tmp_path, start + b"\n1,2\n"))


# Faults


@needs_pyarrow
def test_two_parquet_columns_of_one_name_are_named(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    columns = [pa.array([1.0, 2.0])] * 3
    parquet.write_table(pa.table(columns, names=["a", "b", "a"]), tmp_path / "a.parquet")
    assert 'two columns are called "a"; rename one of them' in refused(tmp_path / "a.parquet")


def test_all_columns_of_one_name_and_without_a_name_are_named(tmp_path):
    told = refused(written(tmp_path, "a,b,a,b,b,c\n1,2,3,4,5,6\n"))
    assert 'line 1: several columns are called "a", "b"; rename them' in told
    told = refused(written(tmp_path, "a,,b,\n1,2,3,4\n"))
    assert "line 1: columns 2, 4 have no name; give each a name" in told


def test_every_column_of_text_is_named_with_the_first_line_and_value(tmp_path):
    text = "a,b,c\n1,x,7\n2,y,z\n3,4,5\n"
    told = refused(written(tmp_path, text))
    assert 'column "b": expected numbers, got "x" in line 2 (2 of 3 values are text)' in told
    assert 'column "c": expected numbers, got "z" in line 3 (1 of 3 values are text)' in told
    names = ",".join(f"c{n}" for n in range(9))
    told = refused(written(tmp_path, f"{names}\n{','.join('x' * 9)}\n"))
    assert told.count("expected numbers") == 5
    assert "; and 4 more columns; drop the column" in told


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        (["1,234", "12"], "write numbers without thousands separators, as 1234, and decimals with"),
        (["1.234.567", "12"], "write numbers without thousands separators, as 1234"),
        (["1 234", "2"], "write numbers without thousands separators, as 1234"),
        (["-1.234,5", "2"], "write numbers without thousands separators, as 1234, and decimals"),
        (["1,234", "1,5"], "write decimals with a point"),
        (["12 345 apples", "2"], "drop the column or encode it as numbers"),
    ],
)
def test_thousands_separators_are_called_so(tmp_path, values, mend):
    path = written(tmp_path, "a;b\n" + "".join(f"{value};0\n" for value in values))
    told = refused(path)
    assert f'got "{values[0]}" in line 2' in told
    assert mend in told


def test_a_number_that_its_separator_splits_is_explained(tmp_path):
    told = refused(written(tmp_path, "a,b\n1,2\n1,234,5\n"))
    assert "line 3: expected 2 values, one for each column, got 3" in told
    assert "without thousands separators" in told


# The choice of columns


def test_columns_are_chosen_by_name_and_in_the_given_order(tmp_path):
    path = written(tmp_path, TABLE)
    assert list(read_data(path, columns=["weight", "height"]).columns) == ["weight", "height"]
    assert list(read_data(path, columns="site").columns) == ["site"]
    assert list(read_data(path, drop=("name", "site")).columns) == ["height", "weight"]


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (["Ann", "Bo"], ["Ann", "Bo"]), (["7", "12"], [7, 12]), (["007", "12"], ["007", "12"]),
        (["NA", "None"], ["NA", "None"]), (["1.0", "2"], ["1.0", "2"]),
        (["'=a", "b"], ["=a", "b"]),
    ],
)  # fmt: skip
def test_a_column_labels_the_rows_and_is_no_feature(tmp_path, ids, labels):
    path = written(tmp_path, f"x,id,y\n1,{ids[0]},2\n3,{ids[1]},4\n")
    frame = read_data(path, index="id")
    assert (frame.index.tolist(), frame.index.name) == (labels, "id")
    assert frame.to_numpy().tolist() == [[1, 2], [3, 4]]
    assert read_data(path, frame[["y"]], index="id").index.equals(frame.index)


@needs_pyarrow
def test_a_parquet_column_labels_the_rows(tmp_path):
    data = pd.DataFrame({"id": ["u", "v"], "x": [1.0, 2.0]})
    data.to_parquet(tmp_path / "a.parquet")
    assert read_data(tmp_path / "a.parquet", index="id").index.tolist() == ["u", "v"]
    data.set_index("id").to_parquet(tmp_path / "b.parquet")
    assert read_data(tmp_path / "b.parquet", index="id").index.tolist() == ["u", "v"]


def test_rows_without_a_label_are_refused_and_repeated_labels_are_warned_of(tmp_path):
    told = refused(written(tmp_path, "id,x\nu,1\n,2\n"), index="id")
    assert 'expected a label in every row of column "id", got none in line 3 (1 of 2' in told
    with pytest.warns(UserWarning, match=r'"id" labels 1 rows like an earlier row.* line 3'):
        read_data(written(tmp_path, "id,x\nu,1\nu,2\n"), index="id")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"columns": ["hight"]}, 'none called "hight"; did you mean height'),
        ({"drop": "nam"}, 'drop: expected columns of'),
        ({"index": "Name"}, "did you mean name"),
        ({"columns": []}, "columns: expected at least one name, got none"),
        ({"columns": ["site", "site"]}, 'columns: expected each name once, got "site" twice'),
        ({"columns": ["site"], "drop": ["site"]}, "drop: expected other names than those of"),
        ({"columns": ["site"], "index": "site"}, "index: expected other names than those of"),
        ({"drop": ["name"], "index": "name"}, "index: expected other names than those of drop"),
        ({"drop": 3}, "drop: expected names of columns, got 3"),
        ({"index": ["name"]}, "index: expected names of columns, got ['name']"),
        ({"drop": ["name", "height", "weight", "site"]}, "at least one column of numbers"),
    ],
)  # fmt: skip
def test_a_wrong_choice_names_the_argument(tmp_path, choice, message):
    assert message in refused(written(tmp_path, TABLE), **choice)


def test_the_columns_of_a_run_must_not_be_left_out(tmp_path):
    path, like = written(tmp_path, TABLE), pd.DataFrame({"height": [0.0], "site": [0]})
    assert list(read_data(path, like, drop="weight").columns) == ["height", "site"]
    assert 'expected the run\'s columns, got none called "site"' in refused(
        path, like=like, drop="site"
    )


def test_arrays_have_no_columns_to_choose(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    assert "columns of a table by name, got arrays" in refused(tmp_path / "a.npy", drop="a")
