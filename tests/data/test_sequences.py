"""``sequences``: what is padded, what is masked, and what is refused by the sequence's name."""

import numpy as np
import pandas as pd
import pytest
import torch

import ppl_vae
from ppl_vae.data.rows import Rows

ARRAYS = [np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3) + 100]
TABLE = pd.DataFrame(
    {
        "id": ["b", "a", "b", "a", "b"],
        "t": [3, 10, 4, 12, 5],
        "u": [1.0, 2.0, 3.0, 4.0, 5.0],
        "v": [10.0, 20.0, 30.0, 40.0, 50.0],
    }
)


def test_the_values_of_a_list_come_first_and_zeros_follow():
    data = ppl_vae.sequences(ARRAYS)
    assert data.keys() == {"x", "lengths", "seen"}
    for row, array in enumerate(ARRAYS):
        assert np.array_equal(data["x"][row, : len(array)], array)
        assert (data["x"][row, len(array) :] == 0).all()
    assert data["lengths"].tolist() == [2, 4]


def test_missing_values_are_zeros_that_are_not_seen():
    arrays = [array.copy() for array in ARRAYS]
    arrays[1][2, 1] = np.nan
    data = ppl_vae.sequences(arrays)
    unseen = (~data["seen"]).nonzero().tolist()
    assert unseen == [[0, 2, 0], [0, 2, 1], [0, 2, 2], [0, 3, 0], [0, 3, 1], [0, 3, 2], [1, 2, 1]]
    assert data["x"][1, 2, 1] == 0


def test_a_frame_has_its_labels_its_order_and_its_missing_steps():
    data = ppl_vae.sequences(TABLE, id="id", step="t")
    assert data["lengths"].to_dict() == {"b": 3, "a": 3}
    assert data["x"][0].tolist() == [[1, 10], [3, 30], [5, 50]]
    assert data["x"][1].tolist() == [[2, 20], [0, 0], [4, 40]]
    assert data["seen"][1].all(1).tolist() == [True, False, True]
    assert Rows(data).index.tolist() == ["b", "a"]


def test_without_step_the_lines_are_the_steps_and_inputs_stand_apart():
    data = ppl_vae.sequences(TABLE.drop(columns="t"), id="id", inputs=["v"])
    assert data.keys() == {"x", "lengths", "seen", "inputs"}
    assert data["x"].tolist() == [[[1], [3], [5]], [[2], [4], [0]]]
    assert data["inputs"].tolist() == [[[10], [30], [50]], [[20], [40], [0]]]


def test_a_list_and_a_frame_of_the_same_numbers_are_the_same_data():
    long = pd.concat([pd.DataFrame(a).assign(id=i) for i, a in enumerate(ARRAYS)])
    first, second = ppl_vae.sequences(ARRAYS), ppl_vae.sequences(long, id="id")
    assert torch.equal(first["x"], second["x"])
    assert first["lengths"].tolist() == second["lengths"].tolist()


def test_whole_numbers_stay_whole_unless_a_step_is_missing():
    assert ppl_vae.sequences([np.ones((2, 3), int)])["x"].dtype == torch.int64
    counts = TABLE.astype({"u": int}).drop(columns="v")
    assert ppl_vae.sequences(counts, id="id")["x"].dtype == torch.int64


INFINITE = np.array([[0.0, 1.0, 2.0], [0.0, np.inf, 2.0]])


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ([], {}, "data: expected a list .* got an empty list"),
        ([*ARRAYS, np.ones((0, 3))], {}, "sequence 2: expected at least one step, got none"),
        ([*ARRAYS, np.ones((1, 2))], {}, "sequence 2: expected 3 features, .*, got 2"),
        ([*ARRAYS, np.ones(3)], {}, r"sequence 2: expected shape \(steps, features\).*\[:, None\]"),
        ([*ARRAYS, INFINITE], {}, "sequence 2: expected finite numbers.* step 1, counted"),
        (ARRAYS, {"inputs": ARRAYS[:1]}, "inputs: expected 2 arrays.*, got 1"),
        (ARRAYS, {"inputs": ARRAYS[::-1]}, "inputs: sequence 0: expected 2 steps.*, got 4"),
        (ARRAYS, {"id": "id"}, "id: expected None beside a list"),
        (TABLE, {}, "id: expected the name of a column, got None"),
        (TABLE, {"id": "idd"}, "id: .*did you mean id"),
        (TABLE.assign(t=[0, 0, 60, 60, 120]), {"id": "id", "step": "t"}, "step: .* divide"),
        (TABLE.iloc[[2, 1, 0]], {"id": "id", "step": "t"}, "'b': .* got step 3 after step 4"),
        (TABLE.iloc[[0, 1, 1]], {"id": "id", "step": "t"}, "'a': .* got step 10 twice"),
        (TABLE.assign(t=0.5), {"id": "id", "step": "t"}, "'b': expected whole numbers.* got 0.5"),
        (TABLE.assign(t=["x"] * 5), {"id": "id", "step": "t"}, "whole numbers in column .t."),
        (TABLE.assign(id=[None] * 5), {"id": "id"}, "id: expected a value in every line"),
        (TABLE.assign(u=np.inf), {"id": "id"}, "data: sequence 'b': expected finite"),
        (TABLE.assign(u=np.nan), {"id": "id", "inputs": ["u"]}, "inputs: sequence 'b'"),
        (TABLE, {"id": "id", "step": "t", "inputs": "v"}, "inputs: sequence 'a'.*left out"),
        (TABLE, {"id": "id", "step": "id"}, "expected different columns"),
        (TABLE[:0], {"id": "id"}, "expected lines and columns"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data, options, words):
    with pytest.raises(ValueError, match=words):
        ppl_vae.sequences(data, **options)


