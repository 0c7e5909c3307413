"""Sparse matrices of scipy as data: the same results as dense arrays, one batch dense at a time."""

import pickle
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from parts.extras import sparse

from ppl_vae import build, encode, fit, generate, lint, log_likelihood, predictive_check, read_data
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.poisson import PoissonModel

FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]
COUNTS = np.random.default_rng(0).poisson(0.7, (60, 5))
SIZE = COUNTS.sum(1) + 1.0


def pair(data):
    pyro.set_rng_seed(0)
    return build(PoissonModel, data, latents=2), build(NormalGuide, data, latents=2)


@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_rows_of_the_dense_array(form, kind):
    matrix = getattr(sparse(), f"{form}_{kind}")(COUNTS)
    rows, dense = Rows(matrix), Rows(COUNTS)
    index = torch.tensor([59, 0, 0, 7])
    assert torch.equal(rows.take(index)[0], dense.take(index)[0])
    part = rows.subset(torch.tensor([5, 9, 3])).subset(torch.tensor([2, 0]))
    assert torch.equal(part.take(torch.arange(2))[0], torch.as_tensor(COUNTS[[3, 5]]))
    assert rows.fingerprint() == dense.fingerprint()
    assert rows.template() == dense.template()
    assert isinstance(rows.restore(rows.take(index)), np.ndarray)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "uint16", "int64", "float32", "float64"]
)
def test_every_dtype_is_that_of_the_dense_array(dtype):
    counts = COUNTS.astype(dtype)
    (sparse_rows,) = as_tuple(Rows(sparse().csr_matrix(counts)).take(torch.arange(60)))
    (dense_rows,) = as_tuple(Rows(counts).take(torch.arange(60)))
    assert sparse_rows.dtype == dense_rows.dtype
    assert torch.equal(sparse_rows, dense_rows)


def test_entries_that_stand_twice_are_summed_and_zeros_may_be_stored():
    where = ([0, 2, 0, 1], [1, 0, 1, 1])
    coo = sparse().coo_matrix(([4.0, 1.0, 3.0, 0.0], where), shape=(3, 2))
    csr = sparse().csr_matrix(([4.0, 3.0, 1.0], [1, 1, 0], [0, 2, 2, 3]), shape=(3, 2))
    for matrix in (coo, csr):
        (rows,) = as_tuple(Rows(matrix).take(torch.arange(3)))
        assert torch.equal(rows, torch.tensor([[0.0, 7.0], [0.0, 0.0], [1.0, 0.0]]))
    assert csr.nnz == 3  # the user's own matrix is as it was


def test_a_field_of_a_tuple_or_a_mapping_may_be_sparse():
    matrix = sparse().csr_array(COUNTS)
    for data in ((matrix, SIZE), {"x": matrix, "size": SIZE}):
        x, size = as_tuple(Rows(data).take(torch.tensor([3, 1])))
        assert x.tolist() == COUNTS[[3, 1]].tolist()
        assert size.tolist() == SIZE[[3, 1]].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.coo_array(([1.0], ([2],)), shape=(5,)), r"shape \(5,\); pass .toarray"),
        (lambda s: s.csr_matrix(COUNTS * 1j), "the real and the imaginary part as features"),
        (lambda s: s.csr_matrix((0, 3)), "at least one row, got none"),
        (lambda s: s.csr_matrix([[0.0, 1.0], [1e300, 0.0]]), r"got 1e\+300 in row 1"),
    ],
)
def test_a_matrix_that_makes_no_rows_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        Rows(make(sparse())).take(torch.arange(2))


