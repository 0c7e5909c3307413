"""A condition beside a vector: integers are labels, floats are covariates."""

import pytest
import torch

from ppl_vae.nn import Condition

LABELS = torch.tensor([2, 0])
INDICATORS = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_label_becomes_one_of_the_indicators(dtype, shape):
    joined = Condition(3)(torch.full((2, 1), 7.0), LABELS.to(dtype).reshape(shape))
    assert joined.tolist() == torch.cat([torch.full((2, 1), 7.0), INDICATORS], 1).tolist()


def test_true_and_false_are_two_labels():
    joined = Condition(2)(torch.zeros(2, 0), torch.tensor([True, False]))
    assert joined.tolist() == [[0, 1], [1, 0]]


def test_covariates_stay_as_they_are_in_the_dtype_of_the_vector():
    y = torch.tensor([[0.5, -3.0], [2.0, 1.0]], dtype=torch.float64)
    joined = Condition(2)(torch.zeros(2, 1), y)
    assert joined.dtype == torch.float32
    assert joined[:, 1:].tolist() == y.tolist()
    assert Condition(1)(torch.zeros(2, 0), y[:, 0]).tolist() == [[0.5], [2.0]]


def test_any_dimensions_may_lead_the_vector():
    joined = Condition(3)(torch.randn(5, 4, 2, 6), LABELS)
    assert joined.shape == (5, 4, 2, 9)
    assert (joined[..., 6:] == INDICATORS).all()


def test_a_condition_has_no_weights():
    assert Condition(3).state_dict() == {}


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_an_error_and_never_no_indicator(label):
    with pytest.raises(RuntimeError, match="Class values"):
        Condition(3)(torch.zeros(2, 1), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (torch.tensor([[0, 1, 2], [0, 0, 1]]), "3 numbers a row of torch.int64"),
        (torch.tensor([0.0, 2.0]), "1 numbers a row of torch.float32"),
    ],
)
def test_several_labels_a_row_and_labels_as_floats_are_refused(y, got):
    with pytest.raises(ValueError, match=f"expected 3 covariates a row.*got {got}.*long"):
        Condition(3)(torch.zeros(2, 1), y)


def test_no_condition_at_all_is_refused():
    with pytest.raises(ValueError, match="conditions: expected a positive number, got 0"):
        Condition(0)