def test_lists_in_the_cells_of_a_frame_are_sequences():
    lists = pd.DataFrame(
        {"name": ["b", "a"], "u": [[1.0, 3.0, None], [2.0]], "v": [np.ones(3), (4,)]}
    )
    data = ppl_vae.sequences(lists, id="name", inputs="v")
    assert data["lengths"].to_dict() == {"b": 3, "a": 1}
    assert data["x"].tolist() == [[[1], [3], [0]], [[2], [0], [0]]]
    assert data["seen"].tolist() == [[[True], [True], [False]], [[True], [False], [False]]]
    assert data["inputs"].tolist() == [[[1], [1], [1]], [[4], [0], [0]]]
    without = ppl_vae.sequences(lists[["u"]])
    assert without["lengths"].to_dict() == {0: 3, 1: 1}


def test_a_column_may_hold_whole_sequences_and_one_their_steps():
    cells = [array.tolist() for array in ARRAYS]
    data = ppl_vae.sequences(pd.DataFrame({"x": cells}))
    assert torch.equal(data["x"].float(), ppl_vae.sequences(ARRAYS)["x"])
    steps = pd.DataFrame({"x": cells, "t": [[3, 5], [1, 2, 3, 4]]}, index=["b", "a"])
    data = ppl_vae.sequences(steps, step="t")
    assert data["lengths"].to_dict() == {"b": 3, "a": 4}
    assert data["seen"][0].all(1).tolist() == [True, False, True, False]


def test_the_index_of_a_frame_may_name_the_sequences():
    by_column = ppl_vae.sequences(TABLE, id="id", step="t")
    by_index = ppl_vae.sequences(TABLE.set_index("id"), id="id", step="t")
    assert torch.equal(by_column["x"], by_index["x"])
    assert by_column["lengths"].equals(by_index["lengths"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"u": [[1.0], [1.0, 2.0]], "v": [[1.0], [1.0]]}, "sequence 1: expected 2 steps in .*v.*1"),
        ({"u": [[1.0], []]}, 'sequence 1: column "u": expected at least one step'),
        ({"u": [[1.0], None]}, 'sequence 1: column "u": expected a list of numbers'),
        ({"u": [[1.0], ["a"]]}, 'sequence 1: column "u": expected a list of numbers'),
        ({"u": [[[1.0, 2.0]], [[1.0], [1.0, 2.0]]]}, 'sequence 1: column "u": expected a list'),
        ({"u": [[[1.0, 2.0]], [[1.0]]]}, 'sequence 1: column "u": expected 2 values.*, got 1'),
        ({"u": [[1.0], [1.0]], "size": [1, 2]}, 'expected a list in every line of column "size"'),
    ],
)
def test_lists_that_are_no_sequences_are_refused_by_name(columns, words):
    with pytest.raises(ValueError, match=words):
        ppl_vae.sequences(pd.DataFrame(columns))


def test_two_lines_of_lists_with_one_label_are_refused():
    lists = pd.DataFrame({"u": [[1.0], [2.0]], "id": [7, 7]})
    with pytest.raises(ValueError, match="expected a label of its own for each sequence, got 7"):
        ppl_vae.sequences(lists, id="id")


def test_a_long_list_is_looked_at_in_pieces_as_a_short_one(monkeypatch):
    arrays = [array.copy() for array in ARRAYS]
    arrays[1][2, 1] = np.nan
    whole = ppl_vae.sequences(arrays)
    monkeypatch.setattr(ppl_vae.data.sequences, "PIECE", 1)
    pieces = ppl_vae.sequences(arrays)
    assert torch.equal(whole["x"], pieces["x"])
    assert torch.equal(whole["seen"], pieces["seen"])
    with pytest.raises(ValueError, match=r"sequence 2: expected finite numbers.* step 1"):
        ppl_vae.sequences([*ARRAYS, INFINITE])


def test_mixed_dtypes_become_one_that_holds_both():
    data = ppl_vae.sequences([np.ones((2, 1), np.uint8), np.full((1, 1), 0.5)])
    assert data["x"].flatten().tolist() == [1, 1, 0.5, 0]
