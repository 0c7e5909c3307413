"""The figure of ranks: a line for each quantity, the band, and what is marked."""

import numpy as np
import pandas as pd
import pytest

from ppl_vae.plots import rank_differences
from ppl_vae.uniform_counts import RankCounts


def ranks(quantities=3, rows=400):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.integers(0, 20, (rows, quantities)))
    return table.set_axis([f"z[{place}]" for place in range(quantities)], axis=1)


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def test_a_line_is_the_share_of_rows_below_less_the_expected_share():
    ax = rank_differences([0, 0, 1, 3], 3)
    (line,) = (each for each in ax.lines if len(each.get_xdata()) == 3)
    np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(line.get_ydata(), [0.25, 0.25, 0.0])


def test_the_band_is_that_of_all_lines_together():
    ax = rank_differences(ranks(3), 19, level=0.9)
    vertices = ax.collections[0].get_paths()[0].vertices
    low, high = RankCounts(400, 19).band(1 - 0.1 / 3)
    shares = np.arange(1, 20) / 20
    assert vertices[:, 1].max() == pytest.approx((high / 400 - shares).max())
    assert vertices[:, 1].min() == pytest.approx((low / 400 - shares).min())


def test_lines_outside_the_band_are_marked_and_the_first_ones_have_names():
    table = ranks(50)
    assert labels(rank_differences(table, 19)) == ["range of chance, 95 %", "50 not flagged"]
    table.iloc[:, :8] = table.iloc[:, :8].clip(upper=12)
    assert labels(rank_differences(table, 19)) == [
        "range of chance, 95 %", "42 not flagged", "3 more flagged",
        *(f"z[{place}]" for place in range(5)),
    ]  # fmt: skip
    asked = rank_differences(table, 19, flagged=[False] * 49 + [True])
    assert labels(asked)[1:] == ["49 not flagged", "z[49]"]


def test_missing_ranks_are_left_out():
    table = ranks(2).astype("Int64")
    table.iloc[100:, 0] = pd.NA
    table["never"] = pd.NA
    shown = rank_differences(table, 19)
    assert len([line for line in shown.lines if len(line.get_xdata()) == 19]) == 2


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ([0.5, 1], {}, "ranks: expected whole numbers from 0 to 19, got 0.5"),
        ([0, 20], {}, "got 20"),
        ([[np.nan]], {}, "ranks: expected rows x quantities"),
        ([0, 1], {"level": 1.0}, "level: expected a number between 0 and 1"),
        ([0, 1], {"flagged": [True, False]}, "flagged: expected one value for each of 1"),
    ],
)
def test_wrong_arguments_are_refused(given, options, words):
    with pytest.raises(ValueError, match=words):
        rank_differences(given, 19, **options)
