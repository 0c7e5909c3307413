"""The common style: legends between title and axes, and short texts."""

import matplotlib.pyplot as plt
import pytest

from ppl_vae.plots.style import label_axes, legend_above, percent


@pytest.mark.parametrize("entries", [1, 3, 6])
@pytest.mark.parametrize("length", [4, 50])
def test_the_legend_is_between_title_and_axes(entries, length):
    _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for i in range(entries):
        ax.plot([0, 1], [0, i], label="a" * length)
    label_axes(ax, "title", "x", "y")
    legend_above(ax)
    ax.figure.draw_without_rendering()
    legend, title = ax.get_legend().get_window_extent(), ax.title.get_window_extent()
    assert ax.get_window_extent().y1 <= legend.y0 + 1
    assert legend.y1 <= title.y0 + 1
    assert title.y0 - legend.y1 < 15
    assert legend.x1 <= ax.figure.bbox.x1
    assert title.y1 <= ax.figure.bbox.y1


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.0, 0, "0 %"), (0.004, 0, "under 1 %"), (0.0004, 1, "under 0.1 %"), (1.0, 1, "100.0 %")],
)
def test_a_rare_thing_is_never_0_percent(share, digits, text):
    assert percent(share, digits) == text
