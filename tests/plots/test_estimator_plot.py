"""The figure of gradient estimators shows noise, time and bias, and every name can be read."""

import itertools
import math

import numpy as np
import pytest

from ppl_vae.plots import estimator_plane


def drawn(ax):
    """The marks by the label of their group, without the grey lines."""
    return {line.get_label(): line for line in ax.lines if line.get_label()[0] != "_"}


def test_estimators_stand_at_their_time_and_variance_in_the_group_of_their_bias():
    names = ["drawn", "relaxed", "bound"]
    ax = estimator_plane([2.0, 1.0, 4.0], [0.1, 5.0, 0.2], [0.0, 0.12, math.nan], names=names)
    marks = drawn(ax)
    assert {label: line.get_xydata().tolist() for label, line in marks.items()} == {
        "no bias": [[2.0, 0.1]],
        "bias": [[1.0, 5.0]],
        "bias not known": [[4.0, 0.2]],
    }
    assert [text.get_text() for text in ax.texts] == ["drawn", "bound", "relaxed, bias 12 %"]
    assert len({line.get_marker() for line in marks.values()}) == 3


def test_grey_lines_join_equal_variance_at_equal_time():
    ax = estimator_plane([2.0, 1.0], [0.1, 5.0], [0, 0], names=["a", "b"])
    products = [line.get_xydata().prod(1) for line in ax.lines if line.get_label()[0] == "_"]
    assert len(products) > 5
    assert all(np.ptp(product) < 1e-9 * product.max() for product in products)


@pytest.mark.parametrize("variances", [[0.0, 0.3], [0.0, 0.0]])
def test_a_variance_of_0_stands_below_the_others(variances):
    ax = estimator_plane([2.0, 1.0], variances, [0, 0], names=["exact", "other"])
    (marks,) = drawn(ax).values()
    low = ax.get_ylim()[0]
    heights = marks.get_ydata()
    assert (heights > low).all()
    assert heights[0] < 0.3
    assert "variance 0 below" in [text.get_text() for text in ax.texts]


def test_names_of_estimators_at_one_place_do_not_hide_each_other():
    names = [f"estimator {i}" for i in range(6)]
    ax = estimator_plane(np.linspace(1, 1.1, 6), [1.0] * 6, [0.0] * 6, names=names)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("wrong", [([1.0], [1.0, 2.0], [0, 0]), ([], [], [])])
def test_other_numbers_of_values_are_refused(wrong):
    with pytest.raises(ValueError, match="milliseconds: expected a number for each of the"):
        estimator_plane(*wrong, names=["a", "b"][: 2 * len(wrong[0])])
