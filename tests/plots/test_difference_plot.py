"""The figure of a comparison shows each pair's difference, its interval and whether it counts."""

import math

import numpy as np
import pytest

from ppl_vae.plots import difference_intervals

NAN = math.nan


def drawn(ax):
    """The marks by the label of their group."""
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines
            if line.get_label()[0] != "_"}  # fmt: skip


def test_pairs_stand_at_their_differences_from_the_top_with_their_intervals():
    ax = difference_intervals(
        [0, -1.0, -9.0], [NAN, -2.0, -9.5], [NAN, 0.5, -8.0], names=["a", "b", "c"],
        doubtful=[False, True, False], level=0.9,
    )  # fmt: skip
    assert drawn(ax) == {
        "largest mean": [[0, 0]], "no verdict": [[-1, 1]], "below it (90 % interval)": [[-9, 2]],
    }  # fmt: skip
    ends = [segment[:, 0].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert ends == [[0, 0], [-9.5, -8], [-2, 0.5]]
    low, high = ax.get_ylim()
    assert low > high  # the first pair is on top
    assert [text.get_text() for text in ax.texts] == ["-1", "-9"]


def test_a_difference_that_is_not_finite_is_said():
    ax = difference_intervals([0, -math.inf], [NAN, NAN], [NAN, NAN], names=["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["not finite"]
    assert np.isfinite(ax.get_xlim()).all()


@pytest.mark.parametrize("name", ["difference", "lower", "upper", "doubtful"])
def test_other_numbers_of_values_are_refused(name):
    columns = {"difference": [0, 1], "lower": [0, 1], "upper": [0, 1], "doubtful": [0, 1]}
    with pytest.raises(ValueError, match=f"{name}: expected a number for each of the 2 pairs"):
        difference_intervals(**columns | {name: [0.0]}, names=["a", "b"])
