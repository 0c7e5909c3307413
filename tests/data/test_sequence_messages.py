"""Sequences that are given in another form: the error says what to do."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import build, encode, fit, lint, sequences
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.state_space import StateSpaceModel

RANDOM = np.random.default_rng(0)
ARRAYS = [RANDOM.normal(size=(steps, 2)) for steps in (3, 4, 5, 3)]
LINES = pd.concat(
    [pd.DataFrame(a, columns=["u", "v"]).assign(id=f"s{n}") for n, a in enumerate(ARRAYS)]
)
LINES["t"] = LINES.groupby("id").cumcount()
DATA = sequences(ARRAYS)


def a_pair(data=DATA):
    return build(StateSpaceModel, data, latents=1), build(SmoothingGuide, data, latents=1)


def fitted(data):
    return fit(*a_pair(), data, epochs=1, progress=False, compile=False)


@pytest.mark.parametrize(
    "data", [ARRAYS, tuple(ARRAYS), [torch.as_tensor(array) for array in ARRAYS]]
)
def test_arrays_of_different_lengths_are_sequences(data):
    with pytest.raises(ValueError, match=r"ppl_vae\.sequences\("):
        fitted(data)


def test_cells_that_hold_lists_are_sequences():
    with pytest.raises(ValueError, match=r'numeric columns, got "x" .*ppl_vae\.sequences\(frame\)'):
        fitted(pd.DataFrame({"x": [array.tolist() for array in ARRAYS]}))


@pytest.mark.parametrize("index", ["id", ["id", "t"]])
def test_lines_that_share_a_label_are_told_of(index):
    table = LINES.set_index(index)[["u", "v"]]
    pair = build(GaussianModel, table, latents=1), build(NormalGuide, table, latents=1)
    how = {"epochs": 1, "progress": False, "compile": False}
    with pytest.warns(UserWarning, match=r"several with the label 's0'; pass ppl_vae\.sequences"):
        fit(*pair, table, **how)
    fit(*pair, table.reset_index(drop=True), **how)
    fit(*pair, pd.concat([table.reset_index(drop=True)] * 2), **how)  # of tables one below another


def test_one_long_sequence_is_to_be_cut_into_windows():
    x = RANDOM.normal(size=(200, 2))
    with pytest.raises(ValueError, match="at least 2 rows to fit to, got 1; cut it into windows"):
        fitted(sequences([x]))
    fitted(sequences([x[i : i + 50] for i in range(0, len(x), 50)]))
    with pytest.raises(ValueError, match=r"at least 2 rows to fit to, got 1$"):
        fit(GaussianModel(2), NormalGuide(2), torch.zeros(1, 2))


@pytest.mark.parametrize("function", [fitted, lambda data: encode(*a_pair(), data)])
def test_lengths_are_whole_numbers(function):
    lengths = torch.tensor(DATA["lengths"].to_numpy())
    message = r'data\["lengths"\]: expected whole numbers, got torch.float32; pass lengths.long'
    with pytest.raises(ValueError, match=message):
        function({**DATA, "lengths": lengths.float()})
    function({**DATA, "lengths": lengths})


def test_dates_are_numbered():
    dates = pd.Timestamp("2020-02-27", tz="UTC") + pd.to_timedelta(LINES["t"], unit="D")
    wanted = sequences(LINES, id="id", step="t")
    for column in (dates, dates.astype(str), dates.dt.date):
        frame = LINES.assign(t=column)
        with pytest.raises(ValueError, match=r"step: expected whole numbers .* // pandas\.Timede"):
            sequences(frame, id="id", step="t")
        t = pd.to_datetime(frame["t"])  # as the message says
        frame["t"] = (t - t.min()) // pd.Timedelta("1D")
        assert torch.equal(sequences(frame, id="id", step="t")["x"], wanted["x"])


def test_an_index_of_several_levels_is_made_columns():
    frame = LINES.set_index(["id", "t"])
    message = r"index of several levels, id, t; pass frame\.reset_index\(\)"
    for how in ({"id": "id", "step": "t"}, {"id": "id"}, {"id": ["id", "t"]}, {}):
        with pytest.raises(ValueError, match=message):
            sequences(frame, **how)
    sequences(frame.reset_index(), id="id", step="t")
    cells = pd.DataFrame({"u": [[1.0], [2.0]]}, index=pd.MultiIndex.from_product([["a"], [1, 2]]))
    with pytest.raises(ValueError, match=r"levels, None, None; pass frame\.reset_index"):
        sequences(cells)


def test_inputs_that_nobody_reads_are_named():
    data = sequences(ARRAYS, inputs=[array[:, :1] for array in ARRAYS])
    message = 'field "inputs": expected an argument of this name in the model or the guide'
    with pytest.raises(ValueError, match=message):
        fitted(data)
    assert message in str(lint(*a_pair(), data))