def test_fit_and_what_follows_give_the_numbers_of_dense_data():
    results = []
    for x in (sparse().csc_matrix(COUNTS), COUNTS):
        data = {"x": x, "size": SIZE}
        model, guide = pair(data)
        lint(model, guide, data).raise_if_failed()
        history = fit(model, guide, data, epochs=3, validation=0.2, batch_size=16, progress=False)
        new = generate(model, guide, data, num_samples=4)
        check = predictive_check(model, guide, data, num_samples=20, progress=False)
        assert isinstance(new["x"], np.ndarray)
        assert new["x"].dtype == COUNTS.dtype
        results.append(
            [
                history.frame.drop(columns="seconds"),
                log_likelihood(model, guide, data, num_samples=8, progress=False),
                encode(model, guide, data, progress=False),
                check.frame,
                pd.DataFrame(new["x"]),
            ]
        )
    for of_sparse, of_dense in zip(*results, strict=True):
        pd.testing.assert_frame_equal(of_sparse, of_dense)


def test_no_part_but_a_batch_is_ever_dense():
    """20,000 x 1,000 numbers would be 80 MB; a block of rows has 4 MB."""
    values = np.ones(20_000, np.float32)
    where = (np.arange(20_000), np.arange(20_000) % 1000)
    matrix = sparse().csr_matrix((values, where), shape=(20_000, 1000))
    tracemalloc.start()
    try:
        rows = Rows(matrix)
        build(PoissonModel, rows, latents=2)
        rows.fingerprint()
        training, _ = rows.split(0.5, seed=0)
        training.take(torch.arange(128))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_mean_and_spread_are_those_of_the_dense_array():
    values = COUNTS.astype(float)
    values[:, 3] = 0.0
    values[4, 1] = values[5, 1] = np.nan
    matrix = sparse().csr_matrix(values)
    matrix[0, 0] = 0.0  # stored
    mean, sd = Rows(matrix).fields[0].array.moments()
    values[0, 0] = 0.0
    np.testing.assert_allclose(mean, np.nanmean(values, 0))
    np.testing.assert_allclose(sd, np.nanstd(values, 0))
    assert torch.equal(build(NormalGuide, matrix).scale, build(NormalGuide, values).scale)


# Files


@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", ["bsr", "coo", "csc", "csr", "dia"])
def test_a_file_of_save_npz_is_read_as_the_matrix(tmp_path, form, kind):
    matrix = getattr(sparse(), f"{form}_{kind}")(COUNTS)
    sparse().save_npz(tmp_path / "counts.npz", matrix)
    back = read_data(tmp_path / "counts.npz")
    assert sparse().issparse(back)
    assert np.array_equal(back.toarray(), COUNTS)
    like = {"x": COUNTS[:2]}
    assert np.array_equal(read_data(tmp_path / "counts.npz", like)["x"].toarray(), COUNTS)
    with pytest.raises(ValueError, match=r"expected rows of shape \(4,\), got \(5,\)"):
        read_data(tmp_path / "counts.npz", COUNTS[:2, :4])


def test_arrays_that_are_called_like_those_of_a_matrix_are_arrays(tmp_path):
    arrays = {"format": np.ones(3), "shape": np.ones(3), "data": np.ones((3, 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    assert list(read_data(tmp_path / "a.npz")) == list(arrays)


class Executed:
    """An object whose pickle, when loaded, would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_objects_or_wrong_positions_is_refused(tmp_path):
    arrays = {"format": b"csr", "shape": [2, 2], "indptr": [0, 1, 1]}
    good = {**arrays, "indices": [0], "data": [1.0]}
    flag = tmp_path / "executed"
    objects = np.array([Executed(flag)], dtype=object)
    for wrong in ({"data": objects}, {"indices": [9]}, {"indptr": [0, 1]}, {"format": b"xyz"}):
        np.savez(tmp_path / "bad.npz", **(good | wrong), allow_pickle=True)
        with pytest.raises(ValueError, match=r"bad.npz: "):
            read_data(tmp_path / "bad.npz")
    assert not flag.exists()
    assert pickle.dumps(objects)  # the object has a pickle, so that loading it would run


def test_without_scipy_the_error_says_what_to_install(tmp_path, monkeypatch):
    sparse().save_npz(tmp_path / "counts.npz", sparse().csr_matrix(COUNTS))
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ValueError, match="needs scipy: pip install scipy"):
        read_data(tmp_path / "counts.npz")
    assert len(Rows(COUNTS)) == 60
