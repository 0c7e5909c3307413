"""The figure of a guide's gap: each row a bar of two parts."""

import numpy as np
import pytest

from ppl_vae.plots import gap_bars


def test_rows_stand_in_the_order_of_their_gaps_in_two_parts():
    ax = gap_bars([0.5, 2.0, np.nan], [0.25, 1.0, 1.0])
    family, network = ax.patches[:2], ax.patches[2:]
    assert [bar.get_height() for bar in family] == [2.0, 0.5]
    assert [bar.get_height() for bar in network] == [1.0, 0.25]
    assert [bar.get_y() for bar in network] == [2.0, 0.5]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["family: mean 1.25", "network: mean 0.625"]
    assert ax.get_xlabel() == "2 rows, by their gap"


def test_of_many_rows_some_are_drawn_and_the_means_are_those_of_all():
    gaps = np.linspace(0, 3, 1000)
    ax = gap_bars(gaps, 0 * gaps)
    assert len(ax.patches) == 2 * 200
    assert "family: mean 1.5" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_part_below_0_goes_down():
    ax = gap_bars([1.0], [-0.1])
    assert ax.patches[1].get_y() == 0
    assert ax.patches[1].get_height() == -0.1


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="amortization: expected one number for each"):
        gap_bars([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="approximation: expected finite numbers"):
        gap_bars([np.nan], [1.0])
