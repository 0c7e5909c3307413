"""Numbers that a tensor cannot hold are refused by field, row and value, and never changed."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import generate, read_data
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.models.bernoulli import BernoulliModel

BIG = 2**63 + 5  # wraps to -9223372036854775803 in 64 bits with a sign


def mapped(array, folder):
    memmap = np.memmap(folder / "rows", dtype=array.dtype, mode="w+", shape=array.shape)
    memmap[:] = array
    return memmap


def all_rows(data):
    rows = Rows(data)
    return as_tuple(rows.take(torch.arange(len(rows))))[0]


UNSIGNED = np.array([[1, 2], [3, BIG]], np.uint64)
HUGE = np.array([[1.0, 2.0], [3.0, -1e300]])
FORMS = {
    "array": lambda array, folder: array,
    "tensor": lambda array, folder: torch.from_numpy(array),
    "memmap": mapped,
    "frame": lambda array, folder: pd.DataFrame(array, columns=["a", "b"]),
    "series": lambda array, folder: pd.Series(array[:, 1], name="b"),
}


@pytest.mark.parametrize("form", FORMS)
def test_unsigned_integers_above_the_signed_range_are_refused(form, tmp_path):
    data = FORMS[form](UNSIGNED, tmp_path)
    column = ': column "b"' if form in ("frame", "series") else ""
    expected = f"^data{column}: expected integers up to {2**63 - 1}, got {BIG} in row 1; "
    with pytest.raises(ValueError, match=expected):
        all_rows(data)


@pytest.mark.parametrize("form", FORMS)
def test_unsigned_integers_that_fit_are_converted(form, tmp_path):
    fitting = np.array([[1, 2], [3, 2**63 - 1]], np.uint64)
    taken = all_rows(FORMS[form](fitting, tmp_path))
    assert taken.dtype == torch.int64
    assert taken.flatten()[-1].item() == 2**63 - 1


@pytest.mark.parametrize("form", FORMS)
def test_floats_beyond_the_default_dtype_are_refused(form, tmp_path):
    data = FORMS[form](HUGE, tmp_path)
    column = ': column "b"' if form in ("frame", "series") else ""
    expected = rf"^data{column}: expected numbers up to 3.4e\+38 .*, got -1e\+300 in row 1; "
    with pytest.raises(ValueError, match=expected):
        all_rows(data)


@pytest.mark.parametrize("form", FORMS)
def test_infinity_and_nan_in_the_data_stay_what_they_are(form, tmp_path):
    given = np.array([[0.0, np.nan], [np.nan, -np.inf]])
    taken = all_rows(FORMS[form](given, tmp_path)).flatten()
    assert taken[-1].item() == -np.inf
    assert taken.isnan().any()


def test_large_floats_fit_where_the_default_dtype_is_double():
    torch.set_default_dtype(torch.float64)
    try:
        assert all_rows(HUGE)[1, 1].item() == -1e300
    finally:
        torch.set_default_dtype(torch.float32)


def test_extended_floats_are_converted_or_refused():
    assert all_rows(np.array([1.5, 2.5], np.longdouble)).tolist() == [1.5, 2.5]
    if np.finfo(np.longdouble).max > np.finfo(np.float64).max:
        with pytest.raises(ValueError, match="in row 1"):
            all_rows(np.array([1.0, np.longdouble("1e400")]))


def test_the_field_and_its_row_are_named_in_a_mapping_and_in_a_mapped_file(tmp_path):
    with pytest.raises(ValueError, match=r'^data\["id"\]: expected integers .* in row 1;'):
        Rows({"x": torch.zeros(2), "id": UNSIGNED})
    far = np.zeros((1000, 2))
    far[700, 1] = 1e39
    rows = Rows(mapped(far, tmp_path))
    with pytest.raises(ValueError, match=r"got 1e\+39 in row 700;"):
        rows.take(torch.tensor([3, 700, 5]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.float16])
def test_values_outside_the_dtype_are_returned_in_their_own(dtype):
    field = Field.of(np.zeros((2, 1), dtype), "data")
    low = -1 if np.dtype(dtype).kind == "u" else 100000
    values = torch.tensor([[low], [7]])
    values = values.float() if np.dtype(dtype).kind == "f" else values
    assert field.restore(values, None).tolist() == [[low], [7]]
    assert field.restore(values[1:], None).dtype == dtype


def test_a_number_in_a_file_that_no_float_holds_is_named_by_its_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3,1e400\n")
    with pytest.raises(ValueError, match='column "b": too large a number in line 3'):
        read_data(path)
    path.write_text("a,b\n1,2\n3,inf\n")
    assert read_data(path).loc[1, "b"] == np.inf


def test_a_given_covariate_that_its_field_cannot_hold_is_refused():
    class Labelled(BernoulliModel):
        def forward(self, x, label):
            super().forward(x)

    data = {"x": torch.ones(3, 4), "label": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(
        ValueError, match=r"given\['label'\]: expected values of torch.uint8, got 300"
    ):
        generate(Labelled(4), None, data, given={"label": 300}, num_samples=2)
