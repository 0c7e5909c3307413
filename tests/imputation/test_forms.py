"""Completed data have the form, the index, the columns and the observed numbers of the data."""

import numpy as np
import pandas as pd
import polars
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts import missing

from ppl_vae import fit, impute, sequences
from ppl_vae.models.state_space import StateSpaceModel

X, SEEN = missing.drawn_rows(20)
HOLES = torch.where(SEEN, X, torch.nan)
NAMES = list("abcde")


def counts_model(x, seen):
    """Counts with rates of their own."""
    with pyro.plate("data", len(x)):
        rates = torch.tensor([2.2, 900.4, 1.0])
        pyro.sample("x", dist.Poisson(rates).expand(x.shape).mask(seen).to_event(1), obs=x)


def bits_model(x, seen):
    with pyro.plate("data", len(x)):
        fn = dist.Bernoulli(torch.tensor([0.2, 0.9])).expand(x.shape).mask(seen)
        pyro.sample("x", fn.to_event(1), obs=x.float())


def reals_model(x, seen):
    with pyro.plate("data", len(x)):
        fn = dist.Normal(0.25, 2.0**41).expand(x.shape).mask(seen)
        pyro.sample("x", fn.to_event(1), obs=x.double())


def test_a_frame_has_its_index_with_duplicates_its_order_and_its_exact_numbers():
    frame = pd.DataFrame(HOLES.double().numpy() / 3, [5, 5, *range(18)], columns=NAMES)
    before = frame.copy()
    result = impute(missing.nan_cells, missing.guide, frame, num_samples=50)
    pd.testing.assert_frame_equal(frame, before)
    completed = result.completed
    assert completed.index.equals(frame.index)
    assert list(completed.columns) == NAMES
    assert not completed.isna().any(axis=None)
    seen = frame.notna().to_numpy()
    assert (completed.to_numpy()[seen] == frame.to_numpy()[seen]).all()
    row, column = (~seen).nonzero()
    assert result.frame["row"].tolist() == frame.index[row].tolist()
    assert result.frame["column"].tolist() == [NAMES[c] for c in column]
    assert completed.to_numpy()[~seen].tolist() == result.frame["value"].tolist()


def test_columns_keep_the_places_that_the_user_gave_them():
    frame = pd.DataFrame(HOLES.numpy(), columns=NAMES)
    model, guide = Named(), missing.guide
    fit(model, guide, frame, epochs=1, compile=False, progress=False)
    turned = frame[NAMES[::-1]]
    one, other = (impute(model, guide, each, num_samples=20) for each in (frame, turned))
    assert list(other.completed.columns) == NAMES[::-1]
    pd.testing.assert_frame_equal(other.completed[NAMES], one.completed)


