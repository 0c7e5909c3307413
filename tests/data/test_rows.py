"""Data of any form as rows, and the way back to that form."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import ppl_vae
from ppl_vae.data.rows import Rows, as_tuple, evenly_spaced

ARRAY = np.arange(12.0).reshape(6, 2)
LABELS = np.array(["7", "0", "1", "7", "0", "1"])


class Pairs(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.tensor(ARRAY[i]), i % 2


def forms(tmp_path):
    memmap = np.memmap(tmp_path / "rows", dtype="float64", mode="w+", shape=ARRAY.shape)
    memmap[:] = ARRAY
    return {
        "tensor": torch.tensor(ARRAY),
        "array": ARRAY,
        "fortran array": np.asfortranarray(ARRAY),
        "reversed view": ARRAY[::-1][::-1],
        "big-endian array": ARRAY.astype(">f8"),
        "read-only array": np.broadcast_to(ARRAY, ARRAY.shape),
        "memmap": memmap,
        "frame": pd.DataFrame(ARRAY, columns=["a", "b"]),
        "frame of several dtypes": pd.DataFrame({"a": ARRAY[:, 0].astype(int), "b": ARRAY[:, 1]}),
        "tuple": (torch.tensor(ARRAY),),
        "mapping": {"x": ARRAY},
        "dataset of tensors": TensorDataset(torch.tensor(ARRAY)),
        "dataset of pairs": Pairs(),
    }


@pytest.mark.parametrize(
    "form",
    [
        "tensor", "array", "fortran array", "reversed view", "big-endian array", "read-only array",
        "memmap", "frame", "frame of several dtypes", "tuple", "mapping", "dataset of tensors",
        "dataset of pairs",
    ],
)  # fmt: skip
def test_every_form_gives_the_same_batch(form, tmp_path):
    rows = Rows(forms(tmp_path)[form])
    index = torch.tensor([5, 0, 3])
    assert len(rows) == 6
    taken = as_tuple(rows.take(index))[0]
    assert taken.dtype == torch.get_default_dtype()
    assert torch.equal(taken, torch.tensor(ARRAY)[index].float())


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor(ARRAY, dtype=torch.float64),
        torch.arange(6, dtype=torch.uint8).reshape(3, 2),
        ARRAY.astype(np.float32),
        ARRAY.astype(np.uint16),
        pd.DataFrame(ARRAY.astype(int), columns=["a", "b"]),
        pd.DataFrame(ARRAY, columns=["a", "b"]),
        pd.Series([1.0, 2.0], name="s"),
        (torch.zeros(2, 3), np.arange(2)),
        {"x": np.zeros((2, 3)), "y": torch.arange(2)},
    ],
)
def test_restore_returns_the_form_that_the_data_came_in(values):
    rows = Rows(values)
    back = rows.restore(as_tuple(rows.take(torch.arange(len(rows)))))

    def same(left, right):
        assert type(left) is type(right)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
        if isinstance(left, dict | tuple):
            for a, b in zip(
                *[v.values() if isinstance(v, dict) else v for v in (left, right)], strict=True
            ):
                same(a, b)
            return
        if isinstance(left, pd.DataFrame):
            pd.testing.assert_frame_equal(left, right)
        elif isinstance(left, pd.Series):
            pd.testing.assert_series_equal(left, right)
        else:
            assert left.dtype == right.dtype
            assert (left == right).all()

    same(back, values)


def test_integers_keep_their_dtype_and_booleans_stay():
    rows = Rows((torch.arange(3, dtype=torch.int16), torch.tensor([True, False, True])))
    integers, flags = rows.take(torch.arange(3))
    assert (integers.dtype, flags.dtype) == (torch.int16, torch.bool)


def test_a_memory_map_is_read_batch_by_batch(tmp_path):
    array = np.memmap(tmp_path / "big", dtype="float32", mode="w+", shape=(1000, 4))
    rows = Rows(array)
    train, held_out = rows.split(0.1, seed=0)
    assert all(isinstance(r.fields[0].array, np.memmap) for r in (rows, train, held_out))
    array[17] = 7.0
    assert as_tuple(rows.take(torch.tensor([17])))[0].tolist() == [[7.0] * 4]


def test_a_split_gives_each_row_its_label_of_the_index():
    frame = pd.DataFrame({"a": range(10)}, index=list("abcdefghij"))
    train, held_out = Rows(frame).split(0.3, seed=1)
    assert sorted([*train.index, *held_out.index]) == list("abcdefghij")
    for part in (train, held_out):
        values = as_tuple(part.take(torch.arange(len(part))))[0][:, 0]
        assert [frame.loc[label, "a"] for label in part.index] == values.tolist()


def test_a_split_is_seeded_disjoint_and_complete():
    rows = Rows(torch.arange(100.0))
    parts = [rows.split(0.2, seed=seed)[1].positions.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    train, held_out = rows.split(0.2, seed=0)
    assert sorted(train.positions.tolist() + held_out.positions.tolist()) == list(range(100))


def test_missing_values_of_nullable_columns_become_nan():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64")})
    taken = as_tuple(Rows(frame).take(torch.arange(3)))[0]
    assert taken.isnan().flatten().tolist() == [False, True, False]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([1.0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1.0, 2.0], "got list"),
        (None, "got NoneType"),
        (torch.tensor(1.0), "got one number"),
        (torch.zeros(0, 3), "at least one row, got none"),
        ((), "at least one field"),
        ({}, "at least one field"),
        ((torch.zeros(3), torch.zeros(4)), "fields of one length"),
        ({"x": torch.zeros(3), "y": [1, 2, 3]}, r'data\["y"\]: expected a tensor.*got list'),
        ([1.0, 2.0], r"pass numpy.array\(rows\) for rows of one shape"),
        (DataLoader(Pairs(), batch_size=2), "got DataLoader; pass loader.dataset, and batch_size="),
        (np.array(["a", "b"]), "dtype <U1; encode text"),
        (
            ARRAY.astype(str),
            r"all of its values are numbers: .* convert them with .astype\(float\)",
        ),
        ({"x": ARRAY, "y": LABELS}, r'"y"\]?: .* name classes, .*pandas.factorize\(values\)\[0\]'),
        ({"x": ARRAY, "y": pd.Series(LABELS)}, r"pandas.factorize\(labels\)\[0\]"),
        (ARRAY.astype(object), r"dtype object; all of its values are numbers"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "datetime64"),
        (pd.DataFrame({"a": [1.0], "city": ["Bern"]}), '"city".*drop them or encode them'),
        (pd.DataFrame({"a": pd.Categorical(["u", "v"])}), '"a" .category.'),
        (pd.DataFrame({"a": [1, 2, 3, 10**400]}), r'"a" \(object; no number in row 3: "1000'),
        (Stream(), "map-style Dataset"),
        (np.ma.masked_greater(ARRAY, 5.0), "masked cells; fill them"),
        (torch.eye(3).to_sparse(), "dense tensor"),
    ],
)
def test_bad_data_are_refused_with_the_cause(data, message):
    with pytest.raises(ValueError, match=message):
        Rows(data)


def test_columns_of_objects_that_hold_numbers_are_told_from_text():
    frame = pd.DataFrame({"a": ["1", "2.5", "3"], "city": ["Bern", "Basel", "Chur"]}, dtype=object)
    with pytest.raises(ValueError, match=r'"a" \(object\), "city" \(object\)') as raised:
        Rows(frame)
    assert "hold numbers with pandas.to_numeric, and number the classes" in str(raised.value)
    assert "; drop them or encode them" in str(raised.value)
    Rows(frame[["a"]].apply(pd.to_numeric))


def test_a_column_of_numbers_with_one_word_names_the_word_and_its_row():
    frame = pd.DataFrame({"dose": [1.0, 2.0, "missing", None, 5.0]}, dtype=object)
    with pytest.raises(
        ValueError, match=r'"dose" \(object; no number in row 2: "missing"\)'
    ) as raised:
        Rows(frame)
    assert 'pandas.to_numeric(column, errors="coerce")' in str(raised.value)
    assert len(Rows(frame.apply(pd.to_numeric, errors="coerce"))) == 5


def test_two_columns_may_have_the_same_name():
    frame = pd.DataFrame(ARRAY, columns=["a", "a"])
    rows = Rows(frame)
    back = rows.restore(as_tuple(rows.take(torch.arange(6))))
    pd.testing.assert_frame_equal(back, frame)


def test_positions_beyond_single_precision_are_those_of_rows():
    spaced = evenly_spaced(20_000_001, 9)
    assert spaced.tolist() == [2_500_000 * n for n in range(9)]
    assert evenly_spaced(20_000_000, 1000)[-1] == 19_999_999


def test_no_file_takes_positions_of_rows_from_single_precision():
    """``evenly_spaced`` is exact; ``torch.linspace(...).long()`` is not beyond 16,777,216."""
    folder = Path(ppl_vae.__file__).parent
    for file in folder.rglob("*.py"):
        for line in re.findall(r".*linspace\(.*\.long\(\).*", file.read_text()):
            assert "dtype=torch.double" in line or "dtype=torch.float64" in line, (file, line)