class Named(pyro.nn.PyroModule):
    """The linear model as a module, which remembers its columns."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        missing.nan_cells(x + 0 * self.unused)


@pytest.mark.parametrize(
    "make", [np.asarray, torch.as_tensor, lambda x: np.asarray(x).astype("f4")]
)
def test_arrays_and_tensors_come_back_as_they_are(make):
    data = make(HOLES.double() / 3)
    completed = impute(missing.nan_cells, missing.guide, data, num_samples=20).completed
    assert type(completed) is type(data)
    assert completed.dtype == data.dtype
    seen = np.asarray(SEEN)
    assert (np.asarray(completed)[seen] == np.asarray(data)[seen]).all()
    assert np.isfinite(np.asarray(completed)).all()


def test_a_tuple_and_a_mapping_keep_their_other_fields():
    seen = SEEN.numpy()
    for data in ((X.numpy(), seen), {"x": pd.DataFrame(X.numpy(), columns=NAMES), "seen": seen}):
        result = impute(missing.masked, missing.guide, data, num_samples=20)
        completed = result.completed
        assert type(completed) is type(data)
        fields = list(completed.values()) if isinstance(data, dict) else completed
        assert fields[1] is seen
        assert (np.asarray(fields[0])[seen] == X.numpy()[seen]).all()
        assert not (np.asarray(fields[0])[~seen] == X.numpy()[~seen]).any()


def test_a_frame_of_polars_becomes_one_of_pandas():
    frame = polars.DataFrame(HOLES.numpy(), schema=NAMES)
    completed = impute(missing.nan_cells, missing.guide, frame, num_samples=20).completed
    assert isinstance(completed, pd.DataFrame)
    assert not completed.isna().any(axis=None)


def test_whole_numbers_stay_whole_for_counts_and_bits():
    seen = torch.tensor([[1, 0, 1], [0, 1, 1]]).bool()
    x = pd.DataFrame({"a": [7, 0], "b": [0, 2**40], "c": [3, 4]})
    completed = impute(counts_model, None, {"x": x, "seen": seen}, num_samples=20).completed["x"]
    assert completed["a"].tolist() == [7, 2]
    assert completed["b"].tolist() == [900, 2**40]
    assert (completed.dtypes == np.int64).all()
    bits = torch.tensor([[True, True], [False, False]])
    completed = impute(bits_model, None, {"x": bits, "seen": ~bits}, num_samples=20).completed["x"]
    assert completed.dtype == torch.bool
    assert completed.tolist() == [[False, True], [False, False]]


def test_whole_numbers_become_floats_for_means_without_a_loss():
    seen = torch.tensor([[1, 0], [1, 1]]).bool()
    for x in (np.array([[2**40 + 1, 0], [1, 2]]), torch.tensor([[2**40 + 1, 0], [1, 2]])):
        completed = impute(reals_model, None, {"x": x, "seen": seen}, num_samples=20).completed["x"]
        assert np.asarray(completed).tolist() == [[2**40 + 1, 0.25], [1, 2]]
    frame = pd.DataFrame(np.array([[5, 0], [1, 2]]), columns=["a", "b"])
    completed = impute(reals_model, None, {"x": frame, "seen": seen}, num_samples=20).completed["x"]
    assert [str(dtype) for dtype in completed.dtypes] == ["int64", "float64"]
    assert completed["b"].tolist() == [0.25, 2.0]


def test_nothing_missing_is_a_copy_and_an_empty_frame():
    result = impute(missing.nan_cells, missing.guide, X, num_samples=20)
    assert torch.equal(result.completed, X)
    assert result.completed is not X
    assert len(result.frame) == result.rows == 0
    assert list(result.frame) == [
        "row", "column", "value", "sd", "lower", "upper", "probability", "k_hat", "reason",
    ]  # fmt: skip
    assert str(result) == "no cell is missing in 20 rows"
    assert torch.equal(result.draw(2)[1], X)


def test_steps_inside_a_sequence_are_missing_and_those_after_its_end_are_not():
    """The mean and the spread are those of the exact density of the sequence."""
    torch.manual_seed(0)
    model = StateSpaceModel(1, 1)
    walks = sequences([torch.randn(6, 1), torch.randn(3, 1), torch.randn(4, 1)])
    walks["seen"][0, 2] = walks["seen"][2, 3] = False
    result = impute(model, None, walks, num_samples=20_000)
    assert result.frame["row"].tolist() == [0, 2]
    assert result.frame["column"].tolist() == [(2, 0), (3, 0)]
    assert type(result.completed) is type(walks)
    lengths = torch.tensor(walks["lengths"].to_numpy())
    whole = {**walks, "lengths": lengths, "seen": torch.ones_like(walks["seen"])}
    for line in result.frame.itertuples():
        mean, spread = peak(model, whole, line.row, line.column[0])
        assert line.value == pytest.approx(mean, abs=0.06 * spread)
        assert line.sd == pytest.approx(spread, rel=0.04)


def peak(model, walks, row, step):
    """Mean and standard deviation of one number given the others, of an exact normal density."""
    numbers = []
    for value in (-1.0, 0.0, 1.0):
        x = walks["x"].clone()
        x[row, step] = value
        fields = {**walks, "x": x}
        numbers.append(model.log_prob(**fields)[row].item())
    curvature = numbers[0] - 2 * numbers[1] + numbers[2]
    slope = (numbers[2] - numbers[0]) / 2
    return -slope / curvature, (-1 / curvature) ** 0.5


@pytest.mark.parametrize("columns", [slice(0, 5), slice(1, 4)])
def test_copies_in_which_the_model_fills_missing_cells_are_found(columns):
    """The numbers in missing cells differ from those of the data, in all columns or in some."""

    def model(x, seen):
        there = seen[:, columns]
        filled = torch.where(there, x[:, columns], -7.0)
        with pyro.plate("data", len(x)):
            fn = dist.Normal(torch.zeros_like(filled), 1.0)
            pyro.sample("x", fn.mask(there).to_event(1), obs=filled)

    frame = impute(model, None, {"x": X, "seen": SEEN}, num_samples=20).frame
    row, column = (~SEEN[:, columns]).nonzero().T
    assert frame["row"].tolist() == row.tolist()
    assert frame["column"].tolist() == (column + columns.start).tolist()


def test_cells_of_several_fields_are_named_by_their_field():
    def two(a, b, seen):
        with pyro.plate("data", len(a)):
            for name, values, place in (("a", a, 0), ("b", b, 1)):
                fn = dist.Normal(0.0, 1.0).expand(values.shape).mask(seen[:, place])
                pyro.sample(name, fn, obs=values)

    data = {"a": torch.ones(3), "b": torch.ones(3), "seen": torch.eye(3)[:, :2].bool()}
    result = impute(two, None, data, num_samples=20)
    assert result.frame["row"].tolist() == [0, 1, 2, 2]
    assert result.frame["column"].tolist() == ["b", "a", "a", "b"]
